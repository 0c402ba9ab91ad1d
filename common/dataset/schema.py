"""The HDF5 file between `prepare` and `train`: its layout, its version, its checks.

common/README.md describes the format on one page ("The HDF5 file"). Whoever writes creates a file
with `create`, fills it, and ends with `finish`; whoever reads opens it with `open_data`, which
refuses anything that is not a complete file of a version it knows.

    /                   attributes: format, format_version, complete, content_digest, ... (see ATTRIBUTES)
    /dark/mean, std     (H, W) float64, counts: the camera's pedestal and noise, raw orientation
    /statistics/mean, std   (h, w) float32: per pixel over the images of the train split, if there is one
    /losses             (L,) of fields: the shots that were asked for and are in no split (LOSS_FIELDS)
    /train, /validation, /test, /predict
        images          (N, h, w) float32 or float16, one image per chunk
        labels          (N,) int8: index into the root attribute `classes`; not in /predict
        run, seconds, nanoseconds, fiducial   (N,): together the key of a shot
        crc32           (N,) uint32: zlib.crc32 of each image's bytes (C order, little endian)
        row_crc32       (N,) uint32: of the row: split, crc32, key, label and records together
        ebeam/NAME, gas_detector/NAME   (N,) float64, attribute `units`; NaN where a shot has none

Every dataset has an attribute `sha256` (common/dataset/checksums.py). Attributes NX_class, signal and
default are NeXus', by which viewers (silx, h5web) show the images at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import h5py
import numpy as np

from common.dataset.checksums import (
    ATTRIBUTES_SHA256,
    ROW_CRC32,
    SHA256,
    attributes_digest,
    content_digest,
    object_digests,
    row_checksums,
)
from common.dataset.safety import HDF5_ERRORS, check_hdf5, read_json
from common.errors import DataError
from common.manifest import LABELED, SPLITS
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, ID_DTYPE, ID_FIELDS, ShotId

FORMAT = "xtcav-lasing"
FORMAT_VERSION = 3  # those before had texts that HDF5 keeps without a checksum; they are not read

# HDF5's format of version 1.10: unlike the one before, it has checksums of its own metadata.
_LIBVER = ("v110", "v110")

# Root attributes besides format, format_version, complete and content_digest: name -> meaning.
ATTRIBUTES: Dict[str, str] = {
    "name": "the data set's name",
    "experiment": "e.g. amo86815",
    "classes": "JSON list of class names; labels index it",
    "config": "JSON of the prepare config, defaults filled in",
    "manifest_sha256": "digest of the manifest whose rows these are",
    "sources": "JSON list of the files read: name and size in bytes",
    "skipped": "JSON of {run: {reason: count}}: shots that could not be selected",
    "software": "JSON of {package: version}",
    "created": "UTC time, ISO 8601",
}
RECORDS: Dict[str, Dict[str, str]] = {"ebeam": EBEAM_UNITS, "gas_detector": GAS_DETECTOR_UNITS}
MAX_CLASSES = 127  # labels are int8
COMPRESSIONS = ("none", "bitshuffle-lz4")

LOSS_FIELDS: Dict[str, str] = {
    "split": "of the manifest's row, text",
    "row": "number among the manifest's rows of that split",
    "label": "index into `classes`, -1 in split predict",
    **{name: "key of the shot" for name in ID_FIELDS},
    "reason": "why there is no image, text",
}


class Loss(NamedTuple):
    """A shot that was asked for and has no image: the manifest's row `row` of `split`."""

    split: str
    row: int
    label: int
    shot: ShotId
    reason: str


# --- writing -----------------------------------------------------------------------------


def create(
    path: Union[str, Path],
    splits: Mapping[str, int],
    image_shape: Tuple[int, int],
    frame_shape: Tuple[int, int],
    dtype: str = "float32",
    compression: str = "none",
) -> h5py.File:
    """A new file at `path` with every dataset in its final shape, nothing filled in yet.

    `splits` gives the number of images of each split, `image_shape` (h, w) the stored images',
    `frame_shape` (H, W) the camera frames'. The file is open for writing and not `complete`. Images
    without compression have their places already (`image_offsets`), whatever is there.
    """
    file = h5py.File(path, "w", libver=_LIBVER)
    set_text(file, format=FORMAT)
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["complete"] = False
    for name in ("mean", "std"):
        pedestal = file.create_dataset(f"dark/{name}", frame_shape, "<f8")
        set_text(pedestal, units="counts")
        if splits.get("train"):
            file.create_dataset(f"statistics/{name}", image_shape, "<f4")
    _show_as_nexus(file, "NXroot", default=next(split for split in SPLITS if split in splits))
    for split, n in splits.items():
        _create_split(file.create_group(split), n, image_shape, dtype, compression, split in LABELED)
    return file


def reopen(path: Union[str, Path]) -> h5py.File:
    """Open for writing a file that `create` made, to fill and `finish` it."""
    return h5py.File(path, "r+", libver=_LIBVER)


