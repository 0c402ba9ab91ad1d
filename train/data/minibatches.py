"""The shots of a split, and the minibatches in which training takes them."""

from __future__ import annotations

import hashlib
import weakref
from typing import Generator, Iterator, NamedTuple, Optional, Sequence, Union

import h5py
import numpy as np

from common.dataset import reading
from common.dataset.layout import ROW_CRC32
from common.shots import ID_DTYPE, ID_FIELDS, pulse_energy, uniform_hashes
from train.data.images import ImageFile, empty
from train.data.order import Planned, Position, Share, announced, everything, planned
from train.data.readahead import ReadAhead

ANNOUNCED_BYTES = 128e6  # of images that the kernel is told of ahead


class Batch(NamedTuple):
    """A minibatch of n shots. labels: (n,) int64; energy: (n,) float64, of the pulse, mJ, NaN where
    unknown; position: after it.

    images: (m, rows, columns, 1) float32, of this process's part of the shots: all of them, or on
    several ranks this rank's share.
    """

    images: np.ndarray
    labels: np.ndarray
    energy: np.ndarray
    position: Position


class Samples:
    """Shots with their images, as training and prediction take them; what images come from says `read`.

    ids: (n,) ID_DTYPE; labels: (n,) int64, or None in a split without labels; energy: (n,) float64, of the
    pulse, mJ, NaN where unknown; simulated: (n,) bool. image: rows and columns of an image. kept: all images,
    (n, rows, columns) float32, where they are in memory.
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    energy: np.ndarray
    simulated: np.ndarray
    image: tuple[int, int]
    kept: Optional[np.ndarray] = None
    reading = 0.0  # seconds that all threads took to read images from files so far

    def __init__(self) -> None:
        self._readers: weakref.WeakSet = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self.ids)

    def record(self, name: str) -> np.ndarray:
        """The values of a dataset beside the images, e.g. `run` or `ebeam/ebeamCharge`, (n,)."""
        raise NotImplementedError

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Read the images of `rows`, which are not kept, into `out`, (len(rows), rows, columns) float32."""
        raise NotImplementedError

    def announce(self, rows: np.ndarray) -> None:
        """Say which images will be read next."""

    def close(self) -> None:
        """Stop the threads that still read."""
        for reader in list(self._readers):
            reader.close()

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """The images of `rows`, (len(rows), rows, columns, 1) float32."""
        out = empty(len(rows), *self.image)
        self._fill(np.asarray(rows), out)
        return out[..., None]

    def batches(self, size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
        """The images of `rows`, or all, in order, at most `size` at a time, each valid until the next."""
        if self.kept is not None and rows is None:
            for start in range(0, len(self), size):
                yield self.kept[start : start + size, ..., None]
            return
        rows = np.arange(len(self)) if rows is None else rows
        plan = ((rows[start : start + size], rows, None) for start in range(0, len(rows), size))
        with self._read_ahead(plan, size) as reader:
            yield from (images for images, _ in reader)

    def minibatches(
        self, size: Union[int, str], seed: int, at: Position, part: Share = everything
    ) -> Generator[Batch, None, None]:
        """The minibatches that `minibatch_rows` gives, from `at` on, without end; to be closed.

        The images of each, of `part` of its shots, are valid until the next is asked for.
        """
        plan = planned(len(self), size, seed, at, part)
        if size == "full" or size >= len(self):  # which has to be in memory, so it is read once
            mine = part(len(self))
            images = self.images(range(len(self))[mine]) if self.kept is None else self.kept[mine, ..., None]
            yield from (Batch(images, self.labels, self.energy, after) for _, _, after in plan)
            return
        with self._read_ahead(plan, size) as reader:
            for images, (_, rows, after) in reader:
                yield Batch(images, self.labels[rows], self.energy[rows], after)

    def _read_ahead(self, plan: Iterator[Planned], size: int) -> ReadAhead[Planned]:
        if self.kept is None:
            plan = announced(plan, self.announce, int(ANNOUNCED_BYTES / (4 * np.prod(self.image))))
        reader = ReadAhead(self._fill, plan, min(size, len(self)), self.image)
        self._readers.add(reader)
        return reader

    def _fill(self, rows: np.ndarray, out: np.ndarray) -> None:
        if self.kept is None:
            self.read(rows, out)
        else:
            np.take(self.kept, rows, axis=0, out=out, mode="clip")


class Split(Samples):
    """One split, of one or several files: ids, labels, records in memory; images there or in the files."""

    def __init__(self, groups: Sequence[h5py.Group], in_memory: bool, check: bool) -> None:
        super().__init__()
        self.name = groups[0].name.strip("/")
        self._groups = groups
        self._files = [ImageFile(group, check) for group in groups]
        self._starts = np.cumsum([0, *map(len, self._files)])
        self.image = self._files[0].shape[1:]
        try:
            self.ids = np.empty(self._starts[-1], ID_DTYPE)
            for field in ID_FIELDS:
                self.ids[field] = self.record(field)
            self.labels = self.record("labels").astype(np.int64) if "labels" in groups[0] else None
            self.energy = pulse_energy(self.record)
            self.simulated = np.concatenate(
                [np.full(len(group["images"]), reading.is_simulated(group.file)) for group in groups]
            )
            self.kept = self.images(range(len(self)))[..., 0] if in_memory else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the threads that still read from this split, and close its files."""
        super().close()
        for file in self._files:
            file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the shots, their labels, records and images; the same in any order and any files."""
        return hashlib.sha256(np.sort(self.record(ROW_CRC32)).astype("<u4").tobytes()).hexdigest()

    @property
    def reading(self) -> float:
        return sum(file.seconds for file in self._files)

    def record(self, name: str) -> np.ndarray:
        return np.concatenate([group[name][...] for group in self._groups])

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        for file, of_file, where in self._in_files(rows):
            file.read(of_file, [out[i] for i in where])

    def announce(self, rows: np.ndarray) -> None:
        if self.kept is None:
            for file, of_file, _ in self._in_files(rows):
                file.announce(of_file)

    def _in_files(self, rows: np.ndarray) -> Iterator[tuple[ImageFile, np.ndarray, np.ndarray]]:
        """The files that hold `rows`, with the rows there and which of `rows` they are."""
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(part_of):
            where = np.flatnonzero(part_of == part)
            yield self._files[part], rows[where] - self._starts[part], where


class Part(Samples):
    """Some rows of others that stand for a split of their own; rows: (n,) of `samples`."""

    def __init__(self, samples: Samples, rows: np.ndarray, name: str) -> None:
        super().__init__()
        self._of, self.rows, self.name, self.image = samples, rows, name, samples.image
        self._readers = samples._readers  # those that end when the data are closed
        self.ids, self.energy, self.simulated = (
            samples.ids[rows],
            samples.energy[rows],
            samples.simulated[rows],
        )
        self.labels = None if samples.labels is None else samples.labels[rows]

    @property
    def reading(self) -> float:
        """Its share of the seconds that reading took."""
        return self._of.reading * len(self) / len(self._of)

    def record(self, name: str) -> np.ndarray:
        return self._of.record(name)[self.rows]

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        self._of._fill(self.rows[rows], out)

    def announce(self, rows: np.ndarray) -> None:
        self._of.announce(self.rows[rows])


def some_batches(samples: Samples, rows: Sequence[int], size: int = 16) -> Iterator[np.ndarray]:
    """The images of `rows`, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield samples.images(rows[start : start + size])


def mean_image(samples: Samples, rows: Sequence[int]) -> np.ndarray:
    """The mean of the images of `rows`, (h, w) float64, a few in memory at a time."""
    total = sum(batch[..., 0].sum(axis=0, dtype=np.float64) for batch in some_batches(samples, rows))
    return total / max(len(rows), 1)


def sample(samples: Samples, size: Optional[int]) -> np.ndarray:
    """The rows of about `size` of the shots, each class by its share: the same for the same shots.

    Those with the lowest uniform hashes of their keys, so that a data set that grows keeps most of
    them. None, or a size not under the number of shots: all rows.
    """
    if size is None or size >= len(samples):
        return np.arange(len(samples))
    hashes, chosen = uniform_hashes(samples.ids), []
    for label in np.unique(samples.labels):
        rows = np.flatnonzero(samples.labels == label)
        n = max(1, round(size * len(rows) / len(samples)))
        chosen.append(rows[np.argsort(hashes[rows], kind="stable")[:n]])
    return np.sort(np.concatenate(chosen))
