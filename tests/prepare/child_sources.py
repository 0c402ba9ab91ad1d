"""Sources for tests of the process that a source runs in; that process imports them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from common.errors import ConfigError, DataError
from common.progress import warn
from prepare.sources.base import FrameResult, Source
from tests.prepare.conftest import make_shots


class Counting(Source):
    """Two runs of 20 shots, whose frames hold run and index; `trouble` comes at the shots of run 2, when
    they are first asked for, and at its frame 5."""

    def __init__(self, trouble: str = "", shape: tuple = (4, 3), hangs: str = "") -> None:
        self._trouble, self._shape, self._hangs = trouble, shape, hangs
        self._listed = False
        print("chatter on standard output")
        print("chatter on standard error", file=sys.stderr)

    def runs(self) -> tuple:
        return 1, 2

    def shots(self, run: int) -> np.ndarray:
        if run == 2 and not self._listed:
            self._listed = True
            self._go_wrong()
        return make_shots(run, 20)

    def files(self, run: int) -> tuple:
        return ((f"run {run}", os.getpid()),)

    def _frames(self, run: int, indices):
        for index in indices:
            if run == 2 and index == 5:
                self._go_wrong()
            frame = None if index == 3 else np.full(self._shape, 100 * run + index, "<u2")
            yield FrameResult(index, frame, "why not" if frame is None else "")

    def _go_wrong(self) -> None:
        if self._trouble == "abort":
            print("[fatal:XtcInput] what psana says before it dies", file=sys.stderr, flush=True)
            os.abort()
        if self._trouble.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self._trouble))
        if self._trouble == "exit":
            os._exit(3)
        if self._trouble == "hang":
            Path(self._hangs).write_text(str(os.getpid()))
            np.sort(np.zeros(1))
            while True:
                time.sleep(60)
        if self._trouble == "error":
            raise DataError("what a user can mend")
        if self._trouble == "config":
            raise ConfigError("what a user can mend")
        if self._trouble == "system":
            raise FileNotFoundError(2, "No such file or directory", "somewhere")
        if self._trouble == "bug":
            raise ValueError("FileOpenException\n  [in function x]")
        if self._trouble == "warn":
            warn("what a user should know")


def refuse() -> Source:
    raise DataError("not to be had here")


def die() -> Source:
    os.abort()


def noisy() -> Source:
    """One that writes 3 MB of its own messages."""
    for _ in range(30_000):
        print("x" * 100, file=sys.stderr)
    return Counting()


# --- what a Starter loads ------------------------------------------------------------------------


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def no_forks() -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    os.fork = refuse


def as_another_user() -> None:
    os.geteuid = lambda: os.getuid() + 1