def finish(file: h5py.File, attributes: Mapping[str, str], losses: Sequence[Loss] = ()) -> str:
    """Set the root attributes (all of ATTRIBUTES), the losses and the digest, mark the file complete.

    Returns the content digest. The caller closes the file and moves it to its final name.
    """
    if set(attributes) != set(ATTRIBUTES):
        raise ValueError(f"attributes differ from the format's: {set(attributes) ^ set(ATTRIBUTES)}")
    set_text(file, **attributes)
    file["losses"] = _loss_table(losses)
    for split in present(file):
        file[split][ROW_CRC32][...] = row_checksums(file[split])
    digests = object_digests(file)
    for name, digest in digests.items():
        if isinstance(file[name], h5py.Dataset):
            set_text(file[name], **{SHA256: digest})
    digest = content_digest(file, digests)
    set_text(file, content_digest=digest)
    file.attrs["complete"] = True
    set_text(file, **{ATTRIBUTES_SHA256: attributes_digest(file)})
    file.flush()
    return digest


def image_checksum(image: np.ndarray) -> int:
    """zlib.crc32 of the image's bytes as stored: C order, little endian."""
    return zlib.crc32(np.ascontiguousarray(image, image.dtype.newbyteorder("<")))


class Encoder:
    """Turns images into the bytes of their chunks, as the filters of `create` make them.

    HDF5 itself applies the filter, in a file of one image that exists in memory only. One thread
    at a time.
    """

    def __init__(self, image_shape: Tuple[int, int], dtype: str, compression: str) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file: Optional[h5py.File] = None
        if compression != "none":
            self._file = h5py.File("one image", "w", driver="core", backing_store=False)
            one, layout = (1, *image_shape), _filter(compression)
            self._one = self._file.create_dataset("one", one, self._dtype, chunks=one, **layout)

    def __call__(self, image: np.ndarray) -> memoryview:
        """The chunk's bytes of one image."""
        if self._file is None:
            return memoryview(np.ascontiguousarray(image, self._dtype)).cast("B")
        self._one[0] = image
        self._one.flush()
        return memoryview(self._one.id.read_direct_chunk((0, 0, 0))[1])

    def close(self) -> None:
        """Free the file in memory."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def structure_problems(file: h5py.File) -> List[str]:
    """What `file` lacks or has in another shape or type than this format says; empty if sound."""
    problems = [f"attribute {name} is missing" for name in ATTRIBUTES if name not in file.attrs]
    if not present(file):
        problems.append(f"none of the splits {', '.join(SPLITS)} is there")
    groups = ("dark", "statistics") if "train" in file else ("dark",)
    common = [f"{group}/{name}" for group in groups for name in ("mean", "std")]
    common.append("losses")
    problems += [f"{name} is missing" for name in common if name not in file]
    first = present(file)[0] if present(file) else ""
    image_shape = file[f"{first}/images"].shape[1:] if f"{first}/images" in file else None
    for split in present(file):
        problems += _split_problems(file[split], split, image_shape)
    return problems


def _split_problems(group: h5py.Group, split: str, image_shape: Optional[Tuple[int, ...]]) -> List[str]:
    if not isinstance(group.get("images"), h5py.Dataset) or group["images"].ndim != 3:
        return [f"{split}/images is missing, or not (N, h, w)"]
    n = group["images"].shape[0]
    labels = ("labels",) if split in LABELED else ()
    expected = {name: (n,) for name in (*labels, *ID_FIELDS, "crc32", ROW_CRC32)}
    expected.update({f"{record}/{name}": (n,) for record, units in RECORDS.items() for name in units})
    problems = []
    if group["images"].shape[1:] != image_shape:
        problems.append(f"{split}/images are {group['images'].shape[1:]}, others are {image_shape}")
    for name, shape in expected.items():
        dataset = group.get(name)
        if not isinstance(dataset, h5py.Dataset):
            problems.append(f"{split}/{name} is missing")
        elif dataset.shape != shape:
            problems.append(f"{split}/{name} has {dataset.shape} values, the split has {n} images")
        elif dataset.dtype.kind not in "iuf":
            problems.append(f"{split}/{name} holds {dataset.dtype}, not numbers")
    return problems


def _create_split(
    group: h5py.Group, n: int, image_shape: Tuple[int, int], dtype: str, compression: str, labeled: bool
) -> None:
    stored = np.dtype(dtype).newbyteorder("<")
    if compression == "none":
        _create_plain(group, (n, *image_shape), stored)
    else:
        filters = _filter(compression)
        group.create_dataset("images", (n, *image_shape), stored, chunks=(1, *image_shape), **filters)
    _show_as_nexus(group, "NXdata", signal="images")
    set_text(group["images"], interpretation="image")
    if labeled:
        group.create_dataset("labels", (n,), "i1")
    for name in ID_FIELDS:
        group.create_dataset(name, (n,), ID_DTYPE[name])
    for name in ("crc32", ROW_CRC32):
        group.create_dataset(name, (n,), "<u4")
    for record, units in RECORDS.items():
        for name, unit in units.items():
            field = group.create_dataset(f"{record}/{name}", (n,), "<f8", fillvalue=np.nan)
            set_text(field, units=unit)


def _show_as_nexus(group: h5py.Group, kind: str, **attributes: str) -> None:
    set_text(group, NX_class=kind, **attributes)


def set_text(node: Union[h5py.Group, h5py.Dataset], **attributes: str) -> None:
    """Give `node` attributes, as UTF-8 of fixed length: only those have a checksum in HDF5."""
    for name, value in attributes.items():
        raw = value.encode()
        node.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def _loss_table(losses: Sequence[Loss]) -> np.ndarray:
    """The losses as fields of fixed length: text of variable length would not go into the digest."""
    reasons = [loss.reason.encode() for loss in losses]
    width = max(map(len, reasons), default=1)
    fields = [("split", "S10"), ("row", "<u4"), ("label", "i1"), *ID_DTYPE.descr, ("reason", f"S{width}")]
    rows = [
        (loss.split.encode(), loss.row, loss.label, *loss.shot, why) for loss, why in zip(losses, reasons)
    ]
    return np.array(rows, np.dtype(fields))


def _create_plain(group: h5py.Group, shape: Tuple[int, ...], dtype: np.dtype) -> None:
    """`images` whose chunks lie one behind the other from the start, written by nobody yet.

    HDF5 then needs no index of them. In HDF5's own terms, because h5py 3.6 would have it write zeros.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, *shape[1:]))
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, b"images", h5py.h5t.py_create(dtype), space, properties)


