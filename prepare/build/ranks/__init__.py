"""Several processes on one build: who does what, and one end for all.

    mpirun -n N, srun    ranks that a launcher started, on one machine or several (mpi.py)
    build --jobs N       copies of this process on this machine, without MPI (local.py)

Rank 0 leads: it holds the lock, averages the dark, deals out the missing images, assembles the
file. The others extract what they were dealt and report.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

from common.errors import UserError
from prepare.build.ranks import local, mpi
from prepare.build.ranks.team import Team, split

__all__ = ["Team", "split", "team"]


@contextlib.contextmanager
def team(jobs: int = 1) -> Iterator[Team]:
    """The processes that build together: those of a launcher, else `jobs` on this machine.

    An error in one of them ends them all with its line. Raises UserError for both at a time.
    """
    started = mpi.started()
    if started > 1 and jobs > 1:
        raise UserError(f"--jobs {jobs}: {started} processes were started already; leave --jobs out")
    with mpi.together(started) if started > 1 else local.together(jobs) as members:
        yield members
