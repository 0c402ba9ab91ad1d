"""What a data set report is made from: one pass over the data file and a few camera frames."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple, Optional

import h5py
import numpy as np

from common import slices
from common.dataset import layout, provenance, reading, screen
from common.dataset.checksums import content_digest
from common.dataset.index import data_files
from common.dataset.layout import Missing
from common.dataset.safety import read_json
from common.dataset.view import View
from common.errors import DataError
from common.manifest import SPLITS
from common.progress import bar
from common.shots import ID_DTYPE, ID_FIELDS, pulse_energy, time_in_run
from common.stats import evenly, robust_std
from prepare.report import steps
from prepare.report.steps import Sample

IMAGES_OF_A_RUN = 400  # read for mean intensities and histograms, evenly spread over the run
HISTOGRAM_BINS = 80
UNLABELED = -1
_AT_ONCE = 32  # images whose slices are read together
HOT_LIMIT = 8.0  # robust standard deviations

# What is shown of the machine's records: path in a split, what it is and its unit.
RECORDS = {
    "ebeam/ebeamCharge": ("Bunch charge", "nC"),
    "energy": ("Pulse energy in the gas detector", "mJ"),
    "ebeam/ebeamL3Energy": ("Beam energy after L3", "MeV"),
    "ebeam/ebeamXTCAVAmpl": ("XTCAV amplitude", "MV"),
    "ebeam/ebeamXTCAVPhase": ("XTCAV phase", "deg"),
}


class Contents(NamedTuple):
    """A data file. Arrays have one element for each shot, all splits one after the other.

    label: UNLABELED in split predict. intensity: mean of the stored image, NaN if it was not read.
    histograms: {(run, label): counts}, between `edges`. slices: of the images that were read, in their order,
    None if such images have none. frames: '' or why no camera frames are shown. provenance: in words.
    """

    name: str
    path: Path
    attributes: dict[str, Any]
    classes: list[str]
    view: View
    splits: tuple[str, ...]
    split: np.ndarray
    label: np.ndarray
    ids: np.ndarray
    intensity: np.ndarray
    records: dict[str, np.ndarray]
    edges: np.ndarray
    histograms: dict[tuple[int, int], np.ndarray]
    slices: Optional[slices.Slices]
    dark_mean: np.ndarray
    dark_std: np.ndarray
    samples: list[Sample]
    frames: str
    missing: list[Missing]
    provenance: str

    @property
    def runs(self) -> list[int]:
        return np.unique(self.ids["run"]).tolist()

    @property
    def time(self) -> np.ndarray:
        """Seconds since the first shot of the shot's run here."""
        return time_in_run(self.ids)

    def class_name(self, label: int) -> str:
        return "unlabeled" if label == UNLABELED else self.classes[label]

    def json(self, name: str) -> Any:
        """The root attribute `name`; `skipped`: {run: {reason: shots}} of what could not be selected."""
        return read_json(self.attributes[name], f"{self.path}: attribute {name}")


def read(path: Path) -> Contents:
    """The contents of the data file at `path`; raises DataError. Reads some of the images, one at a time."""
    with contextlib.ExitStack() as stack, reading.damage_named(path):
        files = [stack.enter_context(reading.open_data(file)) for file in data_files(path)]
        for file in files:
            problems = layout.structure_problems(file)
            if problems:
                raise DataError(f"{file.filename}: {problems[0]}; run `python -m prepare verify {path}`")
        groups = [
            file[name] for name in SPLITS for file in files if name in file and len(file[name]["images"])
        ]
        if not groups:
            raise DataError(f"{path}: has no images")
        of_group = [group.name.strip("/") for group in groups]
        splits = tuple(dict.fromkeys(of_group))
        sizes = [len(group["images"]) for group in groups]
        where = [(group, i) for group, n in zip(groups, sizes) for i in range(n)]
        column = functools.partial(_column, groups)
        ids = np.zeros(len(where), ID_DTYPE)
        for field in ID_FIELDS:
            ids[field] = column(field)
        label = np.concatenate([_labels(group) for group in groups])
        simulated = [n for group, n in zip(groups, sizes) if reading.is_simulated(group.file)]
        rows = _spread_over_runs(ids["run"])
        edges = _edges(where, rows)
        attributes = _attributes(files)
        view = screen.view_of(attributes, files)
        intensity, histograms, found = _look(where, rows, edges, ids["run"], label, view)
        file = files[0]
        samples, frames = steps.samples(file, where, ids, label, view)
        return Contents(
            name=str(attributes["name"]),
            path=path,
            attributes=attributes,
            classes=reading.classes(file),
            view=view,
            splits=splits,
            split=np.repeat([splits.index(name) for name in of_group], sizes),
            label=label,
            ids=ids,
            intensity=intensity,
            records={name: pulse_energy(column) if name == "energy" else column(name) for name in RECORDS},
            edges=edges,
            histograms=histograms,
            slices=found,
            dark_mean=file["dark/mean"][...],
            dark_std=file["dark/std"][...],
            samples=samples,
            frames=frames,
            missing=[one for file in files for one in reading.missing(file)],
            provenance=provenance.told(sum(simulated), len(where)),
        )


