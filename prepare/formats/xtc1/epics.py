"""EPICS values in LCLS-I XTC: those of the XTCAV screen, as they are at a run's first shot.

A stream's Configure has each process variable by name and number, with its value; the shots have values by
number alone (psddl: epics.ddl, EpicsPvCtrlHeader, EpicsPvTimeHeader). Arrays are not read.
"""

from __future__ import annotations

import struct
from typing import Iterator, Optional

from prepare.formats import calibration
from prepare.formats.files import Files
from prepare.formats.xtc1.format import CONFIGURE, L1_ACCEPT, TYPE_EPICS
from prepare.formats.xtc1.reader import Datagram, XtcFile

_HEADER = struct.Struct("<hhh")  # number, type of the structure, elements
_NAME = slice(_HEADER.size, _HEADER.size + 64)
# Types of the structure, with the place of the value and its format: with names and limits, with a time.
_CTRL = {30: (120, "<f"), 33: (116, "<i"), 34: (152, "<d")}
_TIME = {16: (20, "<f"), 19: (20, "<i"), 20: (24, "<d")}
_SHOTS = 240  # looked at for values; a camera recorder has them in each, the DAQ about once a second


def read_calibration(files: Files) -> dict[str, float]:
    """The calibration of the XTCAV screen in these files of a run, without what they lack."""
    values: dict[str, float] = {}
    for name in sorted(name for name in files if name.chunk == 0):
        with XtcFile(files[name]) as file:
            values = {**_of_stream(file), **values}
    return calibration.by_name(values)


def _of_stream(file: XtcFile) -> dict[str, float]:
    """{process variable: value} of those wanted in one stream."""
    names: dict[int, str] = {}
    values: dict[str, float] = {}
    shots = 0
    for datagram in file.datagrams():
        if datagram.transition == CONFIGURE:
            for number, name, value in _records(file, datagram, _CTRL):
                if name in calibration.WANTED:
                    names[number], values[name] = name, value
        if not names or shots == _SHOTS:
            break
        if datagram.transition == L1_ACCEPT:
            shots += 1
            found = {n: value for n, _, value in _records(file, datagram, _TIME) if n in names}
            if found:
                return {**values, **{names[n]: value for n, value in found.items()}}
    return values


def _records(
    file: XtcFile, datagram: Datagram, layout: dict[int, tuple[int, str]]
) -> Iterator[tuple[int, str, float]]:
    """Number, name (where it has one) and value of the EPICS records in a datagram."""
    for child in file.contributions(datagram):
        if child.type_id == TYPE_EPICS and not child.damage and child.end - child.start >= _HEADER.size:
            data = file.read(child.start, min(child.end - child.start, 512))
            number, kind, elements = _HEADER.unpack_from(data)
            place: Optional[tuple[int, str]] = layout.get(kind)
            if place is not None and elements == 1 and len(data) >= place[0] + struct.calcsize(place[1]):
                name = data[_NAME].split(b"\0")[0].decode("ascii", "replace")
                yield number, name, float(struct.unpack_from(place[1], data, place[0])[0])
