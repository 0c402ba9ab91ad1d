"""Verify a data file; reports every problem instead of stopping at the first."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Dict, List, NamedTuple, Union

import h5py
import numpy as np
import pydantic

from common import manifest
from common.dataset import checksums, schema
from common.dataset.checksums import ROW_CRC32, SHA256, content_digest, object_digests, row_checksums
from common.errors import DataError, UserError
from common.manifest import LABELED, SPLITS, Row
from common.progress import bar
from common.shots import ID_FIELDS, ShotId
from prepare.build.run import locate
from prepare.config import PrepareConfig
from prepare.image.pipeline import Pipeline
from prepare.select import uniform_hash
from prepare.sources import open_source

SHOWN = 10  # rows of a split that are named; the rest is counted


class Report(NamedTuple):
    """problems: one line each, none if the file is good. notes: what was checked, what could not be."""

    problems: List[str]
    notes: List[str]


def verify(path: Union[str, Path], sample: int = 20) -> Report:
    """Check structure, digests and images of the file at `path`, and `sample` images against the source."""
    report = Report([], [])
    try:
        file = schema.open_data(path)
    except UserError as error:
        report.problems.append(str(error))
        return report
    with file:
        try:
            with schema.damage_named(path):
                _check_file(file, path, report, sample)
        except UserError as error:  # HDF5 could not read a block: the file is cut short or damaged
            report.problems.append(str(error))
    return report


def _check_file(file: h5py.File, path: Union[str, Path], report: Report, sample: int) -> None:
    report.problems.extend(f"{path}: {problem}" for problem in schema.structure_problems(file))
    if report.problems:
        return  # what follows reads the datasets by name
    _check_images(file, path, report)
    _check_rows(file, path, report)
    _check_digests(file, path, report)
    if not _check_labels(file, path, report):
        return  # without good labels there are no rows to check
    _check_keys(file, path, report)
    _check_manifest(file, path, report)
    _check_source(file, path, report, sample)


def rows_of(file: h5py.File) -> List[Row]:
    """The manifest rows that the file says it holds, in the manifest's order."""
    classes = schema.classes(file)
    rows = []
    for split in schema.present(file):
        group = file[split]
        keys = zip(*(group[name][...].tolist() for name in ID_FIELDS))
        labels = [classes[i] for i in group["labels"][...]] if split in LABELED else itertools.repeat("")
        rows += [Row(split, label, ShotId(*key)) for label, key in zip(labels, keys)]
    return rows


def manifest_rows(file: h5py.File) -> List[Row]:
    """The rows of the manifest that the file was built from: what it holds and what was lost."""
    classes = schema.classes(file)
    of_split: Dict[str, List[Row]] = {split: [] for split in SPLITS}
    for row in rows_of(file):
        of_split[row.split].append(row)
    for loss in schema.losses(file):  # in the order of the manifest
        label = classes[loss.label] if 0 <= loss.label < len(classes) else ""
        of_split[loss.split].insert(loss.row, Row(loss.split, label, loss.shot))
    return [row for rows in of_split.values() for row in rows]


def _check_labels(file: h5py.File, path: Union[str, Path], report: Report) -> bool:
    classes = schema.classes(file)
    for split in (name for name in schema.present(file) if name in LABELED):
        labels = file[split]["labels"][...]
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(wrong):
            report.problems.append(
                f"{path}: {split}/labels[{wrong[0]}] is {labels[wrong[0]]}, there are {len(classes)} classes"
            )
            return False
    return True


def _check_keys(file: h5py.File, path: Union[str, Path], report: Report) -> None:
    seen: Dict[ShotId, str] = {}
    for row in rows_of(file):
        if row.shot in seen:
            report.problems.append(f"{path}: {row.shot} is in {seen[row.shot]} and again in {row.split}")
        seen[row.shot] = row.split
    report.notes.append(f"{len(seen)} shots, each once")


