"""What all controls share: the network, the shots and their features, and how an accuracy is told."""

from __future__ import annotations

import functools
from typing import Callable, Optional

import numpy as np

from train.config import TrainConfig
from train.controls import baselines, beam_free
from train.controls.choice import Choice, Pool
from train.controls.counterfactual import Switched
from train.controls.outcome import STRICT, Outcome
from train.data.dataset import Data
from train.fit import setup
from train.metrics import effective
from train.model.predictor import Predictor

_BATCH = 64


class Bench:
    """What all controls share: config, data, shots and their features; `tick` is called after each step."""

    def __init__(
        self,
        config: TrainConfig,
        data: Data,
        tick: Callable[[], None],
        switched: Optional[Data] = None,
    ) -> None:
        self.config, self.data, self.tick = config, data, tick
        self.pool = Pool(data)
        self.block = data.blocks.apart(self.pool.ids)
        self.train = np.flatnonzero(self.pool.split == "train")
        self.test = np.flatnonzero(self.pool.split == "test")
        self.switched = None if switched is None else Switched.of(switched, self.pool, self.test)

    @property
    def alone(self) -> list[str]:
        """The classes whose shots are all of one run, which no other class has."""
        runs = [set(self.pool.ids["run"][self.pool.labels == label]) for label in np.unique(self.pool.labels)]
        names = [self.data.classes[label] for label in np.unique(self.pool.labels)]
        others = [set().union(*runs[:k], *runs[k + 1 :]) for k in range(len(runs))]
        return [name for name, mine, rest in zip(names, runs, others) if len(mine) == 1 and not mine & rest]

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """The pixels without beam, (rows, columns) bool."""
        of_runs = []
        for run in np.unique(self.pool.ids["run"]):
            of_run = Choice(self.pool, np.flatnonzero(self.pool.ids["run"] == run))
            of_runs.append(beam_free.sums(of_run.batches(_BATCH), self.config.input))
        return beam_free.mask(tuple(of_runs), self.config.input)

    @functools.cached_property
    def features(self) -> dict[str, np.ndarray]:
        """The features of the baselines by name, each (n, features) float64."""
        names = ("projection", "moments", "slices", "beam_free_intensity")
        view, found = self.data.view, {name: [] for name in names}
        for images in Choice(self.pool, np.arange(len(self.pool))).batches(_BATCH):
            pictures = images[..., 0]
            found["projection"].append(baselines.projection(pictures, view))
            found["moments"].append(baselines.moments(pictures, view))
            of_slices = baselines.of_slices(pictures, view)
            if of_slices is not None:
                found["slices"].append(of_slices)
            if self.mask.any():
                found["beam_free_intensity"].append(beam_free.cells(pictures, self.mask))
        return {name: np.concatenate(parts) for name, parts in found.items() if parts}

    @functools.cached_property
    def trained(self) -> Predictor:
        """The config's network, trained on the train split as it is."""
        train, test = (Choice(self.pool, rows) for rows in (self.train, self.test))
        return setup.train_only(self.config, self._with(train, test), self.tick)

    def fit_and_try(self, train: Choice, test: Choice) -> np.ndarray:
        """The logits, (n, classes), that the config's network, trained on `train`, gives `test`."""
        return setup.train_only(self.config, self._with(train, test), self.tick).predict(test)

    def _with(self, train: Choice, test: Choice) -> Data:
        return self.data._replace(splits={"train": train, "test": test})


def scored(
    bench: Bench, name: str, what: str, rows: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> Outcome:
    """The outcome of a control: how many of the shots `rows` of the pool are predicted as `labels` say."""
    # Blocks keep the shots' own class: permuted labels are independent from shot to shot all the same.
    share = effective.share(labels == predicted, bench.block[rows], bench.pool.labels[rows])
    return Outcome(
        name,
        what,
        "accuracy",
        share.n,
        share.value,
        share.n_effective,
        share.interval,
        int(np.bincount(labels).max()) / len(labels),
        share.freedom,
        share.at(STRICT),
    )
