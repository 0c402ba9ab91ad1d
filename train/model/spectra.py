"""A strided convolution and its gradients by discrete Fourier transforms, as matrix products.

A convolution with stride s is a sum of s x s correlations of stride 1: cut the image and the kernel
into their phases, the pixels (s i + p, s j + q) of each (p, q). By the convolution theorem each of
those is a product at each frequency, and the sum over phases and input channels is taken there, once
for every output channel. Images are cut into tiles that overlap by one phase of the kernel, less one
pixel (overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, 8.7), of any size: a
transform is a product with the matrix of the DFT, which runs at the processor's full rate and of
which only the wanted rows are computed. All arithmetic is real; (real, imaginary) is an axis.

Arrays lie as [row, column, channel, tile], with the tiles of all images innermost: each transform is
then one large matrix product, and none needs a transposition before the next. A few images are done
at a time, in a loop: what a product writes is in a cache when the next one reads it, and memory does
not grow with the minibatch.
"""

from __future__ import annotations

import math
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from train.model.costs import Axis, Plan


def forward(x: tf.Tensor, kernel: tf.Tensor, plan: Plan) -> tuple[tf.Tensor, tf.TensorArray]:
    """The convolution, (n, rows, columns, outputs), and the spectra of its input as `gradients` takes them.

    x: (n, rows, columns, inputs) float32; kernel: (rows, columns, inputs, outputs) float32.
    """
    matrices, rows = _kernel_matrices(kernel, plan), plan.rows

    def part(i, strips, spectra, results):
        spectrum = _transform(_tiles(strips, plan), plan)
        y = tf.matmul(matrices, spectrum, transpose_a=True)
        y = _join(_inverse(y, rows.kept, plan.columns.kept, plan), plan)
        return spectra.write(i, spectrum), results.write(i, y)

    kept = [None, rows.kept, plan.columns.outputs, plan.outputs]
    spectra, results = _loop(_strips(x, rows), part, [_spectrum(plan), kept], plan)
    y = tf.reshape(results.concat(), [-1, rows.tiles * rows.kept, *kept[2:]])
    return y[:, : rows.outputs], spectra


def input_spectra(x: tf.Tensor, plan: Plan) -> tf.TensorArray:
    """The spectra of a convolution's input, as `forward` gives them."""

    def part(i, strips, spectra):
        return (spectra.write(i, _transform(_tiles(strips, plan), plan)),)

    return _loop(_strips(x, plan.rows), part, [_spectrum(plan)], plan)[0]


def gradients(
    dy: tf.Tensor, spectra: tf.TensorArray, plan: Plan, kernel: Optional[tf.Tensor] = None
) -> tuple[tf.Tensor, Optional[tf.Tensor]]:
    """The gradients by the kernel and, if that is given, by the input: both share the transform of dy.

    dy: (n, rows, columns, outputs) float32, the gradient by the output; spectra: of the input.
    """
    matrices, rows = None if kernel is None else _kernel_matrices(kernel, plan), plan.rows
    height = rows.length * rows.stride

    def part(i, strips, results, products):
        spectrum = _transform(_output_tiles(strips, plan), plan)
        products += tf.matmul(spectra.read(i), spectrum, transpose_b=True)
        if matrices is not None:
            x = _inverse(tf.matmul(matrices, spectrum), rows.length, plan.columns.length, plan)
            results = results.write(i, _overlap(x, plan))
        return results, products

    short = rows.tiles * rows.kept - rows.outputs
    dy = tf.pad(dy, [[0, 0], [0, short], [0, 0], [0, 0]]) if short else dy
    dy = tf.reshape(dy, [-1, rows.kept, plan.columns.outputs, plan.outputs])
    seen = [None, height, plan.columns.size, plan.inputs]
    results, products = _loop(dy, part, [seen], plan, tf.zeros([*_spectrum(plan)[:3], 2 * plan.outputs]))
    by_kernel = _taps(products, plan)
    if kernel is None:
        return by_kernel, None
    dx = tf.reshape(results.concat(), [-1, rows.tiles, *seen[1:]])
    return by_kernel, _cropped(_added(dx, rows, 1), rows, 1)


