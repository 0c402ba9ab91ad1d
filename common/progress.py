"""Progress bars and lines that do not tear each other."""

from __future__ import annotations

import sys
from typing import Iterable, Optional, TypeVar

import click
from tqdm import tqdm

T = TypeVar("T")


def bar(items: Optional[Iterable[T]], what: str, unit: str, total: Optional[int] = None) -> tqdm:
    """A bar on standard error over `items`; silent where standard error is not a terminal."""
    return tqdm(items, desc=what, unit=unit, total=total, disable=None, leave=False, file=sys.stderr)


def say(line: str = "") -> None:
    """Print a line on standard output, above any bar that is running."""
    with tqdm.external_write_mode(file=sys.stdout):
        click.echo(line)


def warn(line: str) -> None:
    """Print a warning on standard error, above any bar that is running."""
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(f"warning: {line}", err=True)
