"""Preprocessing as layers of the model, so that a saved model takes stored images.

| word | what it does | where its numbers come from |
|---|---|---|
| counts | exp(x) - 1, of a stored logarithm | - |
| bin, crop | mean over blocks of pixels, the middle of the image | settings |
| center | a window around the beam (train/model/center.py) | settings |
| log | log(1 + max(0, x)) | - |
| scale | (x - subtract) / divide | settings |
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

from typing import Any, Callable, Iterator, Optional, Sequence

import keras
import numpy as np
from keras import ops

from common.stats import Moments
from train.config.images import Preprocess
from train.model.center import Center

# A pixel that hardly changes must not blow up on the one shot where it does.
STD_FLOOR = 1e-3

Batches = Callable[[], Iterator[np.ndarray]]


@keras.saving.register_keras_serializable("xtcav_lasing")
class Log(keras.layers.Layer):
    """log(1 + max(0, x))."""

    def call(self, x):
        return ops.log1p(ops.maximum(x, 0.0))


@keras.saving.register_keras_serializable("xtcav_lasing")
class Counts(keras.layers.Layer):
    """exp(x) - 1."""

    def call(self, x):
        return ops.expm1(x)


@keras.saving.register_keras_serializable("xtcav_lasing")
class Affine(keras.layers.Layer):
    """(x - offset) / scale; both per pixel, or one number each. Kept with the model, not trained."""

    def __init__(self, per_pixel: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_pixel = per_pixel

    def build(self, input_shape: tuple[Optional[int], ...]) -> None:
        shape = tuple(input_shape[1:]) if self.per_pixel else ()
        self.offset = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="offset")
        self.scale = self.add_weight(shape=shape, initializer="ones", trainable=False, name="scale")

    def call(self, x):
        return (x - self.offset) / self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per_pixel": self.per_pixel}


@keras.saving.register_keras_serializable("xtcav_lasing")
class WhitenMinibatch(Affine):
    """(x - mean) / std per pixel: over the minibatch at training, by the kept numbers at prediction."""

    def call(self, x, training: bool = False):
        if not training:
            return super().call(x)
        mean, variance = self.moments(x, [0])
        return (x - mean) / ops.maximum(ops.sqrt(variance), STD_FLOOR)

    def moments(self, x, axes: list[int]) -> tuple[Any, Any]:
        """Mean and variance over `axes`, which stay with length 1; several ranks put theirs here."""
        return ops.moments(x, axes=axes, keepdims=True)


@keras.saving.register_keras_serializable("xtcav_lasing")
class ImageContrast(keras.layers.Layer):
    """(x - mean) / std of each image."""

    def call(self, x):
        mean, variance = ops.moments(x, axes=[1, 2, 3], keepdims=True)
        return (x - mean) / ops.maximum(ops.sqrt(variance), STD_FLOOR)


def parts(steps: Sequence[Preprocess]) -> tuple[list[Preprocess], list[Preprocess]]:
    """The steps before and after the place of augmentation; without one all are after it."""
    kinds = [step.kind for step in steps]
    place = kinds.index("augment") if "augment" in kinds else -1
    return list(steps[: max(place, 0)]), list(steps[place + 1 :])


def build(
    steps: Sequence[Preprocess],
    image: tuple[int, int],
    batches: Optional[Batches] = None,
    name: str = "preprocess",
    first: int = 1,
) -> keras.Model:
    """The model of the preprocessing: images (n, rows, columns, 1) float32 -> the same, perhaps smaller.

    batches: a function that iterates over all images of the train split, a few at a time; it is
    called once for each step that needs numbers. Without it, they are to be loaded. first: the
    number of the first step, in the names of layers.
    """
    inputs = keras.Input((*image, 1), name="image")
    x = inputs
    for n, step in enumerate(steps, first):
        layer = _layer(step, tuple(x.shape[1:3]), f"{step.kind}_{n}")
        if batches is not None and isinstance(layer, Affine):
            so_far = keras.Model(inputs, x)
            layer.build(x.shape)
            layer.set_weights(_numbers(step.kind, (np.asarray(so_far(batch)) for batch in batches())))
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def _layer(step: Preprocess, image: tuple[int, int], name: str) -> keras.layers.Layer:
    kind, settings = step.kind, step.settings
    if kind == "counts":
        return Counts(name=name)
    if kind == "log":
        return Log(name=name)
    if kind == "bin":
        return keras.layers.AveragePooling2D(settings, settings, name=name)
    if kind == "center":
        return Center(settings.threshold, settings.size, name=name)
    if kind == "crop":
        before = [(size - kept) // 2 for size, kept in zip(image, settings)]
        after = [size - kept - left for size, kept, left in zip(image, settings, before)]
        return keras.layers.Cropping2D(tuple(zip(before, after)), name=name)
    if kind == "scale":
        return keras.layers.Rescaling(1 / settings.divide, -settings.subtract / settings.divide, name=name)
    if kind == "image_contrast":
        return ImageContrast(name=name)
    if kind == "whiten_minibatch":
        return WhitenMinibatch(per_pixel=True, name=name)
    return Affine(per_pixel=kind == "standardize", name=name)


def _numbers(word: str, batches: Iterator[np.ndarray]) -> list[np.ndarray]:
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
