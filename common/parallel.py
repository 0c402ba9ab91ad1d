"""Processes that share work: one executor, however they were started.

    one process                 what is submitted is done at once, here
    --jobs N                    N processes of this machine, which end with this one, however it ends
    mpirun -n N, srun -n N      rank 0 hands out work to the others (mpi4py.futures)

Submit functions of modules with arguments that can be pickled; each process opens files for itself and
says nothing. Signals are for the first process; the others end with it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence, TypeVar

from common import cli, interrupt, progress
from common.cores import available_cores
from common.errors import UserError

T = TypeVar("T")

# Where launchers say how many processes they started: Open MPI, MPICH and what is built on it, MVAPICH, srun.
# (SLURM_NTASKS is of the job, and set in a batch script that runs one process.)
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_PTY = "SLURM_PTY_PORT"  # in the shell of `srun --pty`, which is one process
_LAUNCHER = 0.5  # s for a launcher to pass on the last line: MPICH's was seen to end without it


class Place(NamedTuple):
    """Which of the `size` processes of ours on this machine this one is, and how many share its cores.

    They share the machine's memory and GPUs. Processes that a launcher bound to cores share none.
    """

    number: int = 0
    size: int = 1
    sharing: int = 1

    @property
    def cores(self) -> int:
        """Cores for this process."""
        return max(1, available_cores() // self.sharing)


_place = Place()
_ready: Any = None  # how many processes of --jobs are, shared by them
_children: set[subprocess.Popen] = set()  # of this process, see `run_child`
_starting = threading.Lock()  # held while one of them is started, and for ever once this process is to end


def place() -> Place:
    """The place of this process."""
    return _place


class Here(Executor):
    """An executor that does what is submitted at once, in this process."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


@contextlib.contextmanager
def executor(jobs: int = 1) -> Iterator[Optional[Executor]]:
    """The executor for `jobs` processes, or for the ranks that a launcher started.

    On ranks other than 0 the block is entered with None when there is no more work to do. To be entered
    before files are opened and threads are started, because processes begin as copies of this one. An
    error or a signal in the block ends all of them. Raises UserError for both ways at a time.
    """
    comm = launched()
    if comm is None:
        with Here() if jobs == 1 else _local(jobs) as workers:
            yield workers
        return
    if jobs > 1:
        raise UserError(f"--jobs {jobs}: {comm.Get_size()} processes were started already; leave --jobs out")
    with _ranks(comm) as workers:
        yield workers


def results(
    workers: Executor,
    function: Callable[..., T],
    tasks: Iterable[Sequence],
    most: Optional[int] = None,
    in_order: bool = False,
) -> Iterator[T]:
    """What `function(*task)` returns for each of `tasks`: as they are done, or in the order of the tasks.

    Work is begun in the order of the tasks, `most` of them at a time or all that there is room for.
    The first error ends the work and is raised here; UserError if a process was ended from outside.
    """
    if isinstance(workers, Here):
        for task in tasks:
            yield function(*task)
        return
    tasks = iter(tasks)
    try:
        running = [workers.submit(function, *task) for task in itertools.islice(tasks, most)]
        while running:
            with interrupt.waiting():
                done, _ = wait(running[:1] if in_order else running, return_when=FIRST_COMPLETED)
            running = [future for future in running if future not in done]
            running += [workers.submit(function, *task) for task in itertools.islice(tasks, len(done))]
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise UserError(_what_ended(getattr(workers, "children", []))) from None


def ahead(workers: Executor, function: Callable[..., T], calls: Iterable[Sequence], most: int) -> Iterator[T]:
    """`function(*call)` of each of `calls`, in order, while up to `most` later ones are under way."""
    waiting: collections.deque[Future] = collections.deque()
    for call in calls:
        waiting.append(workers.submit(function, *call))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
            env={name: value for name, value in os.environ.items() if name not in _SIZES},
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
    child.wait()


# --- processes of this machine ---------------------------------------------------------------------


