"""Where shots come from. Everything above a source is the same code for all of them."""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional, Protocol, Sequence, Tuple

import numpy as np

from common.errors import DataError
from prepare.config import PrepareConfig


class Taken(NamedTuple):
    """What came for shot `index` of a run: its raw frame, or None and the reason why there is none."""

    index: int
    frame: Optional[np.ndarray]  # (rows, columns) uint8 or uint16, read-only, copy it to keep it
    lost: str = ""


class Source(Protocol):
    """What reads a camera: lists the shots of a run, reads the frames of some of them."""

    def runs(self) -> Tuple[int, ...]:
        """The runs that are there, in order."""

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE; raises DataError if it is not there."""

    def frames(self, run: int, indices: Sequence[int]) -> Iterator[Taken]:
        """What there is for each of `indices` (ascending, each once) into `shots(run)`, in that order.

        Exactly one for each: a source that ends early or gives other shots than it was asked for
        raises DataError.
        """

    def files(self, run: int) -> Tuple[Tuple[str, int], ...]:
        """Name and size in bytes of the files that `run` is read from."""

    def close(self) -> None:
        """Release files."""


def open_source(config: PrepareConfig) -> Source:
    """The source that `config.source` names; raises DataError if it is not to be had here."""
    if config.source.kind == "xtc":
        from prepare.sources.native import XtcSource

        return XtcSource(config.source.dir, config.camera.address)
    from prepare.sources.psana import open_psana

    return open_psana(config)


def take(source: Source, config: PrepareConfig, run: int, indices: Sequence[int]) -> Iterator[Taken]:
    """`source.frames`, each frame checked against the camera's shape in the config; raises DataError."""
    for taken in source.frames(run, indices):
        if taken.frame is not None and taken.frame.shape != config.camera.shape:
            shown = " x ".join(map(str, taken.frame.shape))
            raise DataError(
                f"run {run}: frames are {shown} pixels, camera.shape in the config is "
                f"{' x '.join(map(str, config.camera.shape))}; set camera.shape: {list(taken.frame.shape)}"
            )
        yield taken


def take_all(source: Source, config: PrepareConfig, run: int, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames of `indices`, all of which must be there; raises DataError for one that is lost."""
    for taken in take(source, config, run, indices):
        if taken.frame is None:
            raise DataError(f"run {run}: shot {taken.index} has no frame to read: {taken.lost}")
        yield taken.frame
