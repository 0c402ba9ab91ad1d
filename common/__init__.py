"""What `prepare` and `train` must agree on: configs, manifest, HDF5 format, errors."""

__version__ = "0.1.0"
