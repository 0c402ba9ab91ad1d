"""The layout of a data file, the HDF5 file between `prepare` and `train` (a page of common/README.md).

    /                   attributes: format, format_version, complete, simulated, ... (ATTRIBUTES)
    /dark/mean, std     (H, W) float64, counts: the camera's pedestal and noise, raw orientation
    /statistics/mean, std   (h, w) float64: per pixel over the images of the train split, if there is one
    /calibration/run, NAME  (R,) int32, float64: runs with values of the XTCAV screen, and those values
                        (CALIBRATION_UNITS), NaN where there is none; absent where no run has any
    /missing            (L,) of fields: the shots that were asked for and have no image (Missing)
    /train, /validation, /test, /predict
        images          (N, h, w) float32 or float16, one image per chunk
        labels          (N,) int8: index into the root attribute `classes`; not in /predict
        run, seconds, nanoseconds, fiducial   (N,): together the key of a shot
        time            (N,) int64, ns: seconds and nanoseconds as one number
        row, column     (h or w,) float64: where the image's pixels are on the camera
        crc32           (N,) uint32: zlib.crc32 of each image's bytes (C order, little endian)
        row_crc32       (N,) uint32: of the row: split, crc32, key, label and records together
        ebeam/NAME, gas_detector/NAME, gmd/NAME   (N,) float64, attribute `units`; NaN where a shot has none

A data set is one such file, or the files of a folder (index.py). `time`, `row` and `column` are
HDF5's dimension scales, by which xarray names the dimensions. Every group and dataset has an attribute
`sha256` (checksums.py). Attributes NX_class, signal and default are NeXus', by which viewers (silx,
h5web) show the images at once.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import h5py

from common.manifest import LABELED, SPLITS
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, GMD_UNITS, ID_FIELDS, ShotId

FORMAT = "xtcav-lasing"
FORMAT_VERSION = 4  # 1 and 2 had texts without a checksum; 3 had no shards, and digests of whole configs

# Root attributes besides format, format_version, complete, simulated and content_digest: name -> meaning.
ATTRIBUTES: dict[str, str] = {
    "name": "the data set's name",
    "experiment": "e.g. amo86815",
    "shard": "number of the file in its data set, from 0; empty in a data set of one file",
    "classes": "JSON list of class names; labels index it",
    "config": "JSON of the prepare config, defaults filled in",
    "manifest_sha256": "digest of the manifest's rows that this file was asked for",
    "sources": "JSON of {run: [[file, bytes], ...]}: what was read for these rows",
    "skipped": "JSON of {run: {reason: count}}: shots that could not be selected",
    "software": "JSON of {package: version}",
    "created": "UTC time, ISO 8601",
}
CALIBRATION = "calibration"
ROW_CRC32 = "row_crc32"
TIME = "time"
AXES = ("row", "column")  # of an image, by the camera's
SHA256 = "sha256"  # attribute of every group and dataset
OBJECTS_SHA256 = "objects_sha256"  # root attribute, over all of those
ATTRIBUTES_SHA256 = "attributes_sha256"  # root attribute, over all others
RECORDS: dict[str, dict[str, str]] = {
    "ebeam": EBEAM_UNITS,
    "gas_detector": GAS_DETECTOR_UNITS,
    "gmd": GMD_UNITS,
}
# What says which shots a file has, and which of them belong together: no images, keys or records.
SAID = frozenset(
    ["missing", "dark", "dark/mean", "dark/std", *SPLITS]
    + [f"{split}/{name}" for split in SPLITS for name in ("images", ROW_CRC32)]
)
MAX_CLASSES = 127  # labels are int8


class Missing(NamedTuple):
    """A shot that was asked for and has no image: a row of /missing, which has the key's four fields."""

    split: str
    row: int  # number among the rows of that split that this file was asked for
    label: int  # index into `classes`, -1 in split predict
    shot: ShotId
    reason: str


def present(file: h5py.File) -> tuple[str, ...]:
    """The splits that `file` has, in the order of SPLITS."""
    return tuple(split for split in SPLITS if split in file)


def structure_problems(file: h5py.File) -> list[str]:
    """What `file` lacks or has in another shape or type than this format says; empty if sound."""
    problems = [f"attribute {name} is missing" for name in ATTRIBUTES if name not in file.attrs]
    if not present(file):
        problems.append(f"none of the splits {', '.join(SPLITS)} is there")
    groups = ("dark", "statistics") if "train" in file else ("dark",)
    common = [f"{group}/{name}" for group in groups for name in ("mean", "std")]
    common.append("missing")
    problems += [f"{name} is missing" for name in common if name not in file]
    first = present(file)[0] if present(file) else ""
    image_shape = file[f"{first}/images"].shape[1:] if f"{first}/images" in file else None
    for split in present(file):
        problems += _split_problems(file[split], split, image_shape)
    return problems


def _split_problems(group: h5py.Group, split: str, image_shape: Optional[tuple[int, ...]]) -> list[str]:
    if not isinstance(group.get("images"), h5py.Dataset) or group["images"].ndim != 3:
        return [f"{split}/images is missing, or not (N, h, w)"]
    n = group["images"].shape[0]
    labels = ("labels",) if split in LABELED else ()
    expected = {name: (n,) for name in (*labels, *ID_FIELDS, TIME, "crc32", ROW_CRC32)}
    expected.update({f"{record}/{name}": (n,) for record, units in RECORDS.items() for name in units})
    problems = []
    if group["images"].shape[1:] != image_shape:
        problems.append(f"{split}/images are {group['images'].shape[1:]}, others are {image_shape}")
    if sorted(len(group[name]) for name in AXES if name in group) != sorted(group["images"].shape[1:]):
        problems.append(f"{split}/{' and '.join(AXES)} do not fit images of {group['images'].shape[1:]}")
    for name, shape in expected.items():
        dataset = group.get(name)
        if not isinstance(dataset, h5py.Dataset):
            problems.append(f"{split}/{name} is missing")
        elif dataset.shape != shape:
            problems.append(f"{split}/{name} has {dataset.shape} values, the split has {n} images")
        elif dataset.dtype.kind not in "iuf":
            problems.append(f"{split}/{name} holds {dataset.dtype}, not numbers")
    return problems
