"""Writing a data file: its images one by one as they are made, then everything else, then its digests.

Who writes puts the images through an `ImageWriter` (image_writer.py), adds the tables with
`create_tables`, fills them, and ends with `finish`; `create` makes a file with everything in its final
shape at once.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

import h5py
import numpy as np

from common import __version__
from common.dataset import scales
from common.dataset.checksums import (
    attributes_digest,
    content_digest,
    object_digests,
    objects_digest,
    row_checksums,
)
from common.dataset.layout import (
    ATTRIBUTES,
    ATTRIBUTES_SHA256,
    AXES,
    CALIBRATION,
    FORMAT,
    FORMAT_VERSION,
    OBJECTS_SHA256,
    RECORDS,
    ROW_CRC32,
    SHA256,
    TIME,
    Missing,
    present,
)
from common.files.hdf5 import NewFile
from common.manifest import LABELED, SPLITS
from common.shots import CALIBRATION_UNITS, ID_DTYPE, ID_FIELDS, nanoseconds

# HDF5's format of version 1.10: unlike the one before, it has checksums of its own metadata.
_LIBVER = ("v110", "v110")

Axes = Sequence[tuple[str, np.ndarray]]


def create(
    path: Union[str, Path],
    splits: Mapping[str, int],
    image_shape: tuple[int, int],
    frame_shape: tuple[int, int],
    dtype: str = "float32",
    compression: str = "none",
) -> NewFile:
    """A new file at `path` with every dataset in its final shape, nothing filled in yet.

    `splits` gives the number of images of each split, `image_shape` (h, w) the stored images',
    `frame_shape` (H, W) the camera frames'. The file is open for writing and not `complete`.
    """
    file = create_images(path, splits, image_shape, dtype, compression)
    create_tables(file, frame_shape)
    return file


def create_tables(file: h5py.File, frame_shape: tuple[int, int], axes: Axes = ()) -> None:
    """Give a file with images everything else in its final shape.

    frame_shape: (H, W) of the camera's frames. axes: for each axis of an image its name (AXES) and
    where its pixels are on the camera, (h,) and (w,); by default their numbers.
    """
    splits = present(file)
    image_shape = file[splits[0]]["images"].shape[1:]
    for name in ("mean", "std"):
        pedestal = file.create_dataset(f"dark/{name}", frame_shape, "<f8")
        set_text(pedestal, units="counts")
        if "train" in file:
            file.create_dataset(f"statistics/{name}", image_shape, "<f8")
    _show_as_nexus(file, "NXroot", default=splits[0])
    for split in splits:
        _create_columns(file[split], axes or [(name, np.arange(n)) for name, n in zip(AXES, image_shape)])


def add_calibration(file: h5py.File, of_runs: Mapping[int, Mapping[str, float]]) -> None:
    """Add what is known of the XTCAV screen, {run: {name in CALIBRATION_UNITS: value}}, if anything is."""
    runs = sorted(run for run, values in of_runs.items() if values)
    if not runs:
        return
    group = file.create_group(CALIBRATION)
    group.create_dataset("run", data=np.array(runs, ID_DTYPE["run"]))
    for name, unit in CALIBRATION_UNITS.items():
        values = [of_runs[run].get(name, np.nan) for run in runs]
        set_text(group.create_dataset(name, data=np.array(values, "<f8")), units=unit)


def finish(
    file: h5py.File,
    attributes: Mapping[str, str],
    missing: Sequence[Missing] = (),
    simulated: bool = False,
    epoch: str = "1970-01-01",
) -> str:
    """Set times, root attributes (all of ATTRIBUTES), missing shots and digests; mark the file complete.

    epoch: the day from which `seconds` count. Returns the content digest. The caller closes the file and
    moves it to its final name.
    """
    if set(attributes) != set(ATTRIBUTES):
        raise ValueError(f"attributes differ from the format's: {set(attributes) ^ set(ATTRIBUTES)}")
    set_text(file, **attributes)
    file.attrs["simulated"] = bool(simulated)
    file["missing"] = _missing_table(missing)
    for split in present(file):
        group = file[split]
        group[TIME][...] = nanoseconds({name: group[name][...] for name in ("seconds", "nanoseconds")})
        set_text(group[TIME], units=f"nanoseconds since {epoch}", calendar="proleptic_gregorian")
        group[ROW_CRC32][...] = row_checksums(group)
    digests = object_digests(file)
    for name, digest in digests.items():
        set_text(file[name], **{SHA256: digest})
    digest = content_digest(file, written=True)
    set_text(file, content_digest=digest, **{OBJECTS_SHA256: objects_digest(digests)})
    file.attrs["complete"] = True
    set_text(file, **{ATTRIBUTES_SHA256: attributes_digest(file)})
    file.flush()
    return digest


def made_by(*packages: str) -> dict[str, str]:
    """The attributes that say by which software a file was made, and when; none of its content."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    software = {"python": platform.python_version(), **versions, "xtcav-lasing": __version__}
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"software": json.dumps(software), "created": now.isoformat(timespec="seconds")}


