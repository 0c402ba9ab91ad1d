"""Walking an XTC file: datagrams, and the contributions inside one.

The reader uses `os.pread` through a small window rather than a memory map: a map of a file
that shrinks or whose mount goes away kills the process with SIGBUS, and the pages it touches
count as the job's memory, so that a 25 GB run looks like a 25 GB process to a batch system.
Reads by offset cost the same (about 2 us each from the page cache) and fail with an error.

Nothing read from a file is trusted: extents are checked against what encloses them, nesting
is at most MAX_DEPTH levels, and memory is one window, whatever the file says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from common.errors import DataError
from prepare.formats.files import is_growing, open_file
from prepare.formats.xtc1.format import (
    COMPRESSED,
    DATAGRAM,
    DATAGRAM_SIZE,
    EXTENT_OFFSET,
    FIDUCIAL_MASK,
    INCOMPLETE,
    L1_ACCEPT,
    TRANSITION_MASK,
    TRANSITION_SHIFT,
    TYPE_XTC,
    XTC,
    XTC_SIZE,
)

WINDOW = 16_384  # bytes; holds all headers before a frame, and many whole DAQ datagrams
MAX_DEPTH = 16
MAX_DATAGRAM = 1 << 28  # 256 MiB; the largest LCLS-I cameras wrote some 35 MB a shot


class Datagram(NamedTuple):
    """One datagram's header; `start` and `end` are offsets in the file."""

    start: int
    end: int
    seconds: int
    nanoseconds: int
    transition: int
    fiducial: int
    env: int
    damage: int


class Contribution(NamedTuple):
    """One Xtc inside a datagram; the payload runs from `start` to `end` in the file."""

    start: int
    end: int
    damage: int
    log: int
    phy: int
    type_id: int
    version: int
    compressed: bool


class XtcFile:
    """An XTC file open for reading. Raises DataError, with file and offset, for what is not XTC."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: Optional[int] = open_file(path)
        self.size = os.fstat(self._descriptor).st_size
        self._window = b""
        self._window_start = 0

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "XtcFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, exactly; raises DataError if the file is shorter."""
        data = self._pread(size, offset)
        while len(data) < size:  # a read may stop early, at 2 GiB or on a signal
            more = self._pread(size - len(data), offset + len(data))
            if not more:
                raise self.error(offset, f"the file ends {size - len(data)} bytes too early")
            data += more
        return data

    def error(self, offset: int, what: str) -> DataError:
        """A DataError that names this file and an offset in it."""
        return DataError(f"{self.path}: offset {offset}: {what}")

    def datagrams(self, start: int = 0) -> Iterator[Datagram]:
        """The datagrams from offset `start` on, up to the end of the file or to one that is cut off.

        The last one yielded ends at the file's size unless the file is cut short.
        """
        while self.size - start >= DATAGRAM_SIZE:
            nanoseconds, seconds, word2, word3, env, damage, _, _, type_word, extent = DATAGRAM.unpack(
                self._peek(start, DATAGRAM_SIZE)
            )
            if type_word & 0xFFFF != TYPE_XTC or not XTC_SIZE <= extent <= MAX_DATAGRAM:
                if start == 0:
                    raise DataError(f"{self.path}: is not an XTC file (its first 40 bytes are no datagram)")
                raise self.error(start, "no datagram here: the file is damaged; copy it again")
            end = start + EXTENT_OFFSET + extent
            if end > self.size:
                return
            transition = word2 >> TRANSITION_SHIFT & TRANSITION_MASK
            yield Datagram(start, end, seconds, nanoseconds, transition, word3 & FIDUCIAL_MASK, env, damage)
            start = end

    def check_begins(self) -> None:
        """Raise DataError for a file that is empty or cut off before its first shot, unless it grows."""
        end = 0
        for datagram in self.datagrams():
            end = datagram.end
            if datagram.transition == L1_ACCEPT:
                return
        if (end < self.size or not end) and not is_growing(self.path):
            how = "is cut off before its first shot" if self.size else "is empty"
            raise DataError(f"{self.path}: {how}; copy it again, or remove it if it never had any")

    def contributions(self, datagram: Datagram) -> Iterator[Contribution]:
        """Every Xtc inside `datagram`, depth first, containers before what they hold.

        A container marked as incomplete is yielded and not entered, nor is a datagram; a level stops
        at an Xtc of extent 0, which is how a truncated container ends.
        """
        if datagram.damage & INCOMPLETE:
            return
        levels = [(datagram.start + DATAGRAM_SIZE, datagram.end)]
        while levels:
            start, end = levels.pop()
            while end - start >= XTC_SIZE:
                damage, log, phy, type_word, extent = XTC.unpack(self._peek(start, XTC_SIZE))
                if extent == 0:
                    break
                if extent < XTC_SIZE or start + extent > end:
                    raise self.error(start, f"an Xtc of {extent} bytes in {end - start}: the file is damaged")
                child = Contribution(
                    start + XTC_SIZE, start + extent, damage, log, phy,
                    type_word & 0xFFFF, type_word >> 16 & 0x7FFF, bool(type_word & COMPRESSED),
                )  # fmt: skip
                yield child
                start += extent
                if child.type_id == TYPE_XTC and not damage & INCOMPLETE:
                    if len(levels) >= MAX_DEPTH:
                        raise self.error(child.start, f"containers nested over {MAX_DEPTH} deep")
                    levels.append((start, end))
                    start, end = child.start, child.end

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:  # which does not say of which file
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _peek(self, offset: int, size: int) -> bytes:
        """`size` (small) bytes at `offset`, from the window if it has them."""
        at = offset - self._window_start
        if at < 0 or at + size > len(self._window):
            self._window = self._pread(WINDOW, offset)
            self._window_start = offset
            at = 0
            if len(self._window) < size:
                raise self.error(offset, "the file became shorter while it was read")
        return self._window[at : at + size]
