"""What is done to the images of a minibatch in training only: each word of `augment:` as a function.

All randomness is drawn beforehand, as one row of numbers from 0 to 1 for each image, from (seed,
step) alone. So a resumed run sees the same images bit for bit, whatever the number of threads.
"""

from __future__ import annotations

import math
from typing import Callable, Sequence

import numpy as np
import tensorflow as tf

from train.config.images import Augment, Blur, Mirror, Noise, Stretch
from train.model.windows import cut

_STREAM = 1  # keeps these numbers apart from those that order the shots of an epoch
_REACH = 3.0  # standard deviations of a blur's kernel on each side: what is left out is 0.3 %
_KEY = float(2**31 - 1)  # from a number from 0 to 1 to a key of a random stream


def draws(steps: Sequence[Augment], seed: int, number: int, n: int) -> np.ndarray:
    """The random numbers for the `n` images of the training step of that number, (n, k) float32 in [0, 1)."""
    rng = np.random.default_rng([seed, number, _STREAM])
    return rng.random((n, sum(_STEPS[step.kind][0] for step in steps)), np.float32)


def augment(steps: Sequence[Augment], x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """The images after all `steps`, in this order. x: (n, h, w, 1); numbers: what `draws` gave."""
    start = 0
    for step in steps:
        count, function = _STEPS[step.kind]
        x = function(step.settings, x, numbers[:, start : start + count])
        start += count
    return x


def _shift(pixels: tuple[int, int], x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    first = [
        tf.cast(tf.floor(numbers[:, i] * (2 * most + 1)), tf.int32) - most for i, most in enumerate(pixels)
    ]
    return cut(x, *first, tuple(x.shape[1:3]))


def _blur(settings: Blur, x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    chosen = tf.cast(numbers[:, 0] < settings.share, x.dtype)
    for axis, most in enumerate(settings.variance):
        if most > 0:
            x = _blurred(
                x, axis + 1, chosen * numbers[:, axis + 1] * most, math.ceil(_REACH * math.sqrt(most))
            )
    return x


def _blurred(x: tf.Tensor, axis: int, variance: tf.Tensor, reach: int) -> tf.Tensor:
    """Each image blurred along `axis` with its own variance, (n,) px^2; zeros beyond the edge."""
    distances = tf.range(-reach, reach + 1, dtype=x.dtype)
    weights = tf.exp(-(distances**2) / (2 * tf.maximum(variance, 1e-4)[:, None]))  # 1e-4: no blur
    weights = (weights / tf.reduce_sum(weights, axis=1, keepdims=True))[:, :, None, None, None]
    size = x.shape[axis]
    padded = tf.pad(x, [[reach, reach] if a == axis else [0, 0] for a in range(4)])
    along = [slice(None)] * axis
    parts = [weights[:, k] * padded[(*along, slice(k, k + size))] for k in range(2 * reach + 1)]
    return tf.add_n(parts)


def _mirror(settings: Mirror, x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    chosen = numbers[:, 0] < settings.share
    return tf.where(chosen[:, None, None, None], tf.reverse(x, [settings.axis + 1]), x)


def _stretch(settings: Stretch, x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    chosen = tf.cast(numbers[:, 0] < settings.share, x.dtype)
    for axis, by in enumerate(settings.by):
        if by > 0:
            x = _stretched(x, axis + 1, 1 + chosen * by * (2 * numbers[:, axis + 1] - 1))
    return x


def _stretched(x: tf.Tensor, axis: int, factor: tf.Tensor) -> tf.Tensor:
    """Each image stretched about its middle by its own factor, (n,), linearly interpolated; light is kept."""
    size = x.shape[axis]
    middle = (size - 1) / 2
    places = middle + (tf.range(size, dtype=x.dtype) - middle)[None, :] / factor[:, None]
    inside = tf.cast((places >= 0) & (places <= size - 1), x.dtype)
    low = tf.clip_by_value(tf.floor(places), 0, size - 2)
    share = places - low
    rows = tf.cast(low, tf.int32)
    shape = [-1, size, 1, 1] if axis == 1 else [-1, 1, size, 1]
    weight = inside / factor[:, None]
    return tf.gather(x, rows, axis=axis, batch_dims=1) * tf.reshape(weight * (1 - share), shape) + tf.gather(
        x, rows + 1, axis=axis, batch_dims=1
    ) * tf.reshape(weight * share, shape)


def _noise(settings: Noise, x: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    key = tf.cast(numbers[0, 1:] * _KEY, tf.int32)
    chosen = tf.cast(numbers[:, 0] < settings.share, x.dtype)[:, None, None, None]
    return x + chosen * settings.stddev * tf.random.stateless_normal(
        tf.shape(x), key, dtype=x.dtype, alg="philox"
    )


# How many numbers each takes for an image, and what it does.
_STEPS: dict[str, tuple[int, Callable]] = {
    "shift": (2, _shift),
    "blur": (3, _blur),
    "mirror": (1, _mirror),
    "stretch": (3, _stretch),
    "noise": (3, _noise),
}
