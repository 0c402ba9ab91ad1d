"""Plot predicted probabilities over time, one panel for each run."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from common.files import atomic
from common.report.drawing import COLORS, GRAY, new
from common.shots import time_in_run
from train.predict.predictions import Part

MOST_PANELS = 40
_WINDOW = 51  # shots of the running mean


def draw(path: Path, parts: Sequence[Part], classes: Sequence[str], title: str) -> None:
    """Write the probability of each class but the first over time, seconds since the run's first shot.

    Points are single shots, colored by their label; lines are running means of 51 shots. The
    first 40 runs are drawn.
    """
    ids = np.concatenate([part.ids for part in parts])
    probability = np.concatenate([part.probability for part in parts])
    labels = np.concatenate(
        [np.full(len(part.ids), -1) if part.labels is None else part.labels for part in parts]
    )
    runs, time = np.unique(ids["run"]), time_in_run(ids)
    shown = runs[:MOST_PANELS]
    figure, axes = new(
        10, 1.0 + 1.9 * len(shown), "constrained", nrows=len(shown), squeeze=False, sharey=True
    )
    axes = axes[:, 0]
    for axis, run in zip(axes, shown):
        of_run = ids["run"] == run
        _panel(axis, time[of_run], probability[of_run], labels[of_run], classes)
        axis.set_title(f"run {run}, {int(of_run.sum())} shots", fontsize=10, loc="left")
    axes[-1].set_xlabel("time since the run's first shot here (s)")
    more = f" (the first {MOST_PANELS} of {len(runs)} runs)" if len(runs) > len(shown) else ""
    figure.suptitle(f"{title}{more}", fontsize=11)
    figure.legend(
        *_legend(axes, classes), loc="outside lower center", ncols=4, fontsize=9, frameon=False, markerscale=2
    )
    with atomic.replacing(path) as partial:
        figure.savefig(partial, dpi=110)


def _panel(
    axis, time: np.ndarray, probability: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> None:
    order = np.argsort(time, kind="stable")
    time, probability, labels = time[order], probability[order], labels[order]
    for label in np.unique(labels):
        of_label = labels == label
        name, color = (f"{classes[label]} shots", COLORS[label % 6]) if label >= 0 else ("shots", GRAY)
        for column in range(1, len(classes)) if len(classes) == 2 else ():
            axis.plot(
                time[of_label],
                probability[of_label, column],
                ".",
                markersize=4 if len(time) < 2000 else 2,
                alpha=0.5,
                color=color,
                label=name,
                rasterized=True,
            )
    for column in range(1, len(classes)):
        axis.plot(
            time,
            _running_mean(probability[:, column]),
            color="black" if len(classes) == 2 else COLORS[column % 6],
            linewidth=1.2,
            label=f"p({classes[column]}), running mean",
        )
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel(f"p({classes[1]})" if len(classes) == 2 else "probability")
    axis.grid(alpha=0.25)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Running mean over a window of shots that is narrower at the ends, (n,) -> (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    here = np.arange(len(values))
    half = _WINDOW // 2
    low, high = np.maximum(here - half, 0), np.minimum(here + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _legend(axes: Sequence, classes: Sequence[str]) -> list:
    named = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels()):
            named.setdefault(name, handle)
    return [list(named.values()), list(named)]
