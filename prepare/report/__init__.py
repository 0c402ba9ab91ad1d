"""The report of a data file: one HTML file that shows what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from common.dataset import provenance
from common.files import atomic
from common.report.drawing import drawing
from common.report.page import render
from prepare.report import page
from prepare.report.contents import read


def default_out(path: Path) -> Path:
    """Where the report of the data file at `path` goes if nothing else is said: beside it."""
    return path.with_name(f"{path.name}.report.html") if path.is_dir() else path.with_suffix(".report.html")


def write(path: Path, out: Optional[Path] = None) -> Path:
    """Write the report of the finished data file at `path`; raises DataError. Memory: a few images."""
    out = out or default_out(path)
    with drawing():
        contents = read(path)
        text = render(
            f"Data set {contents.name}",
            page.subtitle(contents),
            page.sections(contents),
            provenance.banner(contents.provenance),
        )
    atomic.write_text(out, text)
    return out
