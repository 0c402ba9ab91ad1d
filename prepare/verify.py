"""Verify a data set; reports every problem instead of stopping at the first."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Union

import click
import h5py
import numpy as np
import pydantic

from common import cli, manifest
from common.dataset import checksums, index, layout, reading, scales
from common.dataset.checksums import content_digest, object_digests, objects_digest, row_checksums
from common.dataset.layout import ROW_CRC32, SHA256
from common.errors import DataError, UserError
from common.manifest import LABELED, SPLITS, Row
from common.progress import bar, say
from common.shots import ID_FIELDS, ShotId
from prepare.build.run import locate
from prepare.config import PrepareConfig, config_in
from prepare.image.pipeline import Pipeline
from prepare.select import uniform_hash
from prepare.sources import Source, open_source

SHOWN = 10  # rows of a split that are named; the rest is counted


class Report(NamedTuple):
    """problems: one line each, none if the data are good. notes: what was checked, what could not be."""

    problems: list[str]
    notes: list[str]


def print_report(path: str, sample: int, as_json: bool) -> bool:
    """Print what `verify` finds; returns whether the data are good."""
    report = verify(path, sample)
    if as_json:
        cli.print_json({"data": path, "good": not report.problems, **report._asdict()})
        return not report.problems
    for line in report.notes:
        say(f"{path}: {line}")
    for line in report.problems:
        click.echo(f"problem: {line}", err=True)
    if not report.problems:
        say(f"{path}: good")
    return not report.problems


def verify(path: Union[str, Path], sample: int = 20) -> Report:
    """Check structure, digests and images of the data set at `path`, `sample` images against the source."""
    report = Report([], [])
    try:
        files = index.data_files(path)
    except UserError as error:
        report.problems.append(str(error))
        return report
    for file in files:
        report.problems.extend(problems(file))
    if not report.problems:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(reading.open_data(file)) for file in files]
            _check_set(Path(path), opened, report)
            if sample:
                _check_source(opened, report, sample)
    return report


def damage(path: Path) -> Optional[str]:
    """The first problem of a data file; None if it is good."""
    return next(iter(problems(path)), None)


def problems(path: Path) -> Iterator[str]:
    """What is wrong with the data file at `path` by itself."""
    try:
        with reading.open_data(path) as file, reading.damage_named(path):
            of_structure = [f"{path}: {problem}" for problem in layout.structure_problems(file)]
            yield from of_structure
            if of_structure:
                return  # what follows reads the datasets by name
        of_scales = scales.problem(path)
        if of_scales:
            yield f"{path}: {of_scales}"
        with reading.open_data(path) as file, reading.damage_named(path):
            yield from _images(file, path)
            yield from _rows(file, path)
            yield from _digests(file, path)
            of_labels = list(_labels(file, path))
            yield from of_labels
            if not of_labels and manifest.digest(manifest_rows(file)) != _attribute(file, "manifest_sha256"):
                yield f"{path}: the shots are not those of the manifest it was built from"
    except UserError as error:  # or HDF5 could not read a block: the file is cut short or damaged
        yield str(error)


def rows_of(file: h5py.File) -> list[Row]:
    """The manifest rows that the file says it holds, in the manifest's order."""
    classes = reading.classes(file)
    rows = []
    for split in layout.present(file):
        group = file[split]
        keys = zip(*(group[name][...].tolist() for name in ID_FIELDS))
        labels = [classes[i] for i in group["labels"][...]] if split in LABELED else itertools.repeat("")
        rows += [Row(split, label, ShotId(*key)) for label, key in zip(labels, keys)]
    return rows


def manifest_rows(file: h5py.File) -> list[Row]:
    """The rows of the manifest that the file was asked for: what it holds and what is missing."""
    classes = reading.classes(file)
    of_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows_of(file):
        of_split[row.split].append(row)
    for one in reading.missing(file):  # in the order of the manifest
        label = classes[one.label] if 0 <= one.label < len(classes) else ""
        of_split[one.split].insert(one.row, Row(one.split, label, one.shot))
    return [row for rows in of_split.values() for row in rows]


def _attribute(file: h5py.File, name: str) -> str:
    return str(reading.attributes(file).get(name))


def _images(file: h5py.File, path: Path) -> Iterator[str]:
    for split in layout.present(file):
        group = file[split]
        sums = group["crc32"][...]
        for i in bar(range(len(sums)), f"checking {split}", "image"):
            image = group["images"][i]
            where = f"{path}: {split}/images[{i}]"
            if reading.image_checksum(image) != sums[i]:
                yield f"{where} ({_shot(group, i)}) is not what was written: checksum differs"
            elif not np.isfinite(image).all():
                yield f"{where} has values that are not finite"


def _rows(file: h5py.File, path: Path) -> Iterator[str]:
    """Whether image, key, label and records of each row are those that were put there together."""
    for split in layout.present(file):
        group = file[split]
        wrong = np.flatnonzero(row_checksums(group) != group[ROW_CRC32][...])
        for i in wrong[:SHOWN].tolist():
            yield (
                f"{path}: {split} row {i} ({_shot(group, i)}): image, key, label and records are not those "
                "that were written together"
            )
        if len(wrong) > SHOWN:
            yield f"{path}: {split}: {len(wrong) - SHOWN} more rows like that"


