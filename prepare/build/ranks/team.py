"""What the processes of a build say to each other; which processes they are, mpi.py and local.py know."""

from __future__ import annotations

import time
from typing import Any, List, Optional, Sequence, Tuple, TypeVar

T = TypeVar("T")

_TASK, _COUNT, _DONE, _END = range(1, 5)
_PAUSE = 0.02  # s between two looks for messages: waiting that blocks keeps signals from being seen
_REPORT_EVERY = 0.5  # s
GRACE = 2.0  # s in which an error that all ranks meet is told by rank 0 alone


class Team:
    """This process alone; the base of several."""

    rank, size = 0, 1
    one_machine = True  # all ranks see what another writes into a file, at once and byte by byte

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


class Several(Team):
    """More than one process; a kind of them says how messages pass."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._working = 0
        self._unreported, self._reported = 0, time.monotonic()

    def send(self, rank: int, tag: int, message: Any) -> None:
        """Pass `message` to `rank`, which may be at work."""
        raise NotImplementedError

    def take(self) -> Optional[Tuple[int, Any]]:
        """The tag of a message that has come, and the message; None if there is none. Does not wait."""
        raise NotImplementedError

    def deal(self, tasks: Sequence[T]) -> T:
        for rank in range(1, self.size):
            self.send(rank, _TASK, tasks[rank])
        self._working = self.size - 1
        return tasks[0]

    def news(self) -> int:
        count = 0
        while True:
            came = self.take()
            if came is None:
                return count
            tag, images = came
            count += images
            self._working -= tag == _DONE

    def busy(self) -> bool:
        time.sleep(_PAUSE)
        return self._working > 0

    def dismiss(self) -> None:
        for rank in range(1, self.size):
            self.send(rank, _END, None)

    def receive(self) -> Any:
        """Other ranks: wait for the task that rank 0 deals; None where there is nothing to do."""
        return self._wait(_TASK)

    def report(self, count: int) -> None:
        """Other ranks: tell rank 0, not too often, that `count` more images are done."""
        self._unreported += count
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self.send(0, _COUNT, self._unreported)
            self._unreported, self._reported = 0, time.monotonic()

    def done(self) -> None:
        """Other ranks: tell rank 0 that the task is done, and wait until it has no more use for us."""
        self.send(0, _DONE, self._unreported)
        self._wait(_END)

    def _wait(self, tag: int) -> Any:
        while True:
            came = self.take()
            if came is not None:
                return came[1] if came[0] == tag else None
            time.sleep(_PAUSE)


def split(items: Sequence[T], size: int) -> List[Sequence[T]]:
    """`items` in `size` consecutive shares, as equal as can be."""
    bounds = [len(items) * n // size for n in range(size + 1)]
    return [items[start:end] for start, end in zip(bounds, bounds[1:])]
