"""A model in standard Keras layers alone, which Keras loads without this package, and as a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import keras
import numpy as np
import tensorflow as tf

from train.export import formulas

INPUT = "image"
Images = Callable[[np.ndarray], dict[str, tf.Tensor]]


class _Standard:
    """The target of `formulas` that makes a functional Keras model."""

    ops = keras.ops

    def stock(self, kind: type, layer: keras.layers.Layer, x: Any) -> Any:
        copy = kind.from_config(layer.get_config())
        y = copy(x)
        copy.set_weights(layer.get_weights())
        return y

    def affine(self, name: str, offset: np.ndarray, scale: np.ndarray, x: Any) -> Any:
        if not offset.shape:
            return keras.layers.Rescaling(1 / scale, -offset / scale, name=name)(x)
        layer = keras.layers.Normalization(axis=(1, 2, 3), name=name)
        layer.build(x.shape)
        layer.set_weights([offset, scale**2, np.zeros((), np.int32)])
        layer.finalize_state()
        return layer(x)


def of_model(model: keras.Model) -> keras.Model:
    """The model in standard layers: stored images (n, rows, columns) float32 -> `formulas.outputs`."""
    images = keras.Input(model.input_shape[1:3], name=INPUT)
    x = keras.layers.Reshape(model.input_shape[1:], name="pixels")(images)
    return keras.Model(images, formulas.outputs(model, _Standard(), x), name="xtcav_lasing")


def write_keras(model: keras.Model, path: Path, description: str) -> None:
    """Write the model to the file `path`, which ends in .keras; it has no place for a description."""
    of_model(model).save(path)


def read_keras(path: Path) -> Images:
    """Load the file: a function of images."""
    return tf.function(keras.saving.load_model(path, compile=False))


def write_saved_model(model: keras.Model, path: Path, description: str) -> None:
    """Write the model to the folder `path`, as the function `serve` and as the default signature.

    The description goes to assets.extra, a folder that TensorFlow leaves to others.
    """
    standard, module = of_model(model), tf.Module()
    image = tf.TensorSpec((None, *model.input_shape[1:3]), tf.float32, name=INPUT)
    module.numbers = [variable.value for variable in standard.variables]
    module.serve = tf.function(lambda image: standard(image, training=False), input_signature=[image])
    tf.saved_model.save(module, str(path), signatures=module.serve)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "xtcav_lasing.json").write_text(description, encoding="utf-8")


def read_saved_model(path: Path) -> Images:
    """Load the folder: a function of images."""
    loaded = tf.saved_model.load(str(path))  # kept: without it its numbers are gone
    return lambda images: loaded.serve(images)
