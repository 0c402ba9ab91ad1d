"""A validation split made of a part of the train split's blocks of time, where the data have none."""

from __future__ import annotations

import numpy as np

from train.data.dataset import Data
from train.data.minibatches import Part

VALIDATION = "validation"


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
