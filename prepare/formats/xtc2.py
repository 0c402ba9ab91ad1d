"""LCLS-II's xtc2 files: the datagram headers. What is inside a datagram is psana 2's business.

A file is a concatenation of datagrams: a 24-byte header (time, transition, the outermost Xtc) and
a payload. One shot has one datagram in each stream that saw it. After the LCLS-II data definitions
(xtcdata: TransitionBase, Dgram, Xtc, Damage).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError
from prepare.formats.files import open_file

# Time (seconds << 32 | nanoseconds), env (transition in bits 24-27); Xtc: source, damage, type, extent.
DATAGRAM = struct.Struct("<QIIHHI")
EXTENT_OFFSET = 12  # a datagram ends at its start + EXTENT_OFFSET + extent of its outermost Xtc
DAMAGE = struct.Struct("<H")
DAMAGE_OFFSET = 16
OUT_OF_ORDER = 1 << 2  # damage is a mask whose enum values are bit numbers

CONFIGURE, UNCONFIGURE, BEGIN_RUN, END_RUN, BEGIN_STEP, END_STEP, ENABLE, DISABLE = range(2, 10)
L1_ACCEPT_END_OF_BATCH, L1_ACCEPT = 11, 12
_TRANSITION_SHIFT, _TRANSITION_MASK = 24, 0xF
_MAX_DATAGRAM = 1 << 30


class Headers(NamedTuple):
    """The shots of one file, (n,) each, and where its last whole datagram ends, of `size` bytes."""

    times: np.ndarray  # uint64, seconds << 32 | nanoseconds
    damage: np.ndarray  # uint16
    end: int
    size: int


def read_headers(path: Path) -> Headers:
    """Walk the headers of a file, 24 bytes of each datagram; raises DataError if it is not xtc2."""
    times, damages = [], []
    descriptor = open_file(path)
    try:
        size = os.fstat(descriptor).st_size
        start = 0
        while size - start >= DATAGRAM.size:
            time, env, _, damage, _, extent = DATAGRAM.unpack(os.pread(descriptor, DATAGRAM.size, start))
            end = start + EXTENT_OFFSET + extent
            transition = env >> _TRANSITION_SHIFT & _TRANSITION_MASK
            if not DATAGRAM.size <= end - start <= _MAX_DATAGRAM:
                raise DataError(f"{path}: offset {start}: no datagram of xtc2; copy the file again")
            if end > size:
                break
            if transition in (L1_ACCEPT, L1_ACCEPT_END_OF_BATCH):
                times.append(time)
                damages.append(damage)
            start = end
    finally:
        os.close(descriptor)
    if start == 0:
        raise DataError(f"{path}: is empty or shorter than its first datagram; copy it again")
    return Headers(np.array(times, "u8"), np.array(damages, "u2"), start, size)
