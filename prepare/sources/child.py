"""A source in a process of its own: if that process is killed, this one goes on with an error in one line.

psana ends its process on unexpected input (`abort()` on a fatal message, a failed assertion, a
segmentation fault), and no exception reaches Python. It also writes on standard error and output, reads
settings from the environment, and starts threads. All of that stays in the child, which reads the next
frames into memory that both share while this process works on the last.
"""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, Iterator, NoReturn, Optional, Sequence

import numpy as np

from common import interrupt, progress
from common.errors import DataError
from prepare.children.memory import Reader, Where
from prepare.children.serving import ERROR, FRAME, STOP, WARNING
from prepare.children.starter import Child, Ended, Starter
from prepare.sources.base import FrameResult, Source

_LAST_WORDS = 200  # characters of them in an error


class ChildSource(Source):
    """The source that `make(*arguments)` opens, in a child of `starter`, which ends with this process.

    name and place: what reads and where, for messages; advice: what to do if the child dies or fails
    in an unexpected way. `make` is a function of a module, `arguments` are passed by
    pickle. Raises what `make` raises. Frames may be kept.
    """

    def __init__(
        self,
        starter: Starter,
        make: Callable[..., Source],
        arguments: Sequence[Any],
        name: str,
        place: str,
        advice: str,
    ) -> None:
        self._starter, self._name, self._place, self._advice = starter, name, place, advice
        self._opening = make, arguments
        self._known: dict[tuple, Any] = {}
        self._asked = 0  # requests, so that a stream knows that it was ended by another one
        self._child: Optional[Child] = None
        self._open()

    def _open(self) -> None:
        """Begin the child and open the source in it."""
        self._streaming = False
        try:
            self._child = Child(self._starter)
        except OSError as error:
            raise self._refused(error.strerror) from None
        self._frames_there = Reader(self._child.memory)
        make, arguments = self._opening
        try:
            self._send((make, arguments), self._place)
            self._value(self._place)
        except BaseException:
            self.close()
            raise

    def _refused(self, why: Optional[str]) -> DataError:
        return DataError(
            f"{self._place}: no process for {self._name} can be started ({why}); are there too many "
            "(ulimit -u), or too little memory?"
        )

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
        where = f"run {run}"
        while left:  # another request ends the stream; what is left is asked for again
            mine = self._ask("frames", run, left)
            self._streaming = True
            while left and self._asked == mine:
                freed = self._frames_there.freed()
                if freed:
                    self._send(freed, where)
                kind, value = self._answer(where)
                self._streaming = kind == FRAME
                if kind != FRAME:
                    raise (
                        self._told(value, where)
                        if kind == ERROR
                        else DataError(f"{where}: {self._name} ended {len(left)} shots too early")
                    )
                left.pop(0)
                yield self._result(*value)

    def _result(self, index: int, at: Optional[Where], reason: str) -> FrameResult:
        return FrameResult(index, None if at is None else self._frames_there.get(at), reason)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.end()
            child.close()

    def _remembered(self, method: str, *arguments: Any) -> Any:
        request = (method, *arguments)
        if request not in self._known:
            self._ask(*request)
            self._known[request] = self._value(f"run {arguments[0]}" if arguments else self._place)
        return self._known[request]

    def _ask(self, method: str, *arguments: Any) -> int:
        """Send a request, after ending a stream that is under way; returns its number.

        Where the child died of an earlier request, another one is begun.
        """
        if self._child is None:
            self._open()
        where = f"run {arguments[0]}" if arguments else self._place
        if self._streaming:
            self._send(STOP, where)
        while self._streaming:  # a request is sent to who waits for one, or neither might go on
            kind, value = self._answer(where)
            self._streaming = kind == FRAME
            if kind == FRAME and value[1] is not None:
                self._frames_there.pass_over(value[1])
        self._send((method, arguments), where)
        self._asked += 1
        return self._asked

    def _send(self, request: Any, where: str) -> None:
        try:
            with interrupt.waiting():
                self._child.connection.send(request)
        except OSError:
            self._died(where)

    def _value(self, where: str) -> Any:
        kind, value = self._answer(where)
        if kind == ERROR:
            raise self._told(value, where)
        return value

    def _answer(self, where: str) -> tuple[int, Any]:
        """The next answer that is not a warning, which is shown."""
        while True:
            try:
                with interrupt.waiting():  # psana may take minutes over a run, or hang
                    kind, value = self._child.connection.recv()
            except (EOFError, OSError):
                self._died(where)
            if kind != WARNING:
                return kind, value
            progress.warn(value)

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
        child, self._child = self._child, None
        self._streaming = False
        ended = child.end()
        words = _last_words(ended.log)
        child.close()
        if ended.error:
            raise self._refused(os.strerror(ended.error))
        said = f", last words: '{words}'" if words else ""
        raise DataError(f"{where}: the process of {self._name} {_how(ended)}{said}; {self._advice}")


def _how(ended: Ended) -> str:
    if ended.code is None:
        return "has ended"
    if ended.code >= 0:
        return f"ended by itself (exit code {ended.code})"
    number = -ended.code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    outside = " from outside (too little memory?)" if number == signal.SIGKILL else ""
    return f"was ended by {name}{outside}"


def _last_words(log: int) -> str:
    """The end of what the child wrote, as one line."""
    size = os.fstat(log).st_size
    text = os.pread(log, 4096, max(0, size - 4096)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LAST_WORDS else f"{line[:_LAST_WORDS]} ..."
