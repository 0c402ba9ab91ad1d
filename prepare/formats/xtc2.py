"""LCLS-II's xtc2 files: names and datagram headers. What is inside a datagram is psana 2's business.

A file is a concatenation of datagrams: a 24-byte header (time, transition, the outermost Xtc) and
a payload. One shot has one datagram in each stream that saw it. After the LCLS-II data definitions
(xtcdata: TransitionBase, Dgram, Xtc, Damage).
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from common.errors import DataError

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

_FILE_NAME = re.compile(
    r"^(?P<prefix>.+)-r(?P<run>\d{4,})-s(?P<stream>\d{2,})-c(?P<chunk>\d{2,})\.xtc2(\.inprogress)?$"
)


class FileName(NamedTuple):
    """The parts of EXPERIMENT-rRRRR-sSSS-cCCC.xtc2."""

    prefix: str
    run: int
    stream: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.prefix}-r{self.run:04d}-s{self.stream:03d}-c{self.chunk:03d}.xtc2"


class Headers(NamedTuple):
    """The shots of one file, (n,) each, and where its last whole datagram ends, of `size` bytes."""

    times: np.ndarray  # uint64, seconds << 32 | nanoseconds
    damage: np.ndarray  # uint16
    end: int
    size: int


def parse_file_name(name: str) -> Optional[FileName]:
    """The parts of an xtc2 file's name, or None if it is not one (`.inprogress` may follow)."""
    match = _FILE_NAME.match(name)
    if match is None or match["prefix"].startswith("partial."):
        return None
    return FileName(match["prefix"], int(match["run"]), int(match["stream"]), int(match["chunk"]))


def small_data(path: Path) -> Path:
    """Where the small-data file lies that belongs to the data file `path`."""
    name = path.name[: -len(".inprogress")] if path.name.endswith(".inprogress") else path.name
    return path.parent / "smalldata" / f"{name[: -len('.xtc2')]}.smd.xtc2"


def read_headers(path: Path) -> Headers:
    """Walk the headers of a file, 24 bytes of each datagram; raises DataError if it is not xtc2."""
    times, damages = [], []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if hasattr(os, "posix_fadvise"):
            # As in LCLS-I files: read-ahead would read every frame for nothing.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
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
