"""Several processes on one build, started by mpirun or srun: who does what, and one end for all.

Rank 0 leads: it holds the lock, averages the dark, deals out the missing images, assembles the
file. The others extract what they were dealt and report. mpi4py is imported only where there is
more than one process. Waiting is done by asking now and then, not in MPI calls that block: those
keep a core busy and keep signals from being seen.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
import traceback
from typing import Any, Iterator, List, Sequence, TypeVar

import click

from common import command, progress
from common.errors import UserError

T = TypeVar("T")

# Where launchers say how many processes they started: Open MPI, MPICH and its kin, MVAPICH, srun.
# (SLURM_NTASKS is of the job, and set in a batch script that runs one process.)
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_TASK, _COUNT, _DONE, _END = range(1, 5)
_PAUSE = 0.02  # s between two looks for messages
_REPORT_EVERY = 0.5  # s
_LAUNCHER = 0.5  # s for the launcher to pass on the last line: MPICH's was seen to end without it
_GRACE = 2.0  # s in which an error that all ranks meet is told by rank 0 alone


class Team:
    """This process alone; the base of several."""

    rank, size = 0, 1

    def deal(self, tasks: Sequence[T]) -> T:
        """Rank 0: give each rank its task; returns rank 0's."""
        return tasks[0]

    def news(self) -> int:
        """Rank 0: how many images the others report since the last call."""
        return 0

    def busy(self) -> bool:
        """Rank 0: whether a rank is still at its task."""
        return False

    def dismiss(self) -> None:
        """Rank 0: let the others go."""


class MpiTeam(Team):
    """All processes of one MPI job."""

    def __init__(self, comm: Any, mpi: Any) -> None:
        self.comm, self.mpi = comm, mpi
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._working = 0
        self._unreported, self._reported = 0, time.monotonic()

    def deal(self, tasks: Sequence[T]) -> T:
        for rank in range(1, self.size):
            self.comm.send(tasks[rank], rank, _TASK)
        self._working = self.size - 1
        return tasks[0]

    def news(self) -> int:
        count = 0
        status = self.mpi.Status()
        while self.comm.iprobe(tag=self.mpi.ANY_TAG, status=status):
            count += self.comm.recv(source=status.Get_source(), tag=status.Get_tag())
            self._working -= status.Get_tag() == _DONE
        return count

    def busy(self) -> bool:
        time.sleep(_PAUSE)
        return self._working > 0

    def dismiss(self) -> None:
        for rank in range(1, self.size):
            self.comm.send(None, rank, _END)

    def receive(self) -> Any:
        """Other ranks: wait for the task that rank 0 deals; None where there is nothing to do."""
        return self._wait(_TASK)

    def report(self, count: int) -> None:
        """Other ranks: tell rank 0, not too often, that `count` more images are done."""
        self._unreported += count
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self.comm.send(self._unreported, 0, _COUNT)
            self._unreported, self._reported = 0, time.monotonic()

    def done(self) -> None:
        """Other ranks: tell rank 0 that the task is done, and wait until it has no more use for us."""
        self.comm.send(self._unreported, 0, _DONE)
        self._wait(_END)

    def _wait(self, tag: int) -> Any:
        while not self.comm.iprobe(source=0, tag=self.mpi.ANY_TAG):
            time.sleep(_PAUSE)
        status = self.mpi.Status()
        message = self.comm.recv(source=0, tag=self.mpi.ANY_TAG, status=status)
        return message if status.Get_tag() == tag else None


@contextlib.contextmanager
def team() -> Iterator[Team]:
    """The processes that were started together. An error in one of them ends them all with its line."""
    started = _started()
    if started == 1:
        yield Team()
        return
    together = _join(started)
    if together.rank:
        progress.silence()
    try:
        yield together
    except BaseException as error:
        _end_all(together, error)


def split(items: Sequence[T], size: int) -> List[Sequence[T]]:
    """`items` in `size` consecutive shares, as equal as can be."""
    bounds = [len(items) * n // size for n in range(size + 1)]
    return [items[start:end] for start, end in zip(bounds, bounds[1:])]


def _started() -> int:
    for name in _SIZES:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 1:
            return int(value)
    return 1


def _join(started: int) -> MpiTeam:
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        raise UserError(
            f"{started} processes were started, and mpi4py, with which they would talk, cannot be loaded "
            f"({error}); install the extra `mpi`, or start one process"
        ) from None
    if mpi.COMM_WORLD.Get_size() != started:
        raise UserError(
            f"{started} processes were started, and MPI sees {mpi.COMM_WORLD.Get_size()}: launcher and MPI "
            "library do not belong together; try `srun --mpi=pmi2`, or the library's own mpirun"
        )
    return MpiTeam(mpi.COMM_WORLD, mpi)


def _end_all(together: MpiTeam, error: BaseException) -> None:
    """Say the error in this process and end the job: the others may wait for us for ever."""
    if together.rank:
        time.sleep(_GRACE)
    told = command.outcome(error)
    if told is None:
        traceback.print_exception(type(error), error, error.__traceback__)
        told = ("", 1)
    line, code = told
    if line:
        click.echo(f"rank {together.rank}: {line}" if together.rank else line, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(_LAUNCHER)
    together.comm.Abort(code)
    os._exit(code)  # some bindings come back from it
