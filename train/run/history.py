"""The table of a run: the columns of the 2016 study on the screen, all columns in metrics.csv."""

from __future__ import annotations

import csv
import functools
import io
import itertools
from typing import Any, Callable, Iterator, Optional, Sequence

import numpy as np


def drawn(labels: np.ndarray, classes: int) -> dict[str, int]:
    """Of a minibatch's labels how many are of each class but the first: m1s, m2s, ..."""
    return {f"m{label}s": int((labels == label).sum()) for label in range(1, classes)}


def called(split: str, counts: Sequence[int]) -> dict[str, int]:
    """Of a split, how many shots are called each class but the first: SPLIT_ones, SPLIT_2s, ..."""
    return {called_column(split, label): int(n) for label, n in list(enumerate(counts))[1:]}


def called_column(split: str, label: int) -> str:
    """The column of metrics.csv that counts the shots of a split that are called class `label`."""
    return f"{split}_ones" if label == 1 else f"{split}_{label}s"


def header(classes: Sequence[str]) -> str:
    """The head of the table on the screen; with more than two classes, counts of each but the first."""
    if len(classes) == 2:
        return "  step m1s  tr.acc/#1s tst.acc/#1s xentropy  loss  |grad| gr-ang  learnrate"
    labels = range(1, len(classes))
    ones, twos = "/".join(f"m{label}s" for label in labels), "/".join(f"#{label}s" for label in labels)
    return f"  step {ones}  tr.acc/{twos} tst.acc/{twos} xentropy  loss  |grad| gr-ang  learnrate"


class History:
    """The rows so far, kept as the text of metrics.csv: some 200 bytes a row.

    The columns are those of the first row. Numbers come back exactly as they went in.
    """

    def __init__(self, text: bytes = b"") -> None:
        self._text = bytearray(text)
        self._columns: list[str] = text.decode().partition("\n")[0].split(",") if text else []
        self.last: Optional[dict[str, Any]] = None
        for row in self:
            self.last = row

    def append(self, row: dict[str, Any]) -> bytes:
        """Add a row; returns what it adds to metrics.csv."""
        out = io.StringIO()
        first = not self._columns
        self._columns = self._columns or list(row)
        writer = csv.DictWriter(
            out, self._columns, lineterminator="\n", extrasaction="ignore", restval=""
        )  # a run begun with a version that had other columns keeps those
        if first:
            writer.writeheader()
        writer.writerow(row)
        added = out.getvalue().encode()
        self._text += added
        self.last = row
        return added

    @property
    def text(self) -> bytes:
        """metrics.csv; empty before the first row."""
        return bytes(self._text)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in csv.DictReader(io.StringIO(self._text.decode())):
            yield {name: _value(cell) for name, cell in row.items()}


def line(row: dict[str, Any]) -> str:
    """A row of the 2016 study's table. `m1s`: ones in the minibatch; `#1s`: ones predicted."""
    return (
        f"{row['step']:>6} {_counts(row, 'm{}s'.format):>3} {row['train_accuracy']:>6.2f} "
        f"{_called(row, 'train'):>3} {row['test_accuracy']:>6.2f} {_called(row, 'test'):>3} "
        f"{row['cross_entropy']:>8.4f} {row['loss']:>8.4f} {row['gradient_norm']:>6.3f} "
        f"{row['gradient_cosine']:>6.2f} {row['learning_rate']:>8.4f}"
    )


def _called(row: dict[str, Any], split: str) -> str:
    return _counts(row, functools.partial(called_column, split))


def _counts(row: dict[str, Any], column: Callable[[int], str]) -> str:
    """The counts of class 1, 2, ... as far as the row has them."""
    columns = itertools.takewhile(row.__contains__, map(column, itertools.count(1)))
    return "/".join(str(row[name]) for name in columns)


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
