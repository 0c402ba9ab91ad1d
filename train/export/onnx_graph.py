"""A model as an ONNX graph, for ONNX Runtime and whatever else reads ONNX.

ONNX has the channels before rows and columns, Keras after them. Images keep the order of ONNX as long as it
makes no difference, and are transposed where it does. ONNX Runtime is also faster in its own order: to
subtract a number from a pixel of (n, rows, columns, 1) takes 20 ns instead of 2, as its inner loop is over
the last axis.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence, Union

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from common import __version__
from train.export import formulas
from train.export.standard import INPUT
from train.model.costs import padding_of
from train.model.network import LOGITS

OPSET, IR = 17, 8  # of 2022: ONNX Runtime 1.12 and later

_CHANNELS_FIRST = {0: 0, 1: 2, 2: 3, 3: 1}  # where an axis of (n, rows, columns, channels) is then

_NUMBER_BY_NUMBER = {
    "sqrt": "Sqrt", "abs": "Abs", "round": "Round", "power": "Pow", "maximum": "Max", "greater": "Greater",
    "less_equal": "LessOrEqual", "equal": "Equal",
}  # fmt: skip

_ACTIVATIONS = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "elu": ("Elu", {"alpha": 1.0}),
    "softplus": ("Softplus", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; channels_first: images of (n, channels, rows, columns), as ONNX has them."""

    graph: "Graph"
    name: str
    channels_first: bool = False

    def __add__(self, other: "Operand") -> "Value":
        return self.graph.each("Add", self, other)

    def __sub__(self, other: "Operand") -> "Value":
        return self.graph.each("Sub", self, other)

    def __mul__(self, other: "Operand") -> "Value":
        return self.graph.each("Mul", self, other)

    def __truediv__(self, other: "Operand") -> "Value":
        return self.graph.each("Div", self, other)


Operand = Union[Value, np.ndarray, float, str]  # str: the name of numbers that are there


