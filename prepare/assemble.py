"""The finished HDF5 file from verified part files, row by row: the same bytes of content however
many processes made the parts, and however often they were interrupted."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Deque, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import h5py
import numpy as np

from common import __version__, atomic, manifest, schema
from common.manifest import LABELLED, Row
from common.progress import bar
from common.schema import Loss
from common.shots import ID_FIELDS
from prepare import parts
from prepare.config import PrepareConfig
from prepare.dark import Dark
from prepare.extract import Place
from prepare.sources import Source

_AHEAD = 4  # images read ahead


class Contents(NamedTuple):
    """What goes into the file: manifest rows, their places, their images, the dark, shots left out."""

    rows: Sequence[Row]
    places: Sequence[Place]
    found: parts.Found
    dark: Dark
    skipped: Dict[int, Dict[str, int]]


def assemble(source: Source, config: PrepareConfig, contents: Contents) -> Tuple[str, List[Loss]]:
    """Write `config.output_path`; returns its content digest and the losses.

    The file appears under its name only when it is complete. Raises DataError if an image in the
    part files is not what was written. Memory: a few images.
    """
    kept, losses = _sort_out(config, contents)
    sizes = {split: len(of_split) for split, of_split in kept.items() if of_split}
    atomic.check_room(config.output_path, _size(contents))
    stored_as = (config.image_shape, config.camera.shape, config.image.dtype, config.image.compression)
    with atomic.replacing(config.output_path) as partial, schema.create(partial, sizes, *stored_as) as file:
        file["dark/mean"][...] = contents.dark.mean
        file["dark/std"][...] = contents.dark.std
        with bar(None, "writing", "image", sum(sizes.values())) as progress:
            for split in schema.present(file):
                _write_rows(file[split], source, config, kept[split])
                _write_images(file, split, kept[split], contents.found, progress.update)
        return schema.finish(file, _attributes(source, config, contents), losses), losses


def _size(contents: Contents) -> int:
    """About the bytes of the file: images, dark, and for each row its records and HDF5's index."""
    tables = contents.found.images.values()
    rows = sum(300 + int(size) for table in tables for size in table["size"][table["part"] > 0])
    return rows + 2 * contents.dark.mean.nbytes + 40_000


def _sort_out(
    config: PrepareConfig, contents: Contents
) -> Tuple[Dict[str, List[Tuple[str, Place]]], List[Loss]]:
    """By split, (label, place) of the rows that have an image; and those that have none."""
    classes = list(config.runs.classes)
    kept: Dict[str, List[Tuple[str, Place]]] = {}
    losses = []
    for row, place in zip(contents.rows, contents.places):
        of_split = kept.setdefault(row.split, [])
        if contents.found.images[place.split]["part"][place.row]:
            of_split.append((row.label, place))
        else:
            label = classes.index(row.label) if row.label else -1
            reason = contents.found.losses[place.split, place.row]
            losses.append(Loss(row.split, place.row, label, row.shot, reason))
    return kept, losses


def _write_rows(
    group: h5py.Group, source: Source, config: PrepareConfig, kept: Sequence[Tuple[str, Place]]
) -> None:
    """Everything of the rows but their images."""
    classes = list(config.runs.classes)
    if group.name.strip("/") in LABELLED:
        group["labels"][...] = [classes.index(label) for label, _ in kept]
    for n, name in enumerate(ID_FIELDS):
        group[name][...] = [place.shot[n] for _, place in kept]
    shots = np.array([source.shots(place.run)[place.index] for _, place in kept])
    for record, units in schema.RECORDS.items():
        for name in units:
            group[record][name][...] = shots[name]


def _write_images(
    file: h5py.File, split: str, kept: Sequence[Tuple[str, Place]], found: parts.Found, report
) -> None:
    """Images and checksums of one split; for the train split, the statistics on the way."""
    images = file[split]["images"]
    rows = [place.row for _, place in kept]
    file[split]["crc32"][...] = found.images[split]["crc32"][rows]
    sums = _Sums(images.shape[1:]) if split == "train" else None
    plain = not images.id.get_create_plist().get_nfilters()
    for i, payload in enumerate(_payloads(found, split, rows)):
        images.id.write_direct_chunk((i, 0, 0), payload)
        if sums is not None:
            sums.add(np.frombuffer(payload, images.dtype).reshape(images.shape[1:]) if plain else images[i])
        report(1)
    if sums is not None:
        file["statistics/mean"][...], file["statistics/std"][...] = sums.moments()


def _payloads(found: parts.Found, split: str, rows: Sequence[int]) -> Iterator[bytes]:
    """The stored bytes of `rows`, read and checked in another thread, a few ahead."""
    reader = parts.Reader(found)
    waiting: Deque[Future] = Deque()
    try:
        with ThreadPoolExecutor(1) as other:
            for row in rows:
                waiting.append(other.submit(reader.payload, split, row))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        reader.close()


class _Sums:
    """Per-pixel mean and standard deviation, summed in float64 in the order of the rows."""

    def __init__(self, shape: Tuple[int, ...]) -> None:
        self.total, self.squares, self.count = np.zeros(shape), np.zeros(shape), 0

    def add(self, image: np.ndarray) -> None:
        one = image.astype(np.float64)
        self.total += one
        one *= one
        self.squares += one
        self.count += 1

    def moments(self) -> Tuple[np.ndarray, np.ndarray]:
        mean = self.total / self.count
        return mean, np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))


def _attributes(source: Source, config: PrepareConfig, contents: Contents) -> Dict[str, str]:
    runs = [*config.runs.dark, *config.runs.measured]
    packages = ("h5py", "hdf5plugin", "numpy", "pydantic")
    software = {name: importlib.metadata.version(name) for name in packages}
    return {
        "name": config.name,
        "experiment": config.experiment,
        "classes": json.dumps(list(config.runs.classes)),
        "config": config.canonical(),
        "manifest_sha256": manifest.digest(contents.rows),
        "sources": json.dumps([file for run in runs for file in source.files(run)]),
        "skipped": json.dumps(contents.skipped, sort_keys=True),
        "software": json.dumps(
            {"python": platform.python_version(), **software, "xtcav-lasing": __version__}
        ),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
