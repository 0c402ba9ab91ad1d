"""Training on several ranks: each takes its share of every minibatch, sums are of all of them.

    mpirun -n N python -m train fit CONFIG
    srun -n N python -m train fit CONFIG

Sums are taken in the order of the ranks, whatever order messages arrive in, so that N ranks give the
same bits each time. Only rank 0 writes files and prints.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np

from common import interrupt, parallel, processes, progress

GRACE = 2.0  # s in which rank 0, which has met the same error, says it and ends all


@contextlib.contextmanager
def started() -> Iterator[Ranks]:
    """The ranks that mpirun or srun started, or this process alone. An error on one ends all of them."""
    comm = parallel.launched()
    if comm is None:
        yield Ranks()
        return
    ranks = Ranks(comm)
    if not ranks.first:
        progress.voice.silent = True
    try:
        yield ranks
    except interrupt.Interrupted as stop:  # on all ranks, after the same step
        if ranks.first:
            raise
        sys.exit(stop.exit_code)
    except BaseException as error:
        if not ranks.first:
            time.sleep(GRACE)
        parallel.end_all(comm, error, "" if ranks.first else f"rank {ranks.rank}: ")


class Ranks:
    """This process among the `size` ranks of an MPI communicator; without one it is alone."""

    def __init__(self, comm: Optional[Any] = None) -> None:
        self._comm = comm
        self.rank = comm.Get_rank() if comm is not None else 0
        self.size = comm.Get_size() if comm is not None else 1
        self.place = processes.own if comm is None else parallel.place_of(comm, first_works=True)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of `n` things: consecutive parts, whose sizes differ by 1 at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def minibatch(self, n: int) -> tuple[slice, int]:
        """This rank's part of a minibatch of `n` shots, and how many shots all parts have together.

        Fewer shots than ranks are computed by each rank as a whole, because TensorFlow's
        convolutions do not take an empty part: the same means, over `size` copies.
        """
        return (slice(0, n), n * self.size) if n < self.size else (self.share(n), n)

    def minibatch_part(self, n: int) -> slice:
        """The first of what `minibatch` gives."""
        return self.minibatch(n)[0]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over all ranks of equally long arrays (n,), in the order of the ranks.

        Each rank sums one part of the array and sends the result to all, so that a rank sends and
        receives twice the array, however many there are.
        """
        if self.size == 1:
            return values
        part = -(-len(values) // self.size)
        sent = np.zeros((self.size, part), values.dtype)
        sent.reshape(-1)[: len(values)] = values
        received = np.empty_like(sent)
        self._comm.Alltoall(sent, received)
        mine = received[0].copy()
        for of_rank in received[1:]:
            mine += of_rank
        summed = np.empty_like(sent)
        self._comm.Allgather(mine, summed)
        return summed.reshape(-1)[: len(values)]

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The parts of all ranks, one behind the other, on each of them."""
        return values if self.size == 1 else np.concatenate(self._comm.allgather(values))

    def from_first(self, value: Any) -> Any:
        """What rank 0 gives, on all ranks."""
        return value if self.size == 1 else self._comm.bcast(value)

    def greatest(self, number: int) -> int:
        """The greatest of the ranks' numbers."""
        return number if self.size == 1 else max(self._comm.allgather(number))