def _filter(compression: str) -> Dict[str, Any]:
    hdf5plugin = importlib.import_module("hdf5plugin")  # registers the filters with HDF5
    return dict(hdf5plugin.Bitshuffle())  # LZ4 is its default


# --- reading -----------------------------------------------------------------------------


def open_data(path: Union[str, Path], splits: Sequence[str] = ()) -> h5py.File:
    """Open the finished data file at `path` for reading, having checked that it is one.

    `splits` are the splits that the caller needs. Raises DataError, with the file's name, for
    a file that is missing, not HDF5, truncated, of another format, incomplete, or of a newer
    version than this software, for one that is not safe to read (common/dataset/safety.py), and for a
    split that is missing or empty.
    """
    file = _open(path)
    try:
        with damage_named(path):
            _check_version(file, path)
            check_hdf5(file, path, fixed=True)
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


def present(file: h5py.File) -> Tuple[str, ...]:
    """The splits that `file` has, in the order of SPLITS."""
    return tuple(split for split in SPLITS if split in file)


def attributes(node: Union[h5py.Group, h5py.Dataset]) -> Dict[str, Any]:
    """The attributes of `node`, texts as str."""
    values = dict(node.attrs)
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def classes(file: h5py.File) -> List[str]:
    """The names of the classes; `labels` index this list. Raises DataError for what is no such list."""
    names = read_json(file.attrs.get("classes"), f"{file.filename}: attribute classes")
    least = 1 if any(split in file for split in LABELED) else 0
    if not isinstance(names, list) or not least <= len(set(map(str, names))) == len(names) <= MAX_CLASSES:
        raise DataError(f"{file.filename}: attribute classes is no list of 1 to {MAX_CLASSES} names")
    if not all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 100 for name in names):
        raise DataError(f"{file.filename}: attribute classes has a name that is not plain text")
    return names


def losses(file: h5py.File) -> List[Loss]:
    """The shots that were asked for and are in no split, with the reason of each."""
    return [
        Loss(split.decode(), int(row), int(label), ShotId(*map(int, key)), reason.decode())
        for split, row, label, *key, reason in file["losses"][...].tolist()
    ]


def image_offsets(images: h5py.Dataset) -> Optional[np.ndarray]:
    """Where each image starts in the file, (n,) int64 bytes; None unless each is one plain chunk there.

    Plain: little-endian floats, no filter, and every chunk written.
    """
    size = int(np.prod(images.shape[1:])) * images.dtype.itemsize
    plain = images.dtype in (np.dtype("<f4"), np.dtype("<f2")) and images.dtype.isnative
    if images.chunks != (1, *images.shape[1:]) or not plain or images.id.get_create_plist().get_nfilters():
        return None
    offsets = np.full(images.shape[0], -1, np.int64)

    def note(chunk) -> None:
        row = chunk.chunk_offset[0]  # of a damaged file, any number
        if (
            row < len(offsets)
            and chunk.size == size
            and not chunk.filter_mask
            and chunk.byte_offset is not None
        ):
            offsets[row] = chunk.byte_offset

    if hasattr(images.id, "chunk_iter"):  # 15 times faster than one by one, HDF5 1.14
        images.id.chunk_iter(note)
    else:
        for n in range(images.id.get_num_chunks()):
            note(images.id.get_chunk_info(n))
    return offsets if (offsets >= 0).all() else None


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


def _filters(images: h5py.Dataset) -> Tuple[str, ...]:
    return ("compression",) if images.id.get_create_plist().get_nfilters() else ()


def _split_text(file: h5py.File) -> str:
    return ", ".join(f"{split} ({file[split]['images'].shape[0]})" for split in present(file)) or "none"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
