"""Checks of HDF5 files of unknown origin, made before any of their content is used.

An HDF5 file can name other files to read from (external links, external storage, virtual
datasets), can be a few kB that unpack to terabytes, and can ask the library to load plugins. A
file that `prepare build` wrote does none of this, so it is refused.

Nor may one flipped bit take the process down inside HDF5 1.14, which TensorFlow's h5py brings: it
frees what it never allocated where it lists a damaged group in the order of the names, and loops
for ever in a damaged heap of texts of variable length, the one structure without a checksum. So
groups are listed as they are stored, and our files have no such text. Of that kind are only the links
between dimensions and their scales (LINKS), which other software needs and nothing here reads.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, Callable, Collection, Iterator, Optional, Union

import h5py
import numpy as np

from common.errors import DataError
from common.progress import printable

MAX_OBJECTS = 2000  # groups and datasets of one file; `build` makes some 35 a split
MAX_DEPTH = 16  # of groups; Keras' weights files nest by layers
MAX_CHUNK = 1 << 28  # bytes, unpacked
MAX_RATIO = 300  # unpacked to packed; LZ4 can do 255 at most
MAX_JSON = 1 << 26  # characters
SMALL = 1 << 20  # bytes that a dataset may have without being in the file

# Deflate, shuffle, fletcher32, bitshuffle (hdf5plugin): those that can be in our files or in a repacked one.
_FILTERS = frozenset({1, 2, 3, 32008})

# Attributes that HDF5 makes of dimension scales, of references in that heap.
LINKS = frozenset({"DIMENSION_LIST", "REFERENCE_LIST"})

# Of attributes; h5py's bool is an enum.
_FIXED = frozenset({h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM})

# What h5py raises for metadata that make no sense: it has no class of its own.
HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)


def check_hdf5(
    file: h5py.File, path: Union[str, Path], fixed: bool = False, only: Optional[Collection[str]] = None
) -> None:
    """Raise DataError, naming what and where, unless all of `file` is in the file itself and of sane size.

    fixed: attributes must be numbers or texts of fixed length. only: names of groups and datasets, for who
    reads no others; the rest is not looked at. Memory and time are bounded by MAX_OBJECTS; no link is
    followed, no data and no attributes are read. After it, reading any dataset whole takes at most MAX_RATIO
    times the file's size (or SMALL bytes), and HDF5 has compared every header with its checksum.
    """
    size = file.id.get_filesize()
    if fixed:
        _check_attributes(file, path)
    for seen, (name, node) in enumerate(_nodes(file, str(path), only)):
        if seen >= MAX_OBJECTS:
            raise DataError(f"{path}: over {MAX_OBJECTS} groups and datasets; refused")
        if isinstance(node, h5py.Dataset):
            problem = _dataset_problem(node, size)
            if problem:
                raise DataError(f"{path}: {name} {problem}; refused")
        if fixed:
            _check_attributes(node, path)


def read_json(text: Any, where: str) -> Any:
    """The value of a JSON text from a file; raises DataError, beginning with `where`."""
    if not isinstance(text, (str, bytes)) or len(text) > MAX_JSON:
        raise DataError(f"{where}: is not a JSON text of at most {MAX_JSON} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON ({str(error)[:100]})") from None


def _check_attributes(node: Union[h5py.Group, h5py.Dataset], path: Union[str, Path]) -> None:
    """Raise DataError if an attribute of `node` is not of fixed size; none is read."""
    at = node.id
    names = _names(functools.partial(h5py.h5a.iterate, at))
    if len(names) > MAX_OBJECTS:
        raise DataError(f"{path}: over {MAX_OBJECTS} attributes of one group or dataset; refused")
    for name in (name for name in names if name.decode(errors="replace") not in LINKS):
        kind = h5py.h5a.open(at, name).get_type()
        of = kind.get_class()
        if of not in _FIXED or (of == h5py.h5t.STRING and kind.is_variable_str()):
            shown = printable(name.decode(errors="replace"))
            raise DataError(
                f"{path}: attribute {shown} is of a type that no file of `prepare build` has; refused"
            )


def _nodes(
    group: h5py.Group, path: str, only: Optional[Collection[str]], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Union[h5py.Group, h5py.Dataset]]]:
    if depth > MAX_DEPTH:
        raise DataError(f"{path}: groups nested over {MAX_DEPTH} deep; refused")
    links = group.id.links
    for key in _names(links.iterate):
        name = prefix + key.decode(errors="replace")
        if only is not None and name not in only:
            continue
        if links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise DataError(f"{path}: {printable(name)} is a link to elsewhere; refused")
        node = group[key]
        if not isinstance(node, (h5py.Group, h5py.Dataset)):
            raise DataError(f"{path}: {printable(name)} is neither a group nor a dataset; refused")
        yield printable(name), node
        if isinstance(node, h5py.Group):
            yield from _nodes(node, path, only, f"{name}/", depth + 1)


def _names(listing: Callable[..., object]) -> list[bytes]:
    """What h5py's `listing` gives, as it is stored; no more than it takes to refuse it."""
    names: list[bytes] = []

    def note(name: bytes) -> Optional[bool]:
        names.append(name)
        return True if len(names) > MAX_OBJECTS else None

    listing(note, order=h5py.h5.ITER_NATIVE)
    return names


def _dataset_problem(dataset: h5py.Dataset, file_size: int) -> str:
    """What is wrong with `dataset` in a file of so many bytes, or ''."""
    settings = dataset.id.get_create_plist()
    kind = settings.get_layout()
    if kind == h5py.h5d.VIRTUAL:
        return "is a virtual dataset, whose data are in other files"
    if settings.get_external_count():
        return f"keeps its data in another file ({printable(str(dataset.external[0][0]))})"
    dtype = dataset.dtype
    if not _plain(dtype):
        return f"is of type {dtype}, which no file of `prepare build` holds"
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if filters - _FILTERS:
        return f"has an unknown filter ({min(filters - _FILTERS)})"
    chunks = settings.get_chunk() if kind == h5py.h5d.CHUNKED else None
    if chunks and math.prod(chunks) * dtype.itemsize > MAX_CHUNK:
        return f"has chunks of {chunks}, over {MAX_CHUNK} bytes"
    size = math.prod(dataset.shape or ()) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    # A column that was never written is all fill values and not in the file, but others of its rows are.
    most = stored * (MAX_RATIO if filters else 1) if chunks else max(stored, file_size)
    if size > max(SMALL, most):
        return f"claims {size} bytes, of which the file holds {stored}"
    return ""


def _plain(dtype: np.dtype) -> bool:
    if dtype.names:
        return all(_plain(dtype[name]) for name in dtype.names)
    return not dtype.hasobject and dtype.kind in "iufSb" and dtype.subdtype is None
