"""What makes damage to a data file show: checksums of rows, digests of datasets and of the whole."""

from __future__ import annotations

import hashlib
import zlib
from typing import Dict, Optional, Union

import h5py
import numpy as np

ROW_CRC32 = "row_crc32"
SHA256 = "sha256"  # attribute of every dataset
ATTRIBUTES_SHA256 = "attributes_sha256"  # root attribute, over all others
_ROWS = 50_000  # at a time: 12 MB

# Root attributes that may differ between two builds of the same content.
_NOT_CONTENT = frozenset({"created", "software", "sources", "content_digest", "complete", ATTRIBUTES_SHA256})


def row_checksums(split: h5py.Group) -> np.ndarray:
    """zlib.crc32 of each row of `split`, (N,) uint32: its name, and the row's value in every (N,) dataset.

    The image is in it through its own checksum, so that neither an image nor a key, label or
    record can stand in another's row. Datasets are taken in the order of their names.
    """
    columns: Dict[str, h5py.Dataset] = {}

    def add(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 1 and name != ROW_CRC32:
            columns[name] = node

    split.visititems(add)
    columns = dict(sorted(columns.items()))
    start = zlib.crc32(" ".join([split.name.strip("/"), *columns]).encode())
    row_type = np.dtype([(name, column.dtype) for name, column in columns.items()])
    n = len(split["crc32"])
    sums = np.empty(n, "<u4")
    for first in range(0, n, _ROWS):
        rows = np.empty(min(_ROWS, n - first), row_type)
        for name, column in columns.items():
            rows[name] = column[first : first + len(rows)]
        data, size = memoryview(rows.view(np.uint8)), row_type.itemsize
        for i in range(len(rows)):
            sums[first + i] = zlib.crc32(data[i * size : (i + 1) * size], start)
    return sums


def object_digest(node: Union[h5py.Group, h5py.Dataset]) -> str:
    """SHA-256, hexadecimal, of a group's attributes or of a dataset: its type, shape, attributes, bytes.

    The bytes of images are left out: each has a checksum, and `crc32` is a dataset as well.
    """
    sha = hashlib.sha256()
    for name in sorted(set(node.attrs) - {SHA256}):
        sha.update(f"{name}={_plain(node.attrs[name])}\n".encode())
    if isinstance(node, h5py.Dataset):
        sha.update(f"{node.dtype.str} {node.shape}\n".encode())
        if node.name.rpartition("/")[2] != "images":
            sha.update(np.ascontiguousarray(node[...]))
    return sha.hexdigest()


def object_digests(file: h5py.File) -> Dict[str, str]:
    """{name: object_digest} of every group and dataset below the root, in the order of the names."""
    nodes: Dict[str, Union[h5py.Group, h5py.Dataset]] = {}
    file.visititems(nodes.__setitem__)
    return {name: object_digest(nodes[name]) for name in sorted(nodes)}


def content_digest(file: h5py.File, digests: Optional[Dict[str, str]] = None) -> str:
    """SHA-256 over the `object_digests` of the file and the root attributes that describe content.

    Two files with the same digest hold the same shots, images, records and config, whenever
    and on however many processes they were built.
    """
    sha = hashlib.sha256()
    for name, digest in (digests or object_digests(file)).items():
        sha.update(f"{name} {digest}\n".encode())
    for name in sorted(set(file.attrs) - _NOT_CONTENT):
        sha.update(f"{name}={_plain(file.attrs[name])}\n".encode())
    return sha.hexdigest()


def attributes_digest(file: h5py.File) -> str:
    """SHA-256 over all root attributes, also those that describe no content: HDF5 does not check them."""
    sha = hashlib.sha256()
    for name in sorted(set(file.attrs) - {ATTRIBUTES_SHA256}):
        sha.update(f"{name}={_plain(file.attrs[name])}\n".encode())
    return sha.hexdigest()


def _plain(value: object) -> str:
    """An attribute's value as text that no version of numpy writes differently."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(np.asarray(value).tolist())
