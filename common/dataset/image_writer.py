"""Writing the images of a data file, one by one as they are made."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Mapping, Optional

import numpy as np

from common.dataset.reading import image_offsets
from common.dataset.writing import Axes, create_images, create_tables
from common.files import atomic
from common.files.hdf5 import NewFile

_FLUSH = 64 << 20  # bytes after which what was written is sent on to the disk


class ImageWriter:
    """A new data file at `path`, whose images are written one by one, those of a split in their order.

    splits: {split: images at most}. Without compression images have their places in the file from
    the start, and are written there past HDF5; the room for them is looked at before. Meanwhile a thread
    sends on to the disk what was written. A disk that fails is an OSError. Memory: 5 MB.
    """

    def __init__(
        self,
        path: Path,
        splits: Mapping[str, int],
        image_shape: tuple[int, int],
        dtype: str = "float32",
        compression: str = "none",
    ) -> None:
        self._path = path
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._written = dict.fromkeys(splits, 0)
        self._since_flush = 0
        if compression == "none":
            atomic.check_room(path, int(np.prod(image_shape)) * self._dtype.itemsize * sum(splits.values()))
        self._file = create_images(path, splits, image_shape, dtype, compression)
        self._offsets = {split: image_offsets(self._file[split]["images"]) for split in splits}
        self._flusher = ThreadPoolExecutor(1)
        self._flushing: Optional[Future] = None

    def append(self, split: str, image: np.ndarray) -> int:
        """Write the next image of `split`, (h, w); returns its checksum."""
        image = np.ascontiguousarray(image, self._dtype)
        row, offsets = self._written[split], self._offsets[split]
        if offsets is not None:
            self._write(image, int(offsets[row]))
        else:
            self._file[split]["images"][row] = image
            self._file.check()
        self._written[split] = row + 1
        self._flush(image.nbytes)
        return zlib.crc32(image)

    def tables(self, frame_shape: tuple[int, int], axes: Axes = ()) -> NewFile:
        """The file, open for writing, with as many rows as images were written, and nothing filled in."""
        self._end_flush()
        for split, n in self._written.items():
            if n < len(self._file[split]["images"]):
                self._file[split]["images"].id.set_extent((n, *self._file[split]["images"].shape[1:]))
        create_tables(self._file, frame_shape, axes)
        return self._file

    def close(self) -> None:
        """Close the file, whatever was written."""
        self._flusher.shutdown()
        self._file.close()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, image: np.ndarray, offset: int) -> None:
        rest = memoryview(image).cast("B")
        while rest:
            written = os.pwrite(self._file.descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def _flush(self, size: int) -> None:
        self._since_flush += size
        if self._since_flush > _FLUSH and (self._flushing is None or self._flushing.done()):
            self._end_flush()
            self._flushing, self._since_flush = self._flusher.submit(os.fsync, self._file.descriptor), 0

    def _end_flush(self) -> None:
        if self._flushing is not None:
            self._flushing.result()
            self._flushing = None