def _digests(file: h5py.File, path: Path) -> Iterator[str]:
    digests = object_digests(file)
    changed = [name for name, digest in digests.items() if _attribute(file[name], SHA256) != digest]
    for name in changed:
        yield f"{path}: {name} is not what was written: its digest differs"
    if _attribute(file, layout.ATTRIBUTES_SHA256) != checksums.attributes_digest(file):
        yield f"{path}: a root attribute is not what was written"
    if not changed and objects_digest(digests) != _attribute(file, layout.OBJECTS_SHA256):
        yield f"{path}: a group or dataset was added or removed after the build"
    if not changed and content_digest(file) != _attribute(file, "content_digest"):
        yield f"{path}: the content digest differs: an attribute was changed after the build"


def _labels(file: h5py.File, path: Path) -> Iterator[str]:
    classes = reading.classes(file)
    for split in (name for name in layout.present(file) if name in LABELED):
        labels = file[split]["labels"][...]
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(wrong):
            first = f"{split}/labels[{wrong[0]}] is {labels[wrong[0]]}"
            yield f"{path}: {first}, there are {len(classes)} classes"


def _check_set(path: Path, files: list[h5py.File], report: Report) -> None:
    """Whether the files are one data set: no shot twice, one dark and processing, what the index says."""
    seen: dict[ShotId, str] = {}
    for file in files:
        for row in rows_of(file):
            where = f"{file.filename}: {row.split}"
            if row.shot in seen:
                report.problems.append(f"{where}: {row.shot} is in {seen[row.shot]} as well")
            seen[row.shot] = where
    for file in files[1:]:
        if checksums.description(file) != checksums.description(files[0]):
            report.problems.append(
                f"{file.filename}: its dark, classes or image processing are not those of {files[0].filename}"
            )
    digest = content_digest(*files)
    if path.is_dir():
        said = index.read_index(index.index_path(path))
        for entry, file in zip(said.files, files):
            if _attribute(file, "content_digest") != entry.content_digest:
                report.problems.append(
                    f"{file.filename}: is not the file that the data set's index describes"
                )
        asked = manifest.digest([row for file in files for row in manifest_rows(file)])
        if (said.content_digest, said.manifest_sha256) != (digest, asked):
            report.problems.append(f"{path}: the files together are not what the data set's index describes")
    missing = sum(len(reading.missing(file)) for file in files)
    report.notes.append(f"{len(seen)} images read, checksums compared")
    lacking = f"; {missing} of the manifest are missing" if missing else ""
    report.notes.append(f"{len(seen)} shots, each once{lacking}")
    report.notes.append(f"content digest {digest[:16]}...")
    if any(reading.attributes(file).get("simulated") for file in files):
        report.notes.append("simulated: these are no shots of a real machine")


def _check_source(files: list[h5py.File], report: Report, sample: int) -> None:
    """Compute some images again from the camera's files, if they are there."""
    root = reading.attributes(files[0])
    if root["experiment"] == "signal_noise":
        report.notes.append("signal against noise: there are no camera's files to compare with")
        return
    try:
        config = config_in(root["config"], Path(files[0].filename))
    except pydantic.ValidationError as error:
        report.problems.append(f"{files[0].filename}: attribute config: {error.errors()[0]['msg']}")
        return
    if config.source.dir is not None and not Path(config.source.dir).is_dir():
        report.notes.append(f"{config.source.dir} is not here: no image compared with the camera's files")
        return
    try:
        source = open_source(config)
    except DataError as error:  # no psana on this machine: the data can be good all the same
        report.notes.append(f"no image compared with the camera's files: {error}")
        return
    with source:
        try:
            n = _compare(files, config, source, report, sample)
            report.notes.append(f"{n} images computed again from {config.source.place}")
        except UserError as error:
            report.problems.append(str(error))


def _compare(
    files: list[h5py.File], config: PrepareConfig, source: Source, report: Report, sample: int
) -> int:
    """Compare `sample` images, spread evenly over all shots, with the camera's frames; returns how many."""
    places = {}
    for file in files:
        numbers = dict.fromkeys(SPLITS, 0)
        for row in rows_of(file):
            places[row] = (file, numbers[row.split])
            numbers[row.split] += 1
    chosen = sorted(places, key=lambda row: uniform_hash(0, row.shot))[:sample]
    to_image = Pipeline(config.image, files[0]["dark/mean"][...])
    for place in sorted(locate(source, config, chosen), key=lambda place: place.shot):
        file, i = places[place.row]
        (frame,) = source.good_frames(place.run, [place.index])
        if not np.array_equal(to_image(frame), file[place.row.split]["images"][i]):
            where = f"{place.row.split}/images[{i}] ({place.shot})"
            report.problems.append(f"{file.filename}: {where} differs from the camera's frame")
    return len(chosen)


def _shot(group: h5py.Group, i: int) -> ShotId:
    return ShotId(*(int(group[name][i]) for name in ID_FIELDS))
