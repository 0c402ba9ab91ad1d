"""Which files a run of LCLS-II consists of, and whether psana 2 survives them: looked at before it opens any.

A stream begins with chunk 0; an Enable in it, and in its small data, names the file that it goes on
in, whatever that is called, and psana follows these names alone. It takes every small-data file
of the run for a stream, and those that do not fit their data end its process.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.progress import warn
from prepare.formats import xtc2
from prepare.formats.files import (
    IN_PROGRESS,
    XTC2,
    FileName,
    files_by_run,
    files_of_run,
    is_growing,
    small_data,
)

_SMDWRITER = "make it again with psana's smdwriter"


class Stream(NamedTuple):
    """One stream of a run: its files, chunk by chunk, and what their headers tell."""

    paths: tuple[Path, ...]
    headers: tuple[xtc2.Headers, ...]

    @property
    def names(self) -> tuple[xtc2.Names, ...]:
        """What its Configure names."""
        return tuple(n for n in self.headers[0].names.values() if n.detector not in xtc2.NOT_DETECTORS)

    @property
    def detectors(self) -> set[str]:
        """The detectors in it."""
        return {names.detector for names in self.names}

    @property
    def times(self) -> np.ndarray:
        """(n,) uint64, the shots in it."""
        return np.concatenate([headers.times for headers in self.headers])

    @property
    def damage(self) -> np.ndarray:
        """(n,) uint16."""
        return np.concatenate([headers.damage for headers in self.headers])

    def states_of(self, camera: str) -> np.ndarray:
        """(n,) uint8: whether each shot has all parts in this stream of the camera's raw images."""
        state = np.full(len(self.times), xtc2.THERE, "u1")
        for number, names in self.headers[0].names.items():
            if names.detector == camera and names.algorithm == "raw":
                parts = np.concatenate([headers.parts[number] for headers in self.headers])
                state = np.where(state * parts == 0, xtc2.ABSENT, np.maximum(state, parts))
        return np.where(self.damage != 0, xtc2.BROKEN, state)


class RunFiles:
    """The runs in the folder `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = files_by_run(directory, XTC2)
        self._streams: dict[int, list[Stream]] = {}
        self._small: dict[int, bool] = {}
        self._later: Optional[set[Path]] = None

    def runs(self) -> tuple[int, ...]:
        """The runs that have files, but for files that are another run's later chunks."""
        lone = [run for run, files in self._files.items() if all(name.chunk for name in files)]
        taken = self._later_chunks() if lone else set()
        return tuple(
            run for run in sorted(self._files)
            if run not in lone or any(path not in taken for path in self._files[run].values())
        )  # fmt: skip

    def streams(self, run: int) -> list[Stream]:
        """The streams of `run`, in order; raises DataError for files that psana would not read whole."""
        if run not in self._streams:
            files = self._files.get(run, {})
            first = {name: path for name, path in files.items() if not name.chunk} or files
            by_run = {**{there: {} for there in self.runs()}, run: first} if first else self._files
            files_of_run(self._directory, by_run, run, XTC2)
            streams = [self._stream(run, name, first[name]) for name in sorted(first)]
            used = {path for stream in streams for path in stream.paths}
            for name in sorted(set(files) - set(first)):
                if files[name] not in used and files[name] not in self._later_chunks():
                    raise DataError(
                        f"{files[name]}: no chunk of stream {name.stream} names it as its next one, so that "
                        "psana 2 does not read it; copy the files before it again"
                    )
            self._streams[run] = streams
        return self._streams[run]

    def has_small_data(self, run: int) -> bool:
        """Whether all streams of `run` have small-data files; raises DataError for one that does not fit."""
        if run not in self._small:
            files = [(_small_data(stream.paths[0]), stream) for stream in self.streams(run)]
            self._refuse_others(run, [path for path, _ in files])
            missing = [path for path, _ in files if not (path.exists() or path.is_symlink())]
            if missing:
                warn(
                    f"run {run}: {missing[0]} is not there, so that psana 2 reads all frames up to the last "
                    "one wanted: slower; psana's smdwriter makes small-data files"
                )
            else:
                for path, stream in files:
                    _check_small_data(path, stream)
            self._small[run] = not missing
        return self._small[run]

    def used(self, run: int) -> list[Path]:
        """All files that decide what `run` is: its data and their small data; raises as they do."""
        self.has_small_data(run)
        data = [path for stream in self.streams(run) for path in stream.paths]
        return [*data, *(path for path in map(_small_data, data) if path.is_file())]

    def _stream(self, run: int, name: FileName, first: Path) -> Stream:
        if name.chunk:
            raise DataError(
                f"{first}: run {run}: the first chunk of stream {name.stream} is not there, and psana 2 "
                "reads none without it; copy the files again"
            )
        paths, headers = zip(*_chain(first))
        after = headers[-1].goes_on_in
        if after:
            what = (
                "came before it; copy it again"
                if first.parent / after in paths
                else "is not there; copy it, or wait"
            )
            raise DataError(f"{paths[-1]}: goes on in {after}, which {what}")
        return Stream(paths, headers)

    def _later_chunks(self) -> set[Path]:
        """All files that are not a stream's first chunk, as far as first chunks can be read."""
        if self._later is None:
            self._later = set()
            for files in self._files.values():
                for first in (path for name, path in files.items() if not name.chunk):
                    with contextlib.suppress(DataError, OSError):  # named when their run is used
                        self._later |= {path for path, _ in _chain(first, say=False)} - {first}
        return self._later

    def _refuse_others(self, run: int, expected: list[Path]) -> None:
        """psana takes any small-data file of the run's number for a stream of it."""
        folder = self._directory / "smalldata"
        found = sorted(folder.glob(f"*r{run:04d}-s*.smd.xtc2*")) if folder.is_dir() else []
        for path in found:
            if path not in expected:
                raise DataError(
                    f"{path}: belongs to no first chunk of run {run} in {self._directory}, and psana 2 would "
                    "take it for one; copy its data file, or move it away"
                )


