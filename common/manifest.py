"""The manifest: which shots are in which split, as a CSV file that is committed.

Columns: split, label, run, seconds, nanoseconds, fiducial. The order of the rows is the order
of the images in the HDF5 file. The last four columns together are the key of a shot. The label
is empty in split `predict`, and only there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import operator
import re
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union, overload

import numpy as np

from common.errors import ManifestError
from common.files import atomic
from common.shots import ID_FIELDS, ShotId, first_of_key

MAX_LINE = 1000  # bytes
MAX_LABEL = 100  # characters
MAX_NUMBER = 2**32 - 1
COLUMNS = ("split", "label", *ID_FIELDS)
LABELED = ("train", "validation", "test")
SPLITS = (*LABELED, "predict")

# A row as numbers, 21 bytes: the places of split and label in SPLITS and in `Rows.labels`, and the key.
ROW_DTYPE = np.dtype([("split", "i1"), ("label", "<i4"), *((name, "<u4") for name in ID_FIELDS)])

_ROWS = 50_000  # made text at a time
_BLOCK = 1 << 22  # bytes read at a time
_HEADER = ",".join(COLUMNS)
_HEAD = re.compile(rb"\n([^\d\n][^\n]*),\d+,\d+,\d+,\d+(?=\n)")  # split and label, before the numbers


class Row(NamedTuple):
    """One selected shot: its split, the name of its class ("" in split predict), its key."""

    split: str
    label: str
    shot: ShotId


class Rows(Sequence[Row]):
    """The rows of a manifest, a sequence of `Row` that is kept as numbers.

    table: (n,) ROW_DTYPE. labels: the names that its `label` counts.
    """

    def __init__(self, table: np.ndarray, labels: Sequence[str]) -> None:
        self.table, self.labels = table, tuple(labels)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        """These rows, if they are not kept as numbers already."""
        if isinstance(rows, Rows):
            return rows
        labels: dict[str, int] = {}
        numbers = (
            (SPLITS.index(row.split), labels.setdefault(row.label, len(labels)), *row.shot) for row in rows
        )
        return cls(np.fromiter(numbers, ROW_DTYPE), labels)

    @classmethod
    def made(
        cls, split: str, labels: Sequence[str], which: Any, ids: Union[np.ndarray, Mapping[str, Any]]
    ) -> Rows:
        """Rows of one split. which: of `labels`, (n,) or one for all; ids: ID_FIELDS, (n,) each."""
        table = np.empty(len(ids["run"]), ROW_DTYPE)
        table["split"], table["label"] = SPLITS.index(split), which
        for name in ID_FIELDS:
            table[name] = ids[name]
        return cls(table, labels)

    @classmethod
    def joined(cls, parts: Iterable[Rows]) -> Rows:
        """The rows of all `parts`, one behind the other."""
        parts, labels, done = list(parts), dict[str, int](), 0
        table = np.empty(sum(map(len, parts)), ROW_DTYPE)
        for part in parts:
            place = np.array([labels.setdefault(label, len(labels)) for label in part.labels], int)
            into = table[done : done + len(part)]
            into[...] = part.table
            into["label"] = place[part.table["label"]]
            done += len(part)
        return cls(table, list(labels))

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, which: int) -> Row: ...

    @overload
    def __getitem__(self, which: Union[slice, np.ndarray]) -> Rows: ...

    def __getitem__(self, which: Any) -> Union[Row, Rows]:
        chosen = self.table[which]
        if isinstance(chosen, np.ndarray):
            return Rows(chosen, self.labels)
        split, label, *key = chosen.item()
        return Row(SPLITS[split], self.labels[label], ShotId(*key))

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), _ROWS):
            part = self.table[first : first + _ROWS]
            for split, label, *key in part.tolist():
                yield Row(SPLITS[split], self.labels[label], ShotId(*key))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(map(operator.eq, self, other))

    def of_split(self, split: str) -> np.ndarray:
        """Which rows are of `split`, (n,) bool."""
        return self.table["split"] == SPLITS.index(split)

    def of_label(self, label: str) -> np.ndarray:
        """Which rows have the label `label`, (n,) bool."""
        place = self.labels.index(label) if label in self.labels else -1
        return self.table["label"] == place

    def reading_order(self) -> np.ndarray:
        """The places of the rows run by run and in time, (n,): a run read in sequence is read once."""
        return np.lexsort([self.table[name] for name in reversed(ID_FIELDS)])

    def counts(self) -> dict[str, dict[str, int]]:
        """How many rows each split has of each class: {split: {label: count}}."""
        counts = np.bincount(self._kinds(), minlength=len(SPLITS) * len(self.labels))
        found: dict[str, dict[str, int]] = {}
        for split, of_split in zip(SPLITS, counts.reshape(len(SPLITS), -1).tolist()):
            of_labels = {label: n for label, n in zip(self.labels, of_split) if n}
            if of_labels:
                found[split] = of_labels
        return found

    def _kinds(self) -> np.ndarray:
        """A number for split and label of each row, (n,) int64."""
        return self.table["split"].astype(int) * len(self.labels) + self.table["label"]


def write(path: Union[str, Path], rows: Iterable[Row]) -> None:
    """Write `rows` to `path`, complete or not at all."""
    with atomic.replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_text(Rows.of(rows)))


def text(rows: Iterable[Row]) -> str:
    """The manifest file's text: a header and a line for each row, `\\n` line ends."""
    return "".join(_text(Rows.of(rows)))


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the manifest's text, hexadecimal; the order of the splits does not matter."""
    rows = Rows.of(rows)
    sha = hashlib.sha256()
    for part in _text(rows[np.argsort(rows.table["split"], kind="stable")]):
        sha.update(part.encode())
    return sha.hexdigest()


