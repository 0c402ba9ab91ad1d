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
import importlib
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Iterable, Optional, Sequence, TypeVar

from common import cli, interrupt, processes, progress
from common.errors import UserError
from common.processes import Place

T = TypeVar("T")

_PTY = "SLURM_PTY_PORT"  # in the shell of `srun --pty`, which is one process
_LAUNCHER = 0.5  # s for a launcher to pass on the last line: MPICH's was seen to end without it


class Here(Executor):
    """An executor that does what is submitted at once, in this process."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


@contextlib.contextmanager
def executor(jobs: int = 1) -> Iterator[Optional[Executor]]:
    """The executor for `jobs` processes, or for the ranks that a launcher started.

    Ranks other than 0 enter the block, with None, when there is no more work to do. Enter it before files
    are opened or threads started: processes begin as copies of this one. An error or a signal in the block
    ends all of them. Raises UserError for `jobs` on ranks.
    """
    comm = launched()
    if comm is None:
        with Here() if jobs == 1 else processes.pool(jobs) as workers:
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
        raise UserError(processes.what_ended(getattr(workers, "children", []))) from None


def ahead(workers: Executor, function: Callable[..., T], calls: Iterable[Sequence], most: int) -> Iterator[T]:
    """`function(*call)` of each of `calls`, in order, while up to `most` later ones are under way."""
    waiting: collections.deque[Future] = collections.deque()
    for call in calls:
        waiting.append(workers.submit(function, *call))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# --- ranks that a launcher started -------------------------------------------------------------------


def launched() -> Optional[Any]:
    """The communicator of the ranks that were started together; None for a process alone.

    MPI itself is asked, and only where a launcher's variables are there: the shell that `srun --pty`
    gives has them, too, for one process. Raises UserError for ranks that have no mpi4py.
    """
    told = (os.environ.get(name, "") for name in processes.SIZES)
    size = max((int(number) for number in told if number.isdigit()), default=1)
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
    futures = importlib.import_module("mpi4py.futures")
    processes.own = place_of(comm, first_works=False)
    if comm.Get_rank():
        progress.voice.silent = True
        processes.leave_signals()
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(futures.MPICommExecutor(comm))
        except BaseException as error:
            if not comm.Get_rank():
                end_all(comm, error)
            raise


def end_all(comm: Any, error: BaseException, who: str = "") -> None:
    """Print the error, after `who`, and end all ranks, which would otherwise go on with their work."""
    code = cli.tell(error, who)
    time.sleep(_LAUNCHER)
    comm.Abort(code)
    os._exit(code)  # some bindings come back from it
