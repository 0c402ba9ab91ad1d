"""One training step, and predictions without the gradient, as TensorFlow graphs."""

from __future__ import annotations

from typing import List, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from train.data import Split

# Images a forward pass takes at once: 64 of the seed's maps are 100 MB.
PREDICT_BATCH = 64


class StepResult(NamedTuple):
    """Of one step, at the weights before its update: losses, |gradient|, cos to the last gradient."""

    cross_entropy: float
    loss: float
    gradient_norm: float
    gradient_cosine: float


class Predictor:
    """A model that predicts in batches, without the gradient."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._image = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._logits = tf.function(
            lambda images: model(images, training=False), input_signature=[self._image]
        )

    def predict(self, split: Split) -> np.ndarray:
        """Logits of all shots of `split`, (n, classes) float32."""
        return np.concatenate([self._logits(batch).numpy() for batch in split.batches(PREDICT_BATCH)])


class Stepper(Predictor):
    """Holds model, optimizer and the last gradient; `step` does one update.

    loss = mean softmax cross entropy over the minibatch + the model's regularisation. The
    gradient's norm and angle are those of the whole gradient, all variables as one vector.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(model)
        self.optimizer = optimizer
        optimizer.build(model.trainable_variables)
        self.gradient = tf.Variable(tf.zeros(sum(int(np.prod(v.shape)) for v in model.trainable_variables)))
        # XLA (jit_compile) makes this step 4 times slower on a CPU.
        labels = tf.TensorSpec((None,), tf.int64)
        self._step = tf.function(self._step_graph, input_signature=[self._image, labels])

    def step(self, images: np.ndarray, labels: np.ndarray, rate: float) -> StepResult:
        """One update at learning rate `rate`. images: (n, rows, columns, 1) float32; labels: (n,) int64."""
        self.optimizer.learning_rate.assign(rate)
        return StepResult(*(float(value) for value in self._step(images, labels)))

    def state(self) -> tuple:
        """(model variables, optimizer variables, last gradient) as lists of arrays and an array."""
        return (
            [v.numpy() for v in self.model.variables],
            [v.numpy() for v in self.optimizer.variables],
            self.gradient.numpy(),
        )

    def restore(self, model: List[np.ndarray], optimizer: List[np.ndarray], gradient: np.ndarray) -> None:
        """Set what `state` gave."""
        for variable, value in zip(self.model.variables, model):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, optimizer):
            variable.assign(value)
        self.gradient.assign(gradient)

    def _step_graph(self, images, labels):
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            cross_entropy = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
            loss = cross_entropy + sum(self.model.losses)
        variables = [v.value for v in self.model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)
        norm = tf.norm(flat)
        cosine = tf.math.divide_no_nan(tf.tensordot(flat, self.gradient, 1), norm * tf.norm(self.gradient))
        with tf.control_dependencies([cosine]):
            self.gradient.assign(flat)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return cross_entropy, loss, norm, cosine
