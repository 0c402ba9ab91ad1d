"""Verify a data set; reports every problem instead of stopping at the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Union

import click
import h5py
import numpy as np
import pydantic

from common import cli, manifest
from common.dataset import checksums, index, layout, reading, scales
from common.dataset.checksums import content_digest, object_digests, objects_digest, row_checksums
from common.dataset.layout import ROW_CRC32, SHA256
from common.dataset.rows import asked, held
from common.errors import DataError, UserError
from common.manifest import LABELED, Rows
from common.progress import bar, say
from common.shots import ID_FIELDS, ShotId, first_of_key, uniform_hashes
from prepare.build.inputs import locate
from prepare.config import PrepareConfig, config_in
from prepare.image.pipeline import Pipeline
from prepare.sources import Source, open_source

SHOWN = 10  # rows of a split that are named; the rest is counted


class Report(NamedTuple):
    """problems: one line each, none if the data are good. notes: what was checked, what could not be."""

    problems: list[str]
    notes: list[str]


class Read:
    """What was read of the files of a data set, in their order: some 50 bytes a shot."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.splits: set[str] = set()
        self.rows: list[Rows] = []  # that each file holds
        self.asked: list[Rows] = []  # that each was to hold
        self.attributes: list[dict[str, Any]] = []
        self.descriptions: list[bytes] = []
        self.content = checksums.Content()

    def add(self, path: Path, file: h5py.File, rows_asked: Rows) -> None:
        self.files.append(path)
        self.splits.update(layout.present(file))
        self.rows.append(held(file))
        self.asked.append(rows_asked)
        self.attributes.append(reading.attributes(file))
        self.descriptions.append(checksums.description(file))
        self.content.add(file, written=True)


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
    """Check structure, digests and images of the data set at `path`, `sample` images against the source.

    Memory: some 150 bytes a shot at the end, 50 before.
    """
    report, read = check(path)
    if sample and not report.problems:
        _check_source(read, report, sample)
    return report


def check(path: Union[str, Path], images: bool = True) -> tuple[Report, Read]:
    """The same without the source, and what was read, which is all of it if there are no problems.

    images: whether they are read, too.
    """
    report, read = Report([], []), Read()
    try:
        for file in index.data_files(path):
            report.problems.extend(problems(file, read, images))
    except UserError as error:
        report.problems.append(str(error))
    if not report.problems:
        _check_set(Path(path), read, report)
    return report, read


def damage(path: Path) -> Optional[str]:
    """The first problem of a data file; None if it is good."""
    return next(problems(path), None)


def problems(path: Path, read: Optional[Read] = None, images: bool = True) -> Iterator[str]:
    """What is wrong with the data file at `path` by itself; what it says is added to `read`.

    images: whether they are read, too.
    """
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
            if images:
                yield from _images(file, path)
            yield from _rows(file, path)
            yield from _digests(file, path)
            of_labels = list(_labels(file, path))
            yield from of_labels
            if of_labels:
                return
            rows_asked = asked(file)
            if manifest.digest(rows_asked) != _attribute(file, "manifest_sha256"):
                yield f"{path}: the shots are not those of the manifest it was built from"
            if read is not None:
                read.add(path, file, rows_asked)
    except UserError as error:  # or HDF5 could not read a block: the file is cut short or damaged
        yield str(error)


def _attribute(file: h5py.File, name: str) -> str:
    return str(reading.attributes(file).get(name))


def _images(file: h5py.File, path: Path) -> Iterator[str]:
    for split in layout.present(file):
        group = file[split]
        images, sums = group["images"], group["crc32"][...]
        for i in bar(range(len(sums)), f"checking {split}", "image"):
            image = images[i]
            problem = image_problem(path, group, i, image, reading.image_checksum(image) == sums[i])
            if problem:
                yield problem


def image_problem(path: Path, group: h5py.Group, i: int, image: np.ndarray, same: bool) -> Optional[str]:
    """What is wrong with image `i` of a split, whose checksum is the `same` or not; None if nothing."""
    where = f"{path}: {group.name[1:]}/images[{i}]"
    if not same:
        return f"{where} ({_shot(group, i)}) is not what was written: checksum differs"
    return None if np.isfinite(image).all() else f"{where} has values that are not finite"


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
    # Its rows were compared, the dark with its digest: what was written is what is there.
    if not changed and content_digest(file, written=True) != _attribute(file, "content_digest"):
        yield f"{path}: the content digest differs: an attribute was changed after the build"


