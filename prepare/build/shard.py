"""One file of a data set: its frames read, made images, written, with everything that belongs to them.

This thread reads and bins and subtracts the dark, another one does the rest and writes the image: a half
of the work each. numpy and zlib leave Python's lock meanwhile, so that one process keeps two cores busy.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional

import h5py
import numpy as np

from common import manifest, parallel
from common.dataset import layout, writing
from common.dataset.image_writer import ImageWriter
from common.dataset.layout import Missing
from common.errors import DataError
from common.files import atomic
from common.manifest import LABELED, SPLITS, Rows
from common.shots import ID_FIELDS
from common.stats import Moments
from prepare.config import PrepareConfig
from prepare.image.dark import Dark
from prepare.image.pipeline import Pipeline
from prepare.sources import Source, open_source

_AHEAD = 8  # binned frames that wait for the other thread, 0.4 MB each


class TooManyMissing(DataError):
    """More shots have no image than `max_missing` allows."""


class Task(NamedTuple):
    """A file to make: its rows in the order of reading, and what is the same in all files of the data set.

    number: of the file, None if it is alone. places: of each row in `source.shots(its run)`, (n,) int64.
    allowed: shots that may be missing. skipped: {run: {reason: shots}} that could not be selected.
    expected: the content digest it must have, if it is known.
    """

    config: PrepareConfig
    path: Path
    number: Optional[int]
    rows: Rows
    places: np.ndarray
    dark: Dark
    allowed: int
    skipped: dict[int, dict[str, int]]
    expected: str = ""

    def by_run(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each run, and which rows are of it, as numbers in their order."""
        runs = self.rows.table["run"]
        for run in np.unique(runs).tolist():
            yield run, np.flatnonzero(runs == run)


class _Images(NamedTuple):
    """What came of a task's n rows. there: (n,) bool, which have an image. checksums: (n,) uint32, of those.

    moments: of the images of the train split.
    """

    there: np.ndarray
    checksums: np.ndarray
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
    sizes = {split: n for split in SPLITS if (n := int(task.rows.of_split(split).sum()))}
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
    rows, pipeline = task.rows, Pipeline(task.config.image, task.dark.mean)
    images = _Images(np.zeros(len(rows), bool), np.zeros(len(rows), "<u4"), [], Moments())
    splits = [SPLITS[place] for place in rows.table["split"].tolist()]
    asked: Counter = Counter()

    def store(row: int, binned: np.ndarray) -> None:
        image = pipeline.finish(binned)
        images.checksums[row] = writer.append(splits[row], image)
        if splits[row] == "train":
            images.moments.add_one(image)

    def binned() -> Iterator[tuple[int, np.ndarray]]:
        for row, frame, reason in _frames(task, source):
            images.there[row] = frame is not None
            if frame is not None:
                yield row, pipeline.bin(frame)
            else:
                images.missing.append(_missing(task, row, asked[splits[row]], reason))
                check_missing(len(images.missing), task.allowed, f"{rows[row].shot}: {reason}")
            asked[splits[row]] += 1
            report(1)

    with ThreadPoolExecutor(1) as other:
        for _ in parallel.ahead(other, store, binned(), _AHEAD):
            pass
    return images


def _frames(task: Task, source: Source) -> Iterator[tuple[int, Optional[np.ndarray], str]]:
    """(row, frame or None, reason) of every row, run by run."""
    for run, of_run in task.by_run():
        _check_keys(source, run, task.rows[of_run], task.places[of_run])
        for row, result in zip(of_run.tolist(), source.frames(run, task.places[of_run].tolist())):
            yield row, result.frame, result.reason


def _missing(task: Task, row: int, number: int, reason: str) -> Missing:
    split, label, shot = task.rows[row]
    return Missing(split, number, list(task.config.runs.classes).index(label) if label else -1, shot, reason)


def _check_keys(source: Source, run: int, rows: Rows, places: np.ndarray) -> None:
    """Raise DataError if this process finds other shots at these places than the one that located them."""
    shots = source.shots(run)
    same = places < len(shots)
    for name in ID_FIELDS:
        same[same] = shots[name][places[same]] == rows.table[name][same]
    if not same.all():
        gone = rows[int(np.argmin(same))].shot
        raise DataError(f"run {run}: changed while it was read: {gone} is no longer at its place")


def _fill(file: h5py.File, task: Task, source: Source, images: _Images) -> None:
    """Write everything but the images."""
    for name in ("mean", "std"):
        file["dark"][name][...] = getattr(task.dark, name)
        if images.moments.count:
            file["statistics"][name][...] = getattr(images.moments, name)
    for name in ("frames", "rejected_frames", "rejected_pixels"):
        file["dark"].attrs[name] = getattr(task.dark, name)
    writing.add_calibration(file, {run: source.calibration(run) for run, _ in task.by_run()})
    rows, classes = task.rows, list(task.config.runs.classes)
    classes_of = np.array([classes.index(label) if label in classes else -1 for label in rows.labels])
    records = np.concatenate([source.shots(run)[task.places[of_run]] for run, of_run in task.by_run()])
    for split in layout.present(file):
        group, kept = file[split], images.there & rows.of_split(split)
        group["crc32"][...] = images.checksums[kept]
        if split in LABELED:
            group["labels"][...] = classes_of[rows.table["label"][kept]]
        for name in ID_FIELDS:
            group[name][...] = rows.table[name][kept]
        for record, units in layout.RECORDS.items():
            for name in units:
                group[record][name][...] = records[name][kept]


def _attributes(task: Task, source: Source) -> dict[str, str]:
    config = task.config
    runs = dict.fromkeys([*config.runs.dark, *(run for run, _ in task.by_run())])
    return {
        "name": config.name,
        "experiment": config.experiment,
        "shard": "" if task.number is None else str(task.number),
        "classes": json.dumps(list(config.runs.classes)),
        "config": config.canonical(),
        "manifest_sha256": manifest.digest(task.rows),
        "sources": json.dumps({run: source.files(run) for run in runs}),
        "skipped": json.dumps(task.skipped, sort_keys=True),
        **writing.made_by("h5py", "hdf5plugin", "numpy", "pydantic"),
    }
