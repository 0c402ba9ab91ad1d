"""Where shots come from. Everything above a source is the same code for all of them."""

from __future__ import annotations

from typing import Protocol, Tuple

import numpy as np

from common.errors import DataError
from prepare.config import PrepareConfig
from prepare.sources.xtc import XtcSource


class Source(Protocol):
    """What reads a camera: lists the shots of a run, reads the frame of one shot."""

    def runs(self) -> Tuple[int, ...]:
        """The runs that are there, in order."""

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE; raises DataError if it is not there."""

    def frame(self, run: int, index: int) -> np.ndarray:
        """The raw frame of shot `index` of `shots(run)`: (rows, columns) uint8 or uint16, read-only.

        Raises DataError if the shot has no usable frame.
        """

    def files(self, run: int) -> Tuple[Tuple[str, int], ...]:
        """Name and size in bytes of the files that `run` is read from."""

    def close(self) -> None:
        """Release files."""


def open_source(config: PrepareConfig) -> Source:
    """The source that `config.source` names."""
    return XtcSource(config.source.dir, config.camera.address)


def read_frame(source: Source, config: PrepareConfig, run: int, index: int) -> np.ndarray:
    """`source.frame`, checked against the camera's shape in the config; raises DataError."""
    frame = source.frame(run, index)
    if frame.shape != config.camera.shape:
        shown = " x ".join(map(str, frame.shape))
        raise DataError(
            f"run {run}: frames are {shown} pixels, camera.shape in the config is "
            f"{' x '.join(map(str, config.camera.shape))}; set camera.shape: {list(frame.shape)}"
        )
    return frame