def set_text(node: Union[h5py.Group, h5py.Dataset], **attributes: str) -> None:
    """Give `node` attributes, as UTF-8 of fixed length: only those have a checksum in HDF5."""
    for name, value in attributes.items():
        raw = value.encode()
        node.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))


def create_images(
    path: Union[str, Path],
    splits: Mapping[str, int],
    image_shape: tuple[int, int],
    dtype: str,
    compression: str,
) -> NewFile:
    """A new file with the images' datasets, not `complete`."""
    file = NewFile(path, libver=_LIBVER)
    set_text(file, format=FORMAT)
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["complete"] = False
    stored = np.dtype(dtype).newbyteorder("<")
    for split in (name for name in SPLITS if name in splits):
        group, shape = file.create_group(split), (splits[split], *image_shape)
        if compression == "none":
            _create_plain(group, shape, stored)
        else:
            filters = _filter(compression)
            group.create_dataset("images", shape, stored, chunks=(1, *image_shape), **filters)
        _show_as_nexus(group, "NXdata", signal="images")
        set_text(group["images"], interpretation="image")
    return file


def _create_columns(group: h5py.Group, axes: Axes) -> None:
    """The tables of one split beside its images, and the scales of its dimensions."""
    images = group["images"]
    n = images.shape[0]
    columns = [group.create_dataset(name, (n,), ID_DTYPE[name]) for name in ID_FIELDS]
    columns += [group.create_dataset(name, (n,), "<u4") for name in ("crc32", ROW_CRC32)]
    if group.name.strip("/") in LABELED:
        columns.append(group.create_dataset("labels", (n,), "i1"))
    for record, units in RECORDS.items():
        for name, unit in units.items():
            field = group.create_dataset(f"{record}/{name}", (n,), "<f8", fillvalue=np.nan)
            set_text(field, units=unit)
            columns.append(field)
    all_scales = [group.create_dataset(TIME, (n,), "<i8")]
    for name, places in axes:
        all_scales.append(group.create_dataset(name, data=np.asarray(places, "<f8")))
        set_text(all_scales[-1], units="camera pixel")
    scales.attach(columns, images, all_scales)


def _show_as_nexus(group: h5py.Group, kind: str, **attributes: str) -> None:
    set_text(group, NX_class=kind, **attributes)


def _missing_table(missing: Sequence[Missing]) -> np.ndarray:
    """The missing shots as fields of fixed length: text of variable length has no checksum."""
    reasons = [shot.reason.encode() for shot in missing]
    width = max(map(len, reasons), default=1)
    fields = [("split", "S10"), ("row", "<u4"), ("label", "i1"), *ID_DTYPE.descr, ("reason", f"S{width}")]
    rows = [(one.split.encode(), one.row, one.label, *one.shot, why) for one, why in zip(missing, reasons)]
    return np.array(rows, np.dtype(fields))


def _create_plain(group: h5py.Group, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """`images` whose chunks lie one behind the other from the start, written by nobody yet.

    HDF5 then needs no index of them. In HDF5's own terms, because h5py 3.6 would have it write zeros.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, *shape[1:]))
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, b"images", h5py.h5t.py_create(dtype), space, properties)


def _filter(compression: str) -> dict[str, Any]:
    hdf5plugin = importlib.import_module("hdf5plugin")  # registers the filters with HDF5
    return dict(hdf5plugin.Bitshuffle())  # LZ4 is its default
