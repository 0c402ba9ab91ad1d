"""The manifest: which shots are in which split, as a CSV file that is committed.

Columns: split, label, run, seconds, nanoseconds, fiducial. The order of the rows is the order
of the images in the HDF5 file. The last four columns together are the key of a shot. The label
is empty in split `predict`, and only there.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import io
import itertools
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Sequence, TextIO, Union

import numpy as np

from common.errors import ManifestError
from common.files import atomic
from common.shots import ID_FIELDS, ShotId, uniform_hashes

MAX_LINE = 1000  # characters
MAX_LABEL = 100
MAX_NUMBER = 2**32 - 1
_KEY_DTYPE = np.dtype([(name, "<u4") for name in ID_FIELDS])
COLUMNS = ("split", "label", *ID_FIELDS)
LABELED = ("train", "validation", "test")
SPLITS = (*LABELED, "predict")


class Row(NamedTuple):
    """One selected shot: its split, the name of its class ("" in split predict), its key."""

    split: str
    label: str
    shot: ShotId


def write(path: Union[str, Path], rows: Iterable[Row]) -> None:
    """Write `rows` to `path`, complete or not at all."""
    atomic.write_text(path, text(rows))


def text(rows: Iterable[Row]) -> str:
    """The manifest file's text: a header and a line for each row, `\\n` line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((row.split, row.label, *row.shot) for row in rows)
    return out.getvalue()


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the manifest's text, hexadecimal; the order of the splits does not matter."""
    by_split = sorted(rows, key=lambda row: SPLITS.index(row.split))
    return hashlib.sha256(text(by_split).encode()).hexdigest()


def read(path: Union[str, Path]) -> list[Row]:
    """The rows of the manifest at `path`; raises ManifestError with file and line."""
    try:
        with open(path, encoding="utf-8", newline="") as file, _without_collection():
            return _parse(file, str(path))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; make it with `python -m prepare select`") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: is not a text file") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Millions of small objects that all stay: to look for garbage among them takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many rows each split has of each class: {split: {label: count}}."""
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        of_split = table.setdefault(row.split, {})
        of_split[row.label] = of_split.get(row.label, 0) + 1
    return table


def _parse(lines: TextIO, path: str) -> list[Row]:
    """The rows, many lines at a time, or where anything is wrong line by line, to say where."""
    with contextlib.suppress(csv.Error, ManifestError):
        rows = _many_at_a_time(csv.reader(_bounded(lines, path), strict=True))
        if rows:
            return rows
    lines.seek(0)
    return _line_by_line(lines, path)


def _many_at_a_time(reader: Iterator[list[str]]) -> list[Row]:
    """The rows if all are as they should be, else none or ManifestError: twice as fast as one by one."""
    rows: list[Row] = []
    names: dict[str, str] = {}  # one object for each split and label, not for each line
    keys = []
    if next(reader, None) != list(COLUMNS):
        return []
    while batch := list(itertools.islice(reader, 10_000)):
        if set(map(len, batch)) != {len(COLUMNS)}:
            return []
        splits, labels, *numbers = zip(*batch)
        for split, label in set(zip(splits, labels)):
            _check_names(split, label, "")
        if not all(map(_are_numbers, numbers)):
            return []
        shots = [list(map(int, cells)) for cells in numbers]
        key = np.empty(len(batch), _KEY_DTYPE)
        for name, values in zip(ID_FIELDS, shots):
            if max(values) > MAX_NUMBER:
                return []
            key[name] = values
        keys.append(uniform_hashes(key))
        own = (map(names.setdefault, cells, cells) for cells in (splits, labels))
        rows += map(Row, *own, map(ShotId, *shots))
    hashes = np.sort(np.concatenate(keys or [np.empty(0)]))
    return [] if (hashes[1:] == hashes[:-1]).any() else rows


def _are_numbers(cells: Sequence[str]) -> bool:
    text = "".join(cells)
    return text.isascii() and text.isdigit() and all(cells) and max(map(len, cells)) <= 10


def _line_by_line(lines: TextIO, path: str) -> list[Row]:
    rows: list[Row] = []
    seen: dict[ShotId, int] = {}
    try:
        reader = csv.reader(_bounded(lines, path), strict=True)
        header = next(reader, None)
        if header != list(COLUMNS):
            raise ManifestError(f"{path}:1: the header is not {','.join(COLUMNS)}")
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            row = _row(cells, where)
            if row.shot in seen:
                raise ManifestError(f"{where}: {row.shot} stands in line {seen[row.shot]} already")
            seen[row.shot] = reader.line_num
            rows.append(row)
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: {error}") from None
    if not rows:
        raise ManifestError(f"{path}: has no rows; make it again with `python -m prepare select --force`")
    return rows


def _bounded(file: TextIO, path: str) -> Iterator[str]:
    """The lines of `file`, each in bounded memory: one without an end could be as long as the disk."""
    for number in itertools.count(1):
        line = file.readline(MAX_LINE)
        if len(line) == MAX_LINE:
            raise ManifestError(f"{path}:{number}: a line of {MAX_LINE} characters or more")
        if not line:
            return
        yield line


def _row(cells: list[str], where: str) -> Row:
    if len(cells) != len(COLUMNS):
        raise ManifestError(f"{where}: {len(cells)} columns, not {len(COLUMNS)}")
    split, label, *numbers = cells
    _check_names(split, label, where)
    for name, cell in zip(ID_FIELDS, numbers):
        if not (_are_numbers([cell]) and int(cell) <= MAX_NUMBER):
            raise ManifestError(f"{where}: {name} {cell[:40]!r} is not an integer from 0 to {MAX_NUMBER}")
    return Row(split, label, ShotId(*map(int, numbers)))


def _check_names(split: str, label: str, where: str) -> None:
    if split not in SPLITS:
        raise ManifestError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    if not label and split in LABELED:
        raise ManifestError(f"{where}: the label is empty")
    if not label.isprintable() or len(label) > MAX_LABEL:
        raise ManifestError(
            f"{where}: label {label[:40]!r} is not plain text of up to {MAX_LABEL} characters"
        )
    if label and split not in LABELED:
        raise ManifestError(f"{where}: label {label[:40]!r}, but shots of split {split} have none")
