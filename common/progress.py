"""Progress, results and warnings, in whole lines that do not run into each other.

On a terminal progress is a bar; elsewhere, in a batch job's log, a line every ten seconds.
"""

from __future__ import annotations

import errno
import re
import sys
import time
from typing import Callable, Generic, Iterable, Iterator, Optional, TypeVar

import click
from tqdm import tqdm

from common import interrupt

T = TypeVar("T")

EVERY = 10.0  # s between two lines of progress where there is no terminal
SHARE = 0.02  # and at least this share of the time so far: a log of hours stays short

tqdm.monitor_interval = 0  # no thread that watches bars: they are updated often enough

QUIET, NORMAL, VERBOSE = -1, 0, 1


class Voice:
    """How this process speaks to its user."""

    silent = False  # no bar, line or warning: another process reports for this one
    loudness = NORMAL  # QUIET: no progress; VERBOSE: also the messages of libraries, and tracebacks
    warn_by: Optional[Callable[[str], None]] = None  # who prints the warnings of this process for it
    as_scripts = False  # commands are named as the installed scripts: `xtcav-train`, not `python -m train`


voice = Voice()


def as_called(text: str) -> str:
    """`text` with commands named the way this one was started."""
    return re.sub(r"python -m (prepare|train)\b", r"xtcav-\1", text) if voice.as_scripts else text


class Progress(Generic[T]):
    """How far `what` is, on standard error. Each update is a safe point: it raises Interrupted."""

    def __init__(
        self, items: Optional[Iterable[T]], what: str, unit: str, total: Optional[int], initial: int
    ) -> None:
        self.what, self.unit, self.done = what, unit, initial
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self._items = items
        self._shown = not voice.silent and voice.loudness != QUIET
        self._terminal = self._shown and sys.stderr.isatty()
        self._bar = tqdm(
            desc=what, total=self.total, leave=False, file=sys.stderr, unit=unit, initial=initial,
            disable=not self._terminal,
        )  # fmt: skip
        self._note = ""
        self._start = self._said = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items if self._items is not None else ():
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """`n` more are done; with 0, only a safe point and, when it is time, a line."""
        self.done += n
        self._bar.update(n)
        if self._shown and not self._terminal:
            self._line()
        interrupt.check()

    def note(self, text: str) -> None:
        """What is shown behind the bar or the line."""
        self._note = text
        self._bar.set_postfix_str(text, refresh=False)

    def name(self, what: str) -> None:
        """What is under way now."""
        self.what = what
        self._bar.set_description(what)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> "Progress[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> None:
        now = time.monotonic()
        if now - self._said < max(EVERY, SHARE * (now - self._start)):
            return
        self._said = now
        of = "" if self.total is None else f" of {self.total}"
        note = f"; {self._note}" if self._note else ""
        echo(f"{self.what}: {self.done}{of} {self.unit}s after {now - self._start:.0f} s{note}", err=True)


def bar(
    items: Optional[Iterable[T]], what: str, unit: str, total: Optional[int] = None, initial: int = 0
) -> Progress[T]:
    """Progress over `items`, or by its `update`."""
    return Progress(items, what, unit, total, initial)


def say(line: str = "") -> None:
    """Print a line on standard output, above any bar that is running."""
    if voice.silent:
        return
    with tqdm.external_write_mode(file=sys.stdout):
        echo(printable(line))


def announce(line: str) -> None:
    """Print on standard error what is under way and may take a while."""
    if not voice.silent and voice.loudness != QUIET:
        echo(printable(line), err=True)


def warn(line: str) -> None:
    """Print a warning on standard error, above any bar that is running."""
    if voice.warn_by is not None:
        voice.warn_by(line)
        return
    if voice.silent:
        return
    with tqdm.external_write_mode(file=sys.stderr):
        echo(f"warning: {printable(line)}", err=True)


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal written as an escape; new lines stay.

    Commands in it are named the way this one was started.
    """
    text = as_called(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def echo(line: str, err: bool = False) -> None:
    """Print `line`; raises OSError, which names the stream, but not where a terminal was closed."""
    try:
        click.echo(line, err=err)
    except OSError as error:
        if error.errno != errno.EIO:  # of a terminal that was closed; the work goes on
            error.filename = "standard error" if err else "standard output"
            raise