def _spectrum(plan: Plan) -> list:
    """The shape of the spectra of some strips of the input."""
    return [plan.frequencies, plan.columns.length, 2 * plan.channels, None]


def _loop(
    strips: tf.Tensor, part: Callable[..., tuple], shapes: list, plan: Plan, *state: tf.Tensor
) -> tuple:
    """`part(i, strips, *arrays, *state)` -> (*arrays, *state), some strips after the others.

    arrays: one for each of `shapes`, those of what a part writes.
    """
    size = plan.strips
    count = -(-tf.shape(strips)[0] // size)

    def step(i, *values):
        return (i + 1, *part(i, strips[i * size : (i + 1) * size], *values))

    kinds = {"clear_after_read": False, "infer_shape": False}  # the last part may be smaller
    new = [tf.TensorArray(tf.float32, count, element_shape=shape, **kinds) for shape in shapes]
    return tf.while_loop(lambda i, *_: i < count, step, (0, *new, *state), parallel_iterations=1)[1:]


# --- between images, strips (rows of tiles) and tiles -------------------------------------------------


def _strips(x: tf.Tensor, rows: Axis) -> tf.Tensor:
    """(n, rows, columns, inputs) -> (n x tiles of the rows, rows of one tile, columns, inputs)."""
    x = _extended(x, rows, 1)
    height = rows.length * rows.stride
    if rows.tiles == 1:
        return x
    parts = tf.stack([x[:, start : start + height] for start in rows.starts()], axis=1)
    return tf.reshape(parts, [-1, *parts.shape[2:]])


def _tiles(strips: tf.Tensor, plan: Plan) -> tf.Tensor:
    """(strips, rows of one tile, columns, inputs) -> [row, column, phase and channel, strip and tile]."""
    rows, columns = plan.rows, plan.columns
    width = columns.length * columns.stride
    x = _extended(strips, columns, 2)
    if columns.tiles > 1:
        x = tf.stack([x[:, :, start : start + width] for start in columns.starts()], axis=1)
    x = tf.reshape(x, [-1, rows.length, rows.stride, columns.length, columns.stride * plan.inputs])
    x = tf.transpose(x, [1, 3, 2, 4, 0])
    return tf.reshape(x, [rows.length, columns.length, plan.channels, tf.shape(x)[-1]])


def _extended(x: tf.Tensor, axis: Axis, dimension: int) -> tf.Tensor:
    """With the zeros before and after that tiles cover, and without pixels that no output sees."""
    seen = max(axis.covered - axis.before, 0)
    if seen < axis.size:
        x = x[:, :seen] if dimension == 1 else x[:, :, :seen]
    ends = [[0, 0]] * 4
    ends[dimension] = [axis.before, axis.covered - axis.before - x.shape[dimension]]
    return tf.pad(x, ends) if any(ends[dimension]) else x


def _cropped(x: tf.Tensor, axis: Axis, dimension: int) -> tf.Tensor:
    """What `_extended` does, back again."""
    inside = slice(axis.before, axis.before + axis.size)
    x = x[:, inside] if dimension == 1 else x[:, :, inside]
    short = axis.size - x.shape[dimension]
    ends = [[0, 0]] * 4
    ends[dimension] = [0, short]
    return tf.pad(x, ends) if short else x


def _output_tiles(strips: tf.Tensor, plan: Plan) -> tf.Tensor:
    """(strips, rows, columns, outputs) -> [row, column, output channel, strip and tile]."""
    rows, columns = plan.rows, plan.columns
    short = columns.tiles * columns.kept - columns.outputs
    x = tf.pad(strips, [[0, 0], [0, 0], [0, short], [0, 0]]) if short else strips
    if columns.tiles > 1:
        x = tf.reshape(x, [-1, rows.kept, columns.tiles, columns.kept * plan.outputs])
        x = tf.transpose(x, [0, 2, 1, 3])
    x = tf.reshape(x, [-1, rows.kept * columns.kept * plan.outputs])
    # One transposition of two axes after another of long rows takes half as long as both in one.
    return tf.reshape(tf.transpose(x), [rows.kept, columns.kept, plan.outputs, tf.shape(x)[0]])


def _join(y: tf.Tensor, plan: Plan) -> tf.Tensor:
    """What `_output_tiles` does, back again."""
    rows, columns = plan.rows, plan.columns
    y = tf.transpose(tf.reshape(y, [rows.kept * columns.kept * plan.outputs, -1]))
    if columns.tiles > 1:
        y = tf.reshape(y, [-1, columns.tiles, rows.kept, columns.kept * plan.outputs])
        y = tf.transpose(y, [0, 2, 1, 3])
    y = tf.reshape(y, [-1, rows.kept, columns.tiles * columns.kept, plan.outputs])
    return y[:, :, : columns.outputs]


def _overlap(x: tf.Tensor, plan: Plan) -> tf.Tensor:
    """What `_tiles` does, back again, with the pixels of several tiles added up."""
    rows, columns = plan.rows, plan.columns
    sizes = [rows.length, columns.length, rows.stride, columns.stride * plan.inputs]
    x = tf.transpose(tf.reshape(x, [math.prod(sizes), -1]))
    x = tf.transpose(tf.reshape(x, [-1, *sizes]), [0, 1, 3, 2, 4])
    x = tf.reshape(
        x, [-1, columns.tiles, rows.length * rows.stride, columns.length * columns.stride, plan.inputs]
    )
    return _cropped(_added(x, columns, 2), columns, 2)


def _added(x: tf.Tensor, axis: Axis, dimension: int) -> tf.Tensor:
    """(n, tiles, rows, columns, inputs) -> (n, rows, columns, inputs): tiles where they start, added up."""
    parts = tf.unstack(x, axis=1)
    if len(parts) == 1:
        return parts[0]
    padded = []
    for start, part in zip(axis.starts(), parts):
        ends = [[0, 0]] * 4
        ends[dimension] = [start, axis.covered - start - part.shape[dimension]]
        padded.append(tf.pad(part, ends))
    return tf.add_n(padded)


# --- kernels -------------------------------------------------------------------------------------------


def _kernel_matrices(kernel: tf.Tensor, plan: Plan) -> tf.Tensor:
    """At each frequency the matrix from an output's gradient to the input's; its transpose is that of the
    convolution. [frequency, frequency, 2 x channels, 2 x outputs]."""
    axes = plan.rows, plan.columns
    ends = [[0, axis.taps * axis.stride - axis.window] for axis in axes]
    kernel = tf.pad(kernel, [*ends, [0, 0], [0, 0]])
    split = [size for axis in axes for size in (axis.taps, axis.stride)]
    kernel = tf.transpose(tf.reshape(kernel, [*split, plan.inputs, plan.outputs]), [0, 2, 1, 3, 4, 5])
    kernel = tf.reshape(kernel, [axes[0].taps, axes[1].taps, plan.channels, plan.outputs])
    real, imaginary = tf.split(_transform(kernel, plan), 2, axis=2)
    return tf.concat([tf.concat([real, -imaginary], axis=3), tf.concat([imaginary, real], axis=3)], axis=2)


def _taps(products: tf.Tensor, plan: Plan) -> tf.Tensor:
    """From products of (real, imaginary) of input and gradient at each frequency to the kernel's gradient."""
    rows, columns, channels, outputs = plan.rows, plan.columns, plan.channels, plan.outputs
    real = products[:, :, :channels, :outputs] + products[:, :, channels:, outputs:]
    imaginary = products[:, :, channels:, :outputs] - products[:, :, :channels, outputs:]
    dk = _inverse(tf.concat([real, imaginary], axis=2), rows.taps, columns.taps, plan)
    dk = tf.reshape(dk, [rows.taps, columns.taps, rows.stride, columns.stride, plan.inputs, outputs])
    dk = tf.transpose(dk, [0, 2, 1, 3, 4, 5])
    dk = tf.reshape(dk, [rows.taps * rows.stride, columns.taps * columns.stride, plan.inputs, outputs])
    return dk[: rows.window, : columns.window]


# --- transforms ----------------------------------------------------------------------------------------


def _transform(x: tf.Tensor, plan: Plan) -> tf.Tensor:
    """[row, column, channel, tile], zeros following -> [frequency, frequency, 2 x channel, tile]."""
    rows, columns, channels = x.shape[:3]
    along_rows, along_columns = half(plan.rows.length, rows), full(plan.columns.length, columns)
    tiles = tf.shape(x)[3]
    x = tf.matmul(_constant(along_rows), tf.reshape(x, [rows, columns * channels * tiles]))
    x = tf.reshape(x, [plan.frequencies, 2 * columns, channels * tiles])
    x = tf.matmul(_constant(along_columns), x)
    return tf.reshape(x, [plan.frequencies, plan.columns.length, 2 * channels, tiles])


def _inverse(y: tf.Tensor, rows: int, columns: int, plan: Plan) -> tf.Tensor:
    """Back to the first `rows` and `columns`: [row, column, channel, tile]."""
    channels, tiles = y.shape[2] // 2, tf.shape(y)[3]
    y = tf.reshape(y, [plan.frequencies, 2 * plan.columns.length, channels * tiles])
    y = tf.matmul(_constant(inverse_of_full(plan.columns.length, columns)), y)
    y = tf.reshape(y, [2 * plan.frequencies, columns * channels * tiles])
    y = tf.matmul(_constant(inverse_of_half(plan.rows.length, rows)), y)
    return tf.reshape(y, [rows, columns, channels, tiles])


def _constant(matrix: np.ndarray) -> tf.Tensor:
    return tf.constant(matrix, tf.float32)


def half(length: int, inputs: int) -> np.ndarray:
    """Real samples to the frequencies that tell all: [(frequency, part), sample]."""
    angle = 2 * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(inputs)) / length
    return np.stack([np.cos(angle), -np.sin(angle)], axis=1).reshape(-1, inputs)


