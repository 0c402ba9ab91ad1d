"""Samples whose images have been through the part of the preprocessing that never changes."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Callable, Generator, Iterator, Optional, Sequence, Union

import numpy as np

from train.data.dataset import memory_for_images
from train.data.images import empty
from train.data.minibatches import Batch, Planned, Position, Samples, Share, everything, planned
from train.data.readahead import ReadAhead

_BATCH = 32

Process = Callable[[np.ndarray], np.ndarray]


class Prepared:
    """`samples` with their images after `process`: in memory if they fit, else made each time.

    process: images (n, h, w, 1) float32 -> (n, *image, 1), each image by itself. stream: do not keep them.
    processes: how many of this machine keep as much.
    """

    def __init__(
        self,
        samples: Samples,
        process: Process,
        image: tuple[int, int],
        stream: bool = False,
        processes: int = 1,
    ) -> None:
        self._samples, self._process, self.image = samples, process, image
        self._kept = None
        if not stream and 4 * len(samples) * image[0] * image[1] <= memory_for_images(processes):
            kept, done = empty(len(samples), *image), 0
            for batch in self.batches(_BATCH):
                kept[done : done + len(batch)] = batch[..., 0]
                done += len(batch)
            self._kept = kept

    def __len__(self) -> int:
        return len(self._samples)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._samples, name)  # what is not about images

    def images(self, rows: Sequence[int]) -> np.ndarray:
        if self._kept is None:
            return self._process(self._samples.images(rows))
        return self._kept[np.asarray(rows), ..., None]

    def batches(self, size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
        if self._kept is None:
            yield from map(self._process, self._samples.batches(size, rows))
            return
        for start in range(0, len(self) if rows is None else len(rows), size):
            chosen = slice(start, start + size) if rows is None else rows[start : start + size]
            yield self._kept[chosen][..., None]

    def minibatches(
        self, size: Union[int, str], seed: int, at: Position, part: Share = everything
    ) -> Generator[Batch, None, None]:
        if self._kept is None:
            with closing(self._samples.minibatches(size, seed, at, part)) as batches:
                for batch in batches:
                    yield batch._replace(images=self._process(batch.images))
        plan = planned(len(self), size, seed, at, part)
        labels, energy = self._samples.labels, self._samples.energy
        if size == "full" or size >= len(self):
            mine = self._kept[part(len(self))][..., None]
            yield from (Batch(mine, labels, energy, after) for _, _, after in plan)
        reader: ReadAhead[Planned] = ReadAhead(self._read, plan, size, self.image)
        with reader:
            for images, (_, rows, after) in reader:
                yield Batch(images, labels[rows], energy[rows], after)

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        np.take(self._kept, rows, axis=0, out=out, mode="clip")
