"""Commands with `--jobs N` where the system refuses processes or threads.

`ulimit -u` does not bind root, so the calls fail by themselves: os.fork, os.pipe and Thread.start at their
n-th call, as the system would have them fail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Iterator

from tests.limits import HANGS

JOBS = 4

FAILING = """
import errno, importlib, os, signal, sys, threading, time
first, process, calls = os.getpid(), 0, {}

def failing(name, real):
    def call(*args):
        global process
        nth, error = os.environ.get(name, "0 EAGAIN").split()
        calls[name] = calls.get(name, 0) + 1
        if calls[name] == int(nth):
            number = getattr(errno, error)
            raise OSError(number, os.strerror(number))
        process += name == "FORK"
        return real(*args)
    return call

def start(self, real=threading.Thread.start, calls={}):
    here = 0 if os.getpid() == first else process
    calls[here] = calls.get(here, 0) + 1
    of, nth = os.environ.get("THREAD", "none 0").split()
    if (of == str(here) or of == "any" and here) and calls[here] == int(nth):
        raise RuntimeError("can't start new thread")
    if here == 2 and os.environ.get("STUCK") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if here == 2 and os.environ.get("STUCK") == "sleeping":
        os.write(1, b"stuck\\n")
        while True:
            time.sleep(600)
    real(self)

module = sys.argv.pop(1)
main = importlib.import_module(module + ".commands").main
os.fork, os.pipe, threading.Thread.start = failing("FORK", os.fork), failing("PIPE", os.pipe), start
main(prog_name=module)
"""


@contextlib.contextmanager
def started(module: str, *words: str, **failing: str) -> Iterator[subprocess.Popen]:
    """`python -m MODULE WORDS --jobs JOBS` where calls fail as `failing` says; at the end nothing of it runs.

    fork, pipe: "NTH ERROR" of the first process; thread: "PROCESS NTH", the processes counted from 0;
    stuck: the second process is "killed" or "sleeping" before it is ready.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", FAILING, module, *words, "--jobs", str(JOBS)],
        env={**os.environ, **{name.upper(): how for name, how in failing.items()}},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            raise AssertionError("a process was left running")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def refused(module: str, *words: str, **failing: str) -> str:
    """The one line of a command of which not all processes could be started."""
    with started(module, *words, **failing) as process:
        said, line = process.communicate(timeout=HANGS)
    assert process.returncode == 2 and not said, (said, line)
    assert line.startswith("error: ") and line.count("\n") == 1 and f"--jobs {JOBS}" in line, line
    return line
