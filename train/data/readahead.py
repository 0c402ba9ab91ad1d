"""Read batches ahead in a thread, so that reading overlaps with the training step."""

from __future__ import annotations

import queue
import threading
import weakref
from typing import Callable, Generic, Iterable, Iterator, Sequence, TypeVar

import numpy as np

from common.errors import DataError
from train.data.images import empty

# Batches that are read ahead: as many as make AHEAD_BYTES, and with the one in use 2 to 4.
AHEAD_BYTES = 128e6
PIECE = 16  # images that are read before the thread looks whether it should stop

Read = Callable[[np.ndarray, np.ndarray], None]
P = TypeVar("P", bound=tuple[Sequence[int], object])


class ReadAhead(Generic[P]):
    """Iterates over (images, item of the plan); a thread reads the images, (n, rows, columns, 1) float32.

    Batches are read into a few buffers that are reused: a batch is valid until the next is asked for.
    An error in the thread is raised here, in place of the batch. The thread ends with the plan, with an
    error, by `close` (or at the end of a `with`), or when the iterator is garbage-collected.

    read: fills its second argument, (n, rows, columns), with the images of its first, n row numbers.
    plan: tuples that begin with the row numbers of a batch, at most `size`; it is iterated over in the
    thread. image: (rows, columns).
    """

    def __init__(self, read: Read, plan: Iterable[P], size: int, image: tuple[int, int]) -> None:
        self._free: queue.SimpleQueue = queue.SimpleQueue()
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._in_use = None
        stop = threading.Event()
        buffers = int(min(4, max(2, AHEAD_BYTES // (4 * size * image[0] * image[1]))))
        for _ in range(buffers):
            self._free.put(empty(size, *image))
        # The thread must not hold this object, or it would never be garbage-collected.
        args = (read, iter(plan), self._free, self._ready, stop)
        thread = threading.Thread(target=_fill, args=args, name="read ahead", daemon=True)
        self._end = weakref.finalize(self, _finish, stop, self._free, thread)
        thread.start()

    def __iter__(self) -> Iterator[tuple[np.ndarray, P]]:
        return self

    def __next__(self) -> tuple[np.ndarray, P]:
        if not self._end.alive:
            raise DataError("the reading of images was stopped")
        if self._in_use is not None:
            self._free.put(self._in_use)
            self._in_use = None
        images, item, buffer, error = self._ready.get()
        if images is None:
            self.close()
            raise error
        self._in_use = buffer
        return images[..., None], item

    def close(self) -> None:
        """End the thread and wait for its end; nothing if that is done."""
        self._end()

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fill(read: Read, plan: Iterator, free, ready, stop: threading.Event) -> None:
    try:
        for item in plan:
            rows, buffer = item[0], free.get()
            images = buffer[: len(rows)]
            for first in range(0, len(rows), PIECE):
                if stop.is_set():
                    return
                part = slice(first, first + PIECE)
                read(rows[part], images[part])
            ready.put((images, item, buffer, None))
        ready.put((None, None, None, StopIteration()))
    except BaseException as error:  # raised again by `__next__`
        ready.put((None, None, None, error))


def _finish(stop: threading.Event, free: queue.SimpleQueue, thread: threading.Thread) -> None:
    stop.set()
    free.put(np.empty((0, 0, 0), np.float32))  # wakes the thread, which then looks at `stop`
    if thread is not threading.current_thread():
        thread.join()