def inverse_of_half(length: int, outputs: int) -> np.ndarray:
    """Back to the first real samples: [sample, (frequency, part)]."""
    angle = 2 * np.pi * np.outer(np.arange(outputs), np.arange(length // 2 + 1)) / length
    weight = np.full(length // 2 + 1, 2.0)  # a frequency and its conjugate
    weight[0] = 1
    if length % 2 == 0:
        weight[-1] = 1
    parts = np.stack([np.cos(angle) * weight, -np.sin(angle) * weight], axis=2)
    return parts.reshape(outputs, -1) / length


def full(length: int, inputs: int) -> np.ndarray:
    """Complex samples to frequencies: [(frequency, part), (part, sample)]."""
    angle = 2 * np.pi * np.outer(np.arange(length), np.arange(inputs)) / length
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], axis=1).reshape(2 * length, -1)


def inverse_of_full(length: int, outputs: int) -> np.ndarray:
    """Back to the first complex samples: [(part, sample), (frequency, part)]."""
    angle = 2 * np.pi * np.outer(np.arange(outputs), np.arange(length)) / length
    cos, sin = np.cos(angle) / length, np.sin(angle) / length
    return np.stack([np.stack([cos, -sin], 2), np.stack([sin, cos], 2)], axis=0).reshape(2 * outputs, -1)
