"""Frames into part files: this thread reads and bins, another one makes the image and writes it.

Binning is done where the frame is read, because a frame is valid only until the next one is
asked for; what goes to the other thread is a quarter of its size. numpy and zlib leave Python's
lock, so that the two run at the same time.
"""

from __future__ import annotations

import itertools
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Deque, NamedTuple, Optional, Sequence

import numpy as np

from common.dataset import schema
from common.errors import DataError
from common.shots import ID_FIELDS, ShotId
from prepare.build import parts
from prepare.config import PrepareConfig
from prepare.image.pipeline import Pipeline
from prepare.sources import Source

_AHEAD = 8  # binned frames that wait for the other thread, 0.4 MB each


class Place(NamedTuple):
    """Where a manifest row's shot is in the source and where its image goes in the file."""

    run: int
    index: int
    split: str
    row: int
    shot: ShotId


class Task(NamedTuple):
    """What one process extracts: `places` in the order of reading, into the part file `path` and `slots`."""

    places: Sequence[Place]
    dark_mean: np.ndarray
    path: Path
    identity: bytes
    losses_allowed: int
    slots: Optional[parts.Slots] = None


def extract(source: Source, config: PrepareConfig, task: Task, report: Callable[[int], object]) -> None:
    """Write an image, or the reason why there is none, for every place of `task` to its part file.

    `report` is called with the number of places done since the last call. Raises DataError when
    more than `losses_allowed` shots have no image. Memory: a few images, whatever their number.
    """
    storage = (config.image_shape, config.image.dtype, config.image.compression)
    into = (task.path, task.identity, task.slots)
    pipeline = Pipeline(config.image, task.dark_mean)
    lost = 0
    waiting: Deque[Future] = Deque()
    with schema.Encoder(*storage) as encode, parts.Writer(*into) as writer:

        def store(place: Place, binned: np.ndarray) -> None:
            picture = pipeline.finish(binned)
            crc = schema.image_checksum(picture)
            payload = encode(picture)
            payload_crc = crc if config.image.compression == "none" else zlib.crc32(payload)
            writer.image(place.split, place.row, place.shot, crc, payload, payload_crc)

        with ThreadPoolExecutor(1) as other:
            for run, of_run in itertools.groupby(task.places, key=lambda place: place.run):
                places = list(of_run)
                _check_keys(source, run, places)
                for place, result in zip(places, source.frames(run, [p.index for p in places])):
                    if result.frame is None:
                        lost += 1
                        check_losses(lost, task.losses_allowed, f"{place.shot}: {result.reason}")
                        waiting.append(
                            other.submit(writer.loss, place.split, place.row, place.shot, result.reason)
                        )
                    else:
                        binned = pipeline.bin(result.frame)
                        waiting.append(other.submit(store, place, binned))
                    while len(waiting) > _AHEAD:
                        waiting.popleft().result()
                        report(1)
            while waiting:
                waiting.popleft().result()
                report(1)


def check_losses(lost: int, allowed: int, example: str) -> None:
    """Raise DataError if more shots are lost than the config's max_missing allows."""
    if lost > allowed:
        raise DataError(
            f"{lost} of the shots asked for have no image, {allowed} may be missing (max_missing), e.g. "
            f"{example}; look at the runs with `python -m prepare list`, or allow more"
        )


def _check_keys(source: Source, run: int, places: Sequence[Place]) -> None:
    """Raise DataError if this process finds other shots at these places than the one that located them."""
    keys = source.shots(run)[list(ID_FIELDS)]
    for place in places:
        if place.index >= len(keys) or keys[place.index].item() != tuple(place.shot):
            raise DataError(f"run {run}: changed while it was read: {place.shot} is no longer at its place")
