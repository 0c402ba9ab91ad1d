"""Commands of `train` as processes that begin with TensorFlow loaded: copies of one that has loaded it.

To load it takes most of the time of a small job. Signals, files, output and exit codes are those of
`python -m train WORDS`; what that says or does while it loads is not to be seen here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).parents[1]
_asking = threading.Lock()


class Preloaded:
    """What of subprocess.Popen tests use, for `python -m train WORDS` in the folder `cwd`."""

    def __init__(self, *words: str, cwd: Optional[Path] = None) -> None:
        self.returncode: Optional[int] = None
        (out, own_out), (err, own_err), (self._status, own) = os.pipe(), os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        with _asking, open(os.devnull) as nothing:
            request = json.dumps([str(cwd or Path.cwd()), *words]).encode()
            fds = [nothing.fileno(), own_out, own_err, own]
            socket.send_fds(_running(), [request], fds)
        for fd in fds[1:]:
            os.close(fd)
        self.pid = int(self._line())

    def poll(self) -> Optional[int]:
        """The exit code, None before the end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the end; returns the exit code."""
        if self.returncode is None:
            ready = select.select([self._status], [], [], timeout)[0]
            if not ready:
                raise subprocess.TimeoutExpired("train", timeout)
            self.returncode = os.waitstatus_to_exitcode(int(self._line()))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: Optional[float] = None) -> tuple[str, str]:
        """What it prints from now on; waits for the end."""
        found = ["", ""]

        def read(number: int, stream) -> None:
            found[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=one, daemon=True)
            for one in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        self.stdout.close()
        self.stderr.close()
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, to a process that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def _line(self) -> bytes:
        """The next line of the status pipe: the process' number, in the end what it ended by."""
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := os.read(self._status, 1)):
                raise RuntimeError("the process that has TensorFlow loaded has ended")
            line += byte
        return line


@functools.lru_cache(maxsize=None)
def _running() -> socket.socket:
    """The socket of the process that has TensorFlow loaded, which is started when it is first needed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = subprocess.Popen(
        [sys.executable, "-c", f"from tests.preloaded import serve; serve({theirs.fileno()})"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()  # by which it ends
        server.wait()

    atexit.register(end)
    return ours


# --- in that process -------------------------------------------------------------------------


def serve(number: int) -> None:
    """Load everything, then begin a process for each request, until nobody is there to ask."""
    import train

    for module in pkgutil.walk_packages(train.__path__, "train."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    asked = socket.socket(fileno=number)
    while True:
        request, fds, _, _ = socket.recv_fds(asked, 1 << 16, 4)
        if not request:
            return
        if os.fork() == 0:
            asked.close()
            _watch(json.loads(request), fds)
        for fd in fds:
            os.close(fd)


def _watch(request: list[str], fds: list[int]) -> None:
    """Begin the process, tell its number and in the end what it ended by."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = fds
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _become(request, streams)
    for fd in streams:
        os.close(fd)
    with contextlib.suppress(BrokenPipeError):
        os.write(status, f"{pid}\n".encode())
        os.write(status, f"{os.waitpid(pid, 0)[1]}\n".encode())
    os._exit(0)


def _become(request: list[str], streams: list[int]) -> None:
    """This process is `python -m train WORDS` from here on."""
    folder, *words = request
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "rww"[n], closefd=False) for n in range(3))
    os.chdir(folder)
    sys.argv = ["train", *words]
    code = 0
    try:
        runpy.run_module("train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
