"""Ranks that mpirun or srun started. mpi4py is imported only where there is more than one process."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from typing import Any, Iterator, Optional, Tuple

from common import cli, progress
from common.errors import UserError
from prepare.build.ranks.team import GRACE, Several

# Where launchers say how many processes they started: Open MPI, MPICH and its kin, MVAPICH, srun.
# (SLURM_NTASKS is of the job, and set in a batch script that runs one process.)
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LAUNCHER = 0.5  # s for the launcher to pass on the last line: MPICH's was seen to end without it


class MpiTeam(Several):
    """All processes of one MPI job, on machines whose file system may mix up what two write into one file."""

    one_machine = False

    def __init__(self, comm: Any, mpi: Any) -> None:
        super().__init__(comm.Get_rank(), comm.Get_size())
        self.comm, self.mpi = comm, mpi

    def send(self, rank: int, tag: int, message: Any) -> None:
        self.comm.send(message, rank, tag)

    def take(self) -> Optional[Tuple[int, Any]]:
        # Asks instead of waiting: an MPI call that blocks keeps a core busy.
        status = self.mpi.Status()
        if not self.comm.iprobe(tag=self.mpi.ANY_TAG, status=status):
            return None
        tag = status.Get_tag()
        return tag, self.comm.recv(source=status.Get_source(), tag=tag)


def started() -> int:
    """How many processes a launcher says it started; 1 without one."""
    for name in _SIZES:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 1:
            return int(value)
    return 1


@contextlib.contextmanager
def together(size: int) -> Iterator[MpiTeam]:
    """The `size` processes that were started; an error in one ends all."""
    members = _join(size)
    if members.rank:
        progress.silence()
    try:
        yield members
    except BaseException as error:
        _end_all(members, error)


def _join(size: int) -> MpiTeam:
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        raise UserError(
            f"{size} processes were started, and mpi4py, with which they would talk, cannot be loaded "
            f"({error}); install the extra `mpi`, or start one process"
        ) from None
    if mpi.COMM_WORLD.Get_size() != size:
        raise UserError(
            f"{size} processes were started, and MPI sees {mpi.COMM_WORLD.Get_size()}: launcher and MPI "
            "library do not belong together; try `srun --mpi=pmi2`, or the library's own mpirun"
        )
    return MpiTeam(mpi.COMM_WORLD, mpi)


def _end_all(members: MpiTeam, error: BaseException) -> None:
    """Say the error in this process and end the job: the others may wait for us for ever."""
    if members.rank:
        time.sleep(GRACE)
    code = cli.tell(error, f"rank {members.rank}: " if members.rank else "")
    time.sleep(_LAUNCHER)
    members.comm.Abort(code)
    os._exit(code)  # some bindings come back from it
