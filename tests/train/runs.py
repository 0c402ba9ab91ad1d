"""Data files of runs that lase and one that does not, whose pictures show it, with a leak or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import numpy as np

from common.dataset import layout, reading, writing

SHAPE = (24, 32)


RUNS = {69: (0, 960), 70: (1, 480), 71: (1, 480)}  # run: label, seconds at a shot a second


CLASSES = ["nolasing", "lasing"]


SETTINGS = {
    "input": list(SHAPE),
    "preprocess": ["standardize"],
    "network": [{"hidden": {"units": 8, "stddev": 0.02}}, "relu", {"output": {"stddev": 0.1}}],
    "optimizer": {"kind": "adam"},
    "learning_rate": {"start": 0.01},
    "minibatch": 32,
    "steps": 60,
}


def pictures(rng: np.random.Generator, n: int, lasing: bool, energy: np.ndarray, background: float):
    """(n, 24, 32): a bunch whose place and height jitter, which lasing smears out in energy, and noise."""
    time, level = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    center = np.array([12.0, 15.0]) + rng.normal(0, 0.5, (n, 2))
    width = 1.5 + (20 * energy if lasing else np.zeros(n))
    away = ((time - center[:, :1, None]) / 2) ** 2 + (
        (level - center[:, 1:, None]) / width[:, None, None]
    ) ** 2
    light = rng.normal(3, 0.3, n)[:, None, None] * np.exp(-away / 2) / (width / 1.5)[:, None, None]
    return (light + background + rng.normal(0, 0.1, (n, *SHAPE))).astype(np.float32)


def write_runs(
    path: Path, leak: float = 0.0, seed: int = 0, blocks: Optional[dict] = None, runs=None, classes=CLASSES
) -> Path:
    """Runs split by blocks of 30 s; `leak`: background of run 69 less that of the others.

    runs: {run: (label, seconds)}. Of a third class the pulse energies are the higher ones.
    """
    rng = np.random.default_rng(seed)
    shots = []
    for run, (label, n) in (runs or RUNS).items():
        seconds = 1000 * 30 * (run - 60) + np.arange(n)
        low = 0.005 if label < 2 else 0.15
        energy = rng.uniform(low, low + 0.095, n) if label else np.full(n, 0.0033)
        images = pictures(rng, n, bool(label), energy, 0.5 + (leak if run == 69 else 0.0))
        for i in np.flatnonzero(seconds % 30 >= 5):
            if i % 2:  # as many of each class
                split = "test" if seconds[i] // 30 % 3 == 0 else "train"
                shots.append((split, label, run, seconds[i], energy[i], images[i]))
    order = rng.permutation(len(shots))
    sizes = {split: sum(shot[0] == split for shot in shots) for split in ("train", "test")}
    with writing.create(path, sizes, SHAPE, SHAPE) as file:
        for split in sizes:
            rows = [shots[k] for k in order if shots[k][0] == split]
            group = file[split]
            for name, column in (("labels", 1), ("run", 2), ("seconds", 3)):
                group[name][...] = [row[column] for row in rows]
            for name in ("f_11_ENRC", "f_12_ENRC"):
                group["gas_detector"][name][...] = [row[4] for row in rows]
            group["ebeam/ebeamCharge"][...] = rng.normal(0.3, 0.004, len(rows))
            group["images"][...] = np.stack([row[5] for row in rows])
            group["crc32"][...] = [reading.image_checksum(row[5]) for row in rows]
        train = file["train/images"][...].astype(np.float64)
        file["statistics/mean"][...], file["statistics/std"][...] = train.mean(axis=0), train.std(axis=0)
        attributes = {name: "{}" for name in layout.ATTRIBUTES}
        attributes["classes"] = json.dumps(classes)
        attributes["config"] = json.dumps({"select": {"blocks": blocks}} if blocks else {})
        writing.finish(file, attributes)
    return path
