"""Runs of a few shots, written datagram by datagram, for what the fixtures of tests/data do not have."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Sequence

import numpy as np

from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.formats.files import FileName
from prepare.formats.xtc1 import writer
from prepare.formats.xtc1.format import (
    BEGIN_CALIB_CYCLE,
    BEGIN_RUN,
    BLD_EBEAM,
    BLD_GAS_DETECTOR,
    CONFIGURE,
    ENABLE,
    L1_ACCEPT,
    LEVEL_BLD,
    LEVEL_SHIFT,
    TYPE_EBEAM,
    TYPE_GAS_DETECTOR,
)

CAMERA = 0x2E000300
RUN = 7
START = 1_435_000_000
EBEAM = tuple(float(n) + 0.25 for n in range(len(EBEAM_UNITS)))
GAS = tuple(float(n) + 0.5 for n in range(len(GAS_DETECTOR_UNITS)))


def frame(n: int, phy: int = CAMERA, damage: int = 0) -> bytes:
    """The camera's contribution to shot `n`: 4 x 6 pixels of value n."""
    return writer.frame(phy, np.full((4, 6), n, "<u2"), 12, 32, damage)


def placeholder(damage: int = 1 << 1, phy: int = CAMERA) -> bytes:
    """What the event builder writes for a contribution that did not come."""
    return writer.source(0, 0, phy, b"", damage)


def ebeam(version: int = 7, mask: int = 0, damage: int = 0, values: Sequence[float] = EBEAM) -> bytes:
    """An EBeam record: the mask, then as many values as are given, in a container of its own."""
    payload = struct.pack(f"<I{len(values)}d", mask, *values)
    return bld(TYPE_EBEAM, version, BLD_EBEAM, payload, damage)


def gas_detector(version: int = 1, values: Sequence[float] = GAS, damage: int = 0) -> bytes:
    """A FEEGasDetEnergy record of as many values as are given."""
    payload = struct.pack(f"<{len(values)}d", *values)
    return bld(TYPE_GAS_DETECTOR, version, BLD_GAS_DETECTOR, payload, damage)


def bld(type_id: int, version: int, phy: int, payload: bytes, damage: int = 0) -> bytes:
    """A beam-line record in its segment, as the DAQ writes it."""
    record = writer.xtc(type_id, version, LEVEL_BLD << LEVEL_SHIFT, phy, payload, damage)
    return writer.segment([record], damage)


def shot(n: int, *children: bytes, skew: int = 0, **header: int) -> bytes:
    """The L1Accept of shot `n`: 120 Hz, fiducials 3 apart; `skew` in seconds."""
    nanoseconds = n * 8_333_333
    time = START + skew + nanoseconds // 10**9, nanoseconds % 10**9
    fiducial = header.pop("fiducial", 1000 + 3 * n)
    return writer.datagram(time, fiducial, L1_ACCEPT, children, ticks=1, **header)


def write(folder: Path, streams: dict[int, list[bytes]], configure: Sequence[bytes] = ()) -> Path:
    """Write run RUN, the L1Accepts of each stream after what begins a run; gives the folder."""
    folder.mkdir(exist_ok=True)
    for stream, shots in streams.items():
        begin = {
            CONFIGURE: {"children": configure},
            BEGIN_RUN: {"env": RUN},
            BEGIN_CALIB_CYCLE: {},
            ENABLE: {},
        }
        data = b"".join(
            writer.datagram((START - 5 + i, 0), 0x1FFFF, transition, **has)
            for i, (transition, has) in enumerate(begin.items())
        )
        (folder / str(FileName("e815", RUN, stream, 0))).write_bytes(data + b"".join(shots))
    return folder


def keys(shots: np.ndarray) -> list[tuple[int, int, int]]:
    """(seconds, nanoseconds, fiducial) of each row."""
    return [tuple(key) for key in shots[["seconds", "nanoseconds", "fiducial"]].tolist()]
