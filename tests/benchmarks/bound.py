"""The bound of a step: of each layer and pass the least operations, at the rate of a matrix product."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from tests.benchmarks.race import Row, race, ratio
from train.config import Threads, TrainConfig
from train.fit import runtime
from train.model import costs
from train.model.shapes import layer_shapes, network_input

MATRIX = 2048
LEAST = 0.02  # seconds that a pass of a layer is timed for, as often as it goes into them
PASSES = ("forward", "gradient by kernel", "gradient by input")
BOTH = "gradients by kernel and input"  # which share a transform, where they go by spectra


class Bounded(NamedTuple):
    """A layer with a kernel: its name, (rows, columns, channels) of its input, the settings of a convolution.

    operations: of an image and each of `PASSES`, as far as training does them; ways: which they are.
    """

    name: str
    before: tuple[int, ...]
    settings: Any  # None: fully connected
    operations: Sequence[float]
    ways: Sequence[str]


def multiplication() -> Callable[[], Any]:
    """A float32 matrix product, MATRIX in each direction."""
    runtime.start(Threads(), 1)
    import tensorflow as tf

    a = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    return lambda: float(product()) and None


def bounded(config: TrainConfig) -> Iterator[Bounded]:
    """The network's layers with kernels; the first of them has no gradient by its input."""
    before, passes = (*network_input(config), 1), PASSES[:2]
    for layer, shape in zip(config.network, layer_shapes(config.network, before[:2], 2)):
        if layer.kind == "convolution":
            settings = layer.settings
            axes = settings.kernel_size, settings.strides, settings.padding
            least = costs.least_operations(before[:2], *axes, (before[2], settings.filters))
            operations, ways = zip(*least)
            yield Bounded(shape.name, before, settings, operations[: len(passes)], ways[: len(passes)])
        elif len(shape.kernel) == 2:
            each = 2.0 * math.prod(shape.kernel)
            yield Bounded(shape.name, before, None, [each] * len(passes), ["direct"] * len(passes))
        passes = PASSES if shape.kernel else passes
        before = shape.output


def against_bound(
    what: str, config: TrainConfig, n: int, training: bool, result: dict[str, list[float]]
) -> Row:
    """Our time for n images against the bound: of training, or of the forward pass alone."""
    layers = list(bounded(config))
    operations = n * sum(sum(layer.operations[: None if training else 1]) for layer in layers)
    return _row(what, operations, result)


def rows(networks: Sequence[tuple[str, TrainConfig, int]], repeat: int) -> Iterator[Row]:
    """Each pass of each convolution of (name, config, images) by itself, against its bound."""
    result = race({"layers": (passes, (networks,)), "matrix product": (multiplication, ())}, repeat)
    for name, layer, n in _convolutions(networks):
        for passed, operations, way in _timed(layer):
            times = [turn[_key(name, layer, passed)] for turn in result["layers"]]
            row = _row(
                f"{name} {layer.name}, {n} images, {passed}",
                n * operations,
                {"ours": times, "matrix product": result["matrix product"]},
            )
            yield row._replace(note=f"{statistics.median(times):.4f} s, {row.note}, {way}")


def passes(networks: Sequence[tuple[str, TrainConfig, int]]) -> Callable[[], dict[str, float]]:
    """Seconds of each pass of each convolution, as a layer in training does it."""
    runtime.start(Threads(), 1)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it takes the layers' graphs for one that is made again and again
    timed = {}
    for name, layer, n in _convolutions(networks):
        made = _layer(layer, n)
        for passed, _, _ in _timed(layer):
            timed[_key(name, layer, passed)] = made[passed]
    return lambda: {key: _seconds(prepare) for key, prepare in timed.items()}


def _layer(layer: Bounded, n: int) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Of each pass a function that prepares it and gives what is to be timed."""
    import tensorflow as tf

    from train.model.convolution import Convolution

    settings = layer.settings
    made = Convolution(
        settings.filters, settings.kernel_size, settings.strides, settings.padding, use_bias=False
    )
    made.build((None, *layer.before))
    x, kernel = tf.random.stateless_uniform((n, *layer.before), (0, 0)), made.kernel.value
    whole = tf.function(lambda x, kernel: made.convolution_op(x, kernel))
    first = tf.function(lambda x, kernel: made.convolution_op(tf.stop_gradient(x), kernel))
    dy = tf.random.stateless_uniform(whole(x, kernel).shape, (0, 1))

    def gradient(run: Any, *sources: tf.Tensor) -> Callable[[], Any]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(sources)
            y = run(x, kernel)
        return lambda: tape.gradient(y, sources, dy)

    return {
        PASSES[0]: lambda: lambda: whole(x, kernel),
        PASSES[1]: lambda: gradient(first, kernel),
        BOTH: lambda: gradient(whole, x, kernel),
    }


def _seconds(prepare: Callable[[], Callable[[], Any]]) -> float:
    run, n = prepare(), 0
    start = time.perf_counter()
    while n == 0 or time.perf_counter() < start + LEAST:
        run()
        n += 1
    return (time.perf_counter() - start) / n


def _timed(layer: Bounded) -> Iterator[tuple[str, float, str]]:
    """(pass, operations of an image, which they are) of what is timed: a gradient by input never alone."""
    yield from zip(PASSES[:2], layer.operations, layer.ways)
    if len(layer.operations) > 2:
        yield BOTH, sum(layer.operations[1:]), " and ".join(dict.fromkeys(layer.ways[1:]))


def _convolutions(networks: Sequence[tuple[str, TrainConfig, int]]) -> list[tuple[str, Bounded, int]]:
    """Those of all networks, each kind once."""
    found = {}
    for name, config, n in networks:
        for layer in bounded(config):
            if layer.settings is not None:
                settings = layer.settings
                kind = settings.kernel_size, settings.strides, settings.padding, settings.filters
                found.setdefault((layer.before, *kind, n, len(layer.operations)), (name, layer, n))
    return list(found.values())


def _key(name: str, layer: Bounded, passed: str) -> str:
    return f"{name} {layer.name} {passed}"


def _row(what: str, operations: float, result: dict[str, list[float]]) -> Row:
    bound = [seconds * operations / (2 * MATRIX**3) for seconds in result["matrix product"]]
    note = f"{statistics.median(bound):.4f} s at the rate of a matrix product"
    samples = {**result, "bound": bound}
    return Row(f"{what}, to its bound", ratio(samples, "ours", "bound"), None, True, samples, note)
