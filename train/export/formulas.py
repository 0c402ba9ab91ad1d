"""A model of this package, layer by layer, for a target that does not know this package's layers.

A target computes a layer in one of two ways: `stock`, if it has the layer itself, or `ops`, functions with
the names and meaning of `keras.ops`, in which the formulas below are written. What only training needs is
left out. Centering, which cuts a different window out of each image, becomes two products with matrices of
zeros and ones, with a row for each row (column) of the window.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

import keras
import numpy as np

from common.errors import UserError
from train.model import center, network, preprocess
from train.model.convolution import Convolution
from train.model.network import ENERGY, LOGITS
from train.model.pooling import AveragePool

PROBABILITY = "probability"


class Target(Protocol):
    """What a model is translated to; values are whatever it computes with."""

    ops: Any  # keras.ops, or an object with those of its functions that are used here

    def stock(self, kind: type, layer: keras.layers.Layer, x: Any) -> Any:
        """What `layer`, as the layer `kind` of Keras, makes of x."""

    def affine(self, name: str, offset: np.ndarray, scale: np.ndarray, x: Any) -> Any:
        """(x - offset) / scale; both of the shape of one image, or ()."""


def outputs(model: keras.Model, target: Target, x: Any) -> dict[str, Any]:
    """The outputs for x, images (n, rows, columns, 1): `probability` (n, classes) and, if the model tells it,
    `pulse_energy` (n, 1), mJ. model: as `network.build` makes it; raises UserError for an unknown layer."""
    *before, convnet = model.layers[1:]
    for part in before:
        for layer in part.layers[1:]:
            x = _of_layer(layer, target, x)
    heads = convnet.output if isinstance(convnet.output, dict) else {LOGITS: convnet.output}
    last = {name: y._keras_history.operation for name, y in heads.items()}
    for layer in convnet.layers[1:]:
        if layer not in last.values():
            x = _of_layer(layer, target, x)
    found = {name: _of_layer(layer, target, x) for name, layer in last.items()}
    softmax = keras.layers.Softmax(name=PROBABILITY)
    told = {PROBABILITY: target.stock(keras.layers.Softmax, softmax, found[LOGITS])}
    return {**told, ENERGY: found[ENERGY]} if ENERGY in found else told


def _of_layer(layer: keras.layers.Layer, target: Target, x: Any) -> Any:
    kind = type(layer)
    if kind in _FORMULAS:
        return _FORMULAS[kind](target.ops, layer, x)
    if kind in _AFFINE:
        return target.affine(layer.name, *layer.get_weights(), x)
    kind = _STOCK.get(kind, kind)
    if not kind.__module__.startswith("keras."):
        raise UserError(f"{layer.name}: a layer {kind.__name__} cannot be exported")
    return target.stock(kind, layer, x)


def _contrast(ops: Any, layer: preprocess.ImageContrast, x: Any) -> Any:
    x = x - ops.mean(x, (1, 2, 3), keepdims=True)
    deviation = ops.sqrt(ops.mean(x * x, (1, 2, 3), keepdims=True))
    return x / ops.maximum(deviation, preprocess.STD_FLOOR)


def _response(ops: Any, layer: network.LocalResponseNormalization, x: Any) -> Any:
    channels = np.arange(layer.input.shape[-1])
    near = (abs(channels[:, None] - channels) <= layer.radius).astype(np.float32)
    return x / ops.power(ops.matmul(x * x, near) * layer.alpha + layer.bias, layer.beta)


def _center(ops: Any, layer: center.Center, x: Any) -> Any:
    """Find the beam as `center.centroid` does and cut it out as `windows.cut` does."""
    sizes = layer.input.shape[1:3]
    blocks = ops.squeeze(ops.average_pool(x, center.BLOCK, center.BLOCK), 3)
    counts = [size // center.BLOCK for size in sizes]
    for axis in (2, 1):
        blocks = blocks - _median(ops, blocks, axis, counts[axis - 1])
    beam = ops.cast(ops.greater(blocks, layer.threshold), "float32")
    places = [center.BLOCK * np.arange(n, dtype=np.float32) + (center.BLOCK - 1) / 2 for n in counts]
    counted = beam
    for _ in range(center.ROUNDS):
        middles = [
            _mean(ops, ops.sum(counted, other), of_axis, (size - 1) / 2)
            for other, of_axis, size in zip((2, 1), places, sizes)
        ]
        near = [
            ops.cast(ops.less_equal(ops.abs(middle - of_axis), size / 2), "float32")
            for of_axis, middle, size in zip(places, middles, layer.size)
        ]
        counted = beam * ops.expand_dims(near[0], 2) * ops.expand_dims(near[1], 1)
    first = [ops.round(middle - (size - 1) / 2) for middle, size in zip(middles, layer.size)]
    rows, columns = (
        ops.cast(
            ops.equal(
                ops.expand_dims(at, 2) + np.arange(kept, dtype=np.float32)[:, None],
                np.arange(size, dtype=np.float32),
            ),
            "float32",
        )
        for at, kept, size in zip(first, layer.size, sizes)
    )  # (n, kept, size): 1 where a pixel of the window is that pixel of the image, 0 where it is off it
    window = ops.matmul(rows, ops.squeeze(x, 3))
    return ops.expand_dims(ops.matmul(window, ops.swapaxes(columns, 1, 2)), 3)


def _mean(ops: Any, weights: Any, places: np.ndarray, default: float) -> Any:
    """The mean of `places` (k,) with weights (n, k), as (n, 1); `default` where all weights are 0."""
    total = ops.sum(weights, 1, keepdims=True)
    mean = ops.matmul(weights, places[:, None]) / ops.maximum(total, 1.0)
    return ops.where(ops.greater(total, 0.0), mean, default)


def _median(ops: Any, x: Any, axis: int, n: int) -> Any:
    """The median of (a, b, c) along axis 1 or 2, of length n; the axis is kept, with length 1."""
    x = ops.swapaxes(x, 1, 2) if axis == 1 else x
    kept = n // 2 + 1
    greatest = ops.top_k(x, kept)[0]
    middle = ops.take(greatest, [kept - 1] if n % 2 else [kept - 2, kept - 1], 2)
    median = ops.mean(middle, 2, keepdims=True)
    return ops.swapaxes(median, 1, 2) if axis == 1 else median


_FORMULAS: dict[type, Callable[[Any, Any, Any], Any]] = {
    preprocess.Log: lambda ops, layer, x: ops.log1p(ops.maximum(x, 0.0)),
    preprocess.Counts: lambda ops, layer, x: ops.expm1(x),
    preprocess.ImageContrast: _contrast,
    center.Center: _center,
    network.MeanOfAxis: lambda ops, layer, x: ops.mean(x, layer.axis + 1, keepdims=True),
    network.LocalResponseNormalization: _response,
    keras.layers.Dropout: lambda ops, layer, x: x,
}
_AFFINE = (preprocess.Affine, preprocess.WhitenMinibatch)
_STOCK = {Convolution: keras.layers.Conv2D, AveragePool: keras.layers.AveragePooling2D}
