"""From a manifest to the HDF5 file: read each frame once, process it, write it to its row."""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import json
import platform
import time
from typing import Dict, List, NamedTuple, Sequence, Tuple

import h5py
import numpy as np

from common import __version__, atomic, manifest, schema
from common.errors import DataError, ManifestError
from common.manifest import Row
from common.progress import bar
from common.shots import ID_FIELDS, ShotId
from prepare import image
from prepare.config import PrepareConfig
from prepare.dark import Dark, average
from prepare.select import eligible_in, number
from prepare.shots import REASONS, USABLE
from prepare.sources import Source, take_all


class Place(NamedTuple):
    """Where a manifest row's shot is in the source and where its image goes in the file."""

    run: int
    index: int
    split: str
    row: int


class Built(NamedTuple):
    """What came out of a build."""

    counts: Dict[str, Dict[str, int]]
    skipped: Dict[int, Dict[str, int]]
    dark: Dark
    content_digest: str
    bytes: int
    seconds: float


def build(source: Source, config: PrepareConfig, rows: Sequence[Row], force: bool = False) -> Built:
    """Write `config.output_path` with exactly the shots of `rows`, in their order.

    The file appears under its name only when it is complete. Raises OutputExists,
    ManifestError for rows that do not fit the config or the runs, and DataError for frames
    that cannot be read.
    """
    atomic.refuse_existing(config.output_path, force)
    if config.runs.classes and not any(row.split == "train" for row in rows):
        raise ManifestError(f"{config.manifest_path}: has no shot of split train")
    start = time.perf_counter()
    places = locate(source, config, rows)
    dark = average_dark(source, config)
    skipped = {run: eligible_in(source, config, run)[1] for run in config.runs.measured}
    sizes = {split: sum(of_class.values()) for split, of_class in manifest.counts(rows).items()}
    stored_as = (config.image_shape, config.camera.shape, config.image.dtype, config.image.compression)
    with atomic.replacing(config.output_path) as partial, schema.create(partial, sizes, *stored_as) as file:
        file["dark/mean"][...] = dark.mean
        file["dark/std"][...] = dark.std
        _write_rows(file, source, config, rows, places)
        _write_images(file, source, config, places, dark)
        if sizes.get("train"):
            _write_statistics(file)
        digest = schema.finish(file, _attributes(source, config, rows, skipped))
    size = config.output_path.stat().st_size
    return Built(manifest.counts(rows), skipped, dark, digest, size, time.perf_counter() - start)


def locate(source: Source, config: PrepareConfig, rows: Sequence[Row]) -> List[Place]:
    """The place of every row, in the order of the rows; raises ManifestError if one has none."""
    index: Dict[ShotId, int] = {}
    usable: Dict[int, np.ndarray] = {}
    for run in sorted({row.shot.run for row in rows}):
        shots = source.shots(run)
        usable[run] = shots["status"]
        columns = (shots[name].tolist() for name in ID_FIELDS)
        for i, key in enumerate(zip(*columns)):
            index.setdefault(ShotId(*key), i)  # a repeated key: the first is the usable one
    next_row: Dict[str, int] = {}
    places: List[Place] = []
    lost: List[str] = []
    for row in rows:
        runs = config.runs.classes.get(row.label, ()) if row.label else config.runs.unlabelled
        if row.shot.run not in runs:
            what = (
                f"labelled '{row.label}', and runs.classes"
                if row.label
                else "unlabelled, and runs.unlabelled"
            )
            raise ManifestError(
                f"{config.manifest_path}: {row.shot} is {what} in the "
                "config does not say so of that run; `python -m prepare select --force` draws anew"
            )
        at = index.get(row.shot)
        status = USABLE if at is None else int(usable[row.shot.run][at])
        if at is None or status != USABLE:
            lost.append(f"{row.shot}: {'not in the run' if at is None else REASONS[status]}")
            continue
        places.append(Place(row.shot.run, at, row.split, next_row.get(row.split, 0)))
        next_row[row.split] = next_row.get(row.split, 0) + 1
    if lost:
        raise ManifestError(
            f"{config.manifest_path}: {len(lost)} of its {len(rows)} shots cannot be read from "
            f"{config.source.dir}, first {lost[0]}; is this the data it was drawn from? "
            "`select --force` draws anew"
        )
    return places


