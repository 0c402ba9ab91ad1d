"""The images of one split of one data file, read by row into float32."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import time
from typing import Sequence, Union

import h5py
import numpy as np

from common.dataset import reading
from common.errors import DataError
from common.shots import ID_FIELDS, ShotId

# TensorFlow takes an array whose first byte is at a multiple of this without a copy (train/fit/step.py).
ALIGNMENT = 64


def empty(*shape: int) -> np.ndarray:
    """A new array of float32, at an address that TensorFlow takes without a copy."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def widen(stored: np.ndarray, out: np.ndarray) -> None:
    """Put the values of `stored` into `out`, float32 of the same shape."""
    if stored.dtype == np.float16:
        np.take(_of_halves(), stored.view(np.uint16), out=out, mode="clip")
    else:
        np.copyto(out, stored)


@functools.lru_cache(maxsize=1)
def _of_halves() -> np.ndarray:
    """The value of each of the 65,536 float16.

    Where half of the pixels are 0, as in a picture, numpy's own conversion takes 5 times as long.
    """
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


class ImageFile:
    """The images of one split of one file.

    Uncompressed ones are read with `preadv` at the place of their chunk straight into the batch: no
    lock, no copy, half the time that h5py takes. Others (compressed, or in other chunks than one
    image) are read and decoded by h5py under its lock; there is none for `read_direct_chunk`
    before h5py 3.16. Either may be done in a thread. With `check`, the crc32 of an image is
    compared when it is first read.
    """

    def __init__(self, group: h5py.Group, check: bool) -> None:
        self._dataset: h5py.Dataset = group["images"]
        self.shape, self._dtype = self._dataset.shape, self._dataset.dtype
        self.where = f"{group.file.filename}: {group.name.strip('/')}/images"
        self.seconds = 0.0  # of reading, decoding and checking so far
        self._file = io.FileIO(group.file.filename)
        self._places = reading.image_places(self._dataset)
        self._offsets = None
        if self._places is not None and len(self) and reading.is_plain(self._dataset):
            offsets, sizes = self._places
            size = int(np.prod(self.shape[1:])) * self._dtype.itemsize
            if (sizes == size).all() and offsets.max() + size <= os.fstat(self._file.fileno()).st_size:
                self._offsets = offsets  # else HDF5 will say what is wrong
        self._group = group
        self._crc32 = group["crc32"][...] if check else None
        self._checked = np.full(len(self), not check)

    def __len__(self) -> int:
        return self.shape[0]

    def close(self) -> None:
        self._file.close()

    def read(self, rows: Sequence[int], out: Union[np.ndarray, Sequence[np.ndarray]]) -> None:
        """Read the images of `rows` into `out`, as many C-contiguous arrays of (h, w) float32.

        Raises DataError, naming file and image, for a file that was removed or cut short
        meanwhile, for what cannot be decoded, and for an image that is not as it was written.
        """
        start, rows = time.perf_counter(), np.asarray(rows)
        order = range(len(rows)) if self._offsets is None else np.argsort(self._offsets[rows], kind="stable")
        narrow = np.empty(self.shape[1:], self._dtype) if self._dtype != np.float32 else None
        try:
            if not os.fstat(self._file.fileno()).st_nlink:
                raise DataError(f"{self.where}: the file was removed or replaced while it was being read")
            for i in order:
                target = out[i] if narrow is None else narrow
                self._read_stored(int(rows[i]), target)
                if not self._checked[rows[i]]:
                    self._check(int(rows[i]), target)
                if narrow is not None:
                    widen(narrow, out[i])
        except OSError as error:
            raise DataError(
                f"{self.where} cannot be read ({str(error).splitlines()[0]}); run `prepare verify` on it"
            ) from None
        self.seconds += time.perf_counter() - start

    def announce(self, rows: np.ndarray) -> None:
        """Have the kernel bring the images of `rows` into memory, in the order in which the disk has them.

        A disk that is asked for one image after the other waits between them.
        """
        if self._places is None or not hasattr(os, "posix_fadvise"):
            return
        offsets, sizes = (places[np.sort(rows)] for places in self._places)
        with contextlib.suppress(OSError):  # a file system that takes no advice
            for offset, size in sorted(zip(offsets.tolist(), sizes.tolist())):
                os.posix_fadvise(self._file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def _read_stored(self, row: int, target: np.ndarray) -> None:
        """One image as it is stored, into (h, w) of the stored type."""
        if self._offsets is None:
            self._dataset.read_direct(target, np.s_[row])
            return
        offset, rest = int(self._offsets[row]), memoryview(target).cast("B")
        while rest:  # a read may be short, and not only at the end
            n = os.preadv(self._file.fileno(), [rest], offset)
            if not n:
                raise DataError(
                    f"{self.where}: cut short, ends before image {row} does; copy or build it again"
                )
            rest, offset = rest[n:], offset + n

    def _check(self, row: int, stored: np.ndarray) -> None:
        if reading.image_checksum(stored) != self._crc32[row]:
            shot = ShotId(*(int(self._group[name][row]) for name in ID_FIELDS))
            raise DataError(
                f"{self.where}: image {row} ({shot}) is not what was written, its crc32 differs; run "
                "`prepare verify` on it, copy or build it again"
            )
        self._checked[row] = True
