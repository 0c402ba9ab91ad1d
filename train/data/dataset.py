"""Open one or several data files as one data set: splits, classes, digest."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Union

import h5py
import numpy as np

from common.blocks import Blocks
from common.dataset import layout, provenance, reading, screen
from common.dataset.checksums import content_digest
from common.dataset.index import data_files
from common.dataset.view import View
from common.errors import DataError
from common.shots import ID_DTYPE, ID_FIELDS, ShotId, uniform_hashes
from train.config import TrainConfig
from train.data.minibatches import Split

# Splits are kept in memory up to this share of what is available, else read batch by batch.
MEMORY_SHARE = 0.5

Paths = Union[str, Path, Sequence[Union[str, Path]]]


class Data(NamedTuple):
    """Open data files: their splits, the names of the classes, the digest of the content, how to show it,
    and the blocks of time in which shots are alike."""

    paths: list[Path]
    splits: dict[str, Split]
    classes: list[str]
    digest: str
    view: View
    blocks: Blocks
    processing: Optional[dict[str, Any]]  # of an image, as `image:` of the prepare config says

    @property
    def path(self) -> str:
        """The files, as messages name them."""
        return ", ".join(map(str, self.paths))

    @property
    def names(self) -> str:
        """The files without their folders."""
        return ", ".join(path.name for path in self.paths)

    @property
    def provenance(self) -> str:
        """Whether the shots are real, simulated, or both (`common.dataset.provenance`)."""
        simulated = sum(int(split.simulated.sum()) for split in self.splits.values())
        return provenance.told(simulated, sum(map(len, self.splits.values())))

    @property
    def shots(self) -> dict[str, list[tuple[int, str, int]]]:
        """Of each split the shots of each run and class: {split: [(run, class, shots)]}."""
        found: dict[str, list[tuple[int, str, int]]] = {}
        for name, split in self.splits.items():
            if split.labels is not None:
                pairs = np.stack([split.labels, split.ids["run"].astype(np.int64)], axis=1)
                each, counts = np.unique(pairs, axis=0, return_counts=True)
                found[name] = [(int(run), self.classes[k], int(n)) for (k, run), n in zip(each, counts)]
        return found

    @property
    def reading(self) -> float:
        """Seconds of reading images so far, in whichever thread."""
        return sum(split.reading for split in self.splits.values())


@contextlib.contextmanager
def open_data(
    paths: Paths,
    image: Optional[tuple[int, int]],
    needed: Sequence[str],
    cache: str = "auto",
    unlabeled: bool = False,
    check: bool = True,
    processes: int = 1,
) -> Iterator[Data]:
    """Open the data files at `paths` (one or several, which make one data set).

    image: (rows, columns), or None for any. cache: whether images are kept in `memory`, read again
    each time (`stream`), or kept if they fit (`auto`). unlabeled: whether splits without labels are
    among the splits, too. check: compare the crc32 of each image when it is first read.
    processes: how many of this machine open them at the same time. Raises
    DataError if the files do not hold `needed` splits of such images or do not belong together.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    with contextlib.ExitStack() as stack:
        with reading.damage_named(", ".join(map(str, given))):
            data = _opened(stack, data_files(given), image, needed, cache, unlabeled, check, processes)
        data = data._replace(paths=given)
        _check_labels(data)
        yield data


def _opened(
    stack: contextlib.ExitStack,
    paths: list[Path],
    image: Optional[tuple[int, int]],
    needed: Sequence[str],
    cache: str,
    unlabeled: bool,
    check: bool,
    processes: int,
) -> Data:
    """What `open_data` yields; `stack` closes it."""
    one = len(paths) == 1
    files = [stack.enter_context(reading.open_data(path, needed if one else ())) for path in paths]
    for path, file in zip(paths, files):
        _check_file(path, file, image)
    _check_set(paths, files, needed)
    groups = {
        name: [file[name] for file in files if name in file and file[name]["images"].shape[0]]
        for name in dict.fromkeys(name for file in files for name in layout.present(file))
    }
    groups = {name: of for name, of in groups.items() if of and (unlabeled or "labels" in of[0])}
    size = sum(int(np.prod(g["images"].shape)) * 4 for of in groups.values() for g in of)
    in_memory = cache == "memory" or (cache == "auto" and size <= memory_for_images(processes))
    splits = {}
    for name, of in groups.items():
        splits[name] = Split(of, in_memory, check)
        stack.callback(splits[name].close)
    classes = reading.classes(files[0])
    attributes = [reading.attributes(file) for file in files]
    return Data(
        paths,
        splits,
        classes,
        _digest(files),
        screen.view_of(attributes[0], files),
        Blocks.of(attributes),
        _processing(files[0]),
    )


