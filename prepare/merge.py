"""One data file of the several of a data set, for someone who wants a single one."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Sequence

import h5py
import numpy as np

from common import manifest
from common.dataset import checksums, index, layout, reading, writing
from common.dataset.image_writer import ImageWriter
from common.dataset.layout import AXES, CALIBRATION, TIME, Missing
from common.dataset.view import View
from common.errors import DataError
from common.files import atomic
from common.progress import bar
from prepare.verify import manifest_rows, verify


def merge(path: Path, out: Path, force: bool = False) -> str:
    """Write the data set at `path` as the one file `out`; returns the content digest, which is the same.

    The data set is verified first. Raises OutputExists if `out` is there and not `force`, and DataError
    for a data set that is damaged. Memory: one image.
    """
    atomic.refuse_existing(out, force)
    problems = verify(path, sample=0).problems
    if problems:
        raise DataError(f"{problems[0]}; `python -m prepare repair CONFIG` makes damaged files again")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(reading.open_data(file)) for file in index.data_files(path)]
        with atomic.replacing(out) as partial:
            return _write(partial, files)


def _write(path: Path, files: Sequence[h5py.File]) -> str:
    """Write the data file at `path` with all that is in `files`; returns its content digest."""
    sizes = Counter()
    for file in files:
        sizes.update({split: len(file[split]["images"]) for split in layout.present(file)})
    first = reading.attributes(files[0])
    group = files[0][layout.present(files[0])[0]]
    shape, names = group["images"].shape[1:], AXES[::-1] if View.of(first).transposed else AXES
    compressed = group["images"].id.get_create_plist().get_nfilters()
    packing = "bitshuffle-lz4" if compressed else "none"
    with ImageWriter(path, sizes, shape, group["images"].dtype.str, packing) as writer:
        with bar(None, "images", "image", sum(sizes.values())) as progress:
            for file in files:
                _copy_images(file, writer, progress)
        out = writer.tables(files[0]["dark/mean"].shape, [(name, group[name][...]) for name in names])
        _fill(out, files)
        epoch = reading.attributes(group[TIME])["units"].rpartition(" ")[2]
        return writing.finish(out, _attributes(files), _missing(files), bool(first["simulated"]), epoch)


def _copy_images(file: h5py.File, writer: ImageWriter, progress) -> None:
    for split in layout.present(file):
        images, sums = file[split]["images"], file[split]["crc32"][...]
        for i, checksum in enumerate(sums.tolist()):
            if writer.append(split, images[i]) != checksum:
                raise DataError(f"{file.filename}: changed while it was copied")
            progress.update()


def _fill(out: h5py.File, files: Sequence[h5py.File]) -> None:
    """Write everything but the images."""
    for name in ("mean", "std"):
        out["dark"][name][...] = files[0]["dark"][name][...]
    for name in ("frames", "rejected_frames", "rejected_pixels"):
        out["dark"].attrs[name] = files[0]["dark"].attrs[name]
    if len(out.get("train/images", ())):
        _, out["statistics/mean"][...], out["statistics/std"][...] = reading.statistics(files)
    for split in layout.present(out):
        for name, column in checksums.columns(out[split]).items():
            column[...] = np.concatenate([file[split][name][...] for file in files if split in file])
    calibration = {}
    for group in (file[CALIBRATION] for file in files if CALIBRATION in file):
        for i, run in enumerate(group["run"][...].tolist()):
            calibration[run] = {name: float(group[name][i]) for name in group if name != "run"}
    writing.add_calibration(out, calibration)


def _missing(files: Sequence[h5py.File]) -> list[Missing]:
    """The missing shots of all `files`, numbered among the rows that all of them were asked for."""
    missing, asked = [], Counter()
    for file in files:
        of_file = reading.missing(file)
        missing += [one._replace(row=one.row + asked[one.split]) for one in of_file]
        asked.update(one.split for one in of_file)
        asked.update({split: len(file[split]["images"]) for split in layout.present(file)})
    return missing


def _attributes(files: Sequence[h5py.File]) -> dict[str, str]:
    found = [reading.attributes(file) for file in files]
    sources = {run: read for each in found for run, read in json.loads(each["sources"]).items()}
    rows = [row for file in files for row in manifest_rows(file)]
    changed = {"shard": "", "manifest_sha256": manifest.digest(rows), "sources": json.dumps(sources)}
    kept = {name: found[-1][name] for name in layout.ATTRIBUTES}
    return {**kept, **changed, **writing.made_by("h5py", "hdf5plugin", "numpy")}
