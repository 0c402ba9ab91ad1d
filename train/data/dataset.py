"""What a run trains on: one or several data files as splits, and the order of the minibatches."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import weakref
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import h5py
import numpy as np

from common.dataset import schema
from common.dataset.view import View
from common.errors import DataError
from common.shots import ID_DTYPE, ID_FIELDS, ShotId
from train.config import TrainConfig
from train.data.images import ImageFile, empty
from train.data.readahead import Held, ReadAhead

# Splits are kept in memory up to this share of what is available, else read batch by batch.
MEMORY_SHARE = 0.5

Paths = Union[str, Path, Sequence[Union[str, Path]]]


class Split:
    """One split, of one or several files: ids, labels, records in memory; images there or in the files.

    ids: (n,) ID_DTYPE. labels: (n,) int64, or None in a split without labels. images are float32,
    (n, rows, columns, 1).
    """

    def __init__(self, groups: Sequence[h5py.Group], in_memory: bool, check: bool) -> None:
        self.name = groups[0].name.strip("/")
        self._groups = groups
        self._files = [ImageFile(group, check) for group in groups]
        self._starts = np.cumsum([0, *map(len, self._files)])
        self._readers: weakref.WeakSet = weakref.WeakSet()
        self._cached: Optional[np.ndarray] = None
        try:
            self.ids = np.empty(len(self), ID_DTYPE)
            for field in ID_FIELDS:
                self.ids[field] = self.record(field)
            self.labels = self.record("labels").astype(np.int64) if "labels" in groups[0] else None
            self.energy = self._pulse_energy()
            self._cached = self.images(range(len(self))) if in_memory else None
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._starts[-1])

    def close(self) -> None:
        """Stop whatever still reads from this split, and close its files."""
        for reader in list(self._readers):
            reader.close()
        for file in self._files:
            file.close()

    @property
    def image(self) -> Tuple[int, int]:
        """Rows and columns of an image."""
        return self._files[0].shape[1:]

    @property
    def reading(self) -> float:
        """Seconds of reading images from the files so far, whichever thread did it."""
        return sum(file.seconds for file in self._files)

    def record(self, name: str) -> np.ndarray:
        """The values of a dataset beside the images, e.g. `run` or `ebeam/ebeamCharge`, (n,)."""
        return np.concatenate([group[name][...] for group in self._groups])

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """The images of `rows`, (len(rows), rows, columns, 1) float32."""
        out = empty(len(rows), *self.image)
        self._read(np.asarray(rows), out)
        return out[..., None]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, at most `size` at a time; each is valid until the next is asked for."""
        starts = range(0, len(self), size)
        if self._cached is not None:
            for start in starts:
                yield self._cached[start : start + size]
            return
        plan = (np.arange(start, min(start + size, len(self))) for start in starts)
        with self._read_ahead(plan, size) as reader:
            yield from reader

    def minibatches(self, size: Union[int, str], seed: int, at: "Position") -> Union[ReadAhead, Held]:
        """The images of the minibatches that `minibatch_rows` gives, from `at` on, without end.

        To be closed (or used in a `with`). Each batch is valid until the next is asked for.
        """
        whole = size == "full" or size >= len(self)
        if whole and self._cached is not None:
            return Held(self._cached)

        def plan() -> Iterator[np.ndarray]:
            position = at
            while True:
                rows, position = minibatch_rows(len(self), size, seed, position)
                yield rows

        return self._read_ahead(plan(), len(self) if whole else size)

    def _read_ahead(self, plan: Iterator[np.ndarray], size: int) -> ReadAhead:
        reader = ReadAhead(self._read, plan, min(size, len(self)), self.image)
        self._readers.add(reader)
        return reader

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        if self._cached is not None:
            np.take(self._cached[..., 0], rows, axis=0, out=out, mode="clip")
            return
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(part_of):
            where = np.flatnonzero(part_of == part)
            into = [out[i] for i in where]
            self._files[part].read(rows[where] - self._starts[part], into)

    def _pulse_energy(self) -> np.ndarray:
        """Pulse energy of each shot, mJ: mean of the two detectors before the attenuator; NaN if unknown."""
        return (self.record("gas_detector/f_11_ENRC") + self.record("gas_detector/f_12_ENRC")) / 2


