"""One file of a data set: its frames read, made images, written, with everything that belongs to them.

This thread reads and bins, another one makes the image and writes it. Binning is done where the
frame is read, because a frame is valid only until the next one is asked for; what goes to the other
thread is a quarter of its size. numpy and zlib leave Python's lock, so that the two run at the same time.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import h5py
import numpy as np

from common import manifest, parallel
from common.dataset import layout, writing
from common.dataset.image_writer import ImageWriter
from common.dataset.layout import Missing
from common.errors import DataError
from common.files import atomic
from common.manifest import LABELED, Row
from common.shots import ID_FIELDS, ShotId
from common.stats import Moments
from prepare.config import PrepareConfig
from prepare.image.dark import Dark
from prepare.image.pipeline import Pipeline
from prepare.sources import Source, open_source

_AHEAD = 8  # binned frames that wait for the other thread, 0.4 MB each


class TooManyMissing(DataError):
    """More shots have no image than `max_missing` allows."""


class Place(NamedTuple):
    """A manifest row and where its shot is in the source."""

    row: Row
    run: int
    index: int

    @property
    def shot(self) -> ShotId:
        return self.row.shot


class Task(NamedTuple):
    """A file to make: its shots in the order of reading, and what is the same in all files of the data set.

    number: of the file, None if it is alone. allowed: shots that may be missing. skipped: {run:
    {reason: shots}} that could not be selected. expected: the content digest it must have, if it is known.
    """

    config: PrepareConfig
    path: Path
    number: Optional[int]
    places: Sequence[Place]
    dark: Dark
    allowed: int
    skipped: dict[int, dict[str, int]]
    expected: str = ""


class _Images(NamedTuple):
    """What came of a task's shots: those with an image and its checksum, those without, moments of train."""

    kept: dict[str, list[tuple[Place, int]]]
    missing: list[Missing]
    moments: Moments


def make_elsewhere(task: Task) -> Path:
    """`make` in a process that shares the work: it opens the source once, for all tasks that it gets."""
    return make(task, _source_of_this_process(task.config))


def make(task: Task, source: Source, report: Callable[[int], object] = lambda n: None) -> Path:
    """Write the data file of `task`; returns its path, where it appears when it is complete.

    `report` is called with the number of shots done since the last call. Raises DataError when more
    than `allowed` shots have no image, or when the content is not the expected. Memory: a few images.
    """
    config = task.config
    sizes = Counter(place.row.split for place in task.places)
    with atomic.replacing(task.path) as partial:
        with ImageWriter(partial, sizes, *config.stored_as) as writer:
            images = _make_images(task, source, writer, report)
            file = writer.tables(config.camera.shape, config.axes)
            _fill(file, task, source, images)
            epoch = "1970-01-01" if config.simulate else source.epoch()
            simulated = config.simulate is not None
            digest = writing.finish(file, _attributes(task, source), images.missing, simulated, epoch)
        if task.expected not in ("", digest):
            raise DataError(
                f"{task.path}: what is made now has the content digest {digest[:16]}..., the file had "
                f"{task.expected[:16]}...: the runs, or how they are read, changed; --force builds anew"
            )
    return task.path


_open: dict[str, Source] = {}


def _source_of_this_process(config: PrepareConfig) -> Source:
    """Kept open for the next task, which goes on in the same runs."""
    key = config.canonical()
    if key not in _open:
        _open[key] = open_source(config)
    return _open[key]


def check_missing(missing: int, allowed: int, example: str) -> None:
    """Raise TooManyMissing if more shots are missing than the config's max_missing allows."""
    if missing > allowed:
        raise TooManyMissing(
            f"{missing} of the shots asked for have no image, {allowed} may be missing (max_missing), e.g. "
            f"{example}; look at the runs with `python -m prepare list`, or allow more"
        )


