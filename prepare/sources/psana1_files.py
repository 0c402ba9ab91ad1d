"""What psana 1 would read of a run, looked at before psana opens it.

psana ends the process, or the run, where a file is not what it expects, and says little of small
data that are shorter than the files they describe. Small data (`smalldata/NAME.smd.xtc`) are XTC
files: each L1Accept of the large file, with whatever is larger than a kB replaced by its place, and
first in it where that L1Accept lies in the large file (pdsdata: SmlData::OrigDgramOffsetV1); all
other transitions are copied. So the small data tell how long the large file has to be.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.shots import nanoseconds
from prepare.formats.files import Files, check_readable, is_growing, missing_chunks, parse_name, small_data
from prepare.formats.xtc1.format import (
    DATAGRAM_SIZE,
    EXTENT_OFFSET,
    FIRST_RECORDER_STREAM,
    L1_ACCEPT,
    XTC,
    XTC_SIZE,
)
from prepare.formats.xtc1.join import by_fiducial, sharing
from prepare.formats.xtc1.reader import Datagram, XtcFile

ADVICE = "`kind: xtc` reads the run without psana and without small data"
_TYPE_ORIGINAL = 90  # SmlDataOrigDgramOffset
_ORIGINAL = struct.Struct("<qI")  # offset of the datagram in the large file, extent of its outermost Xtc
_EVENT = np.dtype([("fiducial", "<u4"), ("seconds", "<u4"), ("nanoseconds", "<u4")])
_SAME = 20  # first bytes of a datagram, which are the same in the large file: clock, fiducial, env


class RunFiles(NamedTuple):
    """The files of one run that psana reads, those of the small data last.

    cut: {name of a large file: offset of its first datagram that is not whole}; unclear: fiducial and
    time of events of recorders whose shot cannot be told (`join.sharing`); warnings: a line each.
    """

    paths: tuple[Path, ...]
    cut: dict[str, int]
    unclear: np.ndarray
    warnings: list[str]


def look(run: int, files: Files) -> RunFiles:
    """What psana finds for `run`, whose large files are `files`.

    Raises DataError for what psana would not survive, or pass over without a word.
    """
    large = [files[name] for name in sorted(files)]
    for path in large:
        if is_growing(path):
            raise DataError(f"{path}: is still being written, and psana 1 reads finished runs; {ADVICE}")
    pairs = [(path, small_data(path)) for path in large]
    folder = pairs[0][1].parent
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; psana 1 reads a run by its small data; {ADVICE}")
    _refuse_missing(run, folder, pairs)
    run_files = RunFiles(
        (*large, *(small for _, small in pairs)), {}, np.zeros(0, _EVENT), missing_chunks(run, sorted(files))
    )
    recorders: dict[int, list[tuple]] = {}
    for path, small in pairs:
        stream = parse_name(path.name).stream
        events = recorders.setdefault(stream, []) if stream >= FIRST_RECORDER_STREAM else []
        _compare(path, small, run_files, events)
    tables = [np.array(events, _EVENT) for events in recorders.values()]
    for stream, events in zip(recorders, tables):
        _refuse_repeats(run, stream, events)
    unclear = [events[sharing(events)] for events in map(by_fiducial, tables)]
    return run_files._replace(unclear=by_fiducial(np.concatenate([run_files.unclear, *unclear])))


def _refuse_repeats(run: int, stream: int, events: np.ndarray) -> None:
    """Raise DataError for two events of one time in a stream out of order: psana 1 drops others then."""
    time = nanoseconds(events)
    again = len(time) - len(np.unique(time))
    if again and (np.diff(time) < 0).any():
        raise DataError(
            f"run {run}: stream {stream} is not in order of time and has {again} events twice, where psana 1 "
            f"leaves out others; copy the run again, or {ADVICE}"
        )


def _refuse_missing(run: int, folder: Path, pairs: list[tuple[Path, Path]]) -> None:
    there = {path.name for path in folder.iterdir()}
    for path, small in pairs:
        if f"{small.name}.inprogress" in there:
            raise DataError(
                f"{small}.inprogress: is still being written; wait until the run is over, or {ADVICE}"
            )
        if small.name not in there:
            raise DataError(
                f"{small}: is not there: psana 1 would leave out the shots of {path.name}; {ADVICE}"
            )
    check_readable(small for _, small in pairs)
    expected = {small.name for _, small in pairs}
    for name in sorted(there - expected):
        parsed = parse_name(name.replace(".smd.xtc", ".xtc"))
        if parsed is not None and parsed.run == run:
            gone = folder.parent / name.replace(".smd.xtc", ".xtc")
            raise DataError(
                f"{gone}: is not there, but its small data are; restore it, or remove {folder / name}"
            )


def _compare(path: Path, small: Path, run_files: RunFiles, events: list[tuple]) -> None:
    """Compare the large file at `path` with its small data, and note in `run_files` if it is cut off.

    Its events are added to `events`.

    Raises DataError where the small data are cut off, of another file, or shorter than the large one.
    """
    with XtcFile(path) as file, XtcFile(small) as smd:
        file.check_begins()
        known: list[tuple[Datagram, int]] = []  # the first datagram, the last whole L1Accept; their places
        beyond: list[int] = []  # places of the L1Accepts that do not end in the file
        end = 0
        for datagram in smd.datagrams():
            end = datagram.end
            is_shot = datagram.transition == L1_ACCEPT
            start, stop = _original(smd, datagram) if is_shot else (0, 0)
            if is_shot:
                events.append((datagram.fiducial, datagram.seconds, datagram.nanoseconds))
            if stop > file.size:
                beyond.append(start)
            elif is_shot or not known:
                known[1:] = [(datagram, start)]
        if end < smd.size or not end:
            raise DataError(f"{small}: is cut off at byte {smd.size}; copy it again, or {ADVICE}")
        for datagram, start in known:
            theirs = file.read(start, min(_SAME, file.size - start))
            if not smd.read(datagram.start, _SAME).startswith(theirs):
                raise DataError(f"{small}: is not the small data of {path.name}; copy it again, or {ADVICE}")
        if beyond:
            run_files.cut[path.name] = beyond[0]
            run_files.warnings.append(
                f"{path}: is cut off at byte {file.size}: its last {len(beyond)} shots have no frame; copy "
                "it again"
            )
            return
        end = _end(file, known[-1][1])
        if end is None:
            raise DataError(
                f"{small}: has not all shots of {path.name}: it was copied in part, or is still being "
                f"written; copy it again, or {ADVICE}"
            )
        if end < file.size:
            run_files.warnings.append(
                f"{path}: offset {end}: the last datagram is cut off; its stream ends here"
            )


def _original(smd: XtcFile, datagram: Datagram) -> tuple[int, int]:
    """Where an L1Accept of the small data begins and ends in the large file."""
    at = datagram.start + DATAGRAM_SIZE
    if datagram.end - at >= XTC_SIZE + _ORIGINAL.size:
        type_word = XTC.unpack(smd.read(at, XTC_SIZE))[3]
        if type_word & 0xFFFF == _TYPE_ORIGINAL:
            start, extent = _ORIGINAL.unpack(smd.read(at + XTC_SIZE, _ORIGINAL.size))
            return start, start + EXTENT_OFFSET + extent
    raise smd.error(datagram.start, f"the small data do not say where this shot lies; {ADVICE}")


def _end(file: XtcFile, start: int) -> Optional[int]:
    """Where the last whole datagram of `file` ends; None if there are shots after the one at `start`.

    Empty and damaged ones do not count: they have no small data.
    """
    end = start
    for datagram in file.datagrams(start):
        end = datagram.end
        empty = datagram.end - datagram.start == DATAGRAM_SIZE
        if datagram.transition == L1_ACCEPT and datagram.start > start and not (empty or datagram.damage):
            return None
    return end
