"""SIGTERM and Ctrl-C: both stop a command at once, but never in the middle of what belongs together.

Slurm sends SIGTERM some 30 s before it kills a job. A command that keeps its place has then only
to wait for the end of the step it is in, to save, and to say how to go on.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any, Iterator, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_holders = 0
_waiting: Optional[int] = None
_raised: Optional[int] = None  # the signal that was last raised


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop by signal `number`; `advice` says how to go on."""

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(number)
        self.number, self.advice = number, advice

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        cause = "interrupted" if self.number == signal.SIGINT else f"stopped by {_name(self.number)}"
        return f"{cause}; {self.advice}" if self.advice else cause


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise Interrupted. Does nothing outside the main thread.

    Compiled code makes other errors of an exception that comes from nowhere (numpy an IndexError,
    h5py a SystemError); `restored` turns them back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _waiting, _raised
    _waiting = _raised = None
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        with restored():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, signals wait: Interrupted is raised at the end of the (outermost) block."""
    global _holders, _waiting, _raised
    _holders += 1
    try:
        yield
    finally:
        _holders -= 1
    if not _holders and _waiting is not None:
        _raised, _waiting = _waiting, None
        raise Interrupted(_raised)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """An error that leaves the block after a signal was raised in it is that signal's Interrupted."""
    try:
        yield
    except Exception:
        if _raised is None:
            raise
        raise Interrupted(_raised) from None


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """An Interrupted that leaves the block without advice gets this one."""
    try:
        with restored():
            yield
    except Interrupted as stop:
        stop.advice = stop.advice or advice
        raise


def _handle(number: int, _frame: Any) -> None:
    global _waiting, _raised
    if _holders:
        _waiting = number
        return
    _raised = number
    raise Interrupted(number)


def _name(number: int) -> str:
    return signal.Signals(number).name
