"""LCLS-II's xtc2 files: what can be read of a file without psana, and is checked before psana opens it.

A file is a concatenation of datagrams: a 24-byte header (time, transition, the outermost Xtc) and
a payload, a tree of Xtcs. The first datagram, Configure, names the detectors and their fields;
every later part refers to one of these names by its number. psana ends the process where a number
is not among them or a part is larger than what encloses it. After the LCLS-II data definitions
(xtcdata: TransitionBase, Dgram, Xtc, Damage, ShapesData).
"""

from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from prepare.formats.files import open_file

# Time (seconds << 32 | nanoseconds), env (transition in bits 24-27); Xtc: source, damage, type, extent.
DATAGRAM = struct.Struct("<QIIHHI")
XTC = struct.Struct("<IHHI")
EXTENT_OFFSET = 12  # a datagram ends at its start + EXTENT_OFFSET + extent of its outermost Xtc
DAMAGE = struct.Struct("<H")
DAMAGE_OFFSET = 16
OUT_OF_ORDER = 1 << 2  # damage is a mask whose enum values are bit numbers

CONFIGURE, UNCONFIGURE, BEGIN_RUN, END_RUN, BEGIN_STEP, END_STEP, ENABLE, DISABLE = range(2, 10)
L1_ACCEPT_END_OF_BATCH, L1_ACCEPT = 11, 12
_TRANSITION_SHIFT, _TRANSITION_MASK = 24, 0xF
_MAX_DATAGRAM = 1 << 30
_MAX_CONFIGURE = 1 << 24  # the largest of psana's own test data has 43 kB

_PARENT, _SHAPES, _NAMES = 0, 2, 4  # types of Xtcs, in the lower 12 bits of the type
_TYPE_MASK = 0xFFF
# Names: how many arrays; type, name and serial number of the detector; algorithm with its version; segment.
_NAME_INFO = struct.Struct("<I256s256s256s256sII")
_NAME = struct.Struct("<260x256sII")  # algorithm with its version; a field's name, type, rank
_INTEGERS = range(8)  # types of fields: u1 u2 u4 u8 i1 i2 i4 i8, then floating point
NOT_DETECTORS = ("runinfo", "smdinfo", "chunkinfo")
_NEXT_CHUNK = re.compile(rb"[A-Za-z0-9_.+-]+\.xtc2")

ABSENT, THERE, BROKEN = range(3)
_LOOKED_AT = 240  # shots at the beginning of a file, for its images
_PEEK = 128  # bytes read at once: a datagram's header and those of the first parts in it


class Names(NamedTuple):
    """What Configure says of one detector's data: fields are (name, rank, whether integers)."""

    detector: str
    algorithm: str
    segment: int
    fields: tuple[tuple[str, int, bool], ...]

    @property
    def has_images(self) -> bool:
        """Whether these are raw images: integers in two dimensions."""
        return self.algorithm == "raw" and any(rank >= 2 and whole for _, rank, whole in self.fields)


class Headers(NamedTuple):
    """What the headers of one file tell.

    times (n,) uint64, seconds << 32 | nanoseconds, and damage (n,) uint16 of its shots; parts:
    {number of a Names: (n,) uint8, whether the shot has data of it: ABSENT, THERE, BROKEN}; names:
    those of its Configure, by number; goes_on_in: the file that it names as its next chunk; end of its
    last whole datagram, size: bytes.
    """

    times: np.ndarray
    damage: np.ndarray
    parts: dict[int, np.ndarray]
    names: dict[int, Names]
    goes_on_in: Optional[str]
    end: int
    size: int


class FirstImages(NamedTuple):
    """The time of a file's first shot or None, and (detector, (rows, columns)) of its raw images."""

    time: Optional[int]
    images: list[tuple[str, tuple[int, int]]]


class _Part(NamedTuple):
    """One Xtc below a datagram; the payload runs from `start` to `end` in the file."""

    start: int
    end: int
    number: int
    damage: int
    kind: int


def read_headers(path: Path, names: Optional[dict[int, Names]] = None) -> Headers:
    """Walk the headers of a file; of a later chunk with the `names` of the first.

    Raises DataError if it is not xtc2, does not begin as its like does, or is damaged where
    psana would not survive it.
    """
    with _File(path) as file:
        return file.headers(names)


