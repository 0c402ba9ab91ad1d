"""The arithmetic of a network: shapes and numbers of variables, layer by layer, without TensorFlow."""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple, Optional, Sequence, Union

from common.config import Model
from common.errors import ConfigError
from train.config import Convolution, Layer, Pool, Regularize, TrainConfig
from train.config.images import OneOf, Preprocess
from train.model.costs import outputs_of, ways_of

FLOAT_BYTES = 4
MB = 2**20  # the 2016 study's MB


class LayerShape(NamedTuple):
    """One layer: its name, the shapes of its variables, its output's shape without the minibatch."""

    name: str
    kind: str
    kernel: tuple[int, ...]  # () if it has none
    bias: tuple[int, ...]
    output: tuple[int, ...]
    in_convnet: bool  # before the first fully connected layer

    @property
    def variables(self) -> int:
        """Number of unknown variables: those that training changes."""
        return sum(math.prod(shape) for shape in (self.kernel, self.bias) if shape)


def preprocess_sizes(steps: Sequence[Preprocess], image: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of the image after each step; raises ConfigError where there are not enough pixels."""
    sizes, size = [], tuple(image)
    for n, step in enumerate(steps):
        wanted = step.settings.size if step.kind == "center" else step.settings
        if step.kind in ("bin", "center", "crop"):
            if any(pixels > have for pixels, have in zip(wanted, size)):
                raise ConfigError(
                    f"preprocess[{n}]: {step.kind}: {wanted[0]} x {wanted[1]} pixels of an image that has "
                    f"{size[0]} x {size[1]} here"
                )
            size = tuple(a // b for a, b in zip(size, wanted)) if step.kind == "bin" else tuple(wanted)
        sizes.append(size)
    return sizes


def network_input(config: TrainConfig) -> tuple[int, int]:
    """Rows and columns of the images that the network gets, after the preprocessing; raises ConfigError."""
    return [tuple(config.input), *preprocess_sizes(config.preprocess, config.input)][-1]


def layer_shapes(network: Sequence[Layer], image: tuple[int, int], classes: int) -> list[LayerShape]:
    """Every layer's shapes for images of (rows, columns); raises ConfigError where nothing is left.

    Layers are named by kind and number, `convolution_1`, `relu_2`, in the order of the network.
    """
    shape: tuple[int, ...] = (*image, 1)
    layers: list[LayerShape] = []
    counts: dict[str, int] = {}
    in_convnet = True
    for n, layer in enumerate(network):
        kind, settings = layer.kind, layer.settings
        kernel: tuple[int, ...] = ()
        bias: tuple[int, ...] = ()
        in_convnet = in_convnet and kind not in ("hidden", "output")
        if kind in ("convolution", "average_pool", "max_pool"):
            before = shape
            shape = _windowed(shape, settings)
            if min(shape) < 1:
                key = "kernel_size" if kind == "convolution" else "pool_size"
                raise ConfigError(
                    f"network[{n}]: {kind} with {key} {list(getattr(settings, key))} leaves nothing of "
                    f"{before[0]} x {before[1]}; use a smaller {key} or `padding: same`"
                )
            if kind == "convolution":
                kernel = (*settings.kernel_size, before[2], settings.filters)
        elif kind == "mean":
            shape = (*(1 if axis == settings.axis else size for axis, size in enumerate(shape[:2])), shape[2])
        elif kind in ("hidden", "output"):
            units = settings.units if kind == "hidden" else classes
            kernel = (math.prod(shape), units)
            shape = (units,)
        elif kind == "batch_normalization":
            kernel = bias = (shape[-1],)  # scale and offset of each channel
        elif kind == "local_response_normalization" and len(shape) != 3:
            raise ConfigError(f"network[{n}]: {kind} after a fully connected layer, which has no channels")
        if kind in ("convolution", "hidden", "output") and settings.bias is not None:
            bias = (shape[-1],)
        counts[kind] = counts.get(kind, 0) + 1
        name = kind if kind == "output" else f"{kind}_{counts[kind]}"
        layers.append(LayerShape(name, kind, kernel, bias, shape, in_convnet))
    return layers


def check_regularized(regularize: Optional[Regularize], shapes: Sequence[LayerShape]) -> None:
    """Raise ConfigError for a name in `regularize.layers` that is no layer with weights."""
    with_weights = [shape.name for shape in shapes if shape.kind in ("convolution", "hidden", "output")]
    for name in regularize.layers if regularize else ():
        if name not in with_weights:
            raise ConfigError(
                f"regularize.layers: '{name}' is no layer with weights; there are {', '.join(with_weights)}"
            )


def describe(config: TrainConfig, classes: int, minibatch: int) -> list[str]:
    """The layers as a table and the 2016 study's two sentences, as lines of text.

    Above them, where the config has some, the steps of preprocessing and augmentation.
    """
    image = network_input(config)
    network = config.network
    layers = layer_shapes(network, image, classes)
    check_regularized(config.regularize, layers)
    rows = [LayerShape("input", "input", (), (), (*image, 1), True), *layers]
    ways = {shape.name: way for shape, way in zip(layers, _ways(config, rows))}
    width = max(len(layer.name) for layer in layers) + 2
    lines = _describe_images(config)
    lines.append(
        f"{'layer':<{width}}{'kernel':<20}{'bias':<8}{'output':<24}{'MB':>9}{'variables':>12}  "
        "forward / gradient by kernel / by input"
    )
    for layer in rows:
        output = (minibatch, *layer.output)
        size = math.prod(output) * FLOAT_BYTES / MB
        line = (
            f"{layer.name:<{width}}{str(layer.kernel or '-'):<20}{str(layer.bias or '-'):<8}{str(output):<24}"
            f"{size:>9.2f}{layer.variables or '-':>12}  {ways.get(layer.name, '')}"
        )
        lines.append(line.rstrip())
    convnet = sum(layer.variables for layer in layers if layer.in_convnet)
    total = sum(layer.variables for layer in layers)
    hidden = total - convnet
    lines.append(
        f"convnet has {total:,} unknown variables, {convnet:,} ({_percent(convnet, total)}) in convnet "
        f"layers, and {hidden:,} ({_percent(hidden, total)}) in hidden layers."
    )
    lines.append(f"convnet maps {math.prod(image):,} features to {classes} outputs.")
    return lines


def _ways(config: TrainConfig, rows: Sequence[LayerShape]) -> Iterator[str]:
    """How each layer of the network is computed on a CPU, "" for one that is as TensorFlow has it."""
    for layer, before in zip(config.network, rows):
        settings, inputs = layer.settings, before.output
        if layer.kind == "convolution":
            channels = inputs[2], settings.filters
            axes = settings.kernel_size, settings.strides, settings.padding
            yield str(ways_of(inputs[:2], *axes, channels, config.compute))
        else:
            yield "direct / matrix products" if layer.kind == "average_pool" else ""


def _describe_images(config: TrainConfig) -> list[str]:
    """What is done to an image before the network, step by step, with the pixels it has then."""
    sizes = preprocess_sizes(config.preprocess, config.input)
    rows = []
    for step, (height, width) in zip(config.preprocess, sizes):
        if step.kind == "augment":
            rows += [("in training only", _told(each), "") for each in config.augment]
        else:
            rows.append(("preprocess", _told(step), f"{height} x {width}"))
    width = max((len(told) for _, told, _ in rows), default=0) + 2
    return [f"{what:<18}{told:<{width}}{size}".rstrip() for what, told, size in rows] + ([""] if rows else [])


def _told(step: OneOf) -> str:
    """A step and its settings in a line: `center: threshold 8.0, size [96, 112]`."""
    settings = step.settings
    if not isinstance(settings, Model):
        return f"{step.kind}: {list(settings)}"
    given = settings.model_dump(mode="json")
    return f"{step.kind}: {', '.join(f'{k} {v}' for k, v in given.items())}" if given else step.kind


def _windowed(shape: tuple[int, ...], settings: Union[Convolution, Pool]) -> tuple[int, int, int]:
    convolution = isinstance(settings, Convolution)
    window = settings.kernel_size if convolution else settings.pool_size
    rows, columns = (outputs_of(*axis, settings.padding) for axis in zip(shape, window, settings.strides))
    return rows, columns, settings.filters if convolution else shape[2]


def _percent(part: int, total: int) -> str:
    return f"{100 * part // total} %"  # rounded down, as the 2016 study's log does
