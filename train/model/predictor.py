"""Predictions of a model, a few images at a time, without the gradient."""

from __future__ import annotations

from typing import Iterator, Optional

import keras
import numpy as np
import tensorflow as tf

from train.data.images import ALIGNMENT
from train.data.minibatches import Samples
from train.model import chain

# Images a forward pass takes at once: 64 of the 2016 network's maps are 100 MB.
PREDICT_BATCH = 64
PREDICT_BYTES = 64e6  # and at most this much of images


def tensor(images: np.ndarray) -> tf.Tensor:
    """`images` as a tensor, on the same memory where TensorFlow can take it: it must not change meanwhile.

    The copy it would make of 128 of the 2016 study's images is a third of the step of a small network.
    """
    if images.ctypes.data % ALIGNMENT or not images.flags.c_contiguous or not images.flags.writeable:
        return tf.convert_to_tensor(images)
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__())


class Predictor:
    """A model that predicts in batches, without the gradient."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._image = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._logits = tf.function(lambda images: chain.outputs(model, images), input_signature=[self._image])
        pixels = int(np.prod(model.input_shape[1:]))
        self._batch = max(1, min(PREDICT_BATCH, int(PREDICT_BYTES / (4 * pixels))))

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What the model makes of (n, rows, columns, 1) float32."""
        return self._logits(tensor(images)).numpy()

    def predict(self, split: Samples, rows: Optional[np.ndarray] = None) -> np.ndarray:
        """Logits of the shots `rows` of `split`, or of all, (n, classes) float32."""
        none = np.empty((0, self.model.output_shape[-1]), np.float32)
        return np.concatenate([none, *self.stream(split, rows)])

    def stream(self, split: Samples, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
        """The same in order, a few shots at a time; NaN for an image with values that are not numbers."""
        for batch in split.batches(self._batch, rows):
            logits = self.outputs(batch)
            if not np.isfinite(batch.sum()):  # relu makes a number of a NaN, so the logits do not tell
                logits[~np.isfinite(batch).all(axis=(1, 2, 3))] = np.nan
            yield logits
