"""Small data of LCLS-I files, as the DAQ and psana's `smldata` write them (pdsdata: index/smldata.cc)."""

from __future__ import annotations

import struct
from pathlib import Path

from prepare.formats.files import small_data
from prepare.formats.xtc1.format import (
    CONFIGURE,
    DATAGRAM,
    DATAGRAM_SIZE,
    INCOMPLETE,
    L1_ACCEPT,
    TYPE_XTC,
    XTC,
    XTC_SIZE,
)
from prepare.formats.xtc1.reader import Datagram, XtcFile

CONFIG, ORIGINAL, PROXY = 89, 90, 91  # type ids: SmlDataConfig, SmlDataOrigDgramOffset, SmlDataProxy
EVR_DATA = 19
_THRESHOLD = 1024  # bytes from which on a contribution is left in the large file
_RECORDER = 4 << 24  # source level of what the small data add


def write_small_data(folder: Path) -> list[Path]:
    """Make the small data of all XTC files in `folder`; returns their paths."""
    made = []
    for path in sorted(folder.glob("*.xtc")):
        target = small_data(path)
        target.parent.mkdir(exist_ok=True)
        with XtcFile(path) as file:
            target.write_bytes(b"".join(_datagram(file, datagram) for datagram in file.datagrams()))
        made.append(target)
    return made


def _datagram(file: XtcFile, datagram: Datagram) -> bytes:
    raw = file.read(datagram.start, datagram.end - datagram.start)
    header, payload = list(DATAGRAM.unpack_from(raw)), raw[DATAGRAM_SIZE:]
    if datagram.transition == CONFIGURE:
        payload = _added(CONFIG, struct.pack("<I", _THRESHOLD)) + payload
    elif datagram.transition == L1_ACCEPT:
        if not payload or datagram.damage & INCOMPLETE:
            return b""
        original = struct.pack("<qI", datagram.start, header[9])
        payload = _added(ORIGINAL, original) + _children(payload, datagram.start + DATAGRAM_SIZE)
    header[9] = XTC_SIZE + len(payload)
    return DATAGRAM.pack(*header) + payload


def _added(type_id: int, payload: bytes) -> bytes:
    return XTC.pack(0, _RECORDER, 0, type_id | 1 << 16, XTC_SIZE + len(payload)) + payload


def _children(payload: bytes, place: int) -> bytes:
    """The Xtcs in `payload`, which lies at `place` in the large file; large ones become proxies."""
    children, at = [], 0
    while at < len(payload):
        damage, log, phy, kind, extent = XTC.unpack_from(payload, at)
        inside = payload[at + XTC_SIZE : at + extent]
        if kind & 0xFFFF == TYPE_XTC:
            inside = _children(inside, place + at + XTC_SIZE)
        elif extent >= _THRESHOLD and kind & 0xFFFF != EVR_DATA:
            inside = struct.pack("<qII", place + at, kind, extent)
            kind = PROXY | 1 << 16
        children.append(XTC.pack(damage, log, phy, kind, XTC_SIZE + len(inside)) + inside)
        at += extent
    return b"".join(children)
