"""Stage one: from the camera's files to HDF5. Never imports tensorflow or `train`."""
