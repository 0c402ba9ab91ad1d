"""Reading a data file: it is checked as it is opened, and refused with one line if it is not good."""

from __future__ import annotations

import contextlib
import importlib
import os
import zlib
from pathlib import Path
from typing import Any, Collection, Iterator, NamedTuple, Optional, Sequence, Union

import h5py
import numpy as np

from common.dataset.checksums import attributes_digest
from common.dataset.layout import (
    ATTRIBUTES_SHA256,
    FORMAT,
    FORMAT_VERSION,
    MAX_CLASSES,
    SAID,
    Missing,
    present,
)
from common.dataset.safety import HDF5_ERRORS, LINKS, check_hdf5, read_json
from common.errors import DataError
from common.manifest import LABELED
from common.shots import ShotId


def open_data(
    path: Union[str, Path], splits: Sequence[str] = (), only: Optional[Collection[str]] = None
) -> h5py.File:
    """Open the finished data file at `path` for reading, having checked that it is one.

    splits: those that the caller needs. only: what is looked at, for who reads no more (a sixth of 12 ms).
    Raises DataError, with the file's name, for
    a file that is missing, not HDF5, truncated, of another format, incomplete, or of a newer
    version than this software, for one that is not safe to read (common/dataset/safety.py), and for a
    split that is missing or empty.
    """
    file = _open(path)
    try:
        with damage_named(path):
            _check_version(file, path)
            check_hdf5(file, path, fixed=True, only=only)
            _check_format(file, path)
            if "classes" in file.attrs:
                classes(file)
            for split in present(file):
                _check_images(file[split], path)
        for split in splits:
            if split not in present(file) or not file[split]["images"].shape[0]:
                raise DataError(f"{path}: has no split '{split}'; it has {_split_text(file)}")
        if any("compression" in _filters(file[split]["images"]) for split in present(file)):
            importlib.import_module("hdf5plugin")  # registers the filters with HDF5
    except BaseException:
        file.close()
        raise
    return file


class Header(NamedTuple):
    """What a data file says of itself: attributes of its root, number of its images, missing shots."""

    path: Path
    attributes: dict[str, Any]
    images: int
    missing: list[Missing]


def read_header(path: Union[str, Path], whole: bool = False) -> Header:
    """The header of the data file at `path`; its images and tables are not read.

    whole: whether all of its groups and datasets can be opened is looked at, too. Raises DataError as
    `open_data` does, and for root attributes that are not those that were written.
    """
    with open_data(path, only=None if whole else SAID) as file, damage_named(path):
        found = attributes(file)
        if found.get(ATTRIBUTES_SHA256) != attributes_digest(file):
            raise DataError(f"{path}: a root attribute is not what was written")
        images = sum(file[split]["images"].shape[0] for split in present(file))
        return Header(Path(path), found, images, missing(file))


def is_simulated(file: h5py.File) -> bool:
    """Whether the file's shots are of no real machine."""
    return bool(np.all(attributes(file).get("simulated", False)))


def attributes(node: Union[h5py.Group, h5py.Dataset]) -> dict[str, Any]:
    """The attributes of `node`, texts as str."""
    values = {name: node.attrs[name] for name in node.attrs if name not in LINKS}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def classes(file: h5py.File) -> list[str]:
    """The names of the classes; `labels` index this list. Raises DataError for what is no such list."""
    names = read_json(file.attrs.get("classes"), f"{file.filename}: attribute classes")
    least = 1 if any(split in file for split in LABELED) else 0
    if not isinstance(names, list) or not least <= len(set(map(str, names))) == len(names) <= MAX_CLASSES:
        raise DataError(f"{file.filename}: attribute classes is no list of 1 to {MAX_CLASSES} names")
    if not all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100 for name in names):
        raise DataError(f"{file.filename}: attribute classes has a name that is not plain text")
    return names


def missing(file: h5py.File) -> list[Missing]:
    """The shots that were asked for and are in no split, with the reason of each."""
    return [
        Missing(split.decode(), int(row), int(label), ShotId(*map(int, key)), reason.decode())
        for split, row, label, *key, reason in file["missing"][...].tolist()
    ]


def statistics(files: Sequence[h5py.File]) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the train images of all `files` of a data set, their mean and standard deviation per pixel.

    (h, w) float64, from what each file says of its own, by the pairwise update of Chan, Golub and LeVeque
    (1979), which loses no digits to large means. Raises DataError if there are none.
    """
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for group in (file["train"] for file in files if "train" in file):
        n, of_file = group["images"].shape[0], group.parent["statistics"]
        if n:
            away = of_file["mean"][...] - mean
            squares = squares + n * of_file["std"][...] ** 2 + away**2 * (count * n / (count + n))
            count += n
            mean = mean + away * (n / count)
    if not count:
        raise DataError(f"{', '.join(file.filename for file in files)}: no image of split train")
    return count, mean, np.sqrt(squares / count)


def image_checksum(image: np.ndarray) -> int:
    """zlib.crc32 of the image's bytes as stored: C order, little endian."""
    return zlib.crc32(np.ascontiguousarray(image, image.dtype.newbyteorder("<")))


