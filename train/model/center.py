"""Cutting out the beam: a layer that finds it in each image and keeps a window around it."""

from __future__ import annotations

from typing import Any, Optional

import keras
import tensorflow as tf

from train.model.windows import cut

BLOCK = 4  # pixels a side: the beam is looked for in means over such blocks
ROUNDS = 3  # from the second on, only what is within the window around the last place counts


@keras.saving.register_keras_serializable("xtcav_lasing")
class Center(keras.layers.Layer):
    """`size` pixels around the beam of each image, moved by whole pixels; zeros off the image.

    The centroid of pixels over a threshold stumbles over what a real screen shows besides the beam:
    on simulated shots it moves by 34 pixels where one half of the readout is 10 counts higher, by
    25 for a bright line along an edge, by up to 27 for stripes. Here a block of 4 x 4 pixels
    belongs to the beam where it is over the threshold after the medians of its columns and its rows are
    subtracted, within the window; then the same things move it by 0.6 pixels or less (standard deviation).
    A saturated head counts as any other beam. Without beam the middle of the image is kept.
    """

    def __init__(self, threshold: float, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold, self.size = threshold, tuple(size)

    def call(self, x):
        first = [
            tf.cast(tf.round(place - (size - 1) / 2), tf.int32)
            for place, size in zip(centroid(x, self.threshold, self.size), self.size)
        ]
        return cut(x, *first, self.size)

    def compute_output_shape(self, input_shape: tuple[Optional[int], ...]) -> tuple[Optional[int], ...]:
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold, "size": self.size}


def centroid(x: tf.Tensor, threshold: float, window: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Row and column of the beam's center in each image, (n,) float32, in pixels. x: (n, h, w, 1)."""
    blocks = tf.nn.avg_pool2d(x, BLOCK, BLOCK, "VALID")[..., 0]  # (n, h/4, w/4)
    for axis in (2, 1):
        blocks -= _median(blocks, axis)
    beam = tf.cast(blocks > threshold, tf.float32)
    places = [BLOCK * tf.range(n, dtype=tf.float32) + (BLOCK - 1) / 2 for n in blocks.shape[1:3]]
    middle = [(n - 1) / 2 for n in x.shape[1:3]]
    counted = beam
    for _ in range(ROUNDS):
        center = [
            _mean(tf.reduce_sum(counted, axis=other), of_axis, default)
            for other, of_axis, default in zip((2, 1), places, middle)
        ]
        near = [
            tf.cast(tf.abs(of_axis - place[:, None]) <= size / 2, tf.float32)
            for of_axis, place, size in zip(places, center, window)
        ]
        counted = beam * near[0][:, :, None] * near[1][:, None, :]
    return center[0], center[1]


def _mean(weights: tf.Tensor, places: tf.Tensor, default: float) -> tf.Tensor:
    """The mean of `places` (k,) by `weights` (n, k), each (n,); `default` where all weights are 0."""
    total = tf.reduce_sum(weights, axis=1)
    return tf.where(total > 0, tf.linalg.matvec(weights, places) / tf.maximum(total, 1.0), default)


def _median(x: tf.Tensor, axis: int) -> tf.Tensor:
    """The median along an axis, which stays, of length 1; of an even number the mean of the middle two."""
    n = x.shape[axis]
    ordered = tf.sort(x, axis=axis)
    return tf.reduce_mean(tf.gather(ordered, range((n - 1) // 2, n // 2 + 1), axis=axis), axis, keepdims=True)
