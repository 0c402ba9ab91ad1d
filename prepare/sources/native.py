"""The native LCLS-I source: XTC files in a folder, read by this project alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from common.progress import warn
from prepare.formats.files import files_by_run, files_of_run
from prepare.formats.xtc1.epics import read_calibration
from prepare.formats.xtc1.format import pixel_dtype
from prepare.formats.xtc1.index import RunIndex, index_run
from prepare.formats.xtc1.reader import XtcFile
from prepare.sources.base import FrameResult, Source


class XtcSource(Source):
    """Runs in the folder `directory`; frames of the camera `address`. Indexes a run when first asked.

    Memory: an index of about 250 bytes a shot for each run used, and one open file for each
    chunk that frames were read from.
    """

    def __init__(self, directory: str, address: str) -> None:
        self._directory = Path(directory)
        self._address = address
        self._indexes: dict[int, RunIndex] = {}
        self._open: dict[Path, XtcFile] = {}
        self._files = files_by_run(self._directory)

    def runs(self) -> tuple[int, ...]:
        """The runs that have files in the folder."""
        return tuple(sorted(self._files))

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE."""
        return self._index(run).shots

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        of_run = self._index(run)
        for index in indices:
            where = of_run.locations[index]
            rows, columns, dtype = int(where["rows"]), int(where["columns"]), pixel_dtype(int(where["depth"]))
            file = self._file(of_run.files[where["file"]])
            data = file.read(int(where["offset"]), rows * columns * dtype.itemsize)
            yield FrameResult(index, np.frombuffer(data, dtype).reshape(rows, columns))

    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        """Name and size of the files of `run`."""
        files = files_of_run(self._directory, self._files, run)
        return tuple((files[name].name, files[name].stat().st_size) for name in sorted(files))

    def calibration(self, run: int) -> dict[str, float]:
        return read_calibration(files_of_run(self._directory, self._files, run))

    def close(self) -> None:
        """Close the files that frames were read from."""
        with contextlib.ExitStack() as stack:
            for file in self._open.values():
                stack.callback(file.close)
            self._open = {}

    def _index(self, run: int) -> RunIndex:
        if run not in self._indexes:
            files = files_of_run(self._directory, self._files, run)
            self._indexes[run] = index_run(run, files, self._address)
            for line in self._indexes[run].warnings:
                warn(line)
        return self._indexes[run]

    def _file(self, path: Path) -> XtcFile:
        if path not in self._open:
            self._open[path] = XtcFile(path)
        return self._open[path]
