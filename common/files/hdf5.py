"""HDF5 files that are written through us, so that a disk that fails is an OSError.

HDF5 cannot close a file whose last writes fail (a quota, a full disk, a server that is gone): some
versions crash, others never let go of it. Here no write fails for HDF5: the first error is kept, and
whatever HDF5 writes or reads after it is kept in memory, until it comes back to us and the error is raised.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Optional, Union

import h5py


class _Disk(io.FileIO):
    """What HDF5 takes for its file. Memory, after an error: what is written before the next look at it."""

    def __init__(self, path: Union[str, Path]) -> None:
        super().__init__(path, "w+")
        self.error: Optional[OSError] = None
        self._late: list[tuple[int, bytes]] = []  # what was written after the error, and where

    def write(self, data: Any) -> int:
        start, rest = self.tell(), memoryview(data).cast("B")
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._late.append((start, bytes(data)))
        return len(data)

    def readinto(self, buffer: Any) -> int:
        start, view, done = self.tell(), memoryview(buffer).cast("B"), 0
        view[:] = bytes(len(view))  # beyond the file's end
        try:
            while n := super().readinto(view[done:]):
                done += n
        except OSError as error:
            self.error = self.error or error
        for at, data in self._late:
            low, high = max(at, start), min(at + len(data), start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        return len(view)

    def truncate(self, size: Optional[int] = None) -> int:
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = super().seek(offset, whence)
        if whence == os.SEEK_END:
            place = super().seek(max([place, *(at + len(data) for at, data in self._late)]))
        return place


class NewFile(h5py.File):
    """A new HDF5 file at `path`, open for writing; `options` are h5py's.

    `check` and `close` raise the OSError that writing met, whatever HDF5 made of it.
    """

    def __init__(self, path: Union[str, Path], **options: Any) -> None:
        self._disk = _Disk(path)
        super().__init__(self._disk, "w", **options)

    @property
    def descriptor(self) -> int:
        """Of the file itself, for what HDF5 knows the place of and others write."""
        return self._disk.fileno()

    def check(self) -> None:
        """Raise the OSError that writing met, if it met one."""
        if self._disk.error is not None:
            raise self._disk.error

    def close(self) -> None:
        """Let HDF5 write the rest, and close the file."""
        if self._disk.closed:
            return
        try:
            super().close()
        finally:
            self._disk.close()
            self.check()
