"""What all controls share: the network, the shots and their features, and how an accuracy is reported."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Callable, Iterator, Optional

import numpy as np

from common import slices
from common.stats import evenly
from train.config import TrainConfig
from train.controls import baselines, beam_free
from train.controls.choice import Choice, Pool
from train.controls.counterfactual import Switched
from train.controls.outcome import STRICT, Outcome
from train.data.dataset import Data
from train.data.minibatches import sample
from train.metrics import effective

if TYPE_CHECKING:
    from train.model.predictor import Predictor

MOST_SHOTS = 5000  # of a split for regressions, of a run for its beam-free pixels
_BATCH = 64


class Bench:
    """Config, data, shots and their features; `tick` is called after each training step.

    train, test: rows of the pool. chosen: the rows used for regressions, all of these or a sample of each.
    """

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
        samples = [rows[sample(Choice(self.pool, rows), MOST_SHOTS)] for rows in (self.train, self.test)]
        self.chosen = np.concatenate(samples)
        self.switched = None if switched is None else Switched.of(switched, self.pool, self.test)

    @property
    def alone(self) -> list[str]:
        """The classes that are a single run, which no other class has."""
        runs = [set(self.pool.ids["run"][self.pool.labels == label]) for label in np.unique(self.pool.labels)]
        names = [self.data.classes[label] for label in np.unique(self.pool.labels)]
        others = [set().union(*runs[:k], *runs[k + 1 :]) for k in range(len(runs))]
        return [name for name, mine, rest in zip(names, runs, others) if len(mine) == 1 and not mine & rest]

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """The pixels without beam, (rows, columns) bool."""
        runs, shape = self.pool.ids["run"], self.config.input
        of_runs = (
            beam_free.sums(self._batches(evenly(np.flatnonzero(runs == run), MOST_SHOTS)), shape)
            for run in np.unique(runs)
        )
        return beam_free.mask(of_runs, shape)

    @functools.cached_property
    def features(self) -> dict[str, np.ndarray]:
        """The features of the baselines by name, each (chosen shots, features) float64."""
        names = ("projection", "moments", "slices")
        view, found = self.data.view, {name: [] for name in names}
        for images in self._batches(self.chosen):
            pictures = images[..., 0]
            found["projection"].append(baselines.projection(pictures, view))
            found["moments"].append(baselines.moments(pictures, view))
            read = slices.of_images(pictures, view)
            if read is not None:  # a camera took the images, and they are large enough
                found["slices"].append(read.features)
        return {name: np.concatenate(parts) for name, parts in found.items() if parts}

    @functools.cached_property
    def beam_free_intensity(self) -> np.ndarray:
        """Mean intensities of the beam-free pixels in 16 fields, (chosen shots, fields) float64."""
        return np.concatenate(
            [beam_free.cells(images[..., 0], self.mask) for images in self._batches(self.chosen)]
        )

    def _batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        return Choice(self.pool, rows).batches(_BATCH)

    @functools.cached_property
    def trained(self) -> Predictor:
        """The config's network, trained on the unchanged train split."""
        return self._trained_on(*(Choice(self.pool, rows) for rows in (self.train, self.test)))

    def fit_and_try(self, train: Choice, test: Choice) -> np.ndarray:
        """Train the config's network on `train` and return its logits for `test`, (n, classes)."""
        return self._trained_on(train, test).predict(test)

    def _trained_on(self, train: Choice, test: Choice) -> Predictor:
        from train.fit import setup  # loads TensorFlow, which is started after all that can be refused

        data = self.data._replace(splits={"train": train, "test": test})
        return setup.train_only(self.config, data, self.tick)


def scored(
    bench: Bench, name: str, what: str, rows: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> Outcome:
    """The outcome of a control: the accuracy of `predicted` against `labels`, of the pool's `rows`."""
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
