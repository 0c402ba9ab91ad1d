"""Shots chosen from all splits of a data file, with other labels or with masked pixels."""

from __future__ import annotations

from typing import Optional

import numpy as np

from train.data.dataset import Data
from train.data.minibatches import Part, Samples


class Pool(Samples):
    """All labeled shots of a data file, one split after the other.

    split: (n,) the name of each shot's split.
    """

    name = "pool"

    def __init__(self, data: Data) -> None:
        super().__init__()
        self._splits = [split for split in data.splits.values() if split.labels is not None]
        self._starts = np.cumsum([0, *map(len, self._splits)])
        self.image = self._splits[0].image
        columns = ((split.ids, split.labels, split.energy, split.simulated) for split in self._splits)
        self.ids, self.labels, self.energy, self.simulated = map(np.concatenate, zip(*columns))
        self.split = np.concatenate([np.full(len(split), split.name) for split in self._splits])

    def record(self, name: str) -> np.ndarray:
        return np.concatenate([split.record(name) for split in self._splits])

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        for split, start in zip(self._splits, self._starts):
            here = np.flatnonzero((rows >= start) & (rows < start + len(split)))
            if len(here):
                out[here] = split.images(rows[here] - start)[..., 0]

    def announce(self, rows: np.ndarray) -> None:
        for split, start in zip(self._splits, self._starts):
            split.announce(rows[(rows >= start) & (rows < start + len(split))] - start)


class Choice(Part):
    """A choice of shots of a pool, used like a split.

    rows: which shots. labels: (n,), replace their own labels. mask: (rows, columns) bool, the pixels
    that are kept; all others are set to 0.
    """

    def __init__(
        self,
        pool: Pool,
        rows: np.ndarray,
        labels: Optional[np.ndarray] = None,
        mask: Optional[np.ndarray] = None,
    ) -> None:
        super().__init__(pool, rows, pool.name)
        self.labels = self.labels if labels is None else labels
        self._mask = None if mask is None else mask.astype(np.float32)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        super().read(rows, out)
        if self._mask is not None:
            out *= self._mask
