"""What a network computes over a minibatch, computed over the parts of it that several ranks have.

Batch normalization and whitening need the moments of the whole minibatch; with those of its parts, N ranks
would train another function than one. The ranks exchange sums inside the graph, forward and backward.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from common.ranks import Ranks
from train.model.preprocess import WhitenMinibatch


def share_moments(model: keras.Model, ranks: Ranks) -> None:
    """Make the layers of `model` that compute over a minibatch use all ranks' parts of it.

    This is set on the layers, not in classes of our own, so that the saved model does not change.
    """
    sums = _Sums(ranks)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer._moments = functools.partial(sums.of_channels, list(layer._reduction_axes))
        elif isinstance(layer, WhitenMinibatch):
            layer.moments = sums.moments


class _Sums:
    """Sums over ranks as operations of a graph."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._last: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # exchange traced last, by graph

    def moments(self, x: tf.Tensor, axes: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance over `axes`, the first among them, which stay with length 1."""
        count = tf.cast(tf.reduce_prod([tf.shape(x)[axis] for axis in axes]), tf.float32)
        sums = tf.reduce_sum(x, axes, keepdims=True)
        both = self._sum(tf.concat([tf.reshape(sums, [-1]), [count]], axis=0))
        mean = tf.reshape(both[:-1], sums.shape) / both[-1]
        squares = tf.reduce_sum(tf.square(x - mean), axes, keepdims=True)
        return mean, self._sum(squares) / both[-1]

    def of_channels(self, axes: Sequence[int], x: tf.Tensor, mask: None) -> tuple[tf.Tensor, ...]:
        """The moments as Keras' batch normalization takes them: (channels,)."""
        return tuple(tf.reshape(value, [x.shape[-1]]) for value in self.moments(x, axes))

    def _sum(self, x: tf.Tensor) -> tf.Tensor:
        """The sum over all ranks of a float32 tensor, with a gradient.

        The loss is the sum of the ranks' losses, so the gradient by this rank's x is the sum over
        all ranks of their gradients by the result.
        """

        @tf.custom_gradient
        def summed(x):
            return self._exchanged(x), self._exchanged

        return summed(x)

    def _exchanged(self, x: tf.Tensor) -> tf.Tensor:
        """`Ranks.sum` as an operation. Each waits for the one traced before, or ranks would mix them up."""

        def exchange(values: np.ndarray) -> np.ndarray:
            return self._ranks.sum(values.reshape(-1)).reshape(values.shape)

        graph = tf.compat.v1.get_default_graph()
        with tf.control_dependencies([self._last[graph]] if graph in self._last else []):
            y = tf.numpy_function(exchange, [x], tf.float32)
        self._last[graph] = y
        return tf.ensure_shape(y, x.shape)
