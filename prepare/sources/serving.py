"""In the process that child.py starts: open the source, and answer what the parent asks of it."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any, Iterator, Optional

import numpy as np

from common import progress
from common.errors import UserError
from prepare.sources.base import FrameResult, Source

VALUE, FRAME, END, WARNING, ERROR = range(5)  # the kinds of an answer
_LOG_LIMIT = 1 << 20  # bytes of this process' own messages that are kept


def serve(requests: int, answers: int, lifeline: int) -> None:
    """Answer the parent's requests; the first one opens the source."""
    _live_by(lifeline)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a batch system sends them to all; the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    server = _Server(Connection(requests, writable=False), Connection(answers, readable=False))
    progress.voice.warn_by = lambda line: server.send(WARNING, line)
    server.run()


def _live_by(lifeline: int) -> None:
    """End this process when the parent's end of the pipe `lifeline` closes, however the parent ends.

    By a signal whose default is to end the process: a thread that waits would need Python's
    lock, which psana may hold for ever.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        gone = os.read(lifeline, 1) == b""  # before the signal was set up
    except BlockingIOError:
        return
    if gone:
        os._exit(0)


class _Server:
    def __init__(self, requests: Connection, answers: Connection) -> None:
        self._requests, self._answers = requests, answers

    def run(self) -> None:
        source: Optional[Source] = None
        while True:
            what, arguments = self._requests.recv()  # the end of the pipe ends the process
            try:
                if source is None:
                    source = what(*arguments)
                    self.send(VALUE, None)
                elif what == "frames":
                    self._stream(source.frames(*arguments))
                else:
                    self.send(VALUE, getattr(source, what)(*arguments))
            except (UserError, OSError, MemoryError) as error:
                self.send(ERROR, error)
            except Exception as error:
                self.send(ERROR, (type(error).__name__, str(error), traceback.format_exc()))

    def _stream(self, results: Iterator[FrameResult]) -> None:
        """Send frames until there are no more, or something else is asked for."""
        for result in results:
            if self._requests.poll():
                break
            self._send_frame(result)
        self.send(END, None)

    def _send_frame(self, result: FrameResult) -> None:
        if result.frame is None:
            self.send(FRAME, (result.index, None, None, result.reason))
            return
        frame = np.ascontiguousarray(result.frame)
        self.send(FRAME, (result.index, frame.shape, frame.dtype.str, result.reason))
        view, done = memoryview(frame).cast("B"), 0
        while done < len(view):
            done += os.write(self._answers.fileno(), view[done:])

    def send(self, kind: int, value: Any) -> None:
        _forget_messages()
        self._answers.send((kind, value))


def _forget_messages() -> None:
    """Keep what this process wrote about itself from growing without end."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fstat(2).st_size > _LOG_LIMIT:
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
