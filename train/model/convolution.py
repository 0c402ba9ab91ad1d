"""A strided convolution whose kernel gradient is computed by phases, 2 to 3 times faster on a CPU.

What is slow in the stock layer is not the forward pass but the gradient of a large strided kernel:
20 to 50 GFLOP/s of the 170 that the same processor reaches. Cut the image into blocks of r s x r s
pixels (s the stride) and put a block's pixels into channels (space to depth); put r x r
neighboring outputs into channels, too. Then the gradient of the strided convolution is that of a
convolution of stride 1 with few, wide positions, which runs at full speed; summing its r x r
shifted parts gives the kernel's gradient exactly. r = 1 does (k/s)^2 positions, larger r fewer and
wider ones with some zeros among them, which pays for the largest kernels.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import keras
import tensorflow as tf

from train.model.shapes import phases_for

Pads = Tuple[Tuple[int, int], Tuple[int, int]]


def kernel_gradient(
    x: tf.Tensor, dy: tf.Tensor, window: Sequence[int], strides: Sequence[int], pads: Pads, r: int
) -> tf.Tensor:
    """Gradient of a strided convolution by its kernel, (kh, kw, c_in, c_out).

    x: (n, h, w, c_in) the input; dy: (n, oh, ow, c_out) the gradient by the output; pads: zeros
    before and after rows and columns. h, w, oh, ow must be known when the graph is built.
    """
    (kh, kw), (sh, sw) = window, strides
    (top, _), (left, _) = pads
    n, channels, outputs = tf.shape(x)[0], x.shape[3], dy.shape[3]
    a, b = -(-dy.shape[1] // r), -(-dy.shape[2] // r)  # blocks of outputs
    mh, mw = -(-(kh + sh * (r - 1)) // (r * sh)), -(-(kw + sw * (r - 1)) // (r * sw))  # kernel, in blocks
    rows, columns = (a - 1 + mh) * r * sh, (b - 1 + mw) * r * sw
    x = x[:, : max(rows - top, 0), : max(columns - left, 0)]
    x = tf.pad(x, [[0, 0], [top, rows - top - x.shape[1]], [left, columns - left - x.shape[2]], [0, 0]])
    # reshape and transpose: tf.nn.space_to_depth takes 6 times as long on one channel
    x = tf.reshape(x, [n, a - 1 + mh, r * sh, b - 1 + mw, r * sw, channels])
    x = tf.reshape(
        tf.transpose(x, [0, 1, 3, 2, 4, 5]), [n, a - 1 + mh, b - 1 + mw, r * sh * r * sw * channels]
    )
    dy = tf.pad(dy, [[0, 0], [0, a * r - dy.shape[1]], [0, b * r - dy.shape[2]], [0, 0]])
    if r > 1:
        dy = tf.transpose(tf.reshape(dy, [n, a, r, b, r, outputs]), [0, 1, 3, 2, 4, 5])
        dy = tf.reshape(dy, [n, a, b, r * r * outputs])
    wide = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[mh, mw, r * sh * r * sw * channels, r * r * outputs],
        out_backprop=dy,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    wide = tf.transpose(
        tf.reshape(wide, [mh, mw, r * sh, r * sw, channels, r, r, outputs]), [0, 2, 1, 3, 4, 5, 6, 7]
    )
    wide = tf.reshape(wide, [mh * r * sh, mw * r * sw, channels, r, r, outputs])
    parts = [wide[sh * i : sh * i + kh, sw * j : sw * j + kw, :, i, j, :] for i in range(r) for j in range(r)]
    return tf.add_n(parts)


def padding_of(size: int, window: int, stride: int, padding: str) -> Tuple[int, int]:
    """Zeros before and after one axis (TensorFlow's rule: the odd one comes after)."""
    if padding == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


@keras.saving.register_keras_serializable("xtcav_lasing")
class Convolution(keras.layers.Conv2D):
    """keras.layers.Conv2D, with the kernel gradient by phases where that is faster.

    The same weights, outputs and gradients (to float32 rounding), saved and loaded alike; on a
    GPU, for dilated or grouped kernels and for other layouts it is the stock layer.
    """

    def build(self, input_shape) -> None:
        super().build(input_shape)
        plain = self.groups == 1 and set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        known = None not in tuple(input_shape)[1:3]
        on_cpu = not tf.config.list_physical_devices("GPU")
        fast = plain and known and on_cpu and self.padding in ("same", "valid")
        self.phases = phases_for(self.kernel_size, self.strides) if fast else 0

    def convolution_op(self, inputs, kernel):
        if not self.phases:
            return super().convolution_op(inputs, kernel)
        sizes = zip(inputs.shape[1:3], self.kernel_size, self.strides)
        pads = tuple(padding_of(*size, self.padding) for size in sizes)
        strides = [1, *self.strides, 1]

        @tf.custom_gradient
        def convolve(x, k):
            def gradient(dy):
                dx = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x),
                    filter=k,
                    out_backprop=dy,
                    strides=strides,
                    padding=self.padding.upper(),
                )
                return dx, kernel_gradient(x, dy, self.kernel_size, self.strides, pads, self.phases)

            return tf.nn.conv2d(x, k, strides, self.padding.upper()), gradient

        return convolve(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))
