"""Fixtures: small data files with something to learn, and configs for them."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import pytest
import yaml

from common.dataset import layout, reading, writing
from common.manifest import LABELED
from tests.command_line import run
from train.commands import main

SHAPE = (20, 24)


def write_data(
    path: Path,
    sizes: dict[str, int],
    shape=SHAPE,
    signal: float = 0.5,
    seed: int = 0,
    first: int = 0,
    classes=("nolasing", "lasing"),
    image: Optional[dict] = None,
    simulated: bool = False,
    timed: bool = True,
    **stored: str,
) -> Path:
    """A data file of noise in which a patch is the brighter the higher the label; labels take turns.

    Split `predict` is made alike and has no labels.
    first: the time of the first shot of each split, s. timed: whether the shots are of runs.
    image: that section of the prepare config. stored: dtype and compression.
    """
    rng = np.random.default_rng(seed)
    with writing.create(path, sizes, shape, (2 * shape[1], 2 * shape[0]), **stored) as file:
        for split, n in sizes.items():
            group = file[split]
            labels = np.arange(n) % len(classes)
            if split in LABELED:
                group["labels"][...] = labels
            group["run"][...] = 69 + labels if timed else 0
            group["seconds"][...] = first + np.arange(n)
            group["nanoseconds"][...] = list(sizes).index(split)
            energy = np.where(labels, rng.uniform(0.005, 0.1, n), 0.0033)
            energy[1] = np.nan  # one lasing shot without a record
            for name in ("f_11_ENRC", "f_12_ENRC"):
                group["gas_detector"][name][...] = energy
            for i in range(n):
                pixels = rng.random(shape, dtype=np.float32)
                pixels[5:9, 6:12] += signal * labels[i]
                pixels = pixels.astype(group["images"].dtype)
                group["images"][i] = pixels
                group["crc32"][i] = reading.image_checksum(pixels)
        if "train" in file:
            train = file["train/images"][...].astype(np.float64)
            file["statistics/mean"][...] = train.mean(axis=0)
            file["statistics/std"][...] = train.std(axis=0)
        attributes = {name: "{}" for name in layout.ATTRIBUTES}
        attributes["classes"] = json.dumps(classes)
        attributes["config"] = json.dumps({"image": image})
        writing.finish(file, attributes, simulated=simulated)
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """This process computes with as many threads as `write_config` gives the commands that tests start.

    Sums over a whole minibatch depend in their last bits on how many threads share them.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """A data file, to be copied."""
    return write_data(tmp_path_factory.mktemp("written") / "data.h5", {"train": 40, "test": 30})


@pytest.fixture
def data(written: Path, tmp_path: Path) -> Path:
    """That file, to be changed."""
    return Path(shutil.copy(written, tmp_path / "data.h5"))


def small_config(place: Path, **changes: object) -> str:
    """Write the config of a small network, with changes, for data.h5 in `place`; gives its path."""
    config = {
        "name": "small",
        "data": str(place / "data.h5"),
        "runs_dir": str(place / "runs"),
        "threads": {"intra": 1, "inter": 1},
        "input": list(SHAPE),
        "network": [
            {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
            "relu",
            {"average_pool": {"pool_size": [3, 3], "strides": [2, 2]}},
            {"output": {"stddev": 1e-4}},
        ],
        "learning_rate": {"start": 0.02, "decay": 0.9, "steps": 4},
        "minibatch": 16,
        "steps": 11,
        "report": False,  # drawing takes seconds; tests/train/test_report.py draws
        **changes,
    }
    path = place / "small.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., str]:
    """Write a config of a small network, with changes; gives its path."""
    return functools.partial(small_config, tmp_path)


@pytest.fixture(scope="session")
def fits() -> dict[str, Path]:
    """Where runs were trained that are copied, by their settings."""
    return {}


@pytest.fixture
def fitted(fits, written: Path, tmp_path_factory, tmp_path: Path, write_config) -> Callable[..., Path]:
    """Leave the config and the run of `train fit` with `changes` on the data of `data`; gives the run.

    One training serves all that ask for these settings; where it was trained stands nowhere in the copy.
    """

    def fit(**changes: object) -> Path:
        key = json.dumps(changes, sort_keys=True)
        if key not in fits:
            place = tmp_path_factory.mktemp("fitted")
            shutil.copy(written, place)
            result = run(main, "fit", small_config(place, **changes))
            assert result.exit_code == 0, result.output
            fits[key] = place
        write_config(**changes)
        (source,) = (fits[key] / "runs").iterdir()
        copy = Path(shutil.copytree(source, tmp_path / "runs" / source.name))
        for path in copy.iterdir():
            if path.suffix in (".yaml", ".json", ".csv", ".md", ".html"):
                path.write_text(path.read_text().replace(str(fits[key]), str(tmp_path)))
        return copy

    return fit


@pytest.fixture
def train() -> Callable[..., object]:
    """Run `python -m train ARGS` in this process; the result has exit_code and output."""
    return functools.partial(run, main)