def refuse_cut_off(streams: Iterable[Stream]) -> None:
    """Raise DataError for the first of these files, which have the fiducials, that is cut off.

    Without its fiducial a shot has not its key: no half a run, as for a camera's stream.
    """
    for path, headers in ((p, h) for stream in streams for p, h in zip(stream.paths, stream.headers)):
        if headers.end < headers.size:
            raise DataError(
                f"{path}: offset {headers.end}: the file with the fiducials and records is cut off or "
                "still being written; copy it again, or wait"
            )


def _small_data(path: Path) -> Path:
    """The small data of a data file, under the name that they have while they are written if need be."""
    done = small_data(path)
    growing = done.with_name(done.name + IN_PROGRESS)
    return growing if growing.exists() and not done.exists() else done


def _chain(first: Path, say: bool = True) -> Iterator[tuple[Path, xtc2.Headers]]:
    """The chunks of a stream and their headers, as far as they are there; `say`: warn of those cut off."""
    path, seen, names = first, [], None
    while path not in seen and (path == first or path.exists() or path.is_symlink()):
        headers = xtc2.read_headers(path, names)
        if headers.end < headers.size and say:
            what = "is still being written" if is_growing(path) else "is cut off"
            warn(f"{path}: offset {headers.end}: the last datagram {what}; its stream ends here")
        yield path, headers
        seen.append(path)
        names = headers.names
        if headers.goes_on_in is None:
            return
        path = first.parent / headers.goes_on_in


def _check_small_data(path: Path, stream: Stream) -> None:
    """psana leaves out what its small data do not have, and some of that it does not survive."""
    ((_, headers),) = itertools.islice(_chain(path), 1)
    small, data = headers.times, stream.times
    both = min(len(small), len(data))
    growing = is_growing(stream.paths[-1])
    if not np.array_equal(small[:both], data[:both]) or (len(small) < len(data) and not growing):
        raise DataError(
            f"{path}: has not the {len(data)} shots of {stream.paths[0].name}, but {len(small)}: is it "
            f"cut off, or another run's? {_SMDWRITER}"
        )
    if headers.goes_on_in != stream.headers[0].goes_on_in:
        raise DataError(
            f"{path}: goes on in {headers.goes_on_in or 'no file'}, {stream.paths[0].name} in "
            f"{stream.headers[0].goes_on_in or 'no file'}: is it another run's? {_SMDWRITER}"
        )
