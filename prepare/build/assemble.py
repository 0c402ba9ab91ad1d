"""The finished HDF5 file from what was made of it, row by row, each image verified: the same bytes of
content however many processes made the images, and however often they were interrupted."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import h5py
import numpy as np

from common import __version__, manifest
from common.dataset import schema
from common.dataset.schema import Loss
from common.files import atomic
from common.manifest import LABELED, Row
from common.progress import bar
from common.shots import ID_FIELDS
from prepare.build import parts
from prepare.build.extract import Place
from prepare.config import PrepareConfig
from prepare.image.dark import Dark
from prepare.sources import Source

_AHEAD = 4  # images read ahead


class Contents(NamedTuple):
    """What goes into the file: manifest rows, their places, shots left out, the dark, images.

    slots: the file that the images were written into, which becomes the finished one.
    """

    rows: Sequence[Row]
    places: Sequence[Place]
    skipped: Dict[int, Dict[str, int]]
    dark: Dark
    found: parts.Found
    slots: Optional[parts.Slots] = None


def assemble(source: Source, config: PrepareConfig, contents: Contents) -> Tuple[str, List[Loss]]:
    """Write `config.output_path`; returns its content digest and the losses.

    The file appears under its name only when it is complete. Raises DataError if an image is not
    what was written. Memory: a few images.
    """
    kept, losses = _sort_out(config, contents)
    sizes = {split: len(of_split) for split, of_split in kept.items() if of_split}
    output, sums = config.output_path, _Sums(config)
    with bar(None, "completing", "image", sum(sizes.values())) as progress:
        if contents.slots and not losses:  # with a loss, the file has a row too many
            _fill(contents.slots, contents.found, sizes, sums, progress.update)
            atomic.check_room(contents.slots.path, _size(contents))
            with schema.reopen(contents.slots.path) as file:
                digest = _complete(file, source, config, contents, kept, losses, sums)
            atomic.put(contents.slots.path, output)
        else:
            with atomic.replacing(output) as partial:
                atomic.check_room(partial, _size(contents))
                with schema.create(partial, sizes, *config.stored_as) as file:
                    _copy(file, contents.found, kept, sums, progress.update)
                    digest = _complete(file, source, config, contents, kept, losses, sums)
    return digest, losses


def _fill(
    slots: parts.Slots, found: parts.Found, sizes: Mapping[str, int], sums: "_Sums", report: Callable
) -> None:
    """See that every image is in its place: those that other processes made are copied there."""
    with slots.path.open("r+b") as file:
        for split, n in sizes.items():
            placed = found.placed(split, slots)
            for row, payload in enumerate(_payloads(found, split, range(n))):
                if not placed[row]:
                    file.seek(slots.offsets[split][row])
                    file.write(payload)
                if split == "train":
                    sums.add(sums.decoded(payload))
                report(1)


def _copy(
    file: h5py.File,
    found: parts.Found,
    kept: Mapping[str, Sequence[Tuple[str, Place]]],
    sums: "_Sums",
    report: Callable,
) -> None:
    """Write all images, in the bytes of their chunks."""
    for split in schema.present(file):
        images = file[split]["images"]
        plain = not images.id.get_create_plist().get_nfilters()
        for i, payload in enumerate(_payloads(found, split, [place.row for _, place in kept[split]])):
            images.id.write_direct_chunk((i, 0, 0), payload)
            if split == "train":
                sums.add(sums.decoded(payload) if plain else images[i])
            report(1)


def _complete(
    file: h5py.File,
    source: Source,
    config: PrepareConfig,
    contents: Contents,
    kept: Mapping[str, Sequence[Tuple[str, Place]]],
    losses: Sequence[Loss],
    sums: "_Sums",
) -> str:
    """Write everything but the images; returns the content digest."""
    file["dark/mean"][...] = contents.dark.mean
    file["dark/std"][...] = contents.dark.std
    for split in schema.present(file):
        rows = [place.row for _, place in kept[split]]
        file[split]["crc32"][...] = contents.found.images[split]["crc32"][rows]
        _write_rows(file[split], source, config, kept[split])
    if "train" in file:
        file["statistics/mean"][...], file["statistics/std"][...] = sums.moments()
    return schema.finish(file, _attributes(source, config, contents), losses)


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
    if group.name.strip("/") in LABELED:
        group["labels"][...] = [classes.index(label) for label, _ in kept]
    for n, name in enumerate(ID_FIELDS):
        group[name][...] = [place.shot[n] for _, place in kept]
    shots = np.array([source.shots(place.run)[place.index] for _, place in kept])
    for record, units in schema.RECORDS.items():
        for name in units:
            group[record][name][...] = shots[name]


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

    def __init__(self, config: PrepareConfig) -> None:
        self._shape, self._dtype = config.image_shape, np.dtype(config.image.dtype).newbyteorder("<")
        self._total, self._squares = np.zeros(self._shape), np.zeros(self._shape)
        self._one, self._count = np.empty(self._shape), 0

    def decoded(self, payload: bytes) -> np.ndarray:
        """The image that is stored as `payload`, without compression."""
        return np.frombuffer(payload, self._dtype).reshape(self._shape)

    def add(self, image: np.ndarray) -> None:
        one = self._one  # written over again: new memory costs as much as the arithmetic
        one[...] = image
        self._total += one
        one *= one
        self._squares += one
        self._count += 1

    def moments(self) -> Tuple[np.ndarray, np.ndarray]:
        mean = self._total / self._count
        return mean, np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))


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
