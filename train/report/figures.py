"""The figures of a training report: arrays -> matplotlib figures. Call within `common.report.drawing`."""

from __future__ import annotations

import itertools
import math
from typing import Any, Optional, Sequence

import numpy as np

from common.dataset.view import View
from common.report.drawing import COLORS, GRAY, SIGNED_COLORS, clip, new
from train.metrics import effective, roc
from train.metrics.effective import Share
from train.metrics.measure import AtEnergy, Score

SPLIT_COLORS = {"train": COLORS[0], "validation": COLORS[2], "test": COLORS[1]}


def lines(
    title: str,
    y_label: str,
    steps: np.ndarray,
    series: dict[str, np.ndarray],
    styles: Optional[dict[str, Any]] = None,
) -> tuple[Any, Any]:
    """A curve for each of `series` over the steps; returns figure and axes."""
    figure, axes = new()
    for name, values in series.items():
        style = (styles or {}).get(name, {})
        axes.plot(steps, values, label=name, marker="o" if len(steps) <= 30 else None, **style)
    axes.set(title=title, xlabel="step", ylabel=y_label)
    axes.grid(axis="y")
    if len(series) > 1:
        axes.legend()
    return figure, axes


def accuracy(steps: np.ndarray, correct: dict[str, np.ndarray], test: Score) -> Any:
    """Accuracy of each split over the steps; test: the last, whose effective sample size gives the band."""
    styles = {name: {"color": SPLIT_COLORS[name]} for name in correct}
    figure, axes = lines("Accuracy on whole splits", "accuracy", steps, correct, styles)
    of = test.share
    low, high = zip(*(effective.interval(value, of.n_effective, of.freedom) for value in correct["test"]))
    axes.fill_between(
        steps, low, high, color=SPLIT_COLORS["test"], alpha=0.18, lw=0, label="test, 95 % interval"
    )
    axes.axhline(test.chance, color=GRAY, ls=":", label="larger class")
    axes.legend(loc="best")
    return figure


