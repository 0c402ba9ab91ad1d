"""Summaries of predictions: a row for each run and split, and the accuracy of splits with labels."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from common import text_table
from common.blocks import Blocks
from common.manifest import SPLITS
from train.metrics import effective, measure
from train.metrics.effective import Share
from train.metrics.measure import Score
from train.predict.predictions import Predictions


class Called(NamedTuple):
    """The mean probability of a class, and the share of shots that is called so."""

    mean_probability: float
    share: Share


class OfRun(NamedTuple):
    """The summary of the n shots of a run in one split.

    label: their class, or several joined by a plus sign; None if unknown. called: {class: Called} of all
    classes but the first. mean_pulse_energy: mJ, None if the network does not tell it. flagged: {reason:
    number of shots}, None if the run has no reference for flags.
    """

    run: int
    split: str
    n: int
    label: Optional[str]
    called: dict[str, Called]
    mean_pulse_energy: Optional[float]
    flagged: Optional[dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """The row for result files."""
        row = {"run": self.run, "split": self.split, "n": self.n, "label": self.label}
        for name, (mean, share) in self.called.items():
            row[f"mean_probability_{name}"] = mean
            row[f"called_{name}"] = share.k
            row[f"interval_{name}"] = share.interval
            row[f"n_effective_{name}"] = share.n_effective
            row["interval_by"] = share.by
        rest = {"mean_pulse_energy": self.mean_pulse_energy, "flagged": self.flagged}
        return {**row, **{name: value for name, value in rest.items() if value is not None}}

    @property
    def cells(self) -> dict[str, Any]:
        """{column: text}, a row of the table."""
        cells = {"run": self.run, "split": self.split, "n": self.n, "is": self.label or "?"}
        for name, (mean, share) in self.called.items():
            cells.update({f"mean p({name})": f"{mean:.3f}", f"called {name}": share.with_interval})
        if self.mean_pulse_energy is not None:
            cells["mean mJ"] = f"{self.mean_pulse_energy:.4f}"
        if self.flagged is not None:
            cells["flagged"] = f"{sum(self.flagged.values()) / self.n:.3f}"
        return cells


def of_runs(found: Predictions, blocks: Blocks) -> list[OfRun]:
    """A row for each run and split, with 95 % intervals by blocks of time."""
    rows = []
    for run in np.unique(found.ids["run"]):
        of_run = found.ids["run"] == run
        for split in sorted(SPLITS):
            mine = np.flatnonzero(of_run & (found.split == SPLITS.index(split)))
            if len(mine):
                rows.append(_of_shots(int(run), split, found, mine, blocks))
    return rows


def of_labeled(found: Predictions, blocks: Blocks) -> dict[str, Score]:
    """The accuracy on each split whose labels are known."""
    scores = {}
    for code in dict.fromkeys(found.split[found.label >= 0].tolist()):
        mine = np.flatnonzero(found.split == code)
        block = blocks.of_times(found.ids[mine])
        scores[SPLITS[code]] = measure.score(found.label[mine], found.predicted[mine], block)
    return scores


def lines(runs: Sequence[OfRun], scores: dict[str, Score]) -> list[str]:
    """The rows of `of_runs` and `of_labeled` as lines of text."""
    return [
        *text_table.lines([row.cells for row in runs]),
        *(f"{split}: {score}" for split, score in scores.items()),
        *_warnings(runs),
    ]


def _of_shots(run: int, split: str, found: Predictions, mine: np.ndarray, blocks: Blocks) -> OfRun:
    probability, energy, flagged = found.probability[mine], None, None
    predicted, block = probability.argmax(axis=1), blocks.of_times(found.ids[mine])
    called = {
        name: Called(float(probability[:, label].mean()), effective.share(predicted == label, block))
        for label, name in list(enumerate(found.classes))[1:]
    }
    if found.energy is not None:
        energy = float(found.energy[mine, 0].mean(dtype=np.float64))
    if found.flag is not None:
        counts = Counter(found.flag[mine].tolist()).most_common()
        flagged = {found.reasons[code]: n for code, n in counts if code}
    label = "+".join(found.classes[label] for label in np.unique(found.label[mine]) if label >= 0)
    return OfRun(run, split, len(mine), label or None, called, energy, flagged)


def _warnings(runs: Sequence[OfRun]) -> Iterator[str]:
    """A line for each run with so many flagged shots that its probabilities mean little."""
    from train.model.novelty import RUN, many

    for row in runs:
        own = {reason: n for reason, n in (row.flagged or {}).items() if reason != RUN}
        if many(sum(own.values()), row.n):
            why = ", ".join(f"{n} {reason}" for reason, n in list(own.items())[:3])
            yield (
                f"run {row.run}, {row.split}: {sum(own.values())} of {row.n} shots are unlike "
                f"those trained on ({why}); so all are flagged, do not rely on its probabilities"
            )
