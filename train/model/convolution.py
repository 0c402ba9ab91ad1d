"""A strided convolution that is 2 to 5 times faster on a CPU than the stock layer, by phases and by spectra.

Large kernels do a third to a tenth of the operations by spectra (train/model/spectra.py); which layers
and which passes, train/model/costs.py says. Where they do not pay, what is slow in the stock layer is
not the forward pass but the gradient of a large strided kernel: 20 to 50 GFLOP/s of the 170 that the
same processor reaches. Cut the image into blocks of r s x r s
pixels (s the stride) and put a block's pixels into channels (space to depth); put r x r
neighboring outputs into channels, too. Then the gradient of the strided convolution is that of a
convolution of stride 1 with few, wide positions, which runs at full speed; summing its r x r
shifted parts gives the kernel's gradient exactly. r = 1 does (k/s)^2 positions, larger r fewer and
wider ones with some zeros among them, which pays for the largest kernels.
"""

from __future__ import annotations

from typing import Optional, Sequence

import keras
import tensorflow as tf

from train.model.costs import Ways, padding_of, ways_of
from train.model.spectra import forward, gradients, input_spectra

Pads = tuple[tuple[int, int], tuple[int, int]]


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


@keras.saving.register_keras_serializable("xtcav_lasing")
class Convolution(keras.layers.Conv2D):
    """keras.layers.Conv2D, each pass computed in the way that `costs` finds the cheapest.

    The same weights, outputs and gradients (to float32 rounding), saved and loaded alike; on a
    GPU, for dilated or grouped kernels and for other layouts it is the stock layer.
    """

    ways: Optional[Ways] = None  # None: the stock layer's

    def build(self, input_shape) -> None:
        super().build(input_shape)
        plain = self.groups == 1 and set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        known = None not in tuple(input_shape)[1:3] and self.padding in ("same", "valid")
        if plain and known and not tf.config.list_physical_devices("GPU"):
            channels = (input_shape[3], self.filters)
            compute = self.compute_dtype
            image = tuple(input_shape)[1:3]
            self.ways = ways_of(image, self.kernel_size, self.strides, self.padding, channels, compute)

    def without_bias(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the layer makes of (n, rows, columns, channels) before it adds its bias."""
        return self.convolution_op(self._as_computed(inputs), self._as_computed(self.kernel))

    def with_bias(self, outputs: tf.Tensor) -> tf.Tensor:
        """`outputs`, or those of them that are left, with the layer's bias, if it has one."""
        return tf.nn.bias_add(outputs, self._as_computed(self.bias)) if self.use_bias else outputs

    def _as_computed(self, values) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(values), self.compute_dtype)

    def convolution_op(self, inputs, kernel):
        if self.ways is None or set(self.ways[:3]) == {"direct"}:
            return super().convolution_op(inputs, kernel)
        return convolve(
            tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel), self.strides, self.padding, self.ways
        )


def convolve(x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int], padding: str, ways: Ways) -> tf.Tensor:
    """tf.nn.conv2d of (n, rows, columns, inputs) by (rows, columns, inputs, outputs), computed in these ways.

    Spectra are computed in float32 whatever the dtype of x is; the result has that of x.
    """
    steps, plan = [1, *strides, 1], ways.plan

    @tf.custom_gradient
    def run(x, kernel):
        y, spectra = None, None
        if ways.forward == "spectra":
            y, spectra = forward(_exact(x), _exact(kernel), plan)

        def gradient(dy):
            if ways.kernel == "spectra":
                seen = input_spectra(_exact(x), plan) if spectra is None else spectra
                both = ways.input == "spectra"
                dk, dx = gradients(_exact(dy), seen, plan, _exact(kernel) if both else None)
            else:
                sizes = zip(x.shape[1:3], kernel.shape[:2], strides)
                pads = tuple(padding_of(*size, padding) for size in sizes)
                dk, dx = _direct_kernel_gradient(x, kernel, dy, steps, padding, pads, ways.phases), None
            if dx is None:
                dx = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x),
                    filter=kernel,
                    out_backprop=dy,
                    strides=steps,
                    padding=padding.upper(),
                )
            return tf.cast(dx, x.dtype), tf.cast(dk, kernel.dtype)

        if y is None:
            return tf.nn.conv2d(x, kernel, steps, padding.upper()), gradient
        return tf.cast(y, x.dtype), gradient

    return run(x, kernel)


def _exact(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)


def _direct_kernel_gradient(
    x: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor, steps: Sequence[int], padding: str, pads: Pads, r: int
) -> tf.Tensor:
    """By phases for r of 1 or more, else as TensorFlow has it; shapes as of `kernel_gradient`."""
    if r:
        return kernel_gradient(x, dy, kernel.shape[:2], steps[1:3], pads, r)
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=dy, strides=steps, padding=padding.upper()
    )
