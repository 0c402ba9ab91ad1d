"""In the process that starter.py starts, and in its children, which open a source and answer requests.

psana ends its process on unexpected input, so that no child serves two sources. The first process loads the
library, and then only begins children, ends those whose requester is gone, and tells how they ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any, Iterable, NoReturn

from common import progress
from common.errors import UserError
from prepare.children.memory import Writer
from prepare.children.starter import ENDED

VALUE, FRAME, END, WARNING, ERROR = range(5)  # the kinds of an answer
STOP = "stop"  # a request: no more frames of this stream
_LOG_LIMIT = 1 << 20  # bytes of a process' own messages that are kept
_SET_DEATH_SIGNAL = 1  # Linux: PR_SET_PDEATHSIG


def start(listener: int, lifeline: int, load: str, *arguments: str) -> None:
    """Call `load`, "module:function", then begin a child for each connection, until the parent ends."""
    _live_by(lifeline)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a batch system sends them to all; the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.disable()  # loading makes no garbage: a tenth less time
    try:
        with contextlib.suppress(UserError):  # told to who opens a source: it is raised again
            module, _, function = load.partition(":")
            getattr(importlib.import_module(module), function)(*arguments)
        gc.freeze()  # or a collection would touch, and so copy, what the children share
        _Nursery(socket.socket(fileno=listener)).run()
    except SystemExit:
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is not None:  # psana 2 has started it; it would leave a file of 1 MB in /dev/shm behind
            mpi.Finalize()
        os._exit(0)  # without clearing up its 800 modules


def _live_by(lifeline: int) -> None:
    """Raise SystemExit when the parent's end of the pipe `lifeline` closes, however the parent ends."""
    signal.signal(signal.SIGIO, lambda *_: sys.exit())
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        if os.read(lifeline, 1) == b"":  # gone before the signal was set up
            sys.exit()


class _Nursery:
    """Begins children and watches them. fds: (connection, where its end is told) of each."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.poll()
        self._fds: dict[int, tuple[socket.socket, int]] = {}
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._pid = os.getpid()

    def run(self) -> None:
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        while True:
            fd = self._poll.poll()[0][0]  # one at a time: a number that is closed may be another's next
            if fd == self._woken:
                os.read(fd, 4096)
                self._bury()
            elif fd == self._listener.fileno():
                self._begin(self._listener.accept()[0])
            else:  # who asked for it is gone, or does not want it any more
                self._poll.unregister(fd)
                for child, (connection, _) in self._fds.items():
                    if connection.fileno() == fd:
                        os.kill(child, signal.SIGKILL)

    def _begin(self, connection: socket.socket) -> None:
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        fds = socket.recv_fds(connection, 1, 3)[1] if user == os.geteuid() else []
        if len(fds) < 3:  # another user's, or one that was ended in between
            connection.close()
            return
        log, memory, told = fds
        try:
            child = os.fork()
        except OSError as error:
            os.write(told, ENDED.pack(error.errno, 0))
            connection.close()
            os.close(told)
        else:
            if not child:
                self._serve(connection, log, memory, told)
            self._fds[child] = connection, told
            self._poll.register(connection, select.POLLRDHUP)
        os.close(log)
        os.close(memory)

    def _serve(self, connection: socket.socket, log: int, memory: int, told: int) -> NoReturn:
        """In the child: answer requests until there are no more."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGIO):
            signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != self._pid:
            os._exit(1)
        self._listener.close()
        for other, told_of_other in self._fds.values():
            other.close()
            os.close(told_of_other)
        os.close(told)
        for stream in (1, 2):
            os.dup2(log, stream)
        gc.enable()
        code = 1
        try:
            _Server(Connection(connection.detach()), Writer(memory)).run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _bury(self) -> None:
        """Tell of the children that have ended how they did."""
        with contextlib.suppress(ChildProcessError):  # there are no others
            while True:
                child, status = os.waitpid(-1, os.WNOHANG)
                if not child:
                    return
                if child not in self._fds:  # one of the library's
                    continue
                connection, told = self._fds.pop(child)
                with contextlib.suppress(OSError):  # nobody waits for it
                    os.write(told, ENDED.pack(0, os.waitstatus_to_exitcode(status)))
                with contextlib.suppress(KeyError):
                    self._poll.unregister(connection)
                connection.close()
                os.close(told)


class _Server:
    """Answers the requests of `connection` by a source, which the first of them opens."""

    def __init__(self, connection: Connection, writer: Writer) -> None:
        self._connection, self._writer = connection, writer
        progress.voice.warn_by = lambda line: self._send(WARNING, line)

    def run(self) -> None:
        source: Any = None
        while True:
            try:
                request = self._connection.recv()
            except EOFError:  # nobody will ask any more
                return
            if request == STOP:  # a stream that has ended by itself
                continue
            if isinstance(request, list):
                self._writer.free += request
                continue
            what, arguments = request
            try:
                if source is None:
                    source = what(*arguments)
                    self._send(VALUE, None)
                elif what == "frames":
                    self._stream(source.frames(*arguments))
                else:
                    self._send(VALUE, getattr(source, what)(*arguments))
            except (UserError, OSError, MemoryError) as error:
                self._send(ERROR, error)
            except Exception as error:
                self._send(ERROR, (type(error).__name__, str(error), traceback.format_exc()))

    def _stream(self, results: Iterable[tuple]) -> None:
        """Send frames until there are no more, or no more are wanted."""
        for index, frame, reason in results:
            while not self._writer.free or self._connection.poll():
                request = self._connection.recv()
                if request == STOP:
                    self._send(END, None)
                    return
                self._writer.free += request
            self._send(FRAME, (index, None if frame is None else self._writer.put(frame), reason))
        self._send(END, None)

    def _send(self, kind: int, value: Any) -> None:
        _forget_messages()
        self._connection.send((kind, value))


def _forget_messages() -> None:
    """Keep what this process wrote about itself from growing without end."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fstat(2).st_size > _LOG_LIMIT:
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