def _labels(file: h5py.File, path: Path) -> Iterator[str]:
    classes = reading.classes(file)
    for split in (name for name in layout.present(file) if name in LABELED):
        labels = file[split]["labels"][...]
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(wrong):
            first = f"{split}/labels[{wrong[0]}] is {labels[wrong[0]]}"
            yield f"{path}: {first}, there are {len(classes)} classes"


def _check_set(path: Path, read: Read, report: Report) -> None:
    """Whether the files are one data set: no shot twice, one dark and processing, what the index says."""
    rows = Rows.joined(read.rows)
    first = first_of_key(rows.table)
    twice = np.flatnonzero(first != np.arange(len(rows)))
    for row in twice[:SHOWN].tolist():
        here, there = (f"{read.files[_file_of(read, i)]}: {rows[i].split}" for i in (row, int(first[row])))
        report.problems.append(f"{here}: {rows[row].shot} is in {there} as well")
    if len(twice) > SHOWN:
        report.problems.append(f"{path}: {len(twice) - SHOWN} more shots like that")
    for file, description in zip(read.files, read.descriptions):
        if description != read.descriptions[0]:
            report.problems.append(
                f"{file}: its dark, classes or image processing are not those of {read.files[0]}"
            )
    digest = read.content.digest()
    if path.is_dir():
        said = index.read_index(index.index_path(path))
        for entry, file, attributes in zip(said.files, read.files, read.attributes):
            if attributes["content_digest"] != entry.content_digest:
                report.problems.append(f"{file}: is not the file that the data set's index describes")
        of_manifest = manifest.digest(Rows.joined(read.asked))
        if (said.content_digest, said.manifest_sha256) != (digest, of_manifest):
            report.problems.append(f"{path}: the files together are not what the data set's index describes")
    missing = sum(map(len, read.asked)) - len(rows)
    report.notes.append(f"{len(rows)} images read, checksums compared")
    lacking = f"; {missing} of the manifest are missing" if missing else ""
    report.notes.append(f"{len(rows)} shots, each once{lacking}")
    report.notes.append(f"content digest {digest[:16]}...")
    if any(attributes.get("simulated") for attributes in read.attributes):
        report.notes.append("simulated: these are no shots of a real machine")


def _file_of(read: Read, row: int) -> int:
    """The number of the file that holds row `row` of all."""
    return int(np.searchsorted(np.cumsum([len(of_file) for of_file in read.rows]), row, "right"))


def _check_source(read: Read, report: Report, sample: int) -> None:
    """Compute some images again from the camera's files, if they are there."""
    first, root = read.files[0], read.attributes[0]
    if root["experiment"] == "signal_noise":
        report.notes.append("signal against noise: there are no camera's files to compare with")
        return
    try:
        config = config_in(root["config"], first)
    except pydantic.ValidationError as error:
        report.problems.append(f"{first}: attribute config: {error.errors()[0]['msg']}")
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
            n = _compare(read, config, source, report, sample)
            report.notes.append(f"{n} images computed again from {config.source.place}")
        except UserError as error:
            report.problems.append(str(error))


def _compare(read: Read, config: PrepareConfig, source: Source, report: Report, sample: int) -> int:
    """Compare `sample` images, drawn from all shots, with the camera's frames; returns how many."""
    rows = Rows.joined(read.rows)
    chosen = np.argsort(uniform_hashes(rows.table))[:sample]
    chosen = chosen[rows[chosen].reading_order()]
    places = locate(source, config, rows[chosen])
    starts = np.cumsum([0, *(len(of_file) for of_file in read.rows)])
    with reading.open_data(read.files[0]) as file:
        to_image = Pipeline(config.image, file["dark/mean"][...])
    for row, place in zip(chosen.tolist(), places.tolist()):
        split, _, shot = rows[row]
        number = _file_of(read, row)
        i = int(row - starts[number] - np.argmax(read.rows[number].of_split(split)))
        frame = source.frame(shot.run, place)
        with reading.open_data(read.files[number]) as file:
            same = np.array_equal(to_image(frame), file[split]["images"][i])
        if not same:
            where = f"{split}/images[{i}] ({shot})"
            report.problems.append(f"{read.files[number]}: {where} differs from the camera's frame")
    return len(chosen)


def _shot(group: h5py.Group, i: int) -> ShotId:
    return ShotId(*(int(group[name][i]) for name in ID_FIELDS))
