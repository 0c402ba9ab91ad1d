"""The table of a run: the columns of the 2016 study on the screen, all columns in metrics.csv."""

from __future__ import annotations

import csv
import io
from typing import Any, Iterator, Optional

HEADER = "  step m1s  tr.acc/#1s tst.acc/#1s xentropy  loss  |grad| gr-ang  learnrate"


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
        f"{row['step']:>6} {row['m1s']:>3} {row['train_accuracy']:>6.2f} {row['train_ones']:>3} "
        f"{row['test_accuracy']:>6.2f} {row['test_ones']:>3} {row['cross_entropy']:>8.4f} "
        f"{row['loss']:>8.4f} {row['gradient_norm']:>6.3f} {row['gradient_cosine']:>6.2f} "
        f"{row['learning_rate']:>8.4f}"
    )


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
