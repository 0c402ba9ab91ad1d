"""Which cameras write into the files of a run, in both formats: from the beginning of each stream."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from common.errors import DataError
from prepare.formats import xtc2
from prepare.formats.files import XTC, Files, check_readable
from prepare.formats.xtc1.addresses import address_of
from prepare.formats.xtc1.format import FRAME_HEADER, L1_ACCEPT, LEVEL_SHIFT, LEVEL_SOURCE, TYPE_FRAME
from prepare.formats.xtc1.index import aliases
from prepare.formats.xtc1.reader import XtcFile

_LOOKED_AT = 240  # L1Accepts at the beginning of each stream: 2 s of 120 Hz


class Camera(NamedTuple):
    """A camera of a run: its address (LCLS-II: its name), alias or "", shape (rows, columns), and streams."""

    address: str
    alias: str
    shape: tuple[int, int]
    streams: tuple[int, ...]


class Beginning(NamedTuple):
    """When a run began, Unix seconds (LCLS-II: psana's), and its cameras; those with an alias first."""

    seconds: int
    cameras: list[Camera]


def beginning(files: Files) -> Beginning:
    """The beginning of a run with these files; raises DataError for files that cannot be read."""
    first = {name: path for name, path in sorted(files.items()) if name.chunk == 0}
    check_readable(first.values())
    if not first:
        raise DataError(f"{min(files.values())}: the first chunk of its run is not there; copy it again")
    lcls1 = any(name.form == XTC for name in first)
    found = _lcls1(first) if lcls1 else _lcls2(first)
    return Beginning(found.seconds, sorted(found.cameras, key=lambda c: (c.alias == "", c.address)))


def _lcls1(first: Files) -> Beginning:
    names: dict[int, str] = {}
    shapes: dict[int, tuple[int, int]] = {}
    streams: dict[int, set[int]] = {}
    seconds = []
    for name, path in first.items():
        with XtcFile(path) as file:
            names.update({phy: alias for alias, phy in aliases(file).items()})
            events = (d for d in file.datagrams() if d.transition == L1_ACCEPT)
            for datagram in itertools.islice(events, _LOOKED_AT):
                seconds.append(datagram.seconds)
                for child in file.contributions(datagram):
                    if (child.log >> LEVEL_SHIFT, child.type_id) == (
                        LEVEL_SOURCE,
                        TYPE_FRAME,
                    ) and not child.damage:
                        columns, rows, _, _ = FRAME_HEADER.unpack(file.read(child.start, FRAME_HEADER.size))
                        shapes.setdefault(child.phy, (rows, columns))
                        streams.setdefault(child.phy, set()).add(name.stream)
    cameras = [
        Camera(address_of(phy), names.get(phy, ""), shapes[phy], tuple(sorted(streams[phy])))
        for phy in shapes
    ]
    return Beginning(min(seconds, default=0), cameras)


def _lcls2(first: Files) -> Beginning:
    shapes: dict[str, list[tuple[int, int]]] = {}
    streams: dict[str, set[int]] = {}
    seconds = []
    for name, path in first.items():
        look = xtc2.first_images(path)
        seconds += [look.time >> 32] if look.time is not None else []
        for detector, shape in look.images:
            shapes.setdefault(detector, []).append(shape)
            streams.setdefault(detector, set()).add(name.stream)
    # The panels of a camera are put below each other.
    cameras = [
        Camera(detector, "", (sum(rows for rows, _ in of), of[0][1]), tuple(sorted(streams[detector])))
        for detector, of in shapes.items()
    ]
    return Beginning(min(seconds, default=0), cameras)
