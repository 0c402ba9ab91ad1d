"""The index of one run: which shots there are, and where in which file each frame lies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from common.errors import DataError
from prepare.formats.files import FileName, Files, missing_chunks
from prepare.formats.xtc1.addresses import source_phy
from prepare.formats.xtc1.format import ALIAS, CONFIGURE, FIRST_RECORDER_STREAM, TYPE_ALIAS
from prepare.formats.xtc1.join import join
from prepare.formats.xtc1.reader import XtcFile
from prepare.formats.xtc1.walk import EVENT_DTYPE, Walk
from prepare.shots import DAMAGED, NO_FRAME


class RunIndex(NamedTuple):
    """The shots of a run and where their frames are.

    shots: (n,) SHOT_DTYPE in order of time; locations: (n,) LOCATION_DTYPE, `file` indexes
    `files` and is -1 where there is no frame; warnings: one line each.
    """

    shots: np.ndarray
    locations: np.ndarray
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def index_run(run: int, files: Files, address: str) -> RunIndex:
    """Walk all streams and chunks of a run and join what belongs to one shot.

    `address` names the camera: an LCLS address, an alias of the run, or a hexadecimal phy.
    Memory is about 2 kB a shot while joining, 250 bytes after. Raises DataError for a camera
    that is not in the run and, with file and offset, for frames that cannot be read by anyone.
    """
    names = sorted(files)
    paths = tuple(files[name] for name in names)
    warnings = missing_chunks(run, names)
    for path in paths:
        with XtcFile(path) as file:
            file.check_begins()
    phy = _camera_phy(run, names, paths, address)
    tables: list[np.ndarray] = []
    with_frames = set()
    for number, (name, path) in enumerate(zip(names, paths)):
        with XtcFile(path) as file:
            walk = Walk(file, number, phy, name.stream, name.stream >= FIRST_RECORDER_STREAM)
            tables += walk.events()
            warnings += walk.warnings
            if walk.has_frames:
                with_frames.add(name.stream)
    events = np.concatenate([np.zeros(0, EVENT_DTYPE), *tables])
    if not (events["file"] >= 0).any():
        warnings.append(f"run {run}: not one frame of camera {address}")
    _mark_incomplete(events, with_frames)
    shots, locations, more = join(run, events)
    return RunIndex(shots, locations, paths, (*warnings, *more))


def _mark_incomplete(events: np.ndarray, with_frames: set[int]) -> None:
    """A shot whose frame may be in a part that did not arrive is damaged, not one without a frame.

    It may where the camera writes: in a recorder's stream of its own, or in the DAQ's streams,
    which take turns.
    """
    daq = any(stream < FIRST_RECORDER_STREAM for stream in with_frames)
    there = np.isin(events["stream"], sorted(with_frames))
    there |= daq & (events["stream"] < FIRST_RECORDER_STREAM)
    events["status"][there & events["incomplete"] & (events["status"] == NO_FRAME)] = DAMAGED


def _camera_phy(run: int, names: Sequence[FileName], paths: Sequence[Path], address: str) -> int:
    """The phy of the camera, by its address or by the aliases in the run's Configure datagrams."""
    phy = source_phy(address)
    if phy is not None:
        return phy
    known: dict[str, int] = {}
    for name, path in zip(names, paths):
        if name.chunk == 0:
            with XtcFile(path) as file:
                known.update(aliases(file))
    if address not in known:
        there = ", ".join(sorted(known)) or "none"
        raise DataError(f"run {run}: no camera '{address}'; the aliases of this run are: {there}")
    return known[address]


def aliases(file: XtcFile) -> dict[str, int]:
    """{alias: phy} from a stream's Configure, its first datagram."""
    found: dict[str, int] = {}
    first = next(file.datagrams(), None)
    if first is None or first.transition != CONFIGURE:
        return found
    for child in file.contributions(first):
        if child.type_id == TYPE_ALIAS and child.end - child.start >= 4:
            payload = file.read(child.start, child.end - child.start)
            count = min(int.from_bytes(payload[:4], "little"), (len(payload) - 4) // ALIAS.size)
            for _, phy, name in ALIAS.iter_unpack(payload[4 : 4 + count * ALIAS.size]):
                found[name.split(b"\0")[0].decode("ascii", "replace")] = phy
    return found
