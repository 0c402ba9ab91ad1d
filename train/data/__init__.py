"""What a run trains on: data files as splits and minibatches."""