def _check_images(file: h5py.File, path: Union[str, Path], report: Report) -> None:
    checked = 0
    for split in schema.present(file):
        group = file[split]
        sums = group["crc32"][...]
        for i in bar(range(len(sums)), f"checking {split}", "image"):
            image = group["images"][i]
            checked += 1
            if schema.image_checksum(image) != sums[i]:
                where = f"{path}: {split}/images[{i}] ({_shot(group, i)})"
                report.problems.append(f"{where} is not what was written: checksum differs")
            elif not np.isfinite(image).all():
                report.problems.append(f"{path}: {split}/images[{i}] has values that are not finite")
    report.notes.append(f"{checked} images read, checksums compared")


def _check_rows(file: h5py.File, path: Union[str, Path], report: Report) -> None:
    """Whether image, key, label and records of each row are those that were put there together."""
    for split in schema.present(file):
        group = file[split]
        wrong = np.flatnonzero(row_checksums(group) != group[ROW_CRC32][...])
        for i in wrong[:SHOWN].tolist():
            report.problems.append(
                f"{path}: {split} row {i} ({_shot(group, i)}): image, key, label and records are not those "
                "that were written together"
            )
        if len(wrong) > SHOWN:
            report.problems.append(f"{path}: {split}: {len(wrong) - SHOWN} more rows like that")


def _check_digests(file: h5py.File, path: Union[str, Path], report: Report) -> None:
    digests = object_digests(file)
    changed = [
        name
        for name, digest in digests.items()
        if isinstance(file[name], h5py.Dataset) and schema.attributes(file[name]).get(SHA256) != digest
    ]
    report.problems.extend(f"{path}: {name} is not what was written: its digest differs" for name in changed)
    root = schema.attributes(file)
    if root.get(checksums.ATTRIBUTES_SHA256) != checksums.attributes_digest(file):
        report.problems.append(f"{path}: a root attribute is not what was written")
    if not changed and content_digest(file, digests) != root["content_digest"]:
        report.problems.append(
            f"{path}: the content digest differs: an attribute was changed after the build"
        )
    report.notes.append(f"content digest {root['content_digest'][:16]}...")


def _check_manifest(file: h5py.File, path: Union[str, Path], report: Report) -> None:
    if manifest.digest(manifest_rows(file)) != schema.attributes(file)["manifest_sha256"]:
        report.problems.append(f"{path}: the shots are not those of the manifest it was built from")


def _check_source(file: h5py.File, path: Union[str, Path], report: Report, sample: int) -> None:
    """Compute some images again from the camera's files, if they are there."""
    root = schema.attributes(file)
    if root["experiment"] == "signal_noise":
        report.notes.append("signal against noise: there are no camera's files to compare with")
        return
    try:
        config = PrepareConfig.model_validate_json(root["config"])
    except pydantic.ValidationError as error:
        report.problems.append(f"{path}: attribute config: {error.errors()[0]['msg']}")
        return
    if config.source.dir is not None and not Path(config.source.dir).is_dir():
        report.notes.append(f"{config.source.dir} is not here: no image compared with the camera's files")
        return
    rows = rows_of(file)
    chosen = sorted(rows, key=lambda row: uniform_hash(0, row.shot))[:sample]
    try:
        source = open_source(config)
    except DataError as error:  # no psana on this machine: the file can be good all the same
        report.notes.append(f"no image compared with the camera's files: {error}")
        return
    with source:
        try:
            numbers = _row_numbers(rows)
            to_image = Pipeline(config.image, file["dark/mean"][...])
            for row, place in zip(chosen, locate(source, config, chosen)):
                stored = file[row.split]["images"][numbers[row.shot]]
                (frame,) = source.good_frames(place.run, [place.index])
                if not np.array_equal(to_image(frame), stored):
                    where = f"{row.split}/images[{numbers[row.shot]}]"
                    report.problems.append(f"{path}: {where} ({row.shot}) differs from the camera's frame")
            report.notes.append(f"{len(chosen)} images computed again from {config.source.place}")
        except UserError as error:
            report.problems.append(str(error))


def _shot(group: h5py.Group, i: int) -> ShotId:
    return ShotId(*(int(group[name][i]) for name in ID_FIELDS))


def _row_numbers(rows: List[Row]) -> Dict[ShotId, int]:
    counters: Dict[str, int] = {}
    numbers = {}
    for row in rows:
        numbers[row.shot] = counters.get(row.split, 0)
        counters[row.split] = numbers[row.shot] + 1
    return numbers
