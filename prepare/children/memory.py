"""Memory that two processes share, by which frames go from one to the other: a few slots, used in turns.

The writer puts a frame into a free slot and tells where it is; the reader looks at it there, and tells
which slots are free again when nobody holds their frames any more.
"""

from __future__ import annotations

import collections
import mmap
import os
import weakref
from typing import NamedTuple, Optional

import numpy as np

SLOTS = 8
_HELD = SLOTS // 2 - 1  # so many frames may be held where they are; a reader that holds more gets copies
_RETURNED = SLOTS // 2  # free slots are told together: a message costs as much as a tenth of a frame


class Where(NamedTuple):
    """A frame in the memory: its slot, the offset in bytes, shape (rows, columns) and dtype."""

    slot: int
    offset: int
    shape: tuple[int, ...]
    dtype: str


class Writer:
    """Writes frames to the memory `fd`, which grows with them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: Optional[mmap.mmap] = None
        self._start = self._size = 0  # of the slots, bytes
        self.free = list(range(SLOTS))

    def put(self, frame: np.ndarray) -> Where:
        """Copy `frame` into one of the `free` slots, of which there must be one; raises OSError."""
        if frame.nbytes > self._size:
            self._grow(frame.nbytes)
        slot = self.free.pop()
        offset = self._start + slot * self._size
        np.ndarray(frame.shape, frame.dtype, self._map, offset)[...] = frame
        return Where(slot, offset, frame.shape, frame.dtype.str)

    def _grow(self, size: int) -> None:
        """Larger slots, behind the smaller ones, whose frames may still be read."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        start = self._start + SLOTS * self._size
        os.posix_fallocate(self._fd, start, SLOTS * size)
        self._map = mmap.mmap(self._fd, start + SLOTS * size)
        self._start, self._size = start, size


class Reader:
    """Reads the frames that a Writer puts into the memory `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: Optional[mmap.mmap] = None
        self._held: set[int] = set()
        self._free: collections.deque[int] = collections.deque()  # appended to wherever a frame goes away

    def get(self, where: Where) -> np.ndarray:
        """The frame, read-only; it may be kept."""
        if self._map is None or where.offset >= len(self._map):
            self._map = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        frame: np.ndarray = np.ndarray(where.shape, where.dtype, self._map, where.offset)
        if len(self._held) < _HELD:
            self._held.add(where.slot)
            weakref.finalize(frame, self._release, where.slot).atexit = False
        else:
            frame = frame.copy()
            frame.flags.writeable = False
            self._free.append(where.slot)
        return frame

    def pass_over(self, where: Where) -> None:
        """Leave a frame unread."""
        self._free.append(where.slot)

    def freed(self, least: int = _RETURNED) -> list[int]:
        """The slots to tell the writer of: those that are free again, once they are so many."""
        return [self._free.popleft() for _ in range(len(self._free))] if len(self._free) >= least else []

    def _release(self, slot: int) -> None:
        self._held.discard(slot)
        self._free.append(slot)
