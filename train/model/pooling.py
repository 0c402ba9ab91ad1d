"""Average pooling whose gradient is two matrix products, twice as fast on a CPU.

Pooling is linear and acts on rows and columns apart: y = R x C, with R and C the shares that each
pixel has in each window. So the gradient by x is R^T dy C^T. TensorFlow's own runs over the windows
one by one; 12 x 12 with stride 10 over 80 images of 142 x 182 x 16: 25 ms against 12.5 ms, a
fifteenth of a step of the 2016 network.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from train.model.costs import padding_of


def shares(size: int, window: int, stride: int, padding: str) -> np.ndarray:
    """The share of each of `size` pixels in each window's mean, (size, windows) float32.

    A window that reaches over the edge is the mean of the pixels that it has (TensorFlow's rule).
    """
    before, after = padding_of(size, window, stride, padding)
    starts = range(-before, size + after - window + 1, stride)
    table = np.zeros((size, len(starts)), np.float32)
    for n, start in enumerate(starts):
        inside = slice(max(start, 0), min(start + window, size))
        table[inside, n] = 1 / (inside.stop - inside.start)
    return table


@keras.saving.register_keras_serializable("xtcav_lasing")
class AveragePool(keras.layers.AveragePooling2D):
    """keras.layers.AveragePooling2D with the gradient by matrix products; on a GPU the stock layer."""

    def build(self, input_shape) -> None:
        super().build(input_shape)
        known = None not in tuple(input_shape)[1:3] and self.data_format == "channels_last"
        self.by_products = known and not tf.config.list_physical_devices("GPU")

    def call(self, inputs):
        if not self.by_products:
            return super().call(inputs)
        axes = zip(inputs.shape[1:3], self.pool_size, self.strides)
        rows, columns = (shares(*axis, self.padding) for axis in axes)

        @tf.custom_gradient
        def pool(x):
            def gradient(dy):
                n, channels = tf.shape(dy)[0], dy.shape[3]
                r, c = tf.constant(rows, dy.dtype), tf.constant(columns, dy.dtype)
                dx = tf.matmul(r, tf.reshape(dy, [n, rows.shape[1], columns.shape[1] * channels]))
                dx = tf.matmul(c, tf.reshape(dx, [n * len(rows), columns.shape[1], channels]))
                return tf.reshape(dx, [n, len(rows), len(columns), channels])

            return tf.nn.avg_pool2d(x, self.pool_size, self.strides, self.padding.upper()), gradient

        return pool(tf.convert_to_tensor(inputs))
