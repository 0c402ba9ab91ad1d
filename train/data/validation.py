"""A validation split made of a part of the train split's blocks of time, where the data have none."""

from __future__ import annotations

from contextlib import closing
from typing import Generator, Iterator, Optional, Sequence, Union

import numpy as np

from train.data.dataset import Data
from train.data.minibatches import Batch, Position, Share, Split, everything, planned
from train.data.readahead import ReadAhead

VALIDATION = "validation"


class Part:
    """Some rows of a split that stand for a split of their own (`Samples`)."""

    def __init__(self, split: Split, rows: np.ndarray, name: str) -> None:
        self._split, self.rows, self.name = split, rows, name
        self.ids, self.energy, self.simulated = split.ids[rows], split.energy[rows], split.simulated[rows]
        self.labels = None if split.labels is None else split.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image(self) -> tuple[int, int]:
        return self._split.image

    @property
    def reading(self) -> float:
        """Its share of the seconds that reading took."""
        return self._split.reading * len(self) / len(self._split)

    def record(self, name: str) -> np.ndarray:
        return self._split.record(name)[self.rows]

    def images(self, rows: Sequence[int]) -> np.ndarray:
        return self._split.images(self.rows[np.asarray(rows)])

    def batches(self, size: int, rows: Optional[np.ndarray] = None) -> Iterator[np.ndarray]:
        return self._split.batches(size, self.rows if rows is None else self.rows[rows])

    def minibatches(
        self, size: Union[int, str], seed: int, at: Position, part: Share = everything
    ) -> Generator[Batch, None, None]:
        whole = size == "full" or size >= len(self)
        plan = planned(len(self), size, seed, at, part)
        read = ReadAhead(self._read, plan, len(self) if whole else size, self.image)
        with closing(read):
            for images, (_, rows, after) in read:
                yield Batch(images, self.labels[rows], self.energy[rows], after)

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        out[:] = self.images(rows)[..., 0]


def with_validation(data: Data, share: float) -> Data:
    """`data`, where the split `validation` is `share` of each class's blocks of time of the train split.

    Nothing changes where the data have such a split, where `share` is 0, or where a class has a
    single block. The blocks are the same for every training on these data.
    """
    if not share or VALIDATION in data.splits:
        return data
    train = data.splits["train"]
    block = data.blocks.apart(train.ids)
    held_out = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        blocks = np.unique(block[train.labels == label])
        if len(blocks) < 2:
            return data
        count = min(max(round(share * len(blocks)), 1), len(blocks) - 1)
        chosen = np.random.default_rng(label).choice(blocks, count, replace=False)
        held_out |= np.isin(block, chosen) & (train.labels == label)
    parts = {
        "train": Part(train, np.flatnonzero(~held_out), "train"),
        VALIDATION: Part(train, np.flatnonzero(held_out), VALIDATION),
    }
    return data._replace(splits={**parts, **{name: s for name, s in data.splits.items() if name != "train"}})