def image_places(images: h5py.Dataset) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Where each stored image starts in the file and its bytes there, (n,) int64 both.

    None unless each is one chunk, and every chunk written.
    """
    if images.chunks != (1, *images.shape[1:]):
        return None
    offsets, sizes = np.full((2, images.shape[0]), -1, np.int64)

    def note(chunk) -> None:
        row = chunk.chunk_offset[0]  # of a damaged file, any number
        if row < len(offsets) and not chunk.filter_mask and chunk.byte_offset is not None:
            offsets[row], sizes[row] = chunk.byte_offset, chunk.size

    if hasattr(images.id, "chunk_iter"):  # 15 times faster than one by one, HDF5 1.14
        images.id.chunk_iter(note)
    else:
        for n in range(images.id.get_num_chunks()):
            note(images.id.get_chunk_info(n))
    return (offsets, sizes) if (offsets >= 0).all() else None


def is_plain(images: h5py.Dataset) -> bool:
    """Whether the images are little-endian floats, without a filter: what is stored is what is read."""
    plain = images.dtype in (np.dtype("<f4"), np.dtype("<f2")) and images.dtype.isnative
    return plain and not images.id.get_create_plist().get_nfilters()


def image_offsets(images: h5py.Dataset) -> Optional[np.ndarray]:
    """Where each image starts in the file, (n,) int64 bytes; None unless each is one plain chunk there."""
    places = image_places(images) if is_plain(images) else None
    size = int(np.prod(images.shape[1:])) * images.dtype.itemsize
    return places[0] if places is not None and (places[1] == size).all() else None


def _open(path: Union[str, Path]) -> h5py.File:
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such data file; make it with `make prepare CONFIG=...`")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not an HDF5 file")
    try:
        # Finished files do not change, so no lock: locks fail on some shared file systems.
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = "cannot be read" if error.errno else "is not an HDF5 file, or is cut short"
        raise DataError(f"{path}: {reason} ({_first_line(error)}); copy or build it again") from None


@contextlib.contextmanager
def damage_named(path: Union[str, Path]) -> Iterator[None]:
    """What HDF5 raises for a damaged file, as a DataError that names it; for blocks that only read."""
    try:
        yield
    except HDF5_ERRORS as error:
        reason = os.strerror(error.errno) if getattr(error, "errno", None) else _first_line(error)
        raise DataError(f"{path}: cannot be read ({reason}); copy or build it again") from None


def _check_images(group: object, path: Union[str, Path]) -> None:
    if not isinstance(group, h5py.Group):
        raise DataError(f"{path}: a split is not a group; this is no file that `prepare build` wrote")
    images = group.get("images")
    if not isinstance(images, h5py.Dataset) or images.ndim != 3 or images.dtype.kind != "f":
        raise DataError(f"{path}: {group.name[1:]}/images is missing, or not (N, h, w) of floats")


def _check_version(file: h5py.File, path: Union[str, Path]) -> None:
    """Raise DataError for another version of the format; what is not ours at all is found out later."""
    if not h5py.h5a.exists(file.id, b"format_version"):
        return
    attribute = h5py.h5a.open(file.id, b"format_version")
    if attribute.get_type().get_class() != h5py.h5t.INTEGER or attribute.shape != ():
        raise DataError(f"{path}: attribute format_version is no number; this is no file of `prepare build`")
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        advice = "update the software" if version > FORMAT_VERSION else "build it again"
        raise DataError(
            f"{path}: is of format version {version}, this software reads {FORMAT_VERSION}; {advice}"
        )


def _check_format(file: h5py.File, path: Union[str, Path]) -> None:
    found = attributes(file)
    if str(found.get("format")) != FORMAT or "format_version" not in found:
        raise DataError(f"{path}: an HDF5 file, but not one that `prepare build` wrote")
    if not np.all(found.get("complete", False)):
        raise DataError(f"{path}: the build of this file did not finish; build it again")


def _filters(images: h5py.Dataset) -> tuple[str, ...]:
    return ("compression",) if images.id.get_create_plist().get_nfilters() else ()


def _split_text(file: h5py.File) -> str:
    return ", ".join(f"{split} ({file[split]['images'].shape[0]})" for split in present(file)) or "none"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
