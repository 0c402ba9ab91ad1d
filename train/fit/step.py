"""One training step as a TensorFlow graph."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Sequence

import keras
import numpy as np
import tensorflow as tf

from common.errors import DataError
from common.ranks import Ranks
from train.config.images import Augment
from train.fit.moments import share_moments
from train.model import chain
from train.model.augment import augment, draws
from train.model.loss import Loss
from train.model.network import trained_part
from train.model.predictor import Predictor, tensor

LABELS = tf.TensorSpec((None,), tf.int64)
NUMBERS = tf.TensorSpec((None, None), tf.float32)
ENERGIES = tf.TensorSpec((None,), tf.float32)


class StepResult(NamedTuple):
    """Of one step, at the weights before its update: losses, |gradient|, cos to the last gradient.

    first_gradient_norm: |gradient| by the kernel of the first layer that has one.
    """

    cross_entropy: float
    loss: float
    gradient_norm: float
    gradient_cosine: float
    first_gradient_norm: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class Stepper(Predictor):
    """Holds model, optimizer and the last gradient; `step` does one update.

    The loss is `Loss.of` over the minibatch: cross entropy of the classes and, where the model tells it, the
    error of the pulse energy; and the model's regularization. The gradient's norm and angle are those of the
    whole gradient, all variables as one vector, as it is before clipping. With `microbatch` the gradient is
    the weighted mean of the gradients of parts of the minibatch: the same number, in less memory.
    Augmentation and preprocessing see the whole minibatch all the same.

    `model` is the part of the `whole` model that training works on: it takes images as they are after
    the preprocessing of the name `fixed`, where there is one.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        microbatch: Optional[int] = None,
        clip_norm: Optional[float] = None,
        augmentation: Sequence[Augment] = (),
        seed: int = 0,
        ranks: Optional[Ranks] = None,
        loss: Optional[Loss] = None,
    ) -> None:
        super().__init__(trained_part(model))
        self.ranks = ranks or Ranks()
        if self.ranks.size > 1:
            share_moments(self.model, self.ranks)
        self.whole, model = model, self.model
        self._augmentation, self._seed, self._loss = augmentation, seed, loss or Loss()
        self.optimizer, self.microbatch, self.clip_norm = optimizer, microbatch, clip_norm
        self._before, self._convnet = model.get_layer("preprocess"), model.get_layer("convnet")
        optimizer.build(model.trainable_variables)
        self.gradient = tf.Variable(tf.zeros(sum(int(np.prod(v.shape)) for v in model.trainable_variables)))
        # XLA (jit_compile) makes a step 4 times slower on a CPU.
        self._whole = tf.function(self._whole_graph, input_signature=[self._image, LABELS, ENERGIES, NUMBERS])
        self._prepare = tf.function(self._prepare_graph, input_signature=[self._image, NUMBERS])
        prepared = tf.TensorSpec((None, *self._before.output_shape[1:]), tf.float32)
        self._gradient_of = tf.function(
            self._gradient_graph, input_signature=[prepared, LABELS, ENERGIES, tf.TensorSpec(())]
        )
        self._apply = tf.function(self._apply_graph)

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rate: float,
        number: int = 1,
        energy: Optional[np.ndarray] = None,
    ) -> StepResult:
        """One update, the step of that number, at learning rate `rate`; on all ranks at the same time.

        images: (m, rows, columns, 1) float32, of this rank's share of the minibatch (`Ranks.minibatch`),
        which is all of it where there is one; labels: (n,) int64 and energy: (n,), mJ, NaN where unknown,
        of the whole minibatch.
        """
        self.optimizer.learning_rate.assign(rate)
        part, total = self.ranks.minibatch(len(labels))
        numbers = draws(self._augmentation, self._seed, number, len(labels))[part]
        energy = np.full(len(labels), np.nan) if energy is None else energy
        labels, energy = labels[part], energy[part].astype(np.float32)
        n, size = len(labels), self.microbatch or len(labels)
        if self.ranks.size == 1 and size >= n:
            return StepResult(*self._whole(tensor(images), labels, energy, numbers).numpy().tolist())
        x, sums = self._prepare(tensor(images), numbers), None
        for start in range(0, n, size):
            rows = slice(start, start + size)
            parts = self._gradient_of(x[rows], labels[rows], energy[rows], len(labels[rows]) / total)
            sums = parts if sums is None else sums + parts
        cross_entropy, loss, *_ = sums = self.ranks.sum(sums.numpy())
        return StepResult(float(cross_entropy), float(loss), *map(float, self._apply(sums[2:])))

    def state(self) -> tuple:
        """(model variables, optimizer variables, last gradient) as lists of arrays and an array."""
        return (
            [v.numpy() for v in self.model.variables],
            [v.numpy() for v in self.optimizer.variables],
            self.gradient.numpy(),
        )

    def restore(self, model: list[np.ndarray], optimizer: list[np.ndarray], gradient: np.ndarray) -> None:
        """Set what `state` gave; raises DataError, and changes nothing, for a state of another network."""
        for variables, values in (
            (self.model.variables, model),
            (self.optimizer.variables, optimizer),
            ([self.gradient], [gradient]),
        ):
            if [tuple(v.shape) for v in variables] != [value.shape for value in values]:
                raise DataError("the checkpoint is of another network than the config describes")
        for variable, value in zip(self.model.variables, model):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, optimizer):
            variable.assign(value)
        self.gradient.assign(gradient)

    def _prepare_graph(self, images, numbers):
        return self._before(augment(self._augmentation, images, numbers), training=True)

    def _whole_graph(self, images, labels, energy, numbers):
        x = self._prepare_graph(images, numbers)
        sums = self._gradient_graph(x, labels, energy, tf.constant(1.0))
        return tf.concat([sums[:2], tf.stack(self._apply_graph(sums[2:]))], axis=0)

    def _gradient_graph(self, x, labels, energy, weight):
        """Cross entropy, loss and gradient as one vector, times `weight`, the share of the minibatch."""
        with tf.GradientTape() as tape:
            outputs = chain.run(self._convnet, x, training=True)
            cross_entropy, energy_loss = (weight * part for part in self._loss.of(outputs, labels, energy))
            loss = cross_entropy + energy_loss + weight * sum(self._convnet.losses)
        gradients = tape.gradient(loss, [v.value for v in self.model.trainable_variables])
        return tf.concat([[cross_entropy], [loss], *(tf.reshape(g, [-1]) for g in gradients)], axis=0)

    def _apply_graph(self, flat):
        variables = self.model.trainable_variables
        norm, first_norm = tf.norm(flat), tf.norm(flat[: int(np.prod(variables[0].shape))])
        cosine = tf.math.divide_no_nan(tf.tensordot(flat, self.gradient, 1), norm * tf.norm(self.gradient))
        with tf.control_dependencies([cosine]):
            self.gradient.assign(flat)
        if self.clip_norm is not None:
            flat = flat * tf.minimum(1.0, self.clip_norm / norm)
        parts = tf.split(flat, [int(np.prod(v.shape)) for v in variables])
        gradients = [tf.reshape(part, v.shape) for part, v in zip(parts, variables)]
        self.optimizer.apply(gradients, variables)
        return norm, cosine, first_norm
