"""Training steps: ours, the same network in stock Keras and in PyTorch, and the arithmetic bound."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence
from unittest import mock

import numpy as np

from common.cores import available_cores
from common.ranks import Ranks
from tests.benchmarks import bound
from tests.benchmarks.bound import multiplication
from tests.benchmarks.race import Row, installed, race, ratio
from train.config import Threads, TrainConfig, load_config
from train.fit import runtime

CONFIGS = Path("configs/train")
STUDY = "first_scale_up"
TORCH = {"PyTorch, channels last": True, "PyTorch, contiguous": False}
PREDICTED = {"signal_noise_200": 64, "signal_noise_1000": 16}  # config: images, as `train` takes at once


def batch(shape: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images of (rows, columns) and labels of nothing in particular, lying as the loader's batches do."""
    from train.data.images import empty

    images = empty(n, *shape, 1)
    images[...] = np.random.default_rng(0).random(images.shape, np.float32)
    return images, np.arange(n) % 2


class Held:
    """Images in memory, for a predictor."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def batches(self, size: int, rows: Any = None) -> Iterator[np.ndarray]:
        return (self.images[start : start + size] for start in range(0, len(self.images), size))


def ours(name: str, n: int, compute: str = "float32") -> Callable[[], Any]:
    """Our training step."""
    runner = stepper(name, compute)
    images, labels = batch(runner.model.input_shape[1:3], n)

    def step() -> None:
        runner.step(images, labels, 1e-4)

    return step


def stock(name: str, n: int) -> Callable[[], Any]:
    """The same layers, Keras' own convolution, pooling and training step."""
    model = stock_model(name)
    images, labels = batch(model.input_shape[1:3], n)
    if isinstance(model.output, dict):  # it tells the pulse energy, too
        labels = {key: labels if key == "logits" else np.zeros((n, 1), np.float32) for key in model.output}

    def step() -> None:
        model.train_on_batch(images, labels)

    return step


def predicting(name: str, n: int) -> Callable[[], Any]:
    """Our prediction of n images."""
    predictor = stepper(name)
    images, _ = batch(predictor.model.input_shape[1:3], n)

    def predict() -> None:
        predictor.predict(Held(images))

    return predict


def stock_predicting(name: str, n: int) -> Callable[[], Any]:
    """Keras' prediction by Keras' own convolution."""
    model = stock_model(name)
    images, _ = batch(model.input_shape[1:3], n)

    def predict() -> None:
        model.predict_on_batch(images)

    return predict


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
    pixels, labels = batch(load(STUDY).input, n)
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


def prediction(images: int) -> Callable[[], Any]:
    """Images per second of our predictor on one core."""
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    predictor = stepper(STUDY)
    pixels, _ = batch(load(STUDY).input, images)

    def predict() -> float:
        start = time.perf_counter()
        predictor.predict(Held(pixels))
        return images / (time.perf_counter() - start)

    return predict


def parts(repeat: int) -> Iterator[Iterator[Row]]:
    """The 2016 network against everything, the others of the catalog against stock Keras, and each layer."""
    yield _study(repeat)
    for name, n, aim in catalog():
        yield _against_stock(f"step of {name}, {n} images", (ours, stock), name, n, aim, repeat)
    networks = [(STUDY, 80), *((name, n) for name, n, _ in catalog())]
    yield bound.rows([(name, load(name), n) for name, n in networks], repeat)
    for name, n in PREDICTED.items():
        what = f"prediction of {name}, {n} images"
        yield _against_stock(what, (predicting, stock_predicting), name, n, 0.75, repeat)
    yield _on_one_core(repeat)


