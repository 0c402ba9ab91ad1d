"""Predictions by the processes of an executor, each of which takes some hundred shots at a time."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NamedTuple, Optional, Union

import numpy as np

from common import parallel
from train.data.dataset import Data, open_data
from train.data.minibatches import Samples
from train.data.validation import with_validation
from train.fit import runtime
from train.run import folder

if TYPE_CHECKING:
    from train.model.predictor import Outputs, Predictor

CHUNK = 512  # shots; about a second's work
AHEAD = 64  # chunks under way: no process waits for the first, and their answers are some MB


class Origin(NamedTuple):
    """What a process needs to predict: a finished run and the data files it is applied to.

    validation_share: as `with_validation` takes it. features: whether to return those of
    `network.with_features`.
    """

    run_dir: Path
    paths: tuple[Path, ...]
    validation_share: float
    features: bool


class Spread:
    """Does what a `Predictor` does, in other processes; bit for bit if they have as many threads."""

    def __init__(self, workers: Executor, origin: Origin) -> None:
        self._workers, self._origin = workers, origin

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """All the model says of the shots `rows` of `split`, or of all."""
        from train.model.predictor import joined

        return joined(list(self.stream(split, rows)))

    def stream(self, split: Samples, rows: Optional[np.ndarray] = None) -> Iterator[Outputs]:
        """The same in order, a few shots at a time."""
        from train.model.predictor import batch_size

        batch = batch_size(split.image)
        size = batch * max(1, CHUNK // batch)  # whole batches: the same ones as without other processes
        rows = np.arange(len(split)) if rows is None else rows
        starts = range(0, max(len(rows), 1), size)
        tasks = ((self._origin, split.name, rows[start : start + size]) for start in starts)
        yield from parallel.results(self._workers, _outputs, tasks, AHEAD, in_order=True)


def predictor(workers: Executor, origin: Origin) -> Union[Predictor, Spread]:
    """A predictor in this process or, if `workers` are others, in those. Start TensorFlow before."""
    here_ = isinstance(workers, parallel.Here)
    return here(origin.run_dir, origin.features) if here_ else Spread(workers, origin)


def here(run_dir: Path, features: bool) -> Predictor:
    """The network of a finished run in this process; features: with those of `network.with_features`."""
    from train.model.network import with_features
    from train.model.predictor import Predictor
    from train.model.saved import load_model

    model = load_model(run_dir)
    return Predictor(with_features(model) if features else model)


def _outputs(origin: Origin, split: str, rows: np.ndarray) -> Outputs:
    """In one of the processes: the outputs for the shots `rows` of the split."""
    model, data, _ = _opened(origin)
    return model.outputs(data.splits[split], rows)


@functools.lru_cache(maxsize=2)  # with and without features
def _opened(origin: Origin) -> tuple[Predictor, Data, contextlib.ExitStack]:
    """Model and data, which stay open as long as the stack, which this cache holds, exists."""
    config = folder.config_of(origin.run_dir)
    with contextlib.ExitStack() as stack:
        opened = open_data(list(origin.paths), None, [], "stream", unlabeled=True)
        data = with_validation(stack.enter_context(opened), origin.validation_share)
        runtime.start(config.threads, config.seed)
        return here(origin.run_dir, origin.features), data, stack.pop_all()
