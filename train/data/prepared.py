"""Samples whose images have been through the part of the preprocessing that never changes."""

from __future__ import annotations

from typing import Callable

import numpy as np

from train.data.dataset import memory_for_images
from train.data.images import empty
from train.data.minibatches import Part, Samples

_BATCH = 32

Process = Callable[[np.ndarray], np.ndarray]


class Prepared(Part):
    """All of `samples` with their images after `process`: in memory if they fit, else made each time.

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
        super().__init__(samples, np.arange(len(samples)), samples.name)
        self._process, self.image = process, image
        if not stream and 4 * len(samples) * image[0] * image[1] <= memory_for_images(processes):
            kept, done = empty(len(samples), *image), 0
            for batch in map(process, samples.batches(_BATCH)):
                kept[done : done + len(batch)] = batch[..., 0]
                done += len(batch)
            self.kept = kept

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        out[:] = self._process(self._of.images(rows))[..., 0]
