"""The test shots of simulated runs, made again with lasing switched: opened beside the data file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np

from common.errors import DataError
from common.shots import ID_FIELDS
from train.config import TrainConfig
from train.controls.choice import Pool
from train.data.dataset import Data, open_data
from train.data.minibatches import Split

SUFFIX = ".counterfactual.h5"  # `python -m prepare counterfactual` writes it


class Switched(NamedTuple):
    """The shots of other lasing, and which row of the pool each of them is made after."""

    split: Split
    rows: np.ndarray

    @classmethod
    def of(cls, data: Data, pool: Pool, test: np.ndarray) -> "Switched":
        """The test shots of `data`; raises DataError unless each is a row of `test`, of the other class."""
        split = data.splits["test"]
        row_of = {pool.ids[list(ID_FIELDS)][row].item(): row for row in test.tolist()}
        rows = [row_of.get(key) for key in split.ids[list(ID_FIELDS)].tolist()]
        strange = sum(row is None for row in rows)
        if strange:
            raise DataError(
                f"{data.path}: {strange} of its {len(rows)} shots are no test shots of the data file beside; "
                "make it again: python -m prepare counterfactual CONFIG --force"
            )
        rows = np.array(rows, int)
        if (pool.labels[rows] == split.labels).any():
            raise DataError(f"{data.path}: has shots of the same class as in the data file; make it again")
        return cls(split, rows)


def paths_beside(data: Sequence[Path]) -> list[Path]:
    """The counterfactual data of each data set, a file or a folder, where there are some."""
    names = [path.with_name(path.name[:-3] if path.suffix == ".h5" else path.name) for path in data]
    beside = [name.with_name(name.name + SUFFIX) for name in names]
    beside = [path if path.exists() else path.with_suffix("") for path in beside]
    return [path for path in beside if path.exists()]


@contextlib.contextmanager
def opened_beside(config: TrainConfig, data: Data) -> Iterator[Optional[Data]]:
    """The counterfactual data of `data`, or None if there are none; raises DataError if they do not fit."""
    paths = paths_beside(data.paths)
    if not paths:
        yield None
        return
    with open_data(paths, config.input, ["test"], "stream") as switched:
        alike = switched.classes == data.classes and switched.processing == data.processing
        if not alike or switched.view != data.view:
            raise DataError(
                f"{switched.path}: its classes or its images are not those of {data.path}; make it again: "
                "python -m prepare counterfactual CONFIG --force"
            )
        yield switched
