"""Processes of this machine that end with this one, however it ends: a pool of `--jobs N`, and commands."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from common import cli, interrupt, progress
from common.cores import available_cores
from common.errors import UserError

# Where launchers say how many processes they started: Open MPI, MPICH and what is built on it, MVAPICH, srun.
# (SLURM_NTASKS is of the job, and set in a batch script that runs one process.)
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


class Place(NamedTuple):
    """The number of this process among the `size` of ours on this machine; how many of them share its cores.

    They share memory and GPUs. Processes that a launcher bound to cores of their own share none.
    """

    number: int = 0
    size: int = 1
    sharing: int = 1

    @property
    def cores(self) -> int:
        """Cores for this process."""
        return max(1, available_cores() // self.sharing)


own = Place()  # of this process
_ready: Any = None  # how many processes of --jobs are, shared by them
_children: set[subprocess.Popen] = set()  # of this process, see `run_child`
_starting = threading.Lock()  # held while one of them is started, and for ever once this process is to end


def run_child(command: Sequence[str], log: Path, append: bool) -> int:
    """Run a command of ours (`cli.child`) to its end, its output in `log`; returns the exit code.

    It ends, after saving what it has, when this process is asked to end or ends, however that happens.
    """
    with log.open("ab" if append else "wb") as file, _starting:
        # A session of its own, so that Ctrl-C reaches it once, from us; a pipe, so that it ends with us.
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in SIZES},
        )
        _children.add(child)
    try:
        with interrupt.waiting():
            return child.wait()
    finally:
        _end(child)
        _children.discard(child)


def _end(child: subprocess.Popen) -> None:
    child.stdin.close()  # by which it is asked to end
    child.send_signal(signal.SIGCONT)  # or one that was stopped would not see it
    child.wait()


@contextlib.contextmanager
def pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with this one: each sees its end of a pipe closed, even by kill -9.

    All of them have started before the block is entered. Raises UserError if the system refuses one.
    """
    sys.stdout.flush()  # or every copy would print what waits here
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        try:
            workers = stack.enter_context(_started(jobs))
        except BrokenProcessPool:
            what = f"a process of --jobs {jobs} was ended as it started"
            raise UserError(f"{what}; is there too little memory for so many?") from None
        except (OSError, RuntimeError, MemoryError) as error:
            line = cli.of_the_system(error)
            if line is None:
                raise
            raise UserError(f"--jobs {jobs} is more than can be started: {line}") from None
        yield workers
        workers.shutdown()


@contextlib.contextmanager
def _started(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of which all processes, and the threads of this one that serve it, have started.

    Raises what refused one of them (OSError, RuntimeError of Python's threads, MemoryError), and
    BrokenProcessPool if one was ended from outside.
    """
    watched, held = os.pipe()
    context = multiprocessing.get_context("fork")
    ready = context.Value("i", 0)
    refused = context.Value("i", 0, lock=False)  # a lock would stay locked by a process that is killed
    own = (watched, held, ready, refused, jobs, threading.excepthook)
    pool = ProcessPoolExecutor(jobs, context, initializer=_as_a_worker, initargs=own)
    try:
        _start_all(pool, jobs, refused)
        pool.children = multiprocessing.active_children()
        yield pool
    finally:
        os.close(held)  # ends those that are still at work
        os.close(watched)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGCONT)  # or one that was stopped would not see it
        with contextlib.suppress(RuntimeError):  # the pool's thread was refused: there is nothing to join
            pool.shutdown(cancel_futures=True)
        for child in multiprocessing.active_children():
            child.join()


def _start_all(pool: ProcessPoolExecutor, jobs: int, refused: Any) -> None:
    """Start the processes of `pool` and return when each is ready, or end all of them and raise why not."""
    ended: list[Any] = []  # the errors by which threads of the pool ended, which would wait for ever
    hook, threading.excepthook = threading.excepthook, lambda thread: ended.append(thread.exc_value)
    try:
        started = [pool.submit(_wait_for_all) for _ in range(jobs)]
        with interrupt.waiting():
            while not ended and wait(started, timeout=0.05).not_done:
                pass
        for error in ended:
            raise error
        for future in started:
            future.result()
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.kill()  # nothing has begun, and a process that is stopped or stuck would not end by itself
        if refused.value and isinstance(error, RuntimeError):  # a broken pool is one
            raise OSError(refused.value, os.strerror(refused.value)) from None
        raise
    finally:
        threading.excepthook = hook


def _as_a_worker(watched: int, held: int, ready: Any, refused: Any, jobs: int, hook: Callable) -> None:
    """In a new process: be the next of those `ready`, leave signals and messages to the first, end with it.

    Where the system refuses a thread, the process notes the error number in `refused`, and ends.
    """
    global own, _ready
    threading.excepthook = hook
    progress.voice.silent = True
    leave_signals()
    os.close(held)  # the pipe shows its end only when nobody else holds it open

    def watch() -> None:
        os.read(watched, 1)
        _starting.acquire()
        for child in list(_children):
            _end(child)
        os._exit(1)

    try:
        threading.Thread(target=watch, daemon=True).start()
    except (OSError, RuntimeError, MemoryError) as error:
        refused.value = cli.system_errno(error) or errno.EAGAIN
        os._exit(1)
    with ready.get_lock():
        own = Place(ready.value, jobs, jobs)
        _ready = ready
        ready.value += 1


def _wait_for_all() -> None:
    """In each of the processes: wait until the last is ready, so that none does two of these tasks."""
    while _ready.value < own.size:
        time.sleep(0.001)


def leave_signals() -> None:
    """Let signals change nothing here. They are not ignored: a child would inherit that, and not end."""
    for number in interrupt.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def what_ended(children: list[multiprocessing.process.BaseProcess]) -> str:
    """Which of the processes of a broken pool was ended by what."""
    for _ in range(50):
        for child in children:
            if child.exitcode is not None and child.exitcode < 0:
                name = signal.Signals(-child.exitcode).name
                memory = "; was there too little memory for so many --jobs?" if name == "SIGKILL" else ""
                return f"process {child.pid} of --jobs {len(children)} was ended by {name}{memory}"
        time.sleep(0.02)
    return f"a process of --jobs {len(children)} has ended"