class Data(NamedTuple):
    """Open data files: their splits, the names of the classes, the digest of the content, how to show it."""

    paths: List[Path]
    splits: Dict[str, Split]
    classes: List[str]
    digest: str
    view: View

    @property
    def path(self) -> str:
        """The files, as messages name them."""
        return ", ".join(map(str, self.paths))

    @property
    def names(self) -> str:
        """The files without their folders."""
        return ", ".join(path.name for path in self.paths)

    @property
    def reading(self) -> float:
        """Seconds of reading images so far, in whichever thread."""
        return sum(split.reading for split in self.splits.values())


class Position(NamedTuple):
    """Where in the data a run is: epoch, and minibatches of it that are done. Both count from 0."""

    epoch: int
    batch: int


@contextlib.contextmanager
def open_data(
    paths: Paths,
    image: Optional[Tuple[int, int]],
    needed: Sequence[str],
    cache: str = "auto",
    unlabeled: bool = False,
    check: bool = True,
) -> Iterator[Data]:
    """Open the data files at `paths` (one or several, which make one data set).

    image: (rows, columns), or None for any. cache: whether images are kept in `memory`, read again
    each time (`stream`), or kept if they fit (`auto`). unlabeled: whether splits without labels are
    among the splits, too. check: compare the crc32 of each image when it is first read. Raises
    DataError if the files do not hold `needed` splits of such images or do not belong together.
    """
    paths = path_list(paths)
    with contextlib.ExitStack() as stack:
        with schema.damage_named(", ".join(map(str, paths))):
            data = _opened(stack, paths, image, needed, cache, unlabeled, check)
        _check_labels(data)
        yield data


def _opened(
    stack: contextlib.ExitStack,
    paths: List[Path],
    image: Optional[Tuple[int, int]],
    needed: Sequence[str],
    cache: str,
    unlabeled: bool,
    check: bool,
) -> Data:
    """What `open_data` yields; `stack` closes it."""
    one = len(paths) == 1
    files = [stack.enter_context(schema.open_data(path, needed if one else ())) for path in paths]
    for path, file in zip(paths, files):
        _check_file(path, file, image)
    _check_set(paths, files, needed)
    groups = {
        name: [file[name] for file in files if name in file and file[name]["images"].shape[0]]
        for name in dict.fromkeys(name for file in files for name in schema.present(file))
    }
    groups = {name: of for name, of in groups.items() if of and (unlabeled or "labels" in of[0])}
    size = sum(int(np.prod(g["images"].shape)) * 4 for of in groups.values() for g in of)
    in_memory = cache == "memory" or (cache == "auto" and size <= MEMORY_SHARE * available_memory())
    splits = {}
    for name, of in groups.items():
        splits[name] = Split(of, in_memory, check)
        stack.callback(splits[name].close)
    classes = schema.classes(files[0])
    return Data(paths, splits, classes, _digest(files), View.of(schema.attributes(files[0])))


def path_list(paths: Paths) -> List[Path]:
    """`data:` of a config, one name or a list of them, as a list of paths."""
    return [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]


def number_of_classes(config: TrainConfig) -> Optional[int]:
    """How many classes the config's data file has; None if the file is not there yet."""
    path = path_list(config.data)[0]
    if not path.exists():
        return None
    with schema.open_data(path) as file:
        return len(schema.classes(file))


def number_of_images(config: TrainConfig, split: str) -> Optional[int]:
    """How many images of `split` the config's data files have; None if one is not there yet."""
    total = 0
    for path in path_list(config.data):
        if not path.exists():
            return None
        with schema.open_data(path) as file:
            total += len(file[split]["images"]) if split in file else 0
    return total


