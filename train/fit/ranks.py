"""Training on several ranks: each takes its share of every minibatch, sums are of all of them.

`mpirun -n N python -m train fit CONFIG`, or srun. Sums are taken in the order of the ranks, whatever
order messages arrive in, so that N ranks give the same bits each time. What the network computes
over a minibatch (batch normalization, whitening) is computed over the whole minibatch, by sums that
the ranks exchange inside the graph, so that N ranks train the function that one process trains.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any, Optional

import keras
import numpy as np
import tensorflow as tf

from train.model.preprocess import WhitenMinibatch


class Ranks:
    """This process among the `size` ranks of an MPI communicator; without one it is alone."""

    def __init__(self, comm: Optional[Any] = None) -> None:
        self._comm = comm
        self.rank = comm.Get_rank() if comm is not None else 0
        self.size = comm.Get_size() if comm is not None else 1
        self._last: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # exchange traced last, by graph

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of `n` things: consecutive parts, whose sizes differ by 1 at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def minibatch(self, n: int) -> tuple[slice, int]:
        """This rank's part of a minibatch of `n` shots, and how many shots all parts have together.

        Fewer shots than ranks are computed by each rank as a whole, because TensorFlow's
        convolutions do not take an empty part: the same means, over `size` copies.
        """
        return (slice(0, n), n * self.size) if n < self.size else (self.share(n), n)

    def minibatch_part(self, n: int) -> slice:
        """The first of what `minibatch` gives."""
        return self.minibatch(n)[0]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over all ranks of equally long arrays (n,), in the order of the ranks.

        Each rank sums one part of the array and sends the result to all, so that a rank sends and
        receives twice the array, however many there are.
        """
        if self.size == 1:
            return values
        part = -(-len(values) // self.size)
        sent = np.zeros((self.size, part), values.dtype)
        sent.reshape(-1)[: len(values)] = values
        received = np.empty_like(sent)
        self._comm.Alltoall(sent, received)
        mine = received[0].copy()
        for of_rank in received[1:]:
            mine += of_rank
        summed = np.empty_like(sent)
        self._comm.Allgather(mine, summed)
        return summed.reshape(-1)[: len(values)]

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The parts of all ranks, one behind the other, on each of them."""
        return values if self.size == 1 else np.concatenate(self._comm.allgather(values))

    def from_first(self, value: Any) -> Any:
        """What rank 0 gives, on all ranks."""
        return value if self.size == 1 else self._comm.bcast(value)

    def greatest(self, number: int) -> int:
        """The greatest of the ranks' numbers."""
        return number if self.size == 1 else max(self._comm.allgather(number))

    def sum_in_graph(self, x: tf.Tensor) -> tf.Tensor:
        """The sum over all ranks of a float32 tensor, as an operation with a gradient.

        The loss is the sum of the ranks' losses, so the gradient by this rank's x is the sum over
        all ranks of their gradients by the result.
        """

        @tf.custom_gradient
        def summed(x):
            return self._exchanged(x), self._exchanged

        return summed(x)

    def _exchanged(self, x: tf.Tensor) -> tf.Tensor:
        """`sum` as an operation. Each waits for the one traced before it, or ranks would mix them up."""

        def exchange(values: np.ndarray) -> np.ndarray:
            return self.sum(values.reshape(-1)).reshape(values.shape)

        graph = tf.compat.v1.get_default_graph()
        with tf.control_dependencies([self._last[graph]] if graph in self._last else []):
            y = tf.numpy_function(exchange, [x], tf.float32)
        self._last[graph] = y
        return tf.ensure_shape(y, x.shape)

    def moments(self, x: tf.Tensor, axes: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance over `axes`, the first among them, of all ranks' parts of the minibatch.

        Both keep their axes, with length 1.
        """
        count = tf.cast(tf.reduce_prod([tf.shape(x)[axis] for axis in axes]), tf.float32)
        sums = tf.reduce_sum(x, axes, keepdims=True)
        both = self.sum_in_graph(tf.concat([tf.reshape(sums, [-1]), [count]], axis=0))
        mean = tf.reshape(both[:-1], sums.shape) / both[-1]
        squares = tf.reduce_sum(tf.square(x - mean), axes, keepdims=True)
        return mean, self.sum_in_graph(squares) / both[-1]

    def share_moments(self, model: keras.Model) -> None:
        """Have the layers of `model` that compute over a minibatch see the whole of it.

        Set on the layers, not by classes of our own: the saved model stays what it is.
        """
        for layer in model._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer._moments = functools.partial(self._moments_of, list(layer._reduction_axes))
            elif isinstance(layer, WhitenMinibatch):
                layer.moments = self.moments

    def _moments_of(self, axes: Sequence[int], x: tf.Tensor, mask: None) -> tuple[tf.Tensor, tf.Tensor]:
        return tuple(tf.reshape(value, [x.shape[-1]]) for value in self.moments(x, axes))
