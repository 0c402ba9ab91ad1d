"""The HDF5 file between the stages: its layout, checksums, and what is refused."""