def _attributes(files: list[h5py.File]) -> dict[str, Any]:
    """The root attributes of the data set: those of its first file; digest, sources, skipped of all."""
    each = [reading.attributes(file) for file in files]
    merged = dict(each[0], content_digest=content_digest(*files))
    for name in ("sources", "skipped"):
        whole: dict[str, Any] = {}
        for file, attributes in zip(files, each):
            whole.update(read_json(attributes[name], f"{file.filename}: attribute {name}"))
        merged[name] = json.dumps(whole)
    return merged


def _column(groups: list[h5py.Group], path: str) -> np.ndarray:
    """The dataset `path` of all groups, one behind the other."""
    return np.concatenate([group[path][...] for group in groups])


def _labels(group: h5py.Group) -> np.ndarray:
    return group["labels"][...].astype(int) if "labels" in group else np.full(len(group["run"]), UNLABELED)


def _spread_over_runs(run: np.ndarray) -> np.ndarray:
    """The rows whose images are read: up to IMAGES_OF_A_RUN of each run, evenly spread."""
    chosen = [evenly(np.flatnonzero(run == number), IMAGES_OF_A_RUN) for number in np.unique(run)]
    return np.sort(np.concatenate(chosen))


def _edges(where: list[tuple[h5py.Group, int]], rows: np.ndarray) -> np.ndarray:
    """Bins that hold nearly all pixels: the range of some images, a little wider."""
    ends = []
    for row in rows[:: max(1, len(rows) // 30)]:
        group, i = where[row]
        pixels = group["images"][i]
        ends.append((float(pixels.min()), float(pixels.max())))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    margin = 0.02 * (high - low) or 1.0
    return np.linspace(low - margin * (low < 0), high + margin, HISTOGRAM_BINS + 1)


def _look(
    where: list[tuple[h5py.Group, int]], rows: np.ndarray, edges: np.ndarray, run: np.ndarray,
    label: np.ndarray, view: View,
) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray], Optional[slices.Slices]]:  # fmt: skip
    """Mean intensities of the images of `rows`, histograms of their pixels, and their slices.

    The first and last bin also count what is beyond. Slices are None for images that have none.
    """
    intensity = np.full(len(where), np.nan)
    histograms: dict[tuple[int, int], np.ndarray] = {}
    found: list[slices.Slices] = []
    waiting: list[np.ndarray] = []
    for row in bar(rows, "reading", "image"):
        group, i = where[row]
        pixels = group["images"][i].astype(np.float32)
        intensity[row] = pixels.mean(dtype=np.float64)
        counts, _ = np.histogram(np.clip(pixels, edges[0], edges[-1]), edges)
        key = (int(run[row]), int(label[row]))
        histograms[key] = histograms.get(key, 0) + counts
        waiting.append(pixels)
        if len(waiting) == _AT_ONCE or row == rows[-1]:
            of_some = slices.of_images(np.stack(waiting), view)
            found += [] if of_some is None else [of_some]
            waiting = []
    return intensity, histograms, slices.joined(found)


def hot_pixels(dark_mean: np.ndarray, dark_std: np.ndarray) -> Optional[np.ndarray]:
    """(H, W) bool: whose pedestal or noise is over HOT_LIMIT robust standard deviations above the median.

    None where there is no dark (all zeros).
    """
    if not dark_std.any():
        return None
    return np.any([values > hot_limit(values) for values in (dark_mean, dark_std)], axis=0)


def hot_limit(values: np.ndarray) -> float:
    """HOT_LIMIT robust standard deviations, each at least 0.1 counts, above the median of `values`."""
    return float(np.median(values) + HOT_LIMIT * max(robust_std(values), 0.1))
