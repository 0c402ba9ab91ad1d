"""Choose shots from all splits of a data file, with other labels or with masked pixels."""

from __future__ import annotations

from typing import Generator, Iterator, Optional, Sequence, Union

import numpy as np

from train.data.dataset import Data
from train.data.minibatches import Batch, Position, Share, everything, planned


class Pool:
    """All labeled shots of a data file, one split after the other.

    ids, labels, energy: (n,), as in Split. split: (n,) the name of each shot's split.
    """

    def __init__(self, data: Data) -> None:
        self._splits = [split for split in data.splits.values() if split.labels is not None]
        self._starts = np.cumsum([0, *map(len, self._splits)])
        self.ids = np.concatenate([split.ids for split in self._splits])
        self.labels = np.concatenate([split.labels for split in self._splits])
        self.energy = np.concatenate([split.energy for split in self._splits])
        self.split = np.concatenate([np.full(len(split), split.name) for split in self._splits])

    def __len__(self) -> int:
        return len(self.ids)

    def record(self, name: str) -> np.ndarray:
        """The values of a dataset beside the images, as in Split, (n,)."""
        return np.concatenate([split.record(name) for split in self._splits])

    def images(self, rows: np.ndarray) -> np.ndarray:
        """The images of `rows`, (len(rows), rows, columns, 1) float32."""
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        parts = np.unique(part_of)
        if len(parts) == 1:
            return self._splits[parts[0]].images(rows - self._starts[parts[0]])
        out = np.empty((len(rows), *self._splits[0].image, 1), np.float32)
        for part in parts:
            here = part_of == part
            out[here] = self._splits[part].images(rows[here] - self._starts[part])
        return out


class Choice:
    """A choice of shots of a pool, used like a split (see `Samples`).

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
        self._pool, self.rows = pool, rows
        self.labels = pool.labels[rows] if labels is None else labels
        self.ids, self.energy = pool.ids[rows], pool.energy[rows]
        self._mask = None if mask is None else mask.astype(np.float32)[..., None]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Sequence[int]) -> np.ndarray:
        images = self._pool.images(self.rows[np.asarray(rows)])
        if self._mask is not None:
            images *= self._mask
        return images

    def batches(self, size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), size):
            yield self.images(rows[start : start + size])

    def minibatches(
        self, size: Union[int, str], seed: int, at: Position, part: Share = everything
    ) -> Generator[Batch, None, None]:
        plan = planned(len(self), size, seed, at, part)
        for mine, rows, after in plan:
            yield Batch(self.images(mine), self.labels[rows], self.energy[rows], after)
