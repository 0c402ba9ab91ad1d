"""LCLS-I XTC on disk: structs, numbers and names. Little endian, 4-byte aligned.

A file is a plain concatenation of datagrams, each a 40-byte header and a payload: no file
header, no trailer, no index. After the LCLS-I data definitions (pdsdata: Dgram, Xtc, TypeId,
DetInfo, BldInfo, Camera::FrameV1, Opal1k::ConfigV1, Bld::BldDataEBeamV7,
Bld::BldDataFEEGasDetEnergyV1, Alias::ConfigV1).
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple, Optional

import numpy as np

# Datagram: nanoseconds, seconds, ticks/transition, fiducial/vector, env; then its outermost Xtc.
# Xtc: damage, source log, source phy, type, extent (its own 20 bytes included).
XTC = struct.Struct("<5I")
DATAGRAM = struct.Struct("<10I")
XTC_SIZE = XTC.size  # 20
DATAGRAM_SIZE = DATAGRAM.size  # 40
EXTENT_OFFSET = 20  # a datagram ends at its start + EXTENT_OFFSET + extent of its outermost Xtc

TICKS_MASK = 0xFFFFFF  # of word 2; 119 MHz
TRANSITION_SHIFT, TRANSITION_MASK = 24, 0xF
FIDUCIAL_MASK = 0x1FFFF  # of word 3; the vector is above it
VECTOR_SHIFT = 17
FIDUCIAL_ERROR = 0x1FFFF
FIDUCIALS = 131_040  # 360 Hz pulse ids run 0..131,039 and wrap, every 364 s
FIDUCIAL_RATE = 360

CONFIGURE, UNCONFIGURE, BEGIN_RUN, END_RUN = 4, 5, 6, 7
BEGIN_CALIB_CYCLE, END_CALIB_CYCLE, ENABLE, DISABLE, L1_ACCEPT = 8, 9, 10, 11, 12

# Type ids (bits 0-15 of the type word; the version is in bits 16-31, bit 31 = compressed).
TYPE_XTC, TYPE_FRAME, TYPE_OPAL1K_CONFIG, TYPE_EPICS = 1, 2, 6, 13
TYPE_GAS_DETECTOR, TYPE_EBEAM, TYPE_EVR_DATA, TYPE_ALIAS = 14, 15, 19, 69
COMPRESSED = 1 << 31

# Damage: a mask whose enum values are bit numbers.
DAMAGE_NAMES = {
    1: "dropped contribution",
    11: "uninitialized",
    12: "out of order",
    13: "out of synch",
    14: "user",
    15: "incomplete contribution",
    16: "contains incomplete",
}
INCOMPLETE = 1 << 15  # do not descend into such a container

LEVEL_SHIFT = 24  # of source log: 1 source, 2 segment, 3 event, 6 BLD
LEVEL_SOURCE, LEVEL_SEGMENT, LEVEL_EVENT, LEVEL_BLD = 1, 2, 3, 6
BLD_EBEAM, BLD_GAS_DETECTOR = 0, 2  # phy of a BLD source

FRAME_HEADER = struct.Struct("<4I")  # width (columns), height (rows), depth (bits), offset
EBEAM = struct.Struct("<I20d")  # damage mask, then common.shots.EBEAM_UNITS in order
GAS_DETECTOR = struct.Struct("<6d")  # common.shots.GAS_DETECTOR_UNITS in order
ALIAS = struct.Struct("<II31sx")  # source log, source phy, name

FIRST_RECORDER_STREAM = 80  # streams 0-79 come from the DAQ, 80 and up from camera recorders
# The two clocks of a DAQ and a recorder event agree to this many seconds (psana1's rule).
JOIN_SECONDS = 85

_FILE_NAME = re.compile(
    r"^(?P<prefix>.+)-r(?P<run>\d{4,})-s(?P<stream>\d{2,})-c(?P<chunk>\d{2,})\.xtc(\.inprogress)?$"
)


class FileName(NamedTuple):
    """The parts of eNNN-rRRRR-sSS-cCC.xtc (since 2020 the experiment's name stands first)."""

    prefix: str
    run: int
    stream: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.prefix}-r{self.run:04d}-s{self.stream:02d}-c{self.chunk:02d}.xtc"


def parse_file_name(name: str) -> Optional[FileName]:
    """The parts of an XTC file's name, or None if it is not one (`.inprogress` may follow)."""
    match = _FILE_NAME.match(name)
    if match is None:
        return None
    return FileName(match["prefix"], int(match["run"]), int(match["stream"]), int(match["chunk"]))


def pixel_dtype(depth: int) -> np.dtype:
    """Pixels of up to 8 bits are stored in one byte, deeper ones in two."""
    return np.dtype("u1") if depth <= 8 else np.dtype("<u2")


# --- sources -----------------------------------------------------------------------------

# DetInfo's detector and device numbers, for the cameras of LCLS that write Camera::Frame.
XTCAV_ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"
_DETECTORS = {"XrayTransportDiagnostic": 46}
_DEVICES = {"Opal1000": 3}
_ADDRESS = re.compile(r"^(\w+)\.(\d+):(\w+)\.(\d+)$")


def source_phy(address: str) -> Optional[int]:
    """The `phy` word of a detector: detector << 24 | id << 16 | device << 8 | id.

    `address` is LCLS' own form, `XrayTransportDiagnostic.0:Opal1000.0`, with names or, for
    those not in the tables above, numbers (`46.0:3.0`), or a hexadecimal word. None if it is
    neither; then it may be an alias, which only the run's own AliasConfig explains.
    """
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", address):
        return int(address, 16)
    match = _ADDRESS.match(address)
    if match is None:
        return None
    detector = _DETECTORS.get(match[1], int(match[1]) if match[1].isdigit() else None)
    device = _DEVICES.get(match[3], int(match[3]) if match[3].isdigit() else None)
    if detector is None or device is None:
        return None
    return detector << 24 | int(match[2]) << 16 | device << 8 | int(match[4])