def average_dark(source: Source, config: PrepareConfig) -> Dark:
    """The dark of `config.runs.dark`: at most `dark.max_frames` frames, drawn by the shots' numbers."""
    chosen: List[Tuple[float, int, int]] = []
    for run in config.runs.dark:
        shots = source.shots(run)
        for i in np.flatnonzero(shots["status"] == USABLE).tolist():
            chosen.append((number(config.select.seed, shots[list(ID_FIELDS)][i].item()), run, i))
    if len(chosen) < 2:
        runs = ", ".join(map(str, config.runs.dark))
        raise DataError(
            f"{config.source.dir}: the dark run {runs} has {len(chosen)} usable frames; 2 are needed"
        )
    chosen = sorted(sorted(chosen)[: config.dark.max_frames], key=lambda c: c[1:])

    def frames():
        with bar(None, "dark", "frame", len(chosen)) as progress:
            for run in dict.fromkeys(run for _, run, _ in chosen):
                for frame in take_all(source, config, run, [i for _, of, i in chosen if of == run]):
                    yield frame
                    progress.update(1)

    return average(frames, config.dark.reject_frames, config.dark.reject_pixels)


def processor(config: PrepareConfig, dark_mean: np.ndarray):
    """The function from a raw frame to a stored image that `config.image` describes."""
    steps = config.image
    binned = image.block_mean(dark_mean, steps.downsample) if steps.subtract_dark else None
    return lambda frame: image.process(
        frame, binned, steps.downsample, steps.transpose, steps.log, steps.dtype
    )


def _write_rows(
    file: h5py.File, source: Source, config: PrepareConfig, rows: Sequence[Row], places: Sequence[Place]
) -> None:
    """Everything of the rows but their images."""
    labels = list(config.runs.classes)
    for split in schema.present(file):
        of_split = [(row, place) for row, place in zip(rows, places) if place.split == split]
        group = file[split]
        if split in manifest.LABELLED:
            group["labels"][...] = [labels.index(row.label) for row, _ in of_split]
        for n, name in enumerate(ID_FIELDS):
            group[name][...] = [row.shot[n] for row, _ in of_split]
        shots = np.array([source.shots(place.run)[place.index] for _, place in of_split])
        for record, units in schema.RECORDS.items():
            for name in units:
                group[record][name][...] = shots[name]


def _write_images(
    file: h5py.File, source: Source, config: PrepareConfig, places: Sequence[Place], dark: Dark
) -> None:
    to_image = processor(config, dark.mean)
    with bar(None, "images", "image", len(places)) as progress:
        for run, of_run in itertools.groupby(sorted(places), key=lambda place: place.run):
            of_run = list(of_run)  # in the order of the run: forward through the files
            frames = take_all(source, config, run, [place.index for place in of_run])
            for place, frame in zip(of_run, frames):
                stored = to_image(frame)
                group = file[place.split]
                group["images"][place.row] = stored
                group["crc32"][place.row] = schema.image_checksum(stored)
                progress.update(1)


def _write_statistics(file: h5py.File) -> None:
    """Per-pixel mean and standard deviation over the train split, summed in float64 in row order."""
    images = file["train/images"]
    total = np.zeros(images.shape[1:])
    squares = np.zeros(images.shape[1:])
    for i in range(len(images)):
        one = images[i].astype(np.float64)
        total += one
        squares += one * one
    mean = total / len(images)
    file["statistics/mean"][...] = mean
    file["statistics/std"][...] = np.sqrt(np.maximum(squares / len(images) - mean**2, 0))


def _attributes(
    source: Source, config: PrepareConfig, rows: Sequence[Row], skipped: Dict[int, Dict[str, int]]
) -> Dict[str, str]:
    runs = [*config.runs.dark, *config.runs.measured]
    packages = ("h5py", "hdf5plugin", "numpy", "pydantic")
    software = {name: importlib.metadata.version(name) for name in packages}
    return {
        "name": config.name,
        "experiment": config.experiment,
        "classes": json.dumps(list(config.runs.classes)),
        "config": config.canonical(),
        "manifest_sha256": manifest.digest(rows),
        "sources": json.dumps([file for run in runs for file in source.files(run)]),
        "skipped": json.dumps(skipped, sort_keys=True),
        "software": json.dumps(
            {"python": platform.python_version(), **software, "xtcav-lasing": __version__}
        ),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