def class_names(config: TrainConfig) -> list[str]:
    """The classes of the config's data; empty if they are not there yet."""
    path = data_files(config.data)[0]
    if not path.exists():
        return []
    with reading.open_data(path) as file:
        return reading.classes(file)


def number_of_images(config: TrainConfig, split: str) -> Optional[int]:
    """How many images of `split` the config's data files have; None if one is not there yet."""
    total = 0
    for path in data_files(config.data):
        if not path.exists():
            return None
        with reading.open_data(path) as file:
            total += len(file[split]["images"]) if split in file else 0
    return total


def memory_for_images(processes: int) -> float:
    """Bytes of images that each of so many processes of this machine may keep."""
    return MEMORY_SHARE * available_memory() / processes


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


def _check_file(path: Path, file: h5py.File, image: Optional[tuple[int, int]]) -> None:
    problems = layout.structure_problems(file)
    if problems:
        raise DataError(f"{path}: {problems[0]}; run `python -m prepare verify {path}`")
    shape = file[layout.present(file)[0]]["images"].shape[1:]
    if image is not None and shape != tuple(image):
        raise DataError(
            f"{path}: images are {shape[0]} x {shape[1]}, the config says {image[0]} x {image[1]}; "
            f"set input: {list(shape)}"
        )


def _check_set(paths: Sequence[Path], files: Sequence[h5py.File], needed: Sequence[str]) -> None:
    """Raise DataError for files of other classes or processing, a shot in two files, a missing split."""
    first = files[0]
    for path, file in zip(paths[1:], files[1:]):
        if reading.classes(file) != reading.classes(first):
            raise DataError(
                f"{path}: its classes are {', '.join(reading.classes(file))}, those of {paths[0]} are "
                f"{', '.join(reading.classes(first))}; files of one data set have the same, in the same order"
            )
        if _processing(file) != _processing(first):
            raise DataError(
                f"{path}: its images were made by another `image:` of the prepare config than those of "
                f"{paths[0]}; build both alike"
            )
    for split in needed if len(files) > 1 else ():
        if not any(split in file and file[split]["images"].shape[0] for file in files):
            raise DataError(f"{', '.join(map(str, paths))}: none has a split '{split}'")
    if len(files) > 1:
        _check_no_shot_twice(paths, [_shots(file) for file in files])


def _check_no_shot_twice(paths: Sequence[Path], keys: Sequence[np.ndarray]) -> None:
    """Raise DataError for a shot in two files; keys: of each file, (n,) of the fields of a shot's key."""
    together = np.concatenate(keys)
    order = np.argsort(uniform_hashes(together), kind="stable")  # 7 times as fast as the keys themselves
    again = np.flatnonzero(together[order[1:]] == together[order[:-1]])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        of_file = np.repeat(np.arange(len(keys)), [len(of) for of in keys])
        raise DataError(
            f"{paths[of_file[second]]}: the shot of {ShotId(*together[second].item())} is in "
            f"{paths[of_file[first]]}, too, and could be both in training and test; name files without "
            "common shots"
        )


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
    image = json.loads(reading.attributes(file)["config"]).get("image")
    return image and {key: value for key, value in image.items() if key not in ("dtype", "compression")}


def _shots(file: h5py.File) -> np.ndarray:
    """The keys of a file's shots, (n,) ID_DTYPE; simulated ones of no run (number 0) have none."""
    columns = [np.concatenate([file[s][name][...] for s in layout.present(file)]) for name in ID_FIELDS]
    shots = np.empty(len(columns[0]), ID_DTYPE)
    for name, column in zip(ID_FIELDS, columns):
        shots[name] = column
    return shots[shots["run"] > 0]


def _digest(files: Sequence[h5py.File]) -> str:
    """The digest of one file's content, or of several files' together, however they divide it."""
    return content_digest(*files) if len(files) > 1 else str(reading.attributes(files[0])["content_digest"])
