"""What a report is drawn from: the files of a run, and the predictions of its model for held-out shots."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from scipy.special import softmax

from common.dataset import provenance
from common.dataset.view import View
from common.errors import DataError
from common.shots import ShotId, shot_id
from common.stats import evenly
from train.config import TrainConfig
from train.data.dataset import Data
from train.data.minibatches import Split, some_batches
from train.metrics import effective, measure, scores
from train.metrics.scores import Scores
from train.report import aligned, yardstick
from train.report.yardstick import Yardstick
from train.run import folder
from train.run.history import History

MEAN_SHOTS = 1000  # of each class, for the mean images
SALIENCY_SHOTS = 64  # of each class
EXAMPLES = 4  # of each class, right and wrong


class Run(NamedTuple):
    """A finished run: its folder, config, summary.json, metrics.csv as numbers, the scores of its splits."""

    run_dir: Path
    config: TrainConfig
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    splits: Scores

    @property
    def classes(self) -> list[str]:
        return self.summary["classes"]

    @property
    def banner(self) -> str:
        """What the top of a page says if not all shots are real."""
        return provenance.banner(self.summary["provenance"])

    def judged(self, shots: "Evidence") -> "Run":
        """The run with its test score by blocks of time, which earlier versions did not compute."""
        test = self.splits["test"]
        if shots.block is None or test.score.share.freedom is not None:
            return self
        score = measure.score(shots.labels, shots.predicted, shots.block)
        return self._replace(splits={**self.splits, "test": dataclasses.replace(test, score=score)})

    def of(self, data: Data) -> "Run":
        """The run with provenance and shots from its data, which earlier versions did not record."""
        return self._replace(summary={**self.summary, "provenance": data.provenance, "shots": data.shots})

    def column(self, name: str) -> np.ndarray:
        """A column of the table, (rows,) float64."""
        return np.array([row[name] for row in self.rows], np.float64)


class Example(NamedTuple):
    """An example shot: key, image (h, w), label, predicted class and its probability."""

    shot: ShotId
    image: np.ndarray
    label: int
    predicted: int
    probability: float


class Evidence(NamedTuple):
    """Predictions of the held-out shots, mean images, contributions and example shots.

    split: which shots. ids: (n,) ID_DTYPE; labels: (n,) integers; energy: (n,) mJ; probabilities:
    (n, classes); block: (n,) of time, None where the shots have no times.
    means, contributions: (classes, h, w), of `mean_shots` and `contribution_shots` shots of each
    class; aligned: (classes, time, energy), counts (`aligned.Means`); yardstick: what slices tell;
    kernel: the first convolution's, (rows, columns, channels in, channels).
    """

    split: str
    ids: np.ndarray
    labels: np.ndarray
    energy: np.ndarray
    probabilities: np.ndarray
    block: Optional[np.ndarray]
    means: np.ndarray
    aligned: np.ndarray
    mean_shots: list[int]
    contributions: np.ndarray
    contribution_shots: list[int]
    examples: list[Example]
    kernel: np.ndarray
    view: View
    yardstick: Optional[Yardstick]

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @property
    def runs(self) -> np.ndarray:
        return self.ids["run"]

    @property
    def units(self) -> str:
        """What intervals count as independent."""
        return effective.BY_SHOTS if self.block is None else effective.BY_BLOCKS


def read_run(run_dir: Path) -> Run:
    """Read the run in `run_dir`; raises DataError if there is none, it is unfinished, or it is damaged."""
    config = folder.config_of(run_dir)
    for name in (folder.SUMMARY, folder.METRICS):
        if not (run_dir / name).exists():
            raise DataError(f"{run_dir}: has no {name}; finish the run with `train fit CONFIG --resume`")
    try:
        summary = json.loads((run_dir / folder.SUMMARY).read_text(encoding="utf-8"))
        rows = list(History((run_dir / folder.METRICS).read_bytes()))
        return Run(
            run_dir, config, {"provenance": folder.UNKNOWN, **summary}, rows, scores.of_summary(summary)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run_dir}: summary.json or metrics.csv is damaged ({error})") from None


def look(model: Any, data: Data) -> Evidence:
    """Collect the evidence for the model (Keras) on `data`; a few dozen images are in memory at a time."""
    from train.model import saliency
    from train.model.network import logits_alone
    from train.model.predictor import Predictor

    model = logits_alone(model)
    split = data.splits["test"]
    probabilities = softmax(Predictor(model).predict(split).astype(np.float64), axis=1)
    classes = range(len(data.classes))
    of_class, counts = [], []
    for label in classes:
        rows = evenly(np.flatnonzero(data.splits["train"].labels == label), MEAN_SHOTS)
        of_class.append(aligned.means(data.splits["train"], rows, data.view))
        counts.append(len(rows))
    means = np.array([of.stored for of in of_class])
    reference = means.mean(axis=0)
    parts = []
    for label in classes:
        rows = evenly(np.flatnonzero(split.labels == label), SALIENCY_SHOTS)
        parts.append(saliency.contributions(model, some_batches(split, rows), reference, label))
    return Evidence(
        split=split.name,
        ids=split.ids,
        labels=split.labels,
        energy=split.energy,
        probabilities=probabilities,
        block=data.blocks.of_times(split.ids),
        means=means,
        aligned=np.array([of.aligned for of in of_class]),
        mean_shots=counts,
        contributions=np.array([image for image, _ in parts]),
        contribution_shots=[n for _, n in parts],
        examples=_examples(split, probabilities),
        kernel=saliency.first_kernel(model),
        view=data.view,
        yardstick=yardstick.of_data(data),
    )


def choose(labels: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> list[int]:
    """Rows of examples: of each class EXAMPLES correct ones at random, then the most confident errors."""
    rng = np.random.default_rng(seed)
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen: list[int] = []
    for label in range(probabilities.shape[1]):
        right = np.flatnonzero((labels == label) & (predicted == label))
        wrong = np.flatnonzero((labels == label) & (predicted != label))
        drawn = rng.choice(right, min(EXAMPLES, len(right)), replace=False)
        chosen += sorted(drawn, key=lambda row: -sure[row])
        chosen += wrong[np.argsort(-sure[wrong], kind="stable")][:EXAMPLES].tolist()
    return [int(row) for row in chosen]


def _examples(split: Split, probabilities: np.ndarray) -> list[Example]:
    predicted = probabilities.argmax(axis=1)
    return [
        Example(
            shot_id(split.ids[row]),
            split.images([row])[0, ..., 0],
            int(split.labels[row]),
            int(predicted[row]),
            float(probabilities[row, predicted[row]]),
        )
        for row in choose(split.labels, probabilities)
    ]
