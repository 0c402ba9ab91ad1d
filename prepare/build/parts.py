"""Part files: what an unfinished build has made so far, one self-verifying record per image.

    file     MAGIC, then the build's identity (32 bytes: whose shots, treated how), then records
    record   header (HEADER, little endian) and payload: the image's bytes as they go into its HDF5
             chunk; or where in the file IMAGES beside it they are (_PLACE), which is to become the
             finished file; or for a shot that is lost the reason why, UTF-8

Each process appends to a file of its own and never to one it found. A process that is killed
leaves at worst a cut-off record at the end; a node that goes down, at worst what was written
since the flush before the last, and flushes follow each other every SYNC_SECONDS. Whatever fails
its checksums is left out, and so made again.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common.errors import DataError
from common.manifest import SPLITS
from common.shots import ShotId

MAGIC = b"XTCAVLASINGPART2"
SUFFIX = ".part"
IMAGES = "images.h5"
SYNC_SECONDS = 0.5
MAX_REASON = 500  # bytes

_IMAGE, _LOSS, _PLACED = 1, 2, 3
# kind, split, row, key (4), bytes of payload, crc32 of the image, of the payload, of all this.
_FIELDS = struct.Struct("<2sBBIIIIIIII")
_CHECK = struct.Struct("<I")
_PLACE = struct.Struct("<QI")  # offset and size
_RECORD = b"PR"
HEADER_SIZE = _FIELDS.size + _CHECK.size

# Where an image is: number of the part file (from 1; 0 means that there is no image), offset and
# size of its bytes, and the two checksums. 22 bytes an image.
STORED_DTYPE = np.dtype(
    [("part", "<u2"), ("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4"), ("payload_crc32", "<u4")]
)


class Slots(NamedTuple):
    """The file that is to become the finished one, and where its images go: {split: (n,) offsets}."""

    path: Path
    offsets: Dict[str, np.ndarray]


class Writer:
    """Appends records to the new part file at `path`; with `slots`, images go to their places there.

    Another thread flushes to disk every SYNC_SECONDS, and what is left at the end.
    """

    def __init__(self, path: Path, identity: bytes, slots: Optional[Slots] = None) -> None:
        self.path, self._slots = path, slots
        self._files = [path.open("xb", buffering=0)]
        if slots:
            self._files.insert(0, slots.path.open("r+b", buffering=0))
        self._failed: Optional[OSError] = None
        self._syncer = ThreadPoolExecutor(1)
        self._syncing: Optional[Future] = None
        self._synced = time.monotonic()
        self._write(self._files[-1], MAGIC, identity)

    def image(
        self, split: str, row: int, shot: ShotId, crc32: int, payload: memoryview, payload_crc32: int
    ) -> None:
        """Store an image: its checksum, the bytes that its HDF5 chunk will hold, and theirs."""
        if not self._slots:
            self._record(_IMAGE, split, row, shot, crc32, payload, payload_crc32)
            return
        offset = int(self._slots.offsets[split][row])
        self._files[0].seek(offset)
        self._write(self._files[0], payload)
        place = _PLACE.pack(offset, payload.nbytes)
        self._record(_PLACED, split, row, shot, crc32, place, zlib.crc32(place))

    def loss(self, split: str, row: int, shot: ShotId, reason: str) -> None:
        """Append that there is no image for this row, and why."""
        payload = reason.encode()[:MAX_REASON]
        self._record(_LOSS, split, row, shot, 0, payload, zlib.crc32(payload))

    def close(self) -> None:
        """Flush to disk and close."""
        try:
            if self._syncing:
                self._syncing.result()
            self._sync()
        finally:
            self._syncer.shutdown()
            for file in self._files:
                file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # An error that is on its way says more than one from here would.
        with contextlib.suppress(*([OSError] if kind else [])):
            self.close()

    def _record(
        self, kind: int, split: str, row: int, shot: ShotId, crc: int, payload: memoryview, payload_crc: int
    ) -> None:
        size = memoryview(payload).nbytes
        fields = _FIELDS.pack(_RECORD, kind, SPLITS.index(split), row, *shot, size, crc, payload_crc)
        self._write(self._files[-1], fields + _CHECK.pack(zlib.crc32(fields)), payload)
        if time.monotonic() - self._synced > SYNC_SECONDS and (not self._syncing or self._syncing.done()):
            if self._syncing:
                self._syncing.result()
            self._syncing, self._synced = self._syncer.submit(self._sync), time.monotonic()

    def _write(self, file: BinaryIO, *pieces: memoryview) -> None:
        if self._failed:
            raise self._failed  # nothing may follow a record that was cut off
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest.nbytes:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            self._failed = OSError(error.errno, error.strerror, str(file.name))
            raise self._failed from None

    def _sync(self) -> None:
        for file in self._files:
            try:
                os.fsync(file.fileno())
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(file.name)) from None


class Found(NamedTuple):
    """What an unfinished build has made: its part files, last the file of the images in their places."""

    paths: List[Path]
    images: Dict[str, np.ndarray]  # split -> (n,) STORED_DTYPE, n the manifest's rows of the split
    losses: Dict[Tuple[str, int], str]  # (split, row) -> reason, where there is no image
    dropped: int  # records, or ends of files, that failed their checksums

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(int((table["part"] > 0).sum()) for table in self.images.values())

    def placed(self, split: str, slots: Slots) -> np.ndarray:
        """Whether each image of `split` is where `slots` has it, (n,) bool."""
        return self._in_file(split) & (self.images[split]["offset"] == slots.offsets[split])

    def elsewhere(self, slots: Slots) -> bool:
        """Whether an image is in the file of the slots, and not in its own."""
        return any((self._in_file(split) & ~self.placed(split, slots)).any() for split in self.images)

    def _in_file(self, split: str) -> np.ndarray:
        return self.images[split]["part"] == len(self.paths)


def paths(folder: Path) -> List[Path]:
    """The part files in `folder`, in the order they were begun."""
    return sorted(folder.glob("*" + SUFFIX))


def scan(folder: Path, identity: bytes, keys: Mapping[str, Sequence[ShotId]], check: bool = True) -> Found:
    """What is in the part files of `folder`, for the rows whose shots are `keys` of each split.

    Files of another identity are left out. With `check`, every image's bytes are read and their
    checksum compared; without, only headers are. Memory: an image, and 22 bytes a row.
    """
    files = [*paths(folder), folder / IMAGES]
    images = {split: np.zeros(len(of_split), STORED_DTYPE) for split, of_split in keys.items()}
    losses: Dict[Tuple[str, int], str] = {}
    dropped = 0
    for number, path in enumerate(files[:-1], 1):
        for record in _records(path, identity, check):
            if record is None:
                dropped += 1
                continue
            kind, split, row, shot, stored, reason = record
            if row >= len(keys.get(split, ())) or keys[split][row] != shot:
                dropped += 1
            elif kind == _LOSS:
                losses[split, row] = reason.decode(errors="replace")
            else:
                images[split][row] = (len(files) if kind == _PLACED else number, *stored)
    losses = {at: why for at, why in losses.items() if not images[at[0]]["part"][at[1]]}
    return Found(files, images, losses, dropped)


class Reader:
    """Reads images back from the part files of `found`, each compared with its checksum."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._descriptors: Dict[int, int] = {}

    def payload(self, split: str, row: int) -> bytes:
        """The stored bytes of one image; raises DataError if they are not what was written."""
        number, offset, size, _, crc = self._found.images[split][row].tolist()
        path = self._found.paths[number - 1]
        if number not in self._descriptors:
            self._descriptors[number] = os.open(path, os.O_RDONLY)
        payload = os.pread(self._descriptors[number], size, offset)
        if len(payload) != size or zlib.crc32(payload) != crc:
            raise DataError(f"{path}: an image was damaged on the disk since it was written; build again")
        return payload

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def _records(path: Path, identity: bytes, check: bool) -> Iterator:
    """(kind, split, row, shot, (offset, size, crc32, payload_crc32), reason of a loss) of each record.

    None stands for what is damaged: a record whose bytes differ, or the rest of a file from a
    header that is not one. Images are read only if `check`.
    """
    with contextlib.ExitStack() as open_files:
        file = open_files.enter_context(path.open("rb"))
        images = path.with_name(IMAGES)
        images = open_files.enter_context(images.open("rb")) if images.exists() else None
        start = len(MAGIC) + len(identity)
        end = os.fstat(file.fileno()).st_size
        if file.read(start) != MAGIC + identity:
            yield None
            return
        while start < end:
            fields = _header(file.read(HEADER_SIZE))
            if fields is None or start + HEADER_SIZE + fields[8] > end:
                yield None  # cut off: its process was killed while it wrote
                return
            _, kind, split, row, *shot, size, crc, payload_crc = fields
            start += HEADER_SIZE
            stored, payload = (start, size, crc, payload_crc), b""
            if check or kind != _IMAGE:
                payload = file.read(size)
            else:
                file.seek(start + size)
            start += size
            sound = not payload or zlib.crc32(payload) == payload_crc
            if sound and kind == _PLACED:
                offset, size = _PLACE.unpack(payload)
                stored = (offset, size, crc, crc)
                sound = not check or (
                    images is not None and zlib.crc32(os.pread(images.fileno(), size, offset)) == crc
                )
            yield (kind, SPLITS[split], row, ShotId(*shot), stored, payload) if sound else None


def _header(raw: bytes) -> Optional[Tuple]:
    """The fields of a record's header, or None if it is not one."""
    if len(raw) != HEADER_SIZE or zlib.crc32(raw[:-4]) != _CHECK.unpack(raw[-4:])[0]:
        return None
    fields = _FIELDS.unpack(raw[:-4])
    mark, kind, split, *_, size = fields[:9]
    good = mark == _RECORD and kind in (_IMAGE, _LOSS, _PLACED) and split < len(SPLITS)
    return fields if good and (kind != _PLACED or size == _PLACE.size) else None
