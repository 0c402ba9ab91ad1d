"""The interface of sources, which list the shots of runs and read their frames."""

from __future__ import annotations

import abc
from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np

from common.errors import DataError
from prepare.shots import REASONS, USABLE


class FrameResult(NamedTuple):
    """What was received for shot `index` of a run: its raw frame, or None and why there is none."""

    index: int
    frame: Optional[np.ndarray]  # (rows, columns) uint8 or uint16, read-only, copy it to keep it
    reason: str = ""


class Source(abc.ABC):
    """Reads a camera: lists the shots of a run, reads the frames of some of them.

    A context manager, which closes its files at the end. shape: (rows, columns) that every frame
    must have, or None for any.
    """

    shape: Optional[tuple[int, int]] = None

    @abc.abstractmethod
    def runs(self) -> tuple[int, ...]:
        """The runs that are there, in order."""

    @abc.abstractmethod
    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE; raises DataError if it is not there."""

    @abc.abstractmethod
    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        """Name and size in bytes of the files that `run` is read from."""

    def epoch(self) -> str:
        """The day from which the seconds of shots count."""
        return "1970-01-01"

    def calibration(self, run: int) -> dict[str, float]:
        """{name in common.shots.CALIBRATION_UNITS: value} at the first shots of `run`, if they are there."""
        return {}

    @abc.abstractmethod
    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        """What `frames` gives, of any shape, for `indices` of shots that are USABLE."""

    def frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        """What there is for each of `indices` (ascending, each once) into `shots(run)`, in that order.

        Exactly one for each. Raises DataError where a source ends early or gives other shots than
        it was asked for, and for a frame that is not of `shape`.
        """
        status = self.shots(run)["status"]
        results = self._frames(run, [index for index in indices if status[index] == USABLE])
        for index in indices:
            if status[index] != USABLE:
                yield FrameResult(index, None, REASONS[int(status[index])])
                continue
            result = next(results)
            if result.frame is not None and self.shape is not None:
                check_shape(run, result.frame.shape, self.shape)
            yield result
        for _ in results:  # what comes after the last one is an error
            pass

    def good_frames(self, run: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames of `indices`, all of which must be there; raises DataError for one that is missing."""
        for result in self.frames(run, indices):
            if result.frame is None:
                raise DataError(f"run {run}: shot {result.index} has no frame to read: {result.reason}")
            yield result.frame

    def frame(self, run: int, index: int) -> np.ndarray:
        """The frame of one shot, which must be there; raises DataError if it is not."""
        (frame,) = self.good_frames(run, [index])
        return frame

    def close(self) -> None:
        """Release files; nothing where none is kept open."""
        return

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_shape(run: int, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    """Raise DataError if the frames of `run` have not the shape that the config says."""
    if shape != expected:
        raise DataError(
            f"run {run}: frames are {pixels(shape)} pixels, camera.shape in the config is "
            f"{pixels(expected)}; set camera.shape: {list(shape)}"
        )


def pixels(shape: tuple[int, ...]) -> str:
    """A shape in words, 726 x 568."""
    return " x ".join(map(str, shape))
