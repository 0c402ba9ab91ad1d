"""Progress bars, and lines printed above them."""

from __future__ import annotations

import sys
from typing import Callable, Iterable, Optional, TypeVar

import click
from tqdm import tqdm

T = TypeVar("T")

_silent = False
_passed_on: Optional[Callable[[str], None]] = None


def silence() -> None:
    """From now on no bar, line or warning of this process: another one speaks for it."""
    global _silent
    _silent = True


def pass_on(to: Callable[[str], None]) -> None:
    """From now on give the warnings of this process to `to`: another process shows them."""
    global _passed_on
    _passed_on = to


def bar(
    items: Optional[Iterable[T]], what: str, unit: str, total: Optional[int] = None, initial: int = 0
) -> tqdm:
    """A bar on standard error over `items`; silent where standard error is not a terminal."""
    silent = _silent or None  # None: where standard error is not a terminal
    return tqdm(items, what, total, leave=False, file=sys.stderr, unit=unit, disable=silent, initial=initial)


def say(line: str = "") -> None:
    """Print a line on standard output, above any bar that is running."""
    if _silent:
        return
    with tqdm.external_write_mode(file=sys.stdout):
        click.echo(printable(line))


def warn(line: str) -> None:
    """Print a warning on standard error, above any bar that is running."""
    if _passed_on is not None:
        _passed_on(line)
        return
    if _silent:
        return
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(f"warning: {printable(line)}", err=True)


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal written as an escape; new lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