def _study(repeat: int) -> Iterator[Row]:
    busy: dict[str, list[float]] = {}
    result = race(
        {
            "ours": (ours, (STUDY, 80)),
            "stock Keras": (stock, (STUDY, 80)),
            **({name: (torch, (last, 80)) for name, last in TORCH.items()} if installed("torch") else {}),
            "matrix product": (multiplication, ()),
            "bfloat16": (ours, (STUDY, 80, "bfloat16")),
        },
        repeat,
        busy=busy,
    )
    times = {name: statistics.median(values) for name, values in result.items()}
    torches = sorted(TORCH.keys() & times.keys(), key=times.get)
    what = "step of the 2016 network, 80 images"
    for to, aim in [("stock Keras", 0.40), *((best, 0.33) for best in torches[:1])]:
        note = f"{times['ours']:.3f} s against {times[to]:.3f} s, {_processor(busy, to)}"
        yield Row(f"{what}, against {to}", ratio(result, "ours", to), aim, True, result, note)
    yield bound.against_bound(what, load(STUDY), 80, True, result)
    yield Row(f"{what}, bfloat16 against float32", ratio(result, "bfloat16", "ours"), None, True, result)


def _on_one_core(repeat: int) -> Iterator[Row]:
    result = race({"ours": (prediction, (256,))}, repeat)
    figure = statistics.median(result["ours"])
    yield Row("prediction of the 2016 network on 1 core, images/s", figure, 360, False, result)


def _against_stock(
    what: str, ways: tuple[Any, Any], name: str, n: int, aim: float, repeat: int
) -> Iterator[Row]:
    """Our way and Keras' of the same thing, and ours against the bound of its operations."""
    contestants = {
        "ours": (ways[0], (name, n)),
        "stock Keras": (ways[1], (name, n)),
        "matrix product": (multiplication, ()),
    }
    busy: dict[str, list[float]] = {}
    result = race(contestants, repeat, busy=busy)
    note = f"{statistics.median(result['ours']):.4f} s, {_processor(busy, 'stock Keras')}"
    yield Row(f"{what}, against stock Keras", ratio(result, "ours", "stock Keras"), aim, True, result, note)
    yield bound.against_bound(what, load(name), n, ways[0] is ours, result)


def _processor(busy: dict[str, list[float]], to: str) -> str:
    return f"processor time {ratio(busy, 'ours', to):.2f}"


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
            (path.stem, n, {"signal_noise_200": 0.27, "signal_noise_1000": 0.24}.get(path.stem, 1.02))
        )
    return networks


def load(name: str) -> TrainConfig:
    return load_config(str(CONFIGS / f"{name}.yaml"))


def stepper(name: str, compute: str = "float32", ranks: Optional[Ranks] = None) -> Any:
    """What `train fit` steps with; on `ranks`, which take one thread each."""
    config = load(name)
    runtime.start(Threads(intra=1, inter=1) if ranks else Threads(), 1, ranks)
    from train.fit.step import Stepper
    from train.model import optimizers

    model = _model(config, batch(config.input, 16)[0], compute)
    optimizer = optimizers.build(config.optimizer, 1e-4)
    return Stepper(model, optimizer, None, config.optimizer.clip_norm, ranks=ranks)


def stock_model(name: str) -> Any:
    """What training works on, with Keras' own convolution and pooling, ready for Keras' own training."""
    config = load(name)
    runtime.start(Threads(), 1)
    import keras

    from train.model import network

    own = {"Convolution": keras.layers.Conv2D, "AveragePool": keras.layers.AveragePooling2D}
    with mock.patch.multiple(network, **own):
        model = network.trained_part(_model(config, batch(config.input, 16)[0]))
    kind, momentum = config.optimizer.kind, config.optimizer.momentum
    optimizer = keras.optimizers.SGD(1e-4, momentum) if kind == "momentum" else keras.optimizers.Adam(1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if isinstance(model.output, dict):
        loss = {key: loss if key == "logits" else "mse" for key in model.output}
    model.compile(optimizer, loss, jit_compile=False)  # XLA is 4 times slower here
    return model


def _model(config: TrainConfig, images: np.ndarray, compute: str = "float32") -> Any:
    from train.model import network

    return network.of_config(config.model_copy(update={"compute": compute}), 2, lambda: iter([images]))
