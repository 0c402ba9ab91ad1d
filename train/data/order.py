"""In which order the shots of a split are read: epochs, minibatches, and what the disk is told of ahead."""

from __future__ import annotations

import collections
import functools
from typing import Callable, Iterable, Iterator, NamedTuple, Optional, Union

import numpy as np


class Position(NamedTuple):
    """How far a run has read: epochs done, and minibatches done of the current epoch."""

    epoch: int
    batch: int


# The rows of which images are read, the rows of the whole minibatch, and the position after it.
Planned = tuple[np.ndarray, np.ndarray, Optional[Position]]
Share = Callable[[int], slice]  # which shots of a minibatch of n are this process's


def everything(n: int) -> slice:
    """The part of a process that is alone."""
    return slice(0, n)


def minibatch_rows(n: int, size: Union[int, str], seed: int, at: Position) -> tuple[np.ndarray, Position]:
    """The rows of the minibatch at position `at`, and the position after it.

    The order of an epoch is a function of (seed, epoch) alone, so that a position is all that a
    resumed run needs. Every row comes once an epoch; the last minibatch may be smaller. With
    `size` "full" every minibatch is all rows in the file's order.
    """
    if size == "full" or size >= n:
        return np.arange(n), Position(at.epoch + 1, 0)
    start = at.batch * size
    rows = _order(n, seed, at.epoch)[start : start + size]
    last = start + size >= n
    return rows, Position(at.epoch + 1, 0) if last else Position(at.epoch, at.batch + 1)


def planned(
    n: int, size: Union[int, str], seed: int, at: Position, part: Share = everything
) -> Iterator[Planned]:
    """What to read of every minibatch from `at` on, without end: `part` of its rows."""
    while True:
        rows, at = minibatch_rows(n, size, seed, at)
        yield rows[part(len(rows))], rows, at


def announced(plan: Iterable[Planned], tell: Callable[[np.ndarray], None], most: int) -> Iterator[Planned]:
    """`plan`, whose images are told to `tell` some `most` ahead, a quarter of that number at a time.

    Of a minibatch of more images than that the first `most` are told.
    """
    plan, waiting, images = iter(plan), collections.deque(), 0
    while True:
        if images <= most * 3 // 4:
            new = []
            for item in plan:
                new.append(item)
                images += len(item[0])
                if images >= most:
                    break
            if new:
                tell(np.concatenate([rows[:most] for rows, *_ in new]))
                waiting.extend(new)
        if not waiting:
            return
        item = waiting.popleft()
        images -= len(item[0])
        yield item


@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(n)
    order.setflags(write=False)
    return order
