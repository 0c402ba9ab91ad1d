"""The figures of a training report: arrays -> matplotlib figures. Call within `common.report.drawing`."""

from __future__ import annotations

import math
from typing import Any, Optional, Sequence

import numpy as np

from common.dataset.view import View
from common.report.drawing import COLORS, GRAY, SIGNED_COLORS, clip, new
from train.metrics import measure, roc
from train.metrics.measure import Share

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


def accuracy(steps: np.ndarray, correct: dict[str, np.ndarray], sizes: dict[str, int], chance: float) -> Any:
    """Accuracy of each split over the steps, with the Wilson interval of the test split."""
    styles = {name: {"color": SPLIT_COLORS[name]} for name in correct}
    figure, axes = lines("Accuracy on whole splits", "accuracy", steps, correct, styles)
    n = sizes["test"]
    low, high = zip(*(measure.wilson(round(value * n), n) for value in correct["test"]))
    axes.fill_between(
        steps, low, high, color=SPLIT_COLORS["test"], alpha=0.18, lw=0, label="test, 95 % interval"
    )
    axes.axhline(chance, color=GRAY, ls=":", label="larger class")
    axes.legend(loc="best")
    return figure


def confusion(title: str, counts: np.ndarray, classes: Sequence[str]) -> Any:
    """counts: (classes, classes), row the true class; shaded by the share of its row."""
    size = 1.4 + 0.75 * len(classes)
    figure, axes = new(size + 0.9, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
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


def roc_curve(name: str, positive: np.ndarray, scores: np.ndarray, threshold: float = 0.5) -> Any:
    """The curve with its band, and the point where the network decides."""
    figure, axes = new(4.3, 3.9)
    false, hits = roc.curve(positive, scores)
    value, low, high = roc.area(positive, scores)
    axes.fill_between(roc.GRID, *roc.band(positive, scores), color=COLORS[0], alpha=0.18, lw=0)
    axes.fill_between([], [], [], color=COLORS[0], alpha=0.18, lw=0, label="95 % band")
    axes.plot(false, hits, color=COLORS[0], label=f"AUC {value:.3f} [{low:.3f}, {high:.3f}]")
    axes.plot([0, 1], [0, 1], color=GRAY, ls=":", label="guessing")
    called = scores >= threshold
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
        ends = np.array([measure.wilson(each["correct"], each["n"]) for each in bins])
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
    axes.legend(loc="lower right")
    return figure


def by_energy(of_class: dict[str, list[Share]]) -> Any:
    """The share classified correctly against pulse energy, for each class, with Wilson intervals."""
    figure, axes = new(4.3, 3.2)
    for (name, shares), marker in zip(of_class.items(), "os^Dvp*"):
        values = np.array([share.k / share.n for share in shares])
        ends = np.array([measure.wilson(share.k, share.n) for share in shares])
        axes.errorbar(
            [share.energy for share in shares],
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
    energies = [share.energy for shares in of_class.values() for share in shares]
    if min(energies) > 0:  # without lasing the detector reads a few microjoules: crowded at the left end
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_ticks_125())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


def by_run(runs: Sequence[tuple[str, int, int, int]], classes: Sequence[str]) -> Any:
    """(name, label, correct, n) of each run: accuracy with its Wilson interval."""
    figure, axes = new(4.3, 1.1 + 0.3 * len(runs))
    for y, (_, label, correct, n) in enumerate(runs):
        value, (low, high) = correct / n, measure.wilson(correct, n)
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


def _ticks_125() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5))