def minibatch_rows(n: int, size: Union[int, str], seed: int, at: Position) -> Tuple[np.ndarray, Position]:
    """The rows of the minibatch at position `at`, and the position after it.

    The order of an epoch is a function of (seed, epoch) alone, so that a position is all that a
    resumed run needs. Every row comes once an epoch; the last minibatch may be smaller. With
    `size` "full" every minibatch is all rows in the file's order.
    """
    if size == "full" or size >= n:
        return np.arange(n), Position(at.epoch + 1, 0)
    start = at.batch * size
    rows = _order(n, seed, at.epoch)[start : start + size]
    last = start + size >= n
    return rows, Position(at.epoch + 1, 0) if last else Position(at.epoch, at.batch + 1)


@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(n)
    order.setflags(write=False)
    return order


def available_memory() -> float:
    """Bytes of memory that are free or can be freed, as Linux counts them; without Linux, 4 GB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 4e9


# --- what makes files one data set ---------------------------------------------------------------


def _check_file(path: Path, file: h5py.File, image: Optional[Tuple[int, int]]) -> None:
    problems = schema.structure_problems(file)
    if problems:
        raise DataError(f"{path}: {problems[0]}; run `python -m prepare verify {path}`")
    shape = file[schema.present(file)[0]]["images"].shape[1:]
    if image is not None and shape != tuple(image):
        raise DataError(
            f"{path}: images are {shape[0]} x {shape[1]}, the config says {image[0]} x {image[1]}; "
            f"set input: {list(shape)}"
        )


def _check_set(paths: Sequence[Path], files: Sequence[h5py.File], needed: Sequence[str]) -> None:
    """Raise DataError for files of other classes or processing, a shot in two files, a missing split."""
    first = files[0]
    for path, file in zip(paths[1:], files[1:]):
        if schema.classes(file) != schema.classes(first):
            raise DataError(
                f"{path}: its classes are {', '.join(schema.classes(file))}, those of {paths[0]} are "
                f"{', '.join(schema.classes(first))}; files of one data set have the same, in the same order"
            )
        if _processing(file) != _processing(first):
            raise DataError(
                f"{path}: its images were made by another `image:` of the prepare config than those of "
                f"{paths[0]}; build both alike"
            )
    for split in needed if len(files) > 1 else ():
        if not any(split in file and file[split]["images"].shape[0] for file in files):
            raise DataError(f"{', '.join(map(str, paths))}: none has a split '{split}'")
    seen: Dict[ShotId, Path] = {}
    for path, file in zip(paths, files) if len(files) > 1 else ():
        keys = _shots(file)
        twice = next((key for key in keys if key in seen), None)
        if twice is not None:
            raise DataError(
                f"{path}: the shot of {twice} is in {seen[twice]}, too, and could be both in training and "
                "test; name files without common shots"
            )
        seen.update(dict.fromkeys(keys, path))


def _check_labels(data: Data) -> None:
    """Raise DataError for a label that is no index into the classes."""
    for name, split in data.splits.items():
        if split.labels is None:
            continue
        wrong = split.labels[(split.labels < 0) | (split.labels >= len(data.classes))]
        if len(wrong):
            raise DataError(
                f"{data.path}: {name}/labels has a {wrong[0]}, there are {len(data.classes)} classes; "
                "run `prepare verify` on it"
            )


def _processing(file: h5py.File) -> Optional[dict]:
    """What the prepare config says is done to an image, apart from how the numbers are stored."""
    image = json.loads(schema.attributes(file)["config"]).get("image")
    return image and {key: value for key, value in image.items() if key not in ("dtype", "compression")}


def _shots(file: h5py.File) -> List[ShotId]:
    """The keys of a file's shots; simulated ones of no run (number 0) have none."""
    columns = [np.concatenate([file[s][name][...] for s in schema.present(file)]) for name in ID_FIELDS]
    shots = (ShotId(*key) for key in zip(*(column.tolist() for column in columns)))
    return [shot for shot in shots if shot.run]


def _digest(files: Sequence[h5py.File]) -> str:
    """The digest of one file's content, or for several that of theirs, in their order."""
    digests = [str(schema.attributes(file)["content_digest"]) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
