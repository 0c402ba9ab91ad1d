"""A trained network for programs that do not have this package: Keras, SavedModel, ONNX."""