class Graph:
    """A graph built node by node: the target of `formulas`, with functions of `keras.ops` as methods."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: list[onnx.TensorProto] = []

    @property
    def ops(self) -> "Graph":
        return self

    # --- nodes -----------------------------------------------------------------------------------

    def node(self, kind: str, *inputs: Operand, first: bool = False, **attributes: Any) -> Value:
        """Add a node and return its output. first: whether its images have the channels first."""
        names = [self._name(x, first) for x in inputs]
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return Value(self, name, first)

    def each(self, kind: str, *inputs: Operand, **attributes: Any) -> Value:
        """Add an elementwise node; if all images have the channels first, so has the output."""
        images = all(x.channels_first if isinstance(x, Value) else np.ndim(x) == 0 for x in inputs)
        return self.node(kind, *inputs, first=images, **attributes)

    def constant(self, array: Any, dtype: type = np.float32) -> str:
        """Add an array of constants; returns its name."""
        name = f"numbers_{len(self.numbers)}"
        self.numbers.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(array, dtype)), name))
        return name

    def _name(self, x: Operand, first: bool) -> str:
        if isinstance(x, str):
            return x
        if not isinstance(x, Value):
            return self.constant(x)
        if x.channels_first == first:
            return x.name
        order = (0, 3, 1, 2) if first else (0, 2, 3, 1)
        turned = f"Transpose_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Transpose", [x.name], [turned], turned, perm=order))
        return turned

    # --- layers ----------------------------------------------------------------------------------

    def stock(self, kind: type, layer: keras.layers.Layer, x: Value) -> Value:
        """What `layer`, as the layer `kind` of Keras, makes of x."""
        return getattr(self, f"_{kind.__name__.lower()}")(layer, x)

    def affine(self, name: str, offset: np.ndarray, scale: np.ndarray, x: Value) -> Value:
        """(x - offset) / scale; both of the shape of one image, or ()."""
        if x.channels_first and offset.shape:
            offset, scale = offset.transpose(2, 0, 1), scale.transpose(2, 0, 1)
            return self.node("Div", self.node("Sub", x, offset, first=True), scale, first=True)
        return (x - offset) / scale

    def _conv2d(self, layer: keras.layers.Conv2D, x: Value) -> Value:
        kernel, *bias = layer.get_weights()
        inputs = [self.constant(numbers) for numbers in (kernel.transpose(3, 2, 0, 1), *bias)]
        return self._windows("Conv", x, *inputs, layer=layer, window=layer.kernel_size)

    def _averagepooling2d(self, layer: keras.layers.AveragePooling2D, x: Value) -> Value:
        return self._windows("AveragePool", x, layer=layer, window=layer.pool_size)

    def _maxpooling2d(self, layer: keras.layers.MaxPooling2D, x: Value) -> Value:
        return self._windows("MaxPool", x, layer=layer, window=layer.pool_size)

    def _windows(self, kind: str, x: Value, *numbers: str, layer: Any, window: Sequence[int]) -> Value:
        axes = zip(layer.input.shape[1:3], window, layer.strides)
        before, after = zip(*(padding_of(*axis, layer.padding) for axis in axes))
        shape = {"kernel_shape": window, "strides": layer.strides, "pads": (*before, *after)}
        return self.node(kind, x, *numbers, first=True, **shape)

    def _dense(self, layer: keras.layers.Dense, x: Value) -> Value:
        kernel, *bias = layer.get_weights()
        y = self.matmul(x, kernel)
        return y + bias[0] if bias else y

    def _batchnormalization(self, layer: keras.layers.BatchNormalization, x: Value) -> Value:
        of_images = len(layer.input.shape) == 4
        numbers = [self.constant(each) for each in layer.get_weights()]  # gamma, beta, mean, variance
        return self.node("BatchNormalization", x, *numbers, first=of_images, epsilon=layer.epsilon)

    def _activation(self, layer: keras.layers.Activation, x: Value) -> Value:
        kind, settings = _ACTIVATIONS[layer.get_config()["activation"]]
        return self.each(kind, x, **settings)

    def _flatten(self, layer: keras.layers.Flatten, x: Value) -> Value:
        return self.node("Flatten", x, axis=1)

    def _softmax(self, layer: keras.layers.Softmax, x: Value) -> Value:
        return self.node("Softmax", x, axis=-1)

    def _rescaling(self, layer: keras.layers.Rescaling, x: Value) -> Value:
        return x * layer.scale + layer.offset

    def _cropping2d(self, layer: keras.layers.Cropping2D, x: Value) -> Value:
        sizes = layer.input.shape[1:3]
        starts = [before for before, _ in layer.cropping]
        ends = [size - after for size, (_, after) in zip(sizes, layer.cropping)]
        numbers = [self.constant(each, np.int64) for each in (starts, ends, (2, 3))]
        return self.node("Slice", x, *numbers, first=True)

    # --- functions of keras.ops ------------------------------------------------------------------

    def __getattr__(self, name: str) -> Callable[..., Value]:
        """The elementwise functions of `keras.ops`."""
        return functools.partial(self.each, _NUMBER_BY_NUMBER[name])

    def log1p(self, x: Value) -> Value:
        return self.each("Log", x + 1.0)

    def expm1(self, x: Value) -> Value:
        return self.each("Exp", x) - 1.0

    def matmul(self, x: Value, y: Operand) -> Value:
        return self.node("MatMul", x, y)

    def where(self, condition: Value, x: Operand, y: Operand) -> Value:
        return self.node("Where", condition, x, y)

    def cast(self, x: Value, dtype: str) -> Value:
        return self.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def mean(self, x: Value, axis: Union[int, Sequence[int]], keepdims: bool = False) -> Value:
        axes = [axis] if isinstance(axis, int) else list(axis)
        first = x.channels_first and keepdims
        axes = [_CHANNELS_FIRST[axis] for axis in axes] if first else axes
        return self.node("ReduceMean", x, first=first, axes=sorted(axes), keepdims=int(keepdims))

    def sum(self, x: Value, axis: int, keepdims: bool = False) -> Value:
        return self.node("ReduceSum", x, self.constant([axis], np.int64), keepdims=int(keepdims))

    def squeeze(self, x: Value, axis: int) -> Value:
        axis = _CHANNELS_FIRST[axis] if x.channels_first else axis
        name = self.node("Squeeze", x, self.constant([axis], np.int64), first=x.channels_first).name
        return Value(self, name)  # has no channels any more

    def expand_dims(self, x: Value, axis: int) -> Value:
        if axis == 3:  # images of one channel
            return Value(self, self.node("Unsqueeze", x, self.constant([1], np.int64)).name, True)
        return self.node("Unsqueeze", x, self.constant([axis], np.int64))

    def swapaxes(self, x: Value, one: int, two: int) -> Value:
        """Exchange two of three axes."""
        order = list(range(3))
        order[one], order[two] = two, one
        return self.node("Transpose", x, perm=order)

    def take(self, x: Value, indices: Sequence[int], axis: int) -> Value:
        return self.node("Gather", x, self.constant(indices, np.int64), axis=axis)

    def top_k(self, x: Value, k: int) -> tuple[Value, None]:
        """The k greatest along the last axis, in descending order; no indices."""
        name = f"TopK_{len(self.nodes)}"
        inputs = [self._name(x, False), self.constant([k], np.int64)]
        self.nodes.append(helper.make_node("TopK", inputs, [name, f"{name}_indices"], name))
        return Value(self, name), None

    def average_pool(self, x: Value, size: int, strides: int) -> Value:
        return self.node("AveragePool", x, first=True, kernel_shape=[size] * 2, strides=[strides] * 2)


def of_model(model: keras.Model) -> onnx.ModelProto:
    """The model as ONNX: stored images (n, rows, columns) float32 -> the outputs of `formulas.outputs`."""
    graph = Graph()
    rows, columns, channels = model.input_shape[1:]
    pixels = graph.expand_dims(Value(graph, INPUT), 3)
    found = formulas.outputs(model, graph, pixels)
    logits = model.output[LOGITS] if isinstance(model.output, dict) else model.output
    told = []
    for name, value in found.items():
        graph.nodes.append(helper.make_node("Identity", [value.name], [name], name))
        width = logits.shape[1] if name == formulas.PROBABILITY else 1
        told.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]))
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", rows, columns])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "xtcav_lasing", [images], told, graph.numbers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="xtcav-lasing",
        producer_version=__version__,
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def write(model: keras.Model, path: Path, description: str) -> None:
    """Write the model to the file `path`, with `description` under "xtcav_lasing" in its metadata."""
    made = of_model(model)
    helper.set_model_props(made, {"xtcav_lasing": description})
    path.write_bytes(made.SerializeToString())


def read(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Load the file: a function of images, computed by ONNX Runtime."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images})))