def confusion(title: str, counts: np.ndarray, classes: Sequence[str]) -> Any:
    """counts: (classes, classes), row the true class; shaded by the share of its row."""
    size = max(4.3, 1.4 + 0.75 * len(classes))
    figure, axes = new(size, 0.85 * size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        color = "white" if shares[i, j] > 0.6 else "black"
        axes.text(j, i, f"{n}\n{100 * shares[i, j]:.0f} %", ha="center", va="center", color=color)
    names = [clip(name) for name in classes]
    axes.set_xticks(range(len(classes)), names)
    axes.set_yticks(range(len(classes)), names, rotation=90, va="center")
    axes.set(title=title, xlabel="called", ylabel="true class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def roc_curve(
    name: str, positive: np.ndarray, scores: np.ndarray, called: np.ndarray, block: Optional[np.ndarray]
) -> Any:
    """The curve with its band by blocks of time, and the point where the network decides.

    called: (n,) bool, the shots whose largest probability is this class's.
    """
    figure, axes = new(4.3, 3.9)
    false, hits = roc.curve(positive, scores)
    value, low, high = roc.area(positive, scores, block)
    axes.fill_between(roc.GRID, *roc.band(positive, scores, block), color=COLORS[0], alpha=0.18, lw=0)
    axes.fill_between([], [], [], color=COLORS[0], alpha=0.18, lw=0, label="95 % band")
    axes.plot(false, hits, color=COLORS[0], label=f"AUC {value:.3f} [{low:.3f}, {high:.3f}]")
    axes.plot([0, 1], [0, 1], color=GRAY, ls=":", label="guessing")
    axes.plot(
        called[~positive].mean(), called[positive].mean(), "o", color=COLORS[1], ms=7, label="as decided"
    )
    axes.set(
        title=f"ROC: finding {clip(name)}",
        xlabel=f"others called {clip(name)}",
        ylabel=f"{clip(name)} found",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.legend(loc="lower right")
    return figure


def reliability(splits: dict[str, list[dict[str, Any]]]) -> Any:
    """The share of shots that are correct against the probability they are called with, for each split."""
    figure, axes = new(4.3, 3.9)
    axes.plot([0, 1], [0, 1], color=GRAY, ls=":", label="calibrated")
    for name, bins in splits.items():
        shares = np.array([each["correct"] / each["n"] for each in bins])
        ends = np.array([each["interval"] for each in bins])
        axes.errorbar(
            [each["confidence"] for each in bins], shares, np.abs(ends.T - shares), fmt="o", capsize=2,
            color=SPLIT_COLORS[name], label=name,
        )  # fmt: skip
    axes.set(
        title="Reliability",
        xlabel="probability of the called class",
        ylabel="share correct",
        xlim=(-0.01, 1.02),
        ylim=(-0.02, 1.04),
    )
    axes.legend(loc="upper left")
    return figure


def probability_histogram(p: np.ndarray, labels: np.ndarray, classes: Sequence[str], label: int) -> Any:
    """How many shots of each class have which probability of class `label`. p, labels: (n,)."""
    figure, axes = new(4.3, 3.2)
    edges = np.linspace(0, 1, 26)
    for k, name in enumerate(classes):
        counts, _ = np.histogram(p[labels == k], edges)
        color = COLORS[k % len(COLORS)]
        axes.stairs(counts, edges, color=color, fill=True, alpha=0.25)
        axes.stairs(counts, edges, color=color, lw=1.5, label=f"{clip(name)} shots")
    axes.axvline(0.5, color=GRAY, ls=":", lw=1)
    axes.set(
        title=f"Probability of {clip(classes[label])}",
        xlabel=f"p({clip(classes[label])})",
        ylabel="shots",
        yscale="log",
        xlim=(0, 1),
    )
    axes.set_ylim(bottom=0.7)
    figure.legend(loc="outside lower center", ncols=len(classes))
    return figure


def probability_by_energy(
    energy: np.ndarray, p: np.ndarray, labels: np.ndarray, classes: Sequence[str], label: int
) -> Any:
    """The probability of class `label` of each shot against its pulse energy, mJ, and the running median."""
    figure, axes = new(4.3, 3.2)
    for k, name in enumerate(classes):
        mine = labels == k
        axes.plot(
            energy[mine], p[mine], ".", ms=4, alpha=0.45, color=COLORS[k % len(COLORS)], label=clip(name)
        )
    order = np.argsort(energy, kind="stable")
    parts = [part for part in np.array_split(order, max(1, min(24, len(order) // 12))) if len(part)]
    medians = [(np.median(energy[part]), np.median(p[part])) for part in parts]
    axes.plot(*zip(*medians), color="black", lw=1.4, label="median")
    axes.axhline(0.5, color=GRAY, ls=":", lw=1)
    axes.set(
        title=f"Probability of {clip(classes[label])}, by pulse energy",
        xlabel="pulse energy in the gas detector (mJ)",
        ylabel=f"p({clip(classes[label])})",
        ylim=(-0.03, 1.03),
    )
    _energy_axis(axes, float(energy.min()))
    figure.legend(loc="outside lower center", ncols=len(classes) + 1)
    return figure


def by_energy(of_class: dict[str, list[AtEnergy]]) -> Any:
    """The share classified correctly against pulse energy, for each class, with intervals."""
    figure, axes = new(4.3, 3.2)
    for (name, shares), marker in zip(of_class.items(), itertools.cycle("os^Dvp*")):
        values = np.array([each.share.value for each in shares])
        ends = np.array([each.share.interval for each in shares])
        axes.errorbar(
            [each.energy for each in shares],
            values,
            np.abs(ends.T - values),
            marker=marker,
            capsize=2,
            label=clip(name),
        )
    axes.set(
        title="Classified correctly, by pulse energy",
        xlabel="pulse energy in the gas detector (mJ)",
        ylabel="share classified correctly",
        ylim=(-0.02, 1.04),
    )
    _energy_axis(axes, min(each.energy for shares in of_class.values() for each in shares))
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


def by_run(runs: Sequence[tuple[str, int, Share]], classes: Sequence[str]) -> Any:
    """(name, label, share classified correctly) of each run, with intervals."""
    figure, axes = new(4.3, 1.1 + 0.3 * len(runs))
    for y, (_, label, share) in enumerate(runs):
        value, (low, high) = share.value, share.interval
        axes.errorbar(
            value, y, xerr=[[max(value - low, 0)], [max(high - value, 0)]], fmt="o", capsize=3,
            color=COLORS[label % len(COLORS)],
        )  # fmt: skip
    axes.set_yticks(range(len(runs)), [f"{name}, {clip(classes[label])}" for name, label, *_ in runs])
    axes.set(title="Accuracy by run", xlabel="share classified correctly", ylim=(len(runs) - 0.5, -0.5))
    axes.grid(axis="x")
    return figure


def kernels(view: View, kernel: np.ndarray) -> Any:
    """Each channel of a kernel, (rows, columns, channels), on one scale around 0."""
    channels = kernel.shape[2]
    across = min(channels, 4 if channels <= 16 else 8)
    down = -(-channels // across)
    figure, grid = new(5.0, 0.6 + 1.1 * down * (4 / across), nrows=down, ncols=across, squeeze=False)
    reach = float(np.abs(kernel).max()) or 1.0
    for axes in grid.flat:
        axes.axis("off")
    for n, axes in zip(range(channels), grid.flat):
        shown = axes.imshow(view.picture(kernel[..., n]), cmap=SIGNED_COLORS, vmin=-reach, vmax=reach)
        axes.set_title(f"{n + 1}", fontsize=7, fontweight="normal", pad=2)
    figure.colorbar(shown, ax=grid, shrink=0.7, label="weight")
    return figure


def bars(title: str, seconds: dict[str, float]) -> Any:
    """A bar chart of seconds by what they were spent on."""
    figure, axes = new(4.3, 0.9 + 0.3 * len(seconds))
    axes.barh(list(seconds), list(seconds.values()), color=COLORS[0], height=0.6)
    for y, value in enumerate(seconds.values()):
        axes.text(value, y, f" {value:.3g} s", va="center", fontsize=8)
    axes.set(title=title, xlabel="seconds", ylim=(len(seconds) - 0.5, -0.5))
    axes.set_xlim(right=1.15 * max([*seconds.values(), 1e-9]))
    return figure


def finite_log(axes: Any, values: np.ndarray) -> None:
    """A logarithmic y axis where the values span more than a factor of 30."""
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min() and math.isfinite(positive.max()):
        axes.set_yscale("log")


def _energy_axis(axes: Any, least: float) -> None:
    """Logarithmic where no energy is below 0: without lasing the detector reads a few microjoules."""
    from matplotlib.ticker import LogLocator

    if least > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
