"""Stage two: from HDF5 to a trained classifier. Never imports psana or `prepare`."""

from train.fit import environment as environment  # first of all: what Keras and TensorFlow will see
