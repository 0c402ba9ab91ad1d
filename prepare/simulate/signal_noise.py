"""Signal against noise: the 2016 study's simulated data, at any image size, in the same HDF5 format.

Noise is N(0, noise_std) in every pixel; a signal image has a vertical line of 10 or more pixels
besides, whose pixels are N(signal_mean, signal_std) higher. Images are made a few at a time, each
from a random stream of its own, so that memory does not grow with their number and the threads
that make them do not change them.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import numpy as np
from pydantic import Field, model_validator

from common import manifest, parallel
from common.config import Model, PathText, load
from common.cores import available_cores
from common.dataset import reading, writing
from common.files import atomic
from common.files.hdf5 import NewFile
from common.manifest import LABELED, Rows
from common.progress import bar, say
from common.stats import Moments

CLASSES = ("noise", "signal")
RUN = 0  # no run has this number: these are no shots of a machine


class SignalNoiseConfig(Model):
    """A set of signal and noise images: `data/NAME.h5` out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    shape: tuple[int, int]  # rows, columns
    train: int = Field(gt=0)
    test: int = Field(gt=0)
    validation: int = Field(0, ge=0)
    seed: int = Field(1, ge=0)
    noise_std: float = Field(0.1, ge=0, le=1e6)
    signal_mean: float = Field(5.0, ge=-1e6, le=1e6)
    signal_std: float = Field(0.1, ge=0, le=1e6)
    line: int = Field(10, gt=0)  # pixels, the shortest line
    output_dir: PathText = "data"

    @property
    def output_path(self) -> Path:
        return Path(self.output_dir) / f"{self.name}.h5"

    @property
    def sizes(self) -> dict[str, int]:
        """{split: number of images} of the splits that are asked for."""
        return {split: getattr(self, split) for split in LABELED if getattr(self, split)}

    @property
    def image_bytes(self) -> int:
        return 4 * self.shape[0] * self.shape[1]

    @model_validator(mode="after")
    def _possible(self) -> "SignalNoiseConfig":
        if min(self.shape) < 1 or self.line > self.shape[0]:
            raise ValueError(f"line: {self.line} pixels do not fit in an image of {self.shape[0]} rows")
        if self.image_bytes >= 1 << 32:
            raise ValueError(
                f"shape: an image of {self.image_bytes / 1e9:.1f} GB; HDF5 takes 4.2 at the most"
            )
        for split, n in self.sizes.items():
            if n % len(CLASSES):
                raise ValueError(f"{split}: {n} images cannot be half noise, half signal")
        return self


def load_config(path: str) -> SignalNoiseConfig:
    """The signal-noise config at `path`; raises ConfigError."""
    return load(path, SignalNoiseConfig)


def image(rng: np.random.Generator, signal: bool, config: SignalNoiseConfig) -> np.ndarray:
    """One image, `config.shape` float32: noise, and if `signal` a vertical line."""
    pixels = rng.standard_normal(config.shape, dtype=np.float32)
    pixels *= np.float32(config.noise_std)
    if signal:
        rows, columns = config.shape
        length = int(rng.integers(config.line, rows + 1))
        top, column = int(rng.integers(0, rows - length + 1)), int(rng.integers(0, columns))
        pixels[top : top + length, column] += rng.normal(config.signal_mean, config.signal_std, length)
    return pixels


def write_images(config_path: str, force: bool) -> None:
    """Write the data file of a config and print what is in it."""
    config = load_config(config_path)
    start = time.perf_counter()
    write(config, force)
    seconds = time.perf_counter() - start
    for split, n in config.sizes.items():
        say(f"{split}: {n} images of {config.shape[0]} x {config.shape[1]}, half of them with a signal")
    size = config.output_path.stat().st_size / 1e6
    say(f"{config.output_path}: {size:.1f} MB in {seconds:.1f} s, {size / seconds:.0f} MB/s")


def write(config: SignalNoiseConfig, force: bool = False) -> str:
    """Write `config.output_path`, complete or not at all; returns the content digest. Memory: a few images.

    Raises OutputExists, and OSError where the disk has no room for it.
    """
    atomic.refuse_existing(config.output_path, force)
    with atomic.replacing(config.output_path) as partial:
        atomic.check_room(partial, sum(config.sizes.values()) * config.image_bytes)
        with writing.create(partial, config.sizes, config.shape, config.shape) as file:
            for name in ("mean", "std"):
                file["dark"][name][...] = 0  # no camera; written, so that the file holds what it claims
            rows = []
            for number, split in enumerate(config.sizes):
                rows += _write_split(file, split, number, config)
            return writing.finish(file, _attributes(config, manifest.digest(rows)), simulated=True)


def _write_split(file: NewFile, split: str, number: int, config: SignalNoiseConfig) -> Rows:
    """Fill one split; the train split's statistics are summed on the way, in float64 and in order."""
    group, n = file[split], config.sizes[split]
    labels = np.arange(n) % len(CLASSES)
    group["labels"][...] = labels
    group["run"][...] = RUN
    group["seconds"][...] = number
    group["fiducial"][...] = np.arange(n)
    moments = Moments()
    sums = np.empty(n, "u4")
    made = _images(number, labels.tolist(), config)
    for i, (pixels, sums[i]) in enumerate(bar(made, f"writing {split}", "image", n)):
        group["images"].id.write_direct_chunk((i, 0, 0), pixels)
        file.check()
        if split == "train":
            moments.add_one(pixels)
    group["crc32"][...] = sums
    if split == "train":
        file["statistics/mean"][...], file["statistics/std"][...] = moments.mean, moments.std
    return Rows.made(split, CLASSES, labels, group)


def _images(number: int, labels: list[int], config: SignalNoiseConfig) -> Iterator[tuple[np.ndarray, int]]:
    """The images of a split in order, each with its checksum, from as many threads as there are cores.

    numpy makes random numbers outside the interpreter's lock, and zlib sums there.
    """

    def make(i: int) -> tuple[np.ndarray, int]:
        sequence = np.random.SeedSequence([config.seed, number, i])
        pixels = image(np.random.Generator(np.random.SFC64(sequence)), bool(labels[i]), config)
        return pixels, reading.image_checksum(pixels)

    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:
        yield from parallel.ahead(pool, make, ((i,) for i in range(len(labels))), 2 * threads)


def _attributes(config: SignalNoiseConfig, manifest_digest: str) -> dict[str, str]:
    return {
        "name": config.name,
        "experiment": "signal_noise",
        "shard": "",
        "classes": json.dumps(CLASSES),
        "config": config.canonical(),
        "manifest_sha256": manifest_digest,
        "sources": "{}",
        "skipped": "{}",
        **writing.made_by("h5py", "numpy"),
    }