@contextlib.contextmanager
def _local(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with this one: each sees its end of a pipe closed, even by kill -9.

    All of them have started before the block is entered. Raises UserError if the system refuses one.
    """
    sys.stdout.flush()  # or every copy would print what waits here
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        try:
            pool = stack.enter_context(_started(jobs))
        except BrokenProcessPool:
            what = f"a process of --jobs {jobs} was ended as it started"
            raise UserError(f"{what}; is there too little memory for so many?") from None
        except (OSError, RuntimeError, MemoryError) as error:
            line = cli.of_the_system(error)
            if line is None:
                raise
            raise UserError(f"--jobs {jobs} is more than can be started: {line}") from None
        yield pool
        pool.shutdown()


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
    """In a new process, the next of those `ready`: leave signals and words to the first, and end with it.

    A process that the system refuses what it needs notes the error number in `refused`, and ends.
    """
    global _place, _ready
    threading.excepthook = hook
    progress.silence()
    _leave_signals()
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
        _place, _ready = Place(ready.value, jobs, jobs), ready
        ready.value += 1


def _wait_for_all() -> None:
    """In each of the processes: return when the last is ready, so that none does two of these tasks."""
    while _ready.value < _place.size:
        time.sleep(0.001)


def _leave_signals() -> None:
    """From now on signals change nothing here. Not by ignoring them: a child would, too, and not end."""
    for number in interrupt.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _what_ended(children: list[multiprocessing.process.BaseProcess]) -> str:
    """Which of the processes of a broken pool was ended by what."""
    for _ in range(50):
        for child in children:
            if child.exitcode is not None and child.exitcode < 0:
                name = signal.Signals(-child.exitcode).name
                memory = "; was there too little memory for so many --jobs?" if name == "SIGKILL" else ""
                return f"process {child.pid} of --jobs {len(children)} was ended by {name}{memory}"
        time.sleep(0.02)
    return f"a process of --jobs {len(children)} has ended"


# --- ranks that a launcher started -------------------------------------------------------------------


def launched() -> Optional[Any]:
    """The communicator of the ranks that were started together; None for a process alone.

    MPI itself is asked, and only where a launcher's variables are there: the shell that `srun --pty`
    gives has them, too, for one process. Raises UserError for ranks that have no mpi4py.
    """
    size = max((int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()), default=1)
    if size == 1 or sys.stdin is not None and sys.stdin.isatty():
        return None
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        if _PTY in os.environ:  # the shell again, under nohup or with another input
            return None
        raise UserError(
            f"{size} processes were started, and mpi4py, with which they would talk, cannot be loaded "
            f"({error}); install the extra `mpi`, or start one process"
        ) from None
    return mpi.COMM_WORLD if mpi.COMM_WORLD.Get_size() > 1 else None


def place_of(comm: Any, first_works: bool) -> Place:
    """The place of this rank; to be called by all. first_works: whether rank 0 works beside the others."""
    local = comm.Split_type(sys.modules["mpi4py.MPI"].COMM_TYPE_SHARED)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    found = [of for works, of in local.allgather((first_works or comm.Get_rank() > 0, cores)) if works]
    number = local.Get_rank() - (local.Get_size() - len(found))
    return Place(max(number, 0), max(len(found), 1), max(sum(not cores.isdisjoint(of) for of in found), 1))


@contextlib.contextmanager
def _ranks(comm: Any) -> Iterator[Optional[Executor]]:
    """mpi4py's executor on rank 0, None on the others when they have done their work."""
    global _place
    futures = importlib.import_module("mpi4py.futures")
    _place = place_of(comm, first_works=False)
    if comm.Get_rank():
        progress.silence()
        _leave_signals()
    with futures.MPICommExecutor(comm) as workers:
        try:
            yield workers
        except BaseException as error:
            if workers is not None:
                end_all(comm, error)
            raise


def end_all(comm: Any, error: BaseException, who: str = "") -> None:
    """Say the error, after `who`, and end all ranks, which would go on with their work for long."""
    code = cli.tell(error, who)
    time.sleep(_LAUNCHER)
    comm.Abort(code)
    os._exit(code)  # some bindings come back from it