def _make_images(task: Task, source: Source, writer: ImageWriter, report: Callable[[int], object]) -> _Images:
    """Read the frames of `task` and write their images."""
    config, pipeline = task.config, Pipeline(task.config.image, task.dark.mean)
    images = _Images({}, [], Moments())
    asked: Counter = Counter()

    def store(place: Place, binned: np.ndarray) -> None:
        image = pipeline.finish(binned)
        split = place.row.split
        images.kept.setdefault(split, []).append((place, writer.append(split, image)))
        if split == "train":
            images.moments.add_one(image)

    def binned() -> Iterator[tuple[Place, np.ndarray]]:
        for place, frame, reason in _frames(task, source):
            if frame is None:
                images.missing.append(_missing(config, place, asked[place.row.split], reason))
                check_missing(len(images.missing), task.allowed, f"{place.shot}: {reason}")
            else:
                yield place, pipeline.bin(frame)
            asked[place.row.split] += 1
            report(1)

    with ThreadPoolExecutor(1) as other:
        for _ in parallel.ahead(other, store, binned(), _AHEAD):
            pass
    return images


def _frames(task: Task, source: Source):
    """(place, frame or None, reason) of every place, run by run."""
    for run, of_run in itertools.groupby(task.places, key=lambda place: place.run):
        places = list(of_run)
        _check_keys(source, run, places)
        for place, result in zip(places, source.frames(run, [place.index for place in places])):
            yield place, result.frame, result.reason


def _missing(config: PrepareConfig, place: Place, row: int, reason: str) -> Missing:
    label = list(config.runs.classes).index(place.row.label) if place.row.label else -1
    return Missing(place.row.split, row, label, place.shot, reason)


def _check_keys(source: Source, run: int, places: Sequence[Place]) -> None:
    """Raise DataError if this process finds other shots at these places than the one that located them."""
    keys = source.shots(run)[list(ID_FIELDS)]
    for place in places:
        if place.index >= len(keys) or keys[place.index].item() != tuple(place.shot):
            raise DataError(f"run {run}: changed while it was read: {place.shot} is no longer at its place")


def _fill(file: h5py.File, task: Task, source: Source, images: _Images) -> None:
    """Write everything but the images."""
    for name in ("mean", "std"):
        file["dark"][name][...] = getattr(task.dark, name)
        if images.moments.count:
            file["statistics"][name][...] = getattr(images.moments, name)
    for name in ("frames", "rejected_frames", "rejected_pixels"):
        file["dark"].attrs[name] = getattr(task.dark, name)
    classes = list(task.config.runs.classes)
    of_run = {run: source.shots(run) for run in {place.run for place in task.places}}
    writing.add_calibration(file, {run: source.calibration(run) for run in of_run})
    for split in layout.present(file):
        group, kept = file[split], images.kept.get(split, [])
        group["crc32"][...] = [checksum for _, checksum in kept]
        if split in LABELED:
            group["labels"][...] = [classes.index(place.row.label) for place, _ in kept]
        for n, name in enumerate(ID_FIELDS):
            group[name][...] = [place.shot[n] for place, _ in kept]
        if kept:
            runs = itertools.groupby((place for place, _ in kept), key=lambda place: place.run)
            shots = np.concatenate([of_run[run][[place.index for place in of]] for run, of in runs])
            for record, units in layout.RECORDS.items():
                for name in units:
                    group[record][name][...] = shots[name]


def _attributes(task: Task, source: Source) -> dict[str, str]:
    config = task.config
    runs = dict.fromkeys([*config.runs.dark, *(place.run for place in task.places)])
    return {
        "name": config.name,
        "experiment": config.experiment,
        "shard": "" if task.number is None else str(task.number),
        "classes": json.dumps(list(config.runs.classes)),
        "config": config.canonical(),
        "manifest_sha256": manifest.digest([place.row for place in task.places]),
        "sources": json.dumps({run: source.files(run) for run in runs}),
        "skipped": json.dumps(task.skipped, sort_keys=True),
        **writing.made_by("h5py", "hdf5plugin", "numpy", "pydantic"),
    }
