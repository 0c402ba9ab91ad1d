"""SIGTERM, SIGHUP and Ctrl-C: noted when they come, raised at safe points only.

An exception that a signal handler raises appears inside whatever runs at that moment, compiled code
included, which may make another error of it or break. So the handler only notes the signal, and
Interrupted is raised by `check`, which long loops call (every progress bar does), and at once inside
`waiting`, around waits of Python's own that can be left at any moment. Slurm sends SIGTERM some 30 s
before it kills a job. A second signal ends the process where it stands, as SIGKILL would, and so does,
with its line, one that comes before a command has begun or after it is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Iterator, Optional

# SIGHUP comes when a terminal is closed, SIGXCPU at the limit of processor time.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
AGAIN = 1.0  # s; a signal so soon after the first is the same one, sent to the process and to its group

_asked: Optional[int] = None  # the signal that is still to be raised
_first: Optional[float] = None  # when the first one came, on the monotonic clock
_waits = 0
_postponed = 0


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


def end_process() -> None:
    """Let each of the SIGNALS end the process at once, with its line: while nothing has begun."""
    for number in _heeded():
        signal.signal(number, lambda number, _frame: _end_at_once(number, str(Interrupted(number))))


def _heeded() -> list[int]:
    """The SIGNALS but those that this process was started with as ignored (nohup)."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside, the SIGNALS are noted, for `check` to raise. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _asked, _first
    _asked = _first = None
    before = {number: signal.signal(number, _handle) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """A safe point: raises Interrupted, once, if a signal came. Does nothing outside the main thread."""
    global _asked
    if _asked is not None and not _postponed and threading.current_thread() is threading.main_thread():
        number, _asked = _asked, None
        raise Interrupted(number)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Inside, no safe point raises: for ranks that must stop at the same place, see `asked`."""
    global _postponed
    _postponed += 1
    try:
        yield
    finally:
        _postponed -= 1


def asked() -> int:
    """The signal that came and was not raised yet; 0: none."""
    return _asked or 0


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """For a wait of Python's own (sleep, join, a queue, a future): inside, a signal raises Interrupted."""
    global _waits
    _waits += 1
    try:
        check()
        yield
    finally:
        _waits -= 1


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """Give an Interrupted that leaves the block this advice, unless it has some."""
    try:
        yield
    except Interrupted as stop:
        stop.advice = stop.advice or advice
        raise


def in_thread(work: Callable[[], Any]) -> None:
    """Run `work` in a thread and wait for it; raises what it raises.

    For work that cannot be interrupted and leaves nothing behind, such as loading a library: a signal raises
    Interrupted here while the thread goes on. The process must then end by `os._exit`: see `abandoned`.
    """
    raised = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # told to who waits
            raised.append(error)

    global abandoned
    thread = threading.Thread(target=run, daemon=True)
    with waiting():
        thread.start()
        abandoned = True
        thread.join()
        abandoned = False
    if raised:
        raise raised[0]


abandoned = False  # whether a thread was left in the middle of compiled code, which Python's end would hit


def end_with_parent(parent_gone: Callable[[], Any]) -> None:
    """In a child: send SIGTERM to this process when `parent_gone` returns, which waits for the parent's end.

    That is how a child ends, after saving what it has, when its parent was killed. `parent_gone` must
    not hold a lock of Python's streams, on which the end of the process would wait.
    """

    def watch() -> None:
        parent_gone()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _handle(number: int, _frame: Any) -> None:
    global _asked, _first
    if _first is None:
        _first, _asked = time.monotonic(), number
    elif time.monotonic() - _first >= AGAIN and number != signal.SIGXCPU:  # which comes every second
        _end_at_once(number, f"stopped at once by a second {_name(number)}")
    if _waits:
        check()


def _end_at_once(number: int, line: str) -> None:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(128 + number)


def _name(number: int) -> str:
    return signal.Signals(number).name
