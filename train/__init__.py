"""Stage two: from HDF5 to a trained classifier. Never imports psana or `prepare`."""