def read(path: Union[str, Path]) -> Rows:
    """The rows of the manifest at `path`; raises ManifestError with file and line."""
    try:
        with open(path, "rb") as file:
            rows = _read(file, str(path))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; make it with `python -m prepare select`") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: is not a text file") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    if not len(rows):
        raise ManifestError(f"{path}: has no rows; make it again with `python -m prepare select --force`")
    first = first_of_key(rows.table)
    twice = np.flatnonzero(first != np.arange(len(rows)))
    if len(twice):
        line, before = int(twice[0]) + 2, int(first[twice[0]]) + 2
        raise ManifestError(f"{path}:{line}: {rows[line - 2].shot} stands in line {before} already")
    return rows


def _text(rows: Rows) -> Iterator[str]:
    """The text of a manifest, some rows at a time."""
    yield f"{_HEADER}\n"
    heads = [_as_csv(split, label) for split in SPLITS for label in rows.labels]
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        of_rows = map(heads.__getitem__, part._kinds().tolist())
        keys = (part.table[name].tolist() for name in ID_FIELDS)
        yield "".join(map("%s,%d,%d,%d,%d\n".__mod__, zip(of_rows, *keys)))


def _as_csv(*cells: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


def _read(file: BinaryIO, path: str) -> Rows:
    if file.readline(MAX_LINE).rstrip(b"\r\n") != _HEADER.encode():
        raise ManifestError(f"{path}:1: the header is not {_HEADER}")
    heads: dict[bytes, Row] = {}
    parts, n = [], 0
    while block := file.read(_BLOCK):
        block += file.readline(MAX_LINE)  # to the end of its last line
        part = _as_numbers(block, heads)
        parts.append(Rows.of(_line_by_line(block.decode(), path, n + 2)) if part is None else part)
        n += len(parts[-1])
    return Rows.joined(parts)


def _as_numbers(block: bytes, heads: dict[bytes, Row]) -> Optional[Rows]:
    """The rows of the lines of `block`, all at once; None where one is not as `write` makes it.

    heads: {what stands before the numbers: a row of that split and label}, those that were met before.
    """
    lines = b"\n" + block.replace(b"\r\n", b"\n")
    lines += b"" if lines.endswith(b"\n") else b"\n"
    if re.search(rb"\n\d", lines):
        return None
    for number, head in enumerate(heads):
        lines = lines.replace(b"\n%s," % head, b"\n%d," % number)
    while found := _HEAD.search(lines):
        head = found.group(1)
        try:
            (cells,) = csv.reader([head.decode()], strict=True)
            heads[head] = _row([*cells, *"0000"], "")
        except (ValueError, csv.Error, ManifestError):
            return None
        lines = lines.replace(b"\n%s," % head, b"\n%d," % (len(heads) - 1))
    n = lines.count(b"\n") - 1
    empty = any(pair in lines for pair in (b",,", b",\n", b"\n,", b"\n\n"))
    if empty or lines.translate(None, b"0123456789") != b"\n" + b",,,,\n" * n:
        return None
    numbers = np.fromstring(lines[1:-1].replace(b"\n", b","), np.int64, sep=",").reshape(n, 5)
    if numbers.max() > MAX_NUMBER:
        return None
    kinds = Rows.of(heads.values())
    table = kinds.table[numbers[:, 0]]
    for column, name in enumerate(ID_FIELDS, 1):
        table[name] = numbers[:, column]
    return Rows(table, kinds.labels)


def _line_by_line(lines: str, path: str, first: int) -> Iterator[Row]:
    """The rows of `lines`, the first of which is line `first` of the file; raises ManifestError."""
    reader = csv.reader(_bounded(io.StringIO(lines, newline=""), path, first), strict=True)
    try:
        for cells in reader:
            yield _row(cells, f"{path}:{first + reader.line_num - 1}")
    except csv.Error as error:
        raise ManifestError(f"{path}:{first + reader.line_num - 1}: {error}") from None


def _bounded(lines: Iterable[str], path: str, first: int) -> Iterator[str]:
    for number, line in enumerate(lines, first):
        if len(line) >= MAX_LINE:
            raise ManifestError(f"{path}:{number}: a line of {MAX_LINE} characters or more")
        yield line


def _row(cells: list[str], where: str) -> Row:
    if len(cells) != len(COLUMNS):
        raise ManifestError(f"{where}: {len(cells)} columns, not {len(COLUMNS)}")
    split, label, *numbers = cells
    _check_names(split, label, where)
    for name, cell in zip(ID_FIELDS, numbers):
        if not (cell.isascii() and cell.isdigit() and int(cell) <= MAX_NUMBER):
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
