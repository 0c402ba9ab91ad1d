"""Predictions of a model, a few images at a time, without the gradient."""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional, Sequence

import keras
import numpy as np
import tensorflow as tf

from common.ranks import Ranks
from train.data.images import ALIGNMENT
from train.data.minibatches import Samples
from train.model import chain
from train.model.network import ENERGY, FEATURES, LOGITS

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


class Outputs(NamedTuple):
    """logits: (n, classes) float32; energy: (n,) float32, of the pulse, mJ; features: (n, k) float32, those
    of `network.with_features`. None where the model has no such output."""

    logits: np.ndarray
    energy: Optional[np.ndarray]
    features: Optional[np.ndarray]


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Parts of the shots, one behind the other."""
    return Outputs(*(None if part[0] is None else np.concatenate(part) for part in zip(*parts)))


def batch_size(image: tuple[int, ...]) -> int:
    """How many images of that shape a forward pass takes at once."""
    return max(1, min(PREDICT_BATCH, int(PREDICT_BYTES / (4 * int(np.prod(image))))))


class Predictor:
    """A model that predicts in batches, without the gradient."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._image = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._outputs = tf.function(
            lambda images: chain.outputs(model, images), input_signature=[self._image]
        )
        self._batch = batch_size(model.input_shape[1:])

    def images(self, images: np.ndarray) -> np.ndarray:
        """What a model of images makes of (n, rows, columns, 1) float32."""
        return self._outputs(tensor(images)).numpy()

    def predict(self, split: Samples, rows: Optional[np.ndarray] = None) -> np.ndarray:
        """Logits of the shots `rows` of `split`, or of all, (n, classes) float32."""
        return self.outputs(split, rows).logits

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """All the model says of the same shots."""
        parts = list(self.stream(split, rows))
        if not parts:  # no shots: what it says of any, cut to none
            parts = [Outputs(*(None if part is None else part[:0] for part in self._of_batch(self._any())))]
        return joined(parts)

    def stream(self, split: Samples, rows: Optional[np.ndarray] = None) -> Iterator[Outputs]:
        """The same in order, a few shots at a time; NaN for an image with values that are not numbers."""
        for batch in split.batches(self._batch, rows):
            logits, energy, features = self._of_batch(batch)
            if not np.isfinite(batch.sum()):  # relu makes a number of a NaN, so the logits do not tell
                logits[~np.isfinite(batch).all(axis=(1, 2, 3))] = np.nan
            yield Outputs(logits, energy, features)

    def _of_batch(self, images: np.ndarray) -> Outputs:
        found = self._outputs(tensor(images))
        found = found if isinstance(found, dict) else {LOGITS: found}
        logits, energy, features = (
            found[name].numpy() if name in found else None for name in (LOGITS, ENERGY, FEATURES)
        )
        return Outputs(logits, None if energy is None else energy[:, 0], features)

    def _any(self) -> np.ndarray:
        return np.zeros((1, *self.model.input_shape[1:]), np.float32)


class OnRanks:
    """A predictor whose shots are divided among ranks, which all call it and all get all answers."""

    def __init__(self, predictor: Predictor, ranks: Ranks) -> None:
        self._predictor, self._ranks = predictor, ranks

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """All the model says of the shots `rows` of `split`, or of all."""
        if self._ranks.size == 1:
            return self._predictor.outputs(split, rows)
        rows = np.arange(len(split)) if rows is None else rows
        mine = self._predictor.outputs(split, rows[self._ranks.share(len(rows))])
        return Outputs(*(None if part is None else self._ranks.gather(part) for part in mine))
