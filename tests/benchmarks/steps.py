"""Training steps: ours, the same network in stock Keras and in PyTorch, and the arithmetic bound."""

from __future__ import annotations

import math
import os
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest import mock

import numpy as np

from common.cores import available_cores
from tests.benchmarks.race import Row, race, ratio
from train.config import Threads, TrainConfig, load_config
from train.fit import runtime
from train.model.shapes import layer_shapes, network_input

CONFIGS = Path("configs/train")
STUDY = "first_scale_up"
MATRIX = 2048
# A step of less than SHORT seconds is as long as a disturbance: the ratio of one of 5 ms was seen at 1.08
# with 7 turns, with 61 of them at 0.94 and 0.97.
SHORT, MORE = 0.03, 9


def batch(config: TrainConfig, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images and labels of nothing in particular."""
    rng = np.random.default_rng(0)
    return rng.random((n, *config.input, 1), np.float32), np.arange(n) % 2


def ours(name: str, n: int, compute: str = "float32") -> Callable[[], Any]:
    from train.data.images import empty

    runner, (pixels, labels) = stepper(name, compute), batch(load(name), n)
    images = empty(*pixels.shape)  # as the loader's batches are
    images[...] = pixels

    def step() -> None:
        runner.step(images, labels, 1e-4)

    return step


def stock(name: str, n: int) -> Callable[[], Any]:
    """The same layers, Keras' own convolution and training step."""
    config = load(name)
    runtime.start(Threads(), 1)
    import keras

    from train.model import network

    images, labels = batch(config, n)
    with mock.patch.object(network, "Convolution", keras.layers.Conv2D):
        model = _model(config, images)
    kind, momentum = config.optimizer.kind, config.optimizer.momentum
    optimizer = keras.optimizers.SGD(1e-4, momentum) if kind == "momentum" else keras.optimizers.Adam(1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)  # XLA is 4 times slower here

    def step() -> None:
        model.train_on_batch(images, labels)

    return step


def torch(channels_last: bool, n: int) -> Callable[[], Any]:
    """The 2016 network in PyTorch; its padding is TensorFlow's SAME."""
    import torch
    from torch import nn

    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ZeroPad2d((7, 8, 7, 7)), nn.Conv2d(1, 16, 16, stride=2), nn.ReLU(),
        nn.AvgPool2d(12, 10, padding=5, count_include_pad=False), nn.Flatten(), nn.Linear(4560, 2),
    )  # fmt: skip
    pixels, labels = batch(load(STUDY), n)
    images, targets = torch.from_numpy(np.moveaxis(pixels, 3, 1).copy()), torch.from_numpy(labels)
    if channels_last:
        model, images = (
            model.to(memory_format=torch.channels_last),
            images.to(memory_format=torch.channels_last),
        )
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.4)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def multiplication() -> Callable[[], Any]:
    """A float32 matrix product, MATRIX in each direction."""
    runtime.start(Threads(), 1)
    import tensorflow as tf

    a = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    return lambda: float(product()) and None


def prediction(images: int) -> Callable[[], Any]:
    """Images per second of our predictor on one core."""
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    from train.data.images import empty

    predictor = stepper(STUDY)
    pixels = empty(images, *load(STUDY).input, 1)
    pixels[...] = batch(load(STUDY), images)[0]

    class Whole:
        def batches(self, size: int):
            return (pixels[start : start + size] for start in range(0, images, size))

    def predict() -> float:
        start = time.perf_counter()
        predictor.predict(Whole())
        return images / (time.perf_counter() - start)

    return predict


def rows(repeat: int) -> Iterator[Row]:
    """The 2016 network against everything; the other networks of the catalog against stock Keras."""
    result = race(
        {
            "ours": (ours, (STUDY, 80)),
            "stock Keras": (stock, (STUDY, 80)),
            "PyTorch, channels last": (torch, (True, 80)),
            "PyTorch, contiguous": (torch, (False, 80)),
            "matrix product": (multiplication, ()),
            "bfloat16": (ours, (STUDY, 80, "bfloat16")),
        },
        repeat,
    )
    operations = 2 * 80 * forward_operations(load(STUDY))  # forward, and the kernels' gradient
    result["bound"] = [seconds * operations / (2 * MATRIX**3) for seconds in result["matrix product"]]
    times = {name: statistics.median(values) for name, values in result.items()}
    best = min((name for name in times if name.startswith("PyTorch")), key=times.get)
    what = "step of the 2016 network, 80 images"
    for name, to, aim in (
        ("stock Keras", "stock Keras", 0.45),
        ("PyTorch", best, 0.33),
        ("the arithmetic bound", "bound", 1.4),
    ):
        note = f"{times['ours']:.3f} s against {times[to]:.3f} s"
        yield Row(f"{what}, against {name}", ratio(result, "ours", to), aim, True, result, note)
    yield Row(f"{what}, bfloat16 against float32", ratio(result, "bfloat16", "ours"), None, True, result)
    for name, n, aim in catalog():
        both = {"ours": (ours, (name, n)), "stock Keras": (stock, (name, n))}
        result = race(both, repeat)
        if statistics.median(result["ours"]) < SHORT:
            result = race(both, MORE * repeat)
        what = f"step of {name}, {n} images, against stock Keras"
        note = f"{statistics.median(result['ours']):.4f} s"
        yield Row(what, ratio(result, "ours", "stock Keras"), aim, True, result, note)
    result = race({"ours": (prediction, (256,))}, repeat)
    figure = statistics.median(result["ours"])
    yield Row("prediction of the 2016 network on 1 core, images/s", figure, 360, False, result)


def catalog() -> list[tuple[str, int, float]]:
    """(config, minibatch, aim) of each other network of configs/train."""
    seen, networks = [], []
    for path in sorted(CONFIGS.glob("*.yaml")):
        config = load_config(str(path))
        n = {"signal_noise_1000": 16}.get(path.stem) or (
            config.minibatch if isinstance(config.minibatch, int) else 80
        )
        key = (config.network, config.input, config.preprocess)
        if key in seen or config.network == load(STUDY).network:
            continue
        seen.append(key)
        networks.append(
            (path.stem, n, {"signal_noise_200": 0.5, "signal_noise_1000": 0.55}.get(path.stem, 1.02))
        )
    return networks


def forward_operations(config: TrainConfig) -> int:
    """Floating-point operations of the forward pass of one image, of kernels alone."""
    total = 0
    for shape in layer_shapes(config.network, network_input(config), 2):
        if shape.kernel:
            positions = math.prod(shape.output[:-1]) if len(shape.kernel) == 4 else 1
            total += 2 * positions * math.prod(shape.kernel)
    return total


def load(name: str) -> TrainConfig:
    return load_config(str(CONFIGS / f"{name}.yaml"))


def stepper(name: str, compute: str = "float32") -> Any:
    """What `train fit` steps with."""
    config = load(name)
    runtime.start(Threads(), 1)
    from train.fit.step import Stepper
    from train.model import optimizers

    model = _model(config, batch(config, 16)[0], compute)
    return Stepper(model, optimizers.build(config.optimizer, 1e-4), None, config.optimizer.clip_norm)


def _model(config: TrainConfig, images: np.ndarray, compute: str = "float32") -> Any:
    from train.model import network

    return network.of_config(config.model_copy(update={"compute": compute}), 2, lambda: iter([images]))
