"""The only module of this stage that reads the data file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import h5py
import numpy as np

from common import schema
from common.errors import DataError
from common.shots import ID_DTYPE, ID_FIELDS
from train.config import TrainConfig

# Splits are kept in memory up to this share of what is available, else read row by row.
MEMORY_SHARE = 0.5


class Split:
    """One split: ids, labels and records in memory, images in memory or in the file.

    ids: (n,) ID_DTYPE. labels: (n,) int64, or None in a split without labels. images are float32,
    (n, rows, columns, 1).
    """

    def __init__(self, group: h5py.Group, in_memory: bool) -> None:
        self._images: h5py.Dataset = group["images"]
        self.name = group.name.strip("/")
        self.ids = np.empty(len(self._images), ID_DTYPE)
        for field in ID_FIELDS:
            self.ids[field] = group[field][...]
        self.labels = group["labels"][...].astype(np.int64) if "labels" in group else None
        self.energy = _pulse_energy(group)
        self._cached = self._read(range(len(self))) if in_memory else None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image(self) -> Tuple[int, int]:
        """Rows and columns of an image."""
        return self._images.shape[1:]

    @property
    def bytes(self) -> int:
        """Size of the images as float32."""
        return int(np.prod(self._images.shape)) * 4

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """The images of `rows`, (len(rows), rows, columns, 1) float32."""
        if self._cached is None:
            return self._read(rows)
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self._cached  # the full batch, in order: no copy of all images at every step
        return self._cached[np.asarray(rows)]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.images(range(start, min(start + size, len(self))))

    def _read(self, rows: Sequence[int]) -> np.ndarray:
        # Row by row into place: h5py's list indexing is 30 times slower.
        out = np.empty((len(rows), *self._images.shape[1:]), np.float32)
        try:
            for i, row in enumerate(rows):
                self._images.read_direct(out, np.s_[int(row)], np.s_[i])
        except OSError as error:
            where = f"{self._images.file.filename}: {self.name}/images"
            raise DataError(
                f"{where} cannot be read ({str(error).splitlines()[0]}); run `prepare verify` on it"
            ) from None
        return out[..., None]


class Data(NamedTuple):
    """An open data file: its splits, the names of its classes, the digest of its content."""

    path: Path
    splits: Dict[str, Split]
    classes: List[str]
    digest: str


class Position(NamedTuple):
    """Where in the data a run is: epoch, and minibatches of it that are done. Both count from 0."""

    epoch: int
    batch: int


@contextlib.contextmanager
def open_data(
    path: Union[str, Path],
    image: Optional[Tuple[int, int]],
    needed: Sequence[str],
    cache: str = "auto",
    unlabelled: bool = False,
) -> Iterator[Data]:
    """Open the data file at `path`; raises DataError if it does not hold `needed` splits of such images.

    cache: whether images are kept in `memory`, read again each time (`stream`), or kept if they
    fit (`auto`). unlabelled: whether splits without labels are among the splits, too.
    """
    with schema.open_data(path, needed) as file:
        problems = schema.structure_problems(file)
        if problems:
            raise DataError(f"{path}: {problems[0]}; run `python -m prepare verify {path}`")
        shape = file["statistics/mean"].shape
        if image is not None and shape != tuple(image):
            raise DataError(
                f"{path}: images are {shape[0]} x {shape[1]}, the config says {image[0]} x {image[1]}; "
                f"set input: {list(shape)}"
            )
        names = [name for name in schema.present(file) if unlabelled or "labels" in file[name]]
        size = sum(int(np.prod(file[name]["images"].shape)) * 4 for name in names)
        in_memory = cache == "memory" or (cache == "auto" and size <= MEMORY_SHARE * available_memory())
        yield Data(
            path=Path(path),
            splits={name: Split(file[name], in_memory) for name in names},
            classes=schema.classes(file),
            digest=str(file.attrs["content_digest"]),
        )


def number_of_classes(config: TrainConfig) -> Optional[int]:
    """How many classes the config's data file has; None if the file is not there yet."""
    if not Path(config.data).exists():
        return None
    with schema.open_data(config.data) as file:
        return len(schema.classes(file))


def minibatch_rows(n: int, size: Union[int, str], seed: int, at: Position) -> Tuple[np.ndarray, Position]:
    """The rows of the minibatch at position `at`, and the position after it.

    The order of an epoch is a function of (seed, epoch) alone, so that a position is all that a
    resumed run needs. Every row comes once an epoch; the last minibatch may be smaller. With
    `size` "full" every minibatch is all rows in the file's order.
    """
    if size == "full" or size >= n:
        return np.arange(n), Position(at.epoch + 1, 0)
    order = np.random.default_rng([seed, at.epoch]).permutation(n)
    start = at.batch * size
    rows = order[start : start + size]
    last = start + size >= n
    return rows, Position(at.epoch + 1, 0) if last else Position(at.epoch, at.batch + 1)


def available_memory() -> float:
    """Bytes of memory that are free or can be freed, as Linux counts them; without Linux, 4 GB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 4e9


def _pulse_energy(group: h5py.Group) -> np.ndarray:
    """Pulse energy of each shot, mJ: mean of the two detectors before the attenuator; NaN if unknown."""
    return (group["gas_detector/f_11_ENRC"][...] + group["gas_detector/f_12_ENRC"][...]) / 2
