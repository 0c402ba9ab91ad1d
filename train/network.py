"""From the config's list of layers to a Keras model."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import keras
import numpy as np

from train.config import Initial, Layer
from train.convolution import Convolution
from train.shapes import LayerShape, layer_shapes


@keras.saving.register_keras_serializable("xtcav_lasing")
class Standardise(keras.layers.Layer):
    """(x - mean) / std per pixel, with the train split's mean and std kept in the saved model."""

    def build(self, input_shape: Tuple[Optional[int], ...]) -> None:
        shape = tuple(input_shape[1:])
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.std = self.add_weight(shape=shape, initializer="ones", trainable=False, name="std")

    def call(self, x):
        return (x - self.mean) / self.std


LAYERS = {"Standardise": Standardise, "Convolution": Convolution}  # our own, which a saved model may hold

# A pixel that hardly changes in the train split must not blow up on the one shot where it does.
STD_FLOOR = 1e-3  # of log(1 + counts)


def build(
    network: Sequence[Layer],
    image: Tuple[int, int],
    classes: int,
    seed: int,
    statistics: Optional[Tuple[np.ndarray, np.ndarray]] = None,
) -> keras.Model:
    """The model: images (n, rows, columns, 1) float32 -> logits (n, classes).

    `statistics`: the train split's per-pixel mean and std, (rows, columns) each, if the images
    are to be standardised. Weights are drawn from `seed`, each layer from a seed of its own.
    """
    inputs = keras.Input((*image, 1), name="image")
    x = inputs
    if statistics is not None:
        standardise = Standardise(name="standardise")
        x = standardise(x)
        mean, std = (array.astype(np.float32)[..., None] for array in statistics)
        standardise.set_weights([mean, np.maximum(std, STD_FLOOR)])
    flat = False
    for n, (layer, shape) in enumerate(zip(network, layer_shapes(network, image, classes))):
        if layer.kind in ("hidden", "output") and not flat:
            x, flat = keras.layers.Flatten(name="flatten")(x), True
        x = _layer(layer, shape, seed + n)(x)
    return keras.Model(inputs, x, name="convnet")


def _layer(layer: Layer, shape: LayerShape, seed: int) -> keras.layers.Layer:
    settings, name = layer.settings, shape.name
    if layer.kind == "convolution":
        return Convolution(
            settings.channels,
            settings.window,
            settings.strides,
            settings.padding,
            name=name,
            **_start(settings, seed),
        )
    if layer.kind in ("hidden", "output"):
        return keras.layers.Dense(shape.output[0], name=name, **_start(settings, seed))
    if layer.kind == "relu":
        return keras.layers.ReLU()
    pool = keras.layers.AveragePooling2D if layer.kind == "average_pool" else keras.layers.MaxPooling2D
    return pool(settings.window, settings.strides, settings.padding)


def _start(settings: Initial, seed: int) -> dict:
    """Keras' arguments for how the weights of a layer start."""
    kind = {
        "truncated_normal": keras.initializers.TruncatedNormal,
        "normal": keras.initializers.RandomNormal,
    }[settings.init]
    return {
        "kernel_initializer": kind(stddev=settings.stddev, seed=seed),
        "use_bias": settings.bias is not None,
        "bias_initializer": keras.initializers.Constant(settings.bias or 0.0),
    }
