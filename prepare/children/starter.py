"""A process that has loaded a library, and children that begin as copies of it.

psana takes half a second to load. It is loaded once, while the command loads what else it needs, in a
process that then only starts children (serving.py): one for each source that is opened, here or in a
process of --jobs. All end with this process, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

ENDED = struct.Struct(
    "ii"
)  # what is told of a child: errno if it could not be started; its exit code, -signal
_TO_END = 3.0  # s for the process to end by itself, which takes some 50 ms
_LEFT: list[subprocess.Popen] = []  # processes that end by themselves
_PATIENCE = 10_000  # ms for a child that was ended to be so
# What launchers of MPI and Slurm tell a rank. The process is none, and psana 2 starts MPI when it is loaded.
_OF_MPI = ("PMI", "OMPI_", "MPI_", "MV2_", "HYD", "PALS_", "SLURM_")
# It starts in our environment but finds modules where we do, ours first.
_CODE = (
    "import sys; sys.path[:] = [{root}]; import common, prepare; sys.path[:] = {path}\n"
    "from prepare.children import serving; serving.start(*{fds}, *{load})"
)


class Ended(NamedTuple):
    """How a process ended.

    log: descriptor of its own messages; error: what refused to start it, an errno; code: its exit code or
    -signal, None if nobody knows.
    """

    log: int
    error: int = 0
    code: Optional[int] = None


class Child:
    """A child: `connection` to it, `log` with its own messages and `memory` for frames, two descriptors."""

    def __init__(self, starter: Starter) -> None:
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context(_closing(nameless_file()))
            self.memory = stack.enter_context(_closing(shared_memory()))
            self._ended, told = os.pipe()
            stack.enter_context(_closing(self._ended))
            with _closing(told):
                self._socket = stack.enter_context(starter.connected())
                socket.send_fds(self._socket, [b"!"], [self.log, self.memory, told])
            self.connection = stack.enter_context(Connection(os.dup(self._socket.fileno())))
            self._stack = stack.pop_all()
        self._starter = starter

    def end(self) -> Ended:
        """End it, whatever it is doing; how it ended. Once, before `close`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # also where a copy of this process holds it open
            self._starter.resume()
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        told = os.read(self._ended, ENDED.size) if poll.poll(_PATIENCE) else b""
        return Ended(self.log, *ENDED.unpack(told)) if told else self._starter.ended()

    def close(self) -> None:
        """Close the descriptors."""
        self._stack.close()


class Starter:
    """Starts children in a process that has called `load`, "module:function", with `arguments`.

    It may be used by copies of this process, too.
    """

    def __init__(self, load: str = "builtins:tuple", *arguments: str) -> None:
        self._load = (load, *arguments)
        self._address = b""
        self._owner, self._used = 0, False
        self._stack = contextlib.ExitStack()

    def begin(self) -> None:
        """Start the process, unless it was; it loads while this one goes on. Raises OSError."""
        if self._address:
            return
        address = b"\0xtcav-" + secrets.token_hex(16).encode()  # Linux': in no folder, nothing is left of it
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
            listener.bind(address)
            listener.listen(256)
            watched, held = os.pipe()
            stack.enter_context(_closing(held))
            self.log = stack.enter_context(_closing(nameless_file()))
            fds = (listener.fileno(), watched)
            root, path = ascii(str(Path(__file__).parents[2])), ascii(sys.path)
            environment = {n: value for n, value in os.environ.items() if not n.startswith(_OF_MPI)}
            with _closing(watched):
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CODE.format(root=root, path=path, fds=fds, load=self._load)],
                    stdin=subprocess.DEVNULL,
                    stdout=self.log,
                    stderr=self.log,
                    pass_fds=fds,
                    start_new_session=True,  # Ctrl-C is for us; we end it
                    env={**environment, "OPENBLAS_NUM_THREADS": "1"},  # it computes nothing
                )
            self._stack = stack.pop_all()
        self._address, self._owner = address, os.getpid()
        atexit.register(self.end)

    def connected(self) -> socket.socket:
        """A connection to the process, or to another one if that has ended. Raises OSError."""
        self.begin()
        self._used = True
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                connection.connect(self._address)
            except ConnectionRefusedError:
                self.end()
                self.begin()
                connection.connect(self._address)
            stack.pop_all()
            return connection

    def resume(self) -> None:
        """Let the process go on where it was stopped (SIGSTOP). Raises OSError."""
        os.kill(self._process.pid, signal.SIGCONT)

    def ended(self) -> Ended:
        """How the process ended, on which a child was waiting; its last words are in `log`."""
        if self._owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return Ended(self.log, code=self._process.wait(1.0))
        return Ended(self.log)

    def end(self) -> None:
        """End the process, and with it all children; a copy of its owner only forgets it.

        One that has not been used may still be loading for a moment, which is not waited for.
        """
        self._address = b""
        atexit.unregister(self.end)
        self._stack.close()  # with the pipe that it lives by
        if self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            self.resume()
        if not self._used:
            _LEFT.append(self._process)
        else:
            try:
                self._process.wait(_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def shared_memory() -> int:
    """A descriptor of memory without a name, which is gone when all have closed it."""
    create = getattr(os, "memfd_create", None)  # not in a Python that was built for Linux before 3.17
    return create("frames") if create else nameless_file("/dev/shm")


def nameless_file(folder: Optional[str] = None) -> int:
    """A descriptor of an empty file that is deleted when it is closed everywhere."""
    file, path = tempfile.mkstemp(prefix="xtcav-", dir=folder)
    os.unlink(path)
    return file
