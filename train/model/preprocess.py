"""Preprocessing as layers of the model, so that a saved model takes stored images.

| word | what it does | where its numbers come from |
|---|---|---|
| log | log(1 + max(0, x)) | - |
| subtract_mean | x - m | the mean of all pixels of the train split |
| scale_01, scale_11 | to [0, 1], [-1, 1] | least and greatest pixel of the train split |
| standardize | (x - mean) / std, per pixel | the train split |
| whiten_minibatch | the same (ApproxWhiten in 2016) | training: the minibatch; prediction: train split |
| image_contrast | (x - mean) / std | each image by itself |

The train split's numbers are taken after the steps that come before. What is computed over a
minibatch at training is taken from the train split at prediction, so that an image has one answer,
alone or among others.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import keras
import numpy as np
from keras import ops

from common.stats import Moments

# A pixel that hardly changes must not blow up on the one shot where it does.
STD_FLOOR = 1e-3

Batches = Callable[[], Iterator[np.ndarray]]


@keras.saving.register_keras_serializable("xtcav_lasing")
class Log(keras.layers.Layer):
    """log(1 + max(0, x))."""

    def call(self, x):
        return ops.log1p(ops.maximum(x, 0.0))


@keras.saving.register_keras_serializable("xtcav_lasing")
class Affine(keras.layers.Layer):
    """(x - offset) / scale; both per pixel, or one number each. Kept with the model, not trained."""

    def __init__(self, per_pixel: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_pixel = per_pixel

    def build(self, input_shape: Tuple[Optional[int], ...]) -> None:
        shape = tuple(input_shape[1:]) if self.per_pixel else ()
        self.offset = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="offset")
        self.scale = self.add_weight(shape=shape, initializer="ones", trainable=False, name="scale")

    def call(self, x):
        return (x - self.offset) / self.scale

    def get_config(self) -> Dict[str, Any]:
        return {**super().get_config(), "per_pixel": self.per_pixel}


@keras.saving.register_keras_serializable("xtcav_lasing")
class WhitenMinibatch(Affine):
    """(x - mean) / std per pixel: over the minibatch at training, by the kept numbers at prediction."""

    def call(self, x, training: bool = False):
        if not training:
            return super().call(x)
        mean, variance = ops.moments(x, axes=[0], keepdims=True)
        return (x - mean) / ops.maximum(ops.sqrt(variance), STD_FLOOR)


@keras.saving.register_keras_serializable("xtcav_lasing")
class ImageContrast(keras.layers.Layer):
    """(x - mean) / std of each image."""

    def call(self, x):
        mean, variance = ops.moments(x, axes=[1, 2, 3], keepdims=True)
        return (x - mean) / ops.maximum(ops.sqrt(variance), STD_FLOOR)


def build(words: Sequence[str], image: Tuple[int, int], batches: Optional[Batches] = None) -> keras.Model:
    """The model of the preprocessing: images (n, rows, columns, 1) float32 -> the same shape.

    batches: a function that iterates over all images of the train split, a few at a time; it is
    called once for each word that needs numbers. Without it, they are to be loaded.
    """
    inputs = keras.Input((*image, 1), name="image")
    x = inputs
    for n, word in enumerate(words):
        layer = _layer(word, f"{word}_{n + 1}")
        if batches is not None and isinstance(layer, Affine):
            so_far = keras.Model(inputs, x)
            layer.build((None, *image, 1))
            layer.set_weights(_numbers(word, (np.asarray(so_far(batch)) for batch in batches())))
        x = layer(x)
    return keras.Model(inputs, x, name="preprocess")


def _layer(word: str, name: str) -> keras.layers.Layer:
    if word == "log":
        return Log(name=name)
    if word == "image_contrast":
        return ImageContrast(name=name)
    if word == "whiten_minibatch":
        return WhitenMinibatch(per_pixel=True, name=name)
    return Affine(per_pixel=word == "standardize", name=name)


def _numbers(word: str, batches: Iterator[np.ndarray]) -> List[np.ndarray]:
    """Offset and scale for `word`, from one pass over the train split; sums in float64."""
    moments, least, greatest = Moments(), np.inf, -np.inf
    for batch in batches:
        moments.add(batch)
        least, greatest = min(least, batch.min()), max(greatest, batch.max())
    if word == "subtract_mean":
        return [np.float32(moments.mean.mean()), np.float32(1)]
    if word in ("scale_01", "scale_11"):
        least, greatest = float(least), float(greatest)
        reach = max(greatest - least, STD_FLOOR)
        if word == "scale_01":
            return [np.float32(least), np.float32(reach)]
        return [np.float32((least + greatest) / 2), np.float32(reach / 2)]
    return [moments.mean.astype(np.float32), np.maximum(moments.std, STD_FLOOR).astype(np.float32)]
