"""The manifest: which shots are in which split, as a CSV file that is committed.

Columns: split, label, run, seconds, nanoseconds, fiducial. The order of the rows is the order
of the images in the HDF5 file. The last four columns together are the key of a shot. The label
is empty in split `predict`, and only there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Sequence, TextIO, Union

from common.errors import ManifestError
from common.files import atomic
from common.shots import ID_FIELDS, ShotId

MAX_LINE = 1000  # characters
MAX_LABEL = 100
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
        with open(path, encoding="utf-8", newline="") as file:
            return _parse(file, str(path))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; make it with `python -m prepare select`") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: is not a text file") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many rows each split has of each class: {split: {label: count}}."""
    table: dict[str, dict[str, int]] = {}
    for row in rows:
        of_split = table.setdefault(row.split, {})
        of_split[row.label] = of_split.get(row.label, 0) + 1
    return table


def _parse(lines: TextIO, path: str) -> list[Row]:
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
    for name, cell in zip(ID_FIELDS, numbers):
        if not (cell.isascii() and cell.isdigit() and int(cell[:11]) < 2**32 and len(cell) <= 10):
            raise ManifestError(f"{where}: {name} {cell[:40]!r} is not an integer from 0 to {2**32 - 1}")
    return Row(split, label, ShotId(*map(int, numbers)))
