"""Training data: data files as splits and minibatches."""
