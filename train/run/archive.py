"""Read untrusted zip files (checkpoints, model.keras) in no more memory than their own size."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

# What zipfile raises for rubbish, besides OSError.
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, KeyError)


def members(path: Path) -> dict[str, bytes]:
    """{name: content} of a zip file whose members are stored as they are; raises ValueError for others.

    Ours are never compressed, so nothing in them can be larger than the file.
    """
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        return {entry.filename: file.read(entry) for entry in entries}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz file, read in no more memory than its size."""
    return {name[: -len(".npy")]: _array(raw) for name, raw in members(path).items()}


def _array(raw: bytes) -> np.ndarray:
    """What np.load reads from `raw`, without taking memory for a shape before the bytes are there."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array of another .npy version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or fortran_order or math.prod(shape) * dtype.itemsize != len(raw) - stream.tell():
        raise ValueError("an array that is not what its header says")
    return np.frombuffer(raw, dtype, offset=stream.tell()).reshape(shape)
