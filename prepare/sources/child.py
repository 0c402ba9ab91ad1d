"""A source in a process of its own: if that process is killed, this one goes on with an error in one line.

psana ends its process on unexpected input (`abort()` on a fatal message, a failed assertion, a
segmentation fault), and no exception reaches Python. It also writes on standard error and output, reads
settings from the environment, and starts threads. All of that stays in the child (serving.py). Frames come
through a pipe, some 0.1 ms of processor time on either side for 726 x 568 pixels, and the child reads the
next one while this process works on the last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Iterator, NoReturn, Optional, Sequence

import numpy as np

from common import interrupt, progress
from common.errors import DataError
from prepare.sources.base import FrameResult, Source
from prepare.sources.serving import ERROR, FRAME, WARNING

_LAST_WORDS = 200  # characters of them in an error
_SET_PIPE_SIZE = 1031  # Linux; Python has a name for it from 3.10 on
_PIPE = 1 << 20  # bytes: a frame fits, so that on a busy machine it takes one change of processes, not 13
_PATIENCE = 10.0  # s for a child that closed its pipe to end
# What launchers of MPI and Slurm tell a rank. The child is none, and psana 2 starts MPI when it is imported.
_OF_MPI = ("PMI", "OMPI_", "MPI_", "MV2_", "HYD", "PALS_", "SLURM_")
# The child starts in the parent's environment but finds modules where the parent does, ours first.
_START = (
    "import sys; sys.path[:] = [{root}]; import common, prepare; sys.path[:] = {path}\n"
    "from prepare.sources import serving; serving.serve({fds})"
)


class ChildSource(Source):
    """The source that `make(*arguments)` opens, in a process of its own, which ends with this one.

    name and place: what reads and where, for messages; advice: what to do if the process dies or fails
    in an unexpected way. `make` is a function of a module, `arguments` are passed by
    pickle. Raises what `make` raises.
    """

    def __init__(
        self, make: Callable[..., Source], arguments: Sequence[Any], name: str, place: str, advice: str
    ) -> None:
        self._name, self._place, self._advice = name, place, advice
        self._opening = make, arguments
        self._known: dict[tuple, Any] = {}
        self._asked = 0  # requests, so that a stream knows that it was ended by another one
        self._dead = False
        self._open()

    def _open(self) -> None:
        """Start the process and open the source in it."""
        make, arguments = self._opening
        self._streaming = self._dead = False
        self._log = _nameless_file()
        try:
            self._process, self._requests, self._answers, self._lifeline = _start(self._log)
        except OSError as error:
            os.close(self._log)
            raise DataError(
                f"{self._place}: no process for {self._name} can be started ({error.strerror}); are there "
                "too many (ulimit -u), or too little memory?"
            ) from None
        try:
            self._ask(make, *arguments)
            self._value(self._place)
        except BaseException:
            self.close()
            raise

    def runs(self) -> tuple[int, ...]:
        return self._remembered("runs")

    def epoch(self) -> str:
        return self._remembered("epoch")

    def shots(self, run: int) -> np.ndarray:
        return self._remembered("shots", run)

    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        return self._remembered("files", run)

    def calibration(self, run: int) -> dict[str, float]:
        return self._remembered("calibration", run)

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        left = list(indices)
        while left:  # another request ends the stream; what is left is asked for again
            mine = self._ask("frames", run, left)
            self._streaming = True
            while left and self._asked == mine:
                result = self._received_frame(f"run {run}")
                if result is None:
                    raise DataError(f"run {run}: {self._name} ended {len(left)} shots too early")
                left.pop(0)
                yield result

    def close(self) -> None:
        """End the process."""
        if self._lifeline is None:
            return
        os.close(self._lifeline)  # which ends it, whatever it is doing
        self._lifeline = None
        self._requests.close()
        self._answers.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._log)

    def _remembered(self, method: str, *arguments: Any) -> Any:
        request = (method, *arguments)
        if request not in self._known:
            self._ask(*request)
            self._known[request] = self._value(self._where(arguments))
        return self._known[request]

    def _ask(self, what: Any, *arguments: Any) -> int:
        """Send a request; what is still on its way for the last one is thrown away.

        Where the process died of an earlier request, another one is started.
        """
        if self._dead:
            self._open()
        where = self._place if callable(what) else self._where(arguments)
        try:
            with interrupt.waiting():  # for the end of what it does, where the pipe is full
                self._requests.send((what, arguments))
        except OSError:
            self._died(where)
        self._asked += 1
        while self._streaming:
            self._throw_away(where)
        return self._asked

    def _where(self, arguments: Sequence[Any]) -> str:
        return f"run {arguments[0]}" if arguments else self._place

    def _value(self, where: str) -> Any:
        kind, value = self._answer(where)
        if kind == ERROR:
            raise self._told(value, where)
        return value

    def _received_frame(self, where: str) -> Optional[FrameResult]:
        """The next frame of the stream; None at its end."""
        kind, value = self._answer(where)
        self._streaming = kind == FRAME
        if kind == ERROR:
            raise self._told(value, where)
        return self._frame(value, where) if kind == FRAME else None

    def _throw_away(self, where: str) -> None:
        """Read the next frame of a stream that is not wanted any more, or its end."""
        kind, value = self._answer(where)
        self._streaming = kind == FRAME
        if kind == FRAME:
            self._frame(value, where)

    def _answer(self, where: str) -> tuple[int, Any]:
        """The next answer that is not a warning, which is shown."""
        while True:
            try:
                with interrupt.waiting():  # psana may take minutes over a run, or hang
                    kind, value = self._answers.recv()
            except (EOFError, OSError):
                self._died(where)
            if kind != WARNING:
                return kind, value
            progress.warn(value)

    def _frame(self, value: tuple, where: str) -> FrameResult:
        index, shape, dtype, reason = value
        if shape is None:
            return FrameResult(index, None, reason)
        frame = np.empty(shape, dtype)
        self._read_into(memoryview(frame).cast("B"), where)
        frame.flags.writeable = False
        return FrameResult(index, frame, reason)

    def _read_into(self, buffer: memoryview, where: str) -> None:
        done = 0
        with interrupt.waiting():
            while done < len(buffer):
                count = os.readv(self._answers.fileno(), [buffer[done:]])
                if not count:
                    self._died(where)
                done += count

    def _told(self, error: Any, where: str) -> BaseException:
        """The exception for what the child raised: a UserError as it is, another one as a DataError."""
        if isinstance(error, BaseException):
            return error
        kind, text, trace = error
        line = _one_line(text)
        told = DataError(f"{where}: {self._name} failed: {kind}{': ' if line else ''}{line}; {self._advice}")
        told.__cause__ = RuntimeError(f"in the process of {self._name}:\n{trace}")
        return told

    def _died(self, where: str) -> NoReturn:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            code = 0
        words = _last_words(self._log)
        how = f"was ended by {_signal(-code)}" if code < 0 else f"ended by itself (exit code {code})"
        if code == -signal.SIGKILL:
            how += " from outside (too little memory?)"
        self._streaming, self._dead = False, True
        self.close()
        said = f", last words: '{words}'" if words else ""
        raise DataError(f"{where}: the process of {self._name} {how}{said}; {self._advice}")


def _start(log: int) -> tuple[subprocess.Popen, Connection, Connection, int]:
    """A child that serves: process, pipes of requests and answers, and what it lives by."""
    with contextlib.ExitStack() as its, contextlib.ExitStack() as ours:
        requests, answers, lifeline = os.pipe(), os.pipe(), os.pipe()
        with contextlib.suppress(OSError):  # a user may have only so much of it
            fcntl.fcntl(answers[1], _SET_PIPE_SIZE, _PIPE)
        fds = (requests[0], answers[1], lifeline[0])
        for fd in fds:
            its.callback(os.close, fd)
        for fd in (requests[1], answers[0], lifeline[1]):
            ours.callback(os.close, fd)
        root, path = ascii(str(Path(__file__).parents[2])), ascii(sys.path)
        process = subprocess.Popen(
            [sys.executable, "-c", _START.format(root=root, path=path, fds=", ".join(map(str, fds)))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C is for us; we end it
            env={name: value for name, value in os.environ.items() if not name.startswith(_OF_MPI)},
        )
        ours.pop_all()
    return (
        process,
        Connection(requests[1], readable=False),
        Connection(answers[0], writable=False),
        lifeline[1],
    )


def _nameless_file() -> int:
    """A descriptor of a file for the child's own messages, which is deleted when it is closed everywhere."""
    log, path = tempfile.mkstemp(prefix="xtcav-")
    os.unlink(path)
    return log


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _last_words(log: int) -> str:
    """The end of what the child wrote, as one line."""
    size = os.fstat(log).st_size
    text = os.pread(log, 4096, max(0, size - 4096)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LAST_WORDS else f"{line[:_LAST_WORDS]} ..."
