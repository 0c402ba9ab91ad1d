"""The arithmetic of a network: shapes and numbers of variables, layer by layer, without TensorFlow."""

from __future__ import annotations

import math
from typing import List, NamedTuple, Sequence, Tuple

from common.errors import ConfigError
from train.config import Layer

FLOAT_BYTES = 4
MB = 2**20  # the seed's MB


class LayerShape(NamedTuple):
    """One layer: its name, the shapes of its variables, its output's shape without the minibatch."""

    name: str
    kind: str
    kernel: Tuple[int, ...]  # () if it has none
    bias: Tuple[int, ...]
    output: Tuple[int, ...]

    @property
    def variables(self) -> int:
        """Number of unknown variables."""
        return sum(math.prod(shape) for shape in (self.kernel, self.bias) if shape)


def layer_shapes(network: Sequence[Layer], image: Tuple[int, int], classes: int) -> List[LayerShape]:
    """Every layer's shapes for images of (rows, columns); raises ConfigError where nothing is left."""
    shape: Tuple[int, ...] = (*image, 1)
    layers: List[LayerShape] = []
    counts = {"convolution": 0, "hidden": 0}
    for n, layer in enumerate(network):
        kind, settings = layer.kind, layer.settings
        name, kernel, bias = kind, (), ()
        if kind in ("convolution", "average_pool", "max_pool"):
            channels = settings.channels if kind == "convolution" else shape[2]
            if kind == "convolution":
                kernel = (*settings.window, shape[2], channels)
                counts["convolution"] += 1
                name = f"convolution_{counts['convolution']}"
            rows, columns = (
                _sized(*z, settings.padding) for z in zip(shape, settings.window, settings.strides)
            )
            if rows < 1 or columns < 1:
                raise ConfigError(
                    f"network[{n}]: {kind} with window {list(settings.window)} leaves nothing of "
                    f"{shape[0]} x {shape[1]}; use a smaller window or `padding: same`"
                )
            shape = (rows, columns, channels)
        elif kind in ("hidden", "output"):
            units = settings.units if kind == "hidden" else classes
            kernel = (math.prod(shape), units)
            if kind == "hidden":
                counts["hidden"] += 1
                name = f"hidden_{counts['hidden']}"
            shape = (units,)
        if kernel and settings.bias is not None:
            bias = (shape[-1],)
        layers.append(LayerShape(name, kind, kernel, bias, shape))
    return layers


def describe(network: Sequence[Layer], image: Tuple[int, int], classes: int, minibatch: int) -> List[str]:
    """The layers as a table and the seed's two sentences, as lines of text."""
    layers = layer_shapes(network, image, classes)
    lines = [f"{'layer':<15}{'kernel':<20}{'bias':<8}{'output':<24}{'MB':>9}{'variables':>12}"]
    rows = [LayerShape("input", "input", (), (), (*image, 1)), *layers]
    for layer in rows:
        output = (minibatch, *layer.output)
        size = math.prod(output) * FLOAT_BYTES / MB
        lines.append(
            f"{layer.name:<15}{str(layer.kernel or '-'):<20}{str(layer.bias or '-'):<8}{str(output):<24}"
            f"{size:>9.2f}{layer.variables or '-':>12}"
        )
    convnet = sum(layer.variables for layer in layers if layer.kind == "convolution")
    total = sum(layer.variables for layer in layers)
    hidden = total - convnet
    lines.append(
        f"convnet has {total:,} unknown variables, {convnet:,} ({_percent(convnet, total)}) in convnet "
        f"layers, and {hidden:,} ({_percent(hidden, total)}) in hidden layers."
    )
    lines.append(f"convnet maps {math.prod(image):,} features to {classes} outputs.")
    return lines


def _sized(size: int, window: int, stride: int, padding: str) -> int:
    """Positions of a window along one axis (TensorFlow's rule)."""
    return -(-size // stride) if padding == "same" else -(-(size - window + 1) // stride)


def _percent(part: int, total: int) -> str:
    return f"{100 * part // total} %"  # rounded down, as the seed's log does
