"""The network: layers, preprocessing, optimizer, and the saved model."""
