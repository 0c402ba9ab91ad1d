"""LCLS-I XTC on disk: structs, numbers and names. Little endian, 4-byte aligned.

A file is a plain concatenation of datagrams, each a 40-byte header and a payload: no file
header, no trailer, no index. After the LCLS-I data definitions (pdsdata: Dgram, Xtc, TypeId,
DetInfo, BldInfo, Camera::FrameV1, Opal1k::ConfigV1, Bld::BldDataEBeamV7,
Bld::BldDataFEEGasDetEnergyV1, Alias::ConfigV1).
"""

from __future__ import annotations

import struct

import numpy as np

# Datagram: nanoseconds, seconds, ticks/transition, fiducial/vector, env; then its outermost Xtc.
# Xtc: damage, source log, source phy, type, extent (its own 20 bytes included).
XTC = struct.Struct("<5I")
DATAGRAM = struct.Struct("<10I")
XTC_SIZE = XTC.size  # 20
DATAGRAM_SIZE = DATAGRAM.size  # 40
EXTENT_OFFSET = 20  # a datagram ends at its start + EXTENT_OFFSET + extent of its outermost Xtc

TRANSITION_SHIFT, TRANSITION_MASK = 24, 0xF
FIDUCIAL_MASK = 0x1FFFF  # of word 3; the vector is above it
VECTOR_SHIFT = 17
FIDUCIALS = 131_040  # 360 Hz pulse ids run 0..131,039 and wrap, every 364 s
FIDUCIAL_RATE = 360

CONFIGURE, UNCONFIGURE, BEGIN_RUN, END_RUN = 4, 5, 6, 7
BEGIN_CALIB_CYCLE, END_CALIB_CYCLE, ENABLE, DISABLE, L1_ACCEPT = 8, 9, 10, 11, 12

# Type ids (bits 0-15 of the type word; the version is in bits 16-31, bit 31 = compressed).
TYPE_XTC, TYPE_FRAME, TYPE_OPAL1K_CONFIG, TYPE_EPICS = 1, 2, 6, 13
TYPE_GAS_DETECTOR, TYPE_EBEAM, TYPE_ALIAS = 14, 15, 69
COMPRESSED = 1 << 31

# Damage: a mask whose enum values are bit numbers.
DROPPED = 1 << 1
INCOMPLETE = 1 << 15  # do not descend into such a container
CONTAINS_INCOMPLETE = 1 << 16

TRIMMED = 1 << 31  # of an L1Accept's env: the level-3 trigger removed its contents

LEVEL_SHIFT = 24  # of source log: 1 source, 2 segment, 3 event, 6 BLD
LEVEL_SOURCE, LEVEL_SEGMENT, LEVEL_EVENT, LEVEL_BLD = 1, 2, 3, 6
BLD_EBEAM, BLD_GAS_DETECTOR = 0, 2  # phy of a BLD source

FRAME_HEADER = struct.Struct("<4I")  # width (columns), height (rows), depth (bits), offset
EBEAM = struct.Struct("<I20d")  # version 7: damage mask, then common.shots.EBEAM_UNITS in order
GAS_DETECTOR = struct.Struct("<6d")  # version 1: common.shots.GAS_DETECTOR_UNITS in order
ALIAS = struct.Struct("<II31sx")  # source log, source phy, name

FIRST_RECORDER_STREAM = 80  # streams 0-79 come from the DAQ, 80 and up from camera recorders
# The two clocks of a DAQ and a recorder event agree to this many seconds (psana1's rule).
JOIN_SECONDS = 85


def pixel_dtype(depth: int) -> np.dtype:
    """Pixels of up to 8 bits are stored in one byte, deeper ones in two."""
    return np.dtype("u1") if depth <= 8 else np.dtype("<u2")
