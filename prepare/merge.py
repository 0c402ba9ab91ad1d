"""One data file of the several of a data set, for someone who wants a single one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Iterator, Sequence

import h5py

from common import manifest
from common.dataset import checksums, layout, reading, writing
from common.dataset.image_writer import ImageWriter
from common.dataset.layout import AXES, CALIBRATION, TIME, Missing
from common.dataset.view import View
from common.errors import DataError
from common.files import atomic
from common.manifest import Rows
from common.progress import Progress, bar
from prepare.verify import Read, check, image_problem


def merge(path: Path, out: Path, force: bool = False) -> str:
    """Write the data set at `path` as the one file `out`; returns the content digest, which is the same.

    All is checked as `verify` does, images as they are copied. Raises OutputExists if `out` is there and not
    `force`, and DataError for a data set that is damaged. Memory: some 150 bytes a shot, and the largest
    file's tables.
    """
    atomic.refuse_existing(out, force)
    report, read = check(path, images=False)
    _refuse(report.problems)
    with atomic.replacing(out) as partial:
        return _write(partial, read)


def _write(path: Path, read: Read) -> str:
    """Write the data file at `path` with all that was read; returns its content digest."""
    rows, first = Rows.joined(read.rows), read.attributes[0]
    with reading.open_data(read.files[0]) as file:
        group, frame = file[layout.present(file)[0]], file["dark/mean"].shape
        shape, dtype = group["images"].shape[1:], group["images"].dtype.str
        packing = "bitshuffle-lz4" if group["images"].id.get_create_plist().get_nfilters() else "none"
        axes = [(name, group[name][...]) for name in (AXES[::-1] if View.of(first).transposed else AXES)]
        epoch = reading.attributes(group[TIME])["units"].rpartition(" ")[2]
    sizes = {split: int(rows.of_split(split).sum()) for split in manifest.SPLITS if split in read.splits}
    with ImageWriter(path, sizes, shape, dtype, packing) as writer:
        with bar(None, "images", "image", len(rows)) as progress:
            for file in _each(read.files):
                _copy_images(file, writer, progress)
        out = writer.tables(frame, axes)
        missing = _fill(out, read.files)
        return writing.finish(out, _attributes(read), missing, bool(first["simulated"]), epoch)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise DataError(f"{problems[0]}; `python -m prepare repair CONFIG` makes damaged files again")


def _each(paths: Sequence[Path]) -> Iterator[h5py.File]:
    """The files one by one, each open while it is looked at."""
    for path in paths:
        with reading.open_data(path) as file:
            yield file


def _copy_images(file: h5py.File, writer: ImageWriter, progress: Progress) -> None:
    for split in layout.present(file):
        images, sums = file[split]["images"], file[split]["crc32"][...]
        for i, checksum in enumerate(sums.tolist()):
            image = images[i]
            same = writer.append(split, image) == checksum
            problem = image_problem(Path(file.filename), file[split], i, image, same)
            _refuse([problem] if problem else [])
            progress.update()


def _fill(out: h5py.File, paths: Sequence[Path]) -> list[Missing]:
    """Write everything but the images; returns the missing shots, numbered among the rows of all files."""
    done: Counter = Counter()
    asked: Counter = Counter()
    missing: list[Missing] = []
    calibration: dict[int, dict[str, float]] = {}
    for file in _each(paths):
        of_file = reading.missing(file)
        missing += [one._replace(row=one.row + asked[one.split]) for one in of_file]
        asked.update(one.split for one in of_file)
        for split in layout.present(file):
            n = len(file[split]["images"])
            for name, column in checksums.columns(out[split]).items():
                column[done[split] : done[split] + n] = file[split][name][...]
            done[split] += n
            asked[split] += n
        known = file.get(CALIBRATION, {"run": ()})
        for i, run in enumerate(known["run"][:]):
            calibration[int(run)] = {name: float(known[name][i]) for name in known if name != "run"}
    with reading.open_data(paths[0]) as file:
        for name in ("mean", "std"):
            out["dark"][name][...] = file["dark"][name][...]
        for name in ("frames", "rejected_frames", "rejected_pixels"):
            out["dark"].attrs[name] = file["dark"].attrs[name]
    writing.add_calibration(out, calibration)
    if done["train"]:
        _, out["statistics/mean"][...], out["statistics/std"][...] = reading.statistics(_each(paths))
    return missing


def _attributes(read: Read) -> dict[str, str]:
    sources = {run: files for each in read.attributes for run, files in json.loads(each["sources"]).items()}
    kept = {name: read.attributes[-1][name] for name in layout.ATTRIBUTES}
    asked = manifest.digest(Rows.joined(read.asked))
    changed = {"shard": "", "manifest_sha256": asked, "sources": json.dumps(sources)}
    return {**kept, **changed, **writing.made_by("h5py", "hdf5plugin", "numpy")}
