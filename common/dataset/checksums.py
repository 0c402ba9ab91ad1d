"""What makes damage to a data file show: checksums of rows, digests of datasets and of the whole."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Iterator, Union

import h5py
import numpy as np

from common.dataset.layout import ATTRIBUTES_SHA256, AXES, ROW_CRC32, SHA256, present
from common.dataset.safety import LINKS
from common.manifest import SPLITS

_ROWS = 50_000  # at a time: 12 MB


def row_checksums(split: h5py.Group) -> np.ndarray:
    """zlib.crc32 of each row of `split`, (N,) uint32: its name, and the row's value in every (N,) dataset.

    The image is in it through its own checksum, so that neither an image nor a key, label or
    record can stand in another's row. Datasets are taken in the order of their names.
    """
    row = columns(split)
    start = zlib.crc32(" ".join([split.name.strip("/"), *row]).encode())
    row_type = np.dtype([(name, column.dtype) for name, column in row.items()])
    n = len(split["crc32"])
    sums = np.empty(n, "<u4")
    for first in range(0, n, _ROWS):
        rows = np.empty(min(_ROWS, n - first), row_type)
        for name, column in row.items():
            rows[name] = column[first : first + len(rows)]
        data, size = memoryview(rows.view(np.uint8)), row_type.itemsize
        for i in range(len(rows)):
            sums[first + i] = zlib.crc32(data[i * size : (i + 1) * size], start)
    return sums


def columns(split: h5py.Group) -> dict[str, h5py.Dataset]:
    """{name: the dataset} of what a row of `split` has besides its image, in the order of the names."""
    found: dict[str, h5py.Dataset] = {}

    def add(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 1 and name not in (ROW_CRC32, *AXES):
            found[name] = node

    split.visititems(add)
    return dict(sorted(found.items()))


def object_digest(node: Union[h5py.Group, h5py.Dataset]) -> str:
    """SHA-256, hexadecimal, of a group's attributes or of a dataset: its type, shape, attributes, bytes.

    The bytes of images are left out: each has a checksum, and `crc32` is a dataset as well.
    """
    sha = hashlib.sha256()
    for line in _attribute_lines(node, {SHA256}):
        sha.update(line)
    if isinstance(node, h5py.Dataset):
        sha.update(f"{node.dtype.str} {node.shape}\n".encode())
        if node.name.rpartition("/")[2] != "images":
            sha.update(np.ascontiguousarray(node[...]))
    return sha.hexdigest()


def object_digests(file: h5py.File) -> dict[str, str]:
    """{name: object_digest} of every group and dataset below the root, in the order of the names."""
    nodes: dict[str, Union[h5py.Group, h5py.Dataset]] = {}
    file.visititems(nodes.__setitem__)
    return {name: object_digest(nodes[name]) for name in sorted(nodes)}


def objects_digest(digests: dict[str, str]) -> str:
    """SHA-256 over the `object_digests` of a file: it shows what was added or removed."""
    return hashlib.sha256(
        "".join(f"{name} {digest}\n" for name, digest in digests.items()).encode()
    ).hexdigest()


class Content:
    """What a data set is, of which the content digest is made; its files are added in their order.

    Memory: 4 bytes a row.
    """

    def __init__(self) -> None:
        self._descriptions: dict[bytes, bytes] = {}
        self._rows: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}

    def add(self, file: h5py.File, written: bool = False) -> None:
        """Add what `file` has. written: its checksums and digests are taken as they were written."""
        key = _said(file) if written else description(file)
        if key not in self._descriptions:
            self._descriptions[key] = description(file) if written else key
        for split in present(file):
            self._rows[split].append(file[split][ROW_CRC32][...] if written else row_checksums(file[split]))

    @property
    def alike(self) -> bool:
        """Whether all files have the same dark, classes and image processing."""
        return len(set(self._descriptions.values())) <= 1

    def digest(self) -> str:
        """SHA-256 of all that was added.

        Pixels, keys, labels and records row by row and split by split, the names of the classes, what was
        done to the images, and the dark. What read the frames, from where, into how many files, how they are
        packed, by how many processes, and when does not matter.
        """
        sha = hashlib.sha256()
        for line in dict.fromkeys(self._descriptions.values()):
            sha.update(line)
        for rows in self._rows.values():
            for of_file in rows:
                sha.update(of_file)
        return sha.hexdigest()


def content_digest(*files: h5py.File, written: bool = False) -> str:
    """The digest of the `Content` of `files`, which make one data set."""
    content = Content()
    for file in files:
        content.add(file, written)
    return content.digest()


def attributes_digest(file: h5py.File) -> str:
    """SHA-256 over all root attributes, also those that describe no content: HDF5 does not check them."""
    sha = hashlib.sha256()
    for line in _attribute_lines(file, {ATTRIBUTES_SHA256}):
        sha.update(line)
    return sha.hexdigest()


def description(file: h5py.File) -> bytes:
    """A line that says what the rows of a file are rows of, with the digest of its dark."""
    dark = hashlib.sha256()
    for name in ("mean", "std"):
        dark.update(np.ascontiguousarray(file["dark"][name][...]))
    return _describe(file, dark.hexdigest())


def _said(file: h5py.File) -> bytes:
    """The same with the digests of the dark that were written: equal where `description` is."""
    return _describe(file, " ".join(_plain(file["dark"][name].attrs[SHA256]) for name in ("mean", "std")))


def _describe(file: h5py.File, dark: str) -> bytes:
    images = [file[split]["images"] for split in present(file)]
    stored = {(dataset.dtype.str, dataset.shape[1:]) for dataset in images}
    return f"{_plain(file.attrs['classes'])} {_steps(file)} {sorted(stored)} {dark}\n".encode()


def _steps(file: h5py.File) -> str:
    """What the config says is done to an image, apart from how it is packed."""
    try:
        image = json.loads(_plain(file.attrs["config"])).get("image")
    except (ValueError, AttributeError):
        return ""
    steps = {name: value for name, value in (image or {}).items() if name != "compression"}
    return json.dumps(steps, sort_keys=True)


def _attribute_lines(node: Union[h5py.Group, h5py.Dataset], without: set) -> Iterator[bytes]:
    for name in sorted(set(node.attrs) - without - LINKS):
        yield f"{name}={_plain(node.attrs[name])}\n".encode()


def _plain(value: object) -> str:
    """An attribute's value as text that no version of numpy writes differently."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(np.asarray(value).tolist())