def first_images(path: Path) -> FirstImages:
    """The raw images of a first chunk: those in its first shots, one for each part of a detector."""
    with _File(path) as file:
        return file.first_images()


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_file(path)
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def headers(self, names: Optional[dict[int, Names]]) -> Headers:
        first = names is None
        names = {} if names is None else dict(names)
        times: list[int] = []
        damages: list[int] = []
        present: list[tuple[int, int, int]] = []  # (shot, number of a Names, THERE or BROKEN)
        goes_on_in = None
        start = 0
        while self.size - start >= DATAGRAM.size:
            head = self._read(_PEEK, start)
            time, env, _, damage, _, extent = DATAGRAM.unpack_from(head)
            end = start + EXTENT_OFFSET + extent
            transition = env >> _TRANSITION_SHIFT & _TRANSITION_MASK
            if not DATAGRAM.size <= end - start <= _MAX_DATAGRAM:
                raise self._error(start, "no datagram of xtc2; copy the file again")
            if end > self.size:
                break
            if start == 0 and first:
                names = self._configure(transition, end)
            else:
                self._check_first(start, transition)
                for part in self._parts(head, start, end):
                    if part.number not in names:
                        raise self._error(
                            part.start, "data that the run's Configure does not name: copy it again"
                        )
                    if transition in (L1_ACCEPT, L1_ACCEPT_END_OF_BATCH):
                        present.append((len(times), part.number, BROKEN if part.damage else THERE))
            if transition in (L1_ACCEPT, L1_ACCEPT_END_OF_BATCH):
                times.append(time)
                damages.append(damage)
            elif transition == ENABLE and end - start > DATAGRAM.size:
                goes_on_in = self._next_chunk(start, end) or goes_on_in
            start = end
        if start == 0:
            raise DataError(f"{self.path}: is empty or shorter than its first datagram; copy it again")
        parts = {number: np.full(len(times), ABSENT, "u1") for number in names}
        for shot, number, state in present:
            parts[number][shot] = max(state, parts[number][shot])
        return Headers(
            np.array(times, "u8"), np.array(damages, "u2"), parts, names, goes_on_in, start, self.size
        )

    def first_images(self) -> FirstImages:
        names: dict[int, Names] = {}
        found: dict[int, tuple[int, int]] = {}
        time, start, shots = None, 0, 0
        while self.size - start >= DATAGRAM.size and shots < _LOOKED_AT:
            head = self._read(_PEEK, start)
            at, env, _, _, _, extent = DATAGRAM.unpack_from(head)
            end = start + EXTENT_OFFSET + extent
            transition = env >> _TRANSITION_SHIFT & _TRANSITION_MASK
            if end > self.size or end - start < DATAGRAM.size:
                break
            if start == 0:
                names = self._configure(transition, end)
            elif transition in (L1_ACCEPT, L1_ACCEPT_END_OF_BATCH):
                time, shots = at if time is None else time, shots + 1
                for part in self._parts(head, start, end):
                    if part.number in names and names[part.number].has_images and part.number not in found:
                        found[part.number] = self._image_shape(part, names[part.number])
            start = end
        return FirstImages(time, [(names[number].detector, shape) for number, shape in found.items()])

    def _image_shape(self, part: _Part, names: Names) -> tuple[int, int]:
        """The shape of the image in a ShapesData: its Shapes have five numbers for each array, in order."""
        arrays = [field for field in names.fields if field[1]]
        image = next(i for i, (_, rank, whole) in enumerate(arrays) if rank >= 2 and whole)
        at = part.start
        while part.end - at >= XTC.size:
            _, _, kind, extent = XTC.unpack(self._read(XTC.size, at))
            if kind & _TYPE_MASK == _SHAPES and extent >= XTC.size + 20 * len(arrays):
                rank = arrays[image][1]
                shape = struct.unpack("<5I", self._read(20, at + XTC.size + 20 * image))[:rank]
                return math.prod(shape[:-1]), shape[-1]
            if extent < XTC.size:
                break
            at += extent
        raise self._error(part.start, "data without their shapes; copy the file again")

    def _check_first(self, start: int, transition: int) -> None:
        if start == 0 and transition == CONFIGURE:
            raise self._error(0, "begins like a first chunk, though another file names it as its next one")

    def _configure(self, transition: int, end: int) -> dict[int, Names]:
        """The names in the first datagram."""
        if transition != CONFIGURE:
            raise self._error(0, "does not begin with Configure: a later chunk, or cut off at its start?")
        if end > _MAX_CONFIGURE:
            raise self._error(0, f"a Configure of {end} bytes; copy the file again")
        data = self._read(end, 0)
        if len(data) < end:
            raise self._error(0, "the file became shorter while it was read")
        found = {}
        for part in self._parts(data, 0, end):
            if part.kind == _NAMES:
                found[part.number] = self._names(data[part.start : part.end], part.start)
            elif part.number not in found:
                raise self._error(part.start, "data before their name in Configure; copy the file again")
        return found

    def _names(self, data: bytes, at: int) -> Names:
        if len(data) < _NAME_INFO.size or (len(data) - _NAME_INFO.size) % _NAME.size:
            raise self._error(at, f"names of a detector in {len(data)} bytes; copy the file again")
        _, _, detector, _, algorithm, _, segment = _NAME_INFO.unpack_from(data)
        fields = [
            (_text(name), rank, kind in _INTEGERS)
            for name, kind, rank in _NAME.iter_unpack(data[_NAME_INFO.size :])
        ]
        return Names(_text(detector), _text(algorithm), segment, tuple(fields))

    def _parts(self, head: bytes, start: int, end: int) -> Iterator[_Part]:
        """The Xtcs in the datagram from `start` to `end`, containers opened; `head` is its beginning."""
        levels = [(start + DATAGRAM.size, end)]
        while levels:
            at, stop = levels.pop()
            while at < stop:
                if stop - at < XTC.size:
                    raise self._error(at, f"{stop - at} bytes that are no part; copy the file again")
                inside = at - start + XTC.size <= len(head)
                raw = head[at - start :] if inside else self._read(XTC.size, at)
                number, damage, kind, extent = XTC.unpack_from(raw)
                if not XTC.size <= extent <= stop - at:
                    raise self._error(at, f"a part of {extent} bytes in {stop - at}; copy the file again")
                if kind & _TYPE_MASK == _PARENT:
                    levels.append((at + XTC.size, at + extent))
                else:
                    yield _Part(at + XTC.size, at + extent, number, damage, kind & _TYPE_MASK)
                at += extent

    def _next_chunk(self, start: int, end: int) -> Optional[str]:
        """The file that an Enable names as what the stream goes on in (chunkinfo.filename)."""
        found = _NEXT_CHUNK.search(self._read(min(end - start, 1 << 16), start))
        return found[0].decode("ascii") if found else None

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:  # which does not say of which file
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _error(self, offset: int, what: str) -> DataError:
        return DataError(f"{self.path}: offset {offset}: {what}")


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")
