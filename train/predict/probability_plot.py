"""The plot of predicted probabilities over time, with a panel for each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from common.files import atomic
from common.manifest import SPLITS
from common.report.drawing import COLORS, GRAY, clip, new
from common.shots import time_in_run
from common.stats import evenly

MOST_PANELS = 40
MOST_SHOTS = 5000  # of a run, evenly over it: more are one cloud, and cost 0.5 kB each
# Grays, because colors tell the classes.
_GRAYS = {"train": "#c3c9cf", "validation": "#8a939b", "test": "#1b1f24", "predict": "#57606a"}
_TIME = "time since the run's first shot here (s)"
_WINDOW = 51  # shots of the running mean
_GAP = 8.0  # times the median distance of shots: where they are further apart a line ends
_STRIP = (-0.11, -0.05)  # of the probability axis: where the splits are marked


class Shots(NamedTuple):
    """What the plot needs of n shots.

    ids: (n,) ID_DTYPE; probability: (n, classes); label: (n,) integers, -1 where unknown; split: (n,)
    index into SPLITS.
    """

    classes: Sequence[str]
    ids: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    split: np.ndarray


def draw(path: Path, shots: Shots, title: str) -> None:
    """Write the probabilities of `shots` over time, run by run; see `figure`."""
    drawn = figure(shots, title)
    with atomic.replacing(path) as partial:
        drawn.savefig(partial, dpi=110)


def figure(shots: Shots, title: Optional[str] = None) -> Any:
    """Probabilities over seconds since the run's first shot; a panel for each of the first 40 runs.

    Points are single shots, at most 5,000 of a run; lines are running means over 51 shots and end where
    shots are missing for long; a strip below shows the split. With two classes the probability of the second
    is drawn, with points in the color of the shot's own class; with more, that of every class in its color.
    """
    runs = np.unique(shots.ids["run"])
    shown = runs[:MOST_PANELS]
    drawn, axes = new(10, 1.1 + 2.0 * len(shown), "constrained", nrows=len(shown), squeeze=False, sharey=True)
    for axis, run in zip(axes[:, 0], shown):
        _draw_run(axis, run, shots)
    axes[-1, 0].set_xlabel(_TIME)
    more = f"the first {MOST_PANELS} of {len(runs)} runs" if len(runs) > len(shown) else ""
    if title or more:
        drawn.suptitle("; ".join(part for part in (title and clip(title, 110), more) if part), fontsize=11)
    style = {"ncols": 5, "fontsize": 9, "frameon": False}
    drawn.legend(*_legend(axes[:, 0]), loc="outside lower center", markerscale=2, **style)
    return drawn


def figure_of_run(run: int, shots: Shots) -> Any:
    """The panel of one run as a figure of its own; see `figure`."""
    drawn, axis = new(4.3, 2.6)
    _draw_run(axis, run, shots)
    axis.set_xlabel(_TIME)
    drawn.legend(*_legend([axis]), loc="outside lower center", ncols=2, fontsize=7, markerscale=2)
    return drawn


def _draw_run(axis: Any, run: int, shots: Shots) -> None:
    """Draw the shots of one run; see `figure`."""
    rows, classes = np.flatnonzero(shots.ids["run"] == run), shots.classes
    n, time = len(rows), time_in_run(shots.ids[rows])
    known = [clip(classes[label]) for label in np.unique(shots.label[rows]) if label >= 0]
    order = evenly(np.argsort(time, kind="stable"), MOST_SHOTS)
    time, rows = time[order], rows[order]
    _panel(axis, time, shots.probability[rows], shots.label[rows], classes)
    for code, split in enumerate(SPLITS):  # a strip below the points
        if (mine := shots.split[rows] == code).any():
            # One line with gaps: as lines of their own they take ten times the memory.
            at, height = np.repeat(time[mine], 3), np.tile([*_STRIP, np.nan], mine.sum())
            style = {"color": _GRAYS[split], "lw": 1, "solid_capstyle": "butt"}
            axis.plot(at, height, label=f"split {split}", **style)
    axis.set_title(f"run {run}, {'+'.join(known) or 'unlabeled'}, {n} shots", fontsize=10, loc="left")


def stretches(time: np.ndarray) -> list[np.ndarray]:
    """Divide rows where shots are missing for long. time: (n,) s, rising."""
    apart = np.diff(time)
    usual = float(np.median(apart)) if len(apart) else 0.0
    return np.split(np.arange(len(time)), np.flatnonzero(apart > _GAP * max(usual, 1e-3)) + 1)


def _panel(
    axis: Any, time: np.ndarray, probability: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> None:
    size, two = 4 if len(time) < 2000 else 2, len(classes) == 2
    if two:
        for label in np.unique(labels):
            mine = labels == label
            name, color = (f"{clip(classes[label])} shots", COLORS[label]) if label >= 0 else ("shots", GRAY)
            axis.plot(time[mine], probability[mine, 1], ".", ms=size, alpha=0.5, color=color, label=name)
    for column in [1] if two else range(len(classes)):
        color = "black" if two else COLORS[column % len(COLORS)]
        name = clip(classes[column])
        if not two:
            axis.plot(time, probability[:, column], ".", ms=size, alpha=0.3, color=color, label=f"p({name})")
        for n, rows in enumerate(stretches(time)):
            mean = _running_mean(probability[rows, column])
            label = f"p({name}), running mean" if n == 0 and two else None
            axis.plot(time[rows], mean, color=color, lw=1.3, label=label)
    axis.axhline(0.5, color=GRAY, ls=":", lw=1, label="0.5")
    axis.set(ylim=(_STRIP[0] - 0.02, 1.04), ylabel=f"p({clip(classes[1], 20)})" if two else "probability")
    axis.set_yticks([0, 0.5, 1])
    axis.grid(alpha=0.25, axis="x")


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Running mean over a window of shots that is narrower at the ends, (n,) -> (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    here = np.arange(len(values))
    half = _WINDOW // 2
    low, high = np.maximum(here - half, 0), np.minimum(here + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _legend(axes: Sequence) -> list:
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels()):
            named.setdefault(name, handle)
    return [list(named.values()), list(named)]
