"""Tables of results: rows of named cells as aligned lines of text, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any, Sequence


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A header and a line for each row, columns aligned; a row without a cell has it empty."""
    columns = _columns(rows)
    cells = [columns, *([str(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """The same as CSV, `\\n` line ends."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
