"""The figures of a data set report: arrays -> matplotlib figures. Call within `common.report.drawing`."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np

from common.report.drawing import COLORS, GRAY, clip, new

SPLIT_MARKS = {"train": COLORS[0], "validation": COLORS[2], "test": COLORS[1], "predict": COLORS[3]}


def histogram(title: str, x_label: str, values: np.ndarray, limit: Optional[float] = None) -> Any:
    """How often each value is, on a logarithmic scale; `limit`: where pixels begin to be called hot."""
    figure, axes = new(3.2, 2.6)
    axes.hist(values.ravel(), bins=100, color=COLORS[0])
    if limit is not None:
        axes.axvline(limit, color=COLORS[1], ls="--", label="hot beyond")
        figure.legend(loc="outside lower center")
    axes.set(title=title, xlabel=x_label, ylabel="pixels", yscale="log")
    return figure


def intensity(
    title: str, time: np.ndarray, values: np.ndarray, y_label: str, limits: tuple[float, float]
) -> Any:
    """The mean of each image against time, and their running mean."""
    figure, axes = new(4.3, 2.3)
    order = np.argsort(time)
    time, values = time[order], values[order]
    axes.plot(time, values, ".", color=COLORS[0], ms=3, alpha=0.6)
    window = max(1, len(values) // 12)
    if window > 1:
        kernel = np.ones(window) / window
        smooth = np.convolve(values, kernel, "valid")
        middle = np.convolve(time, kernel, "valid")
        axes.plot(middle, smooth, color=COLORS[1], label=f"mean of {window} shots running")
        axes.legend(loc="best")
    axes.set(
        title=clip(title), xlabel="time since the run's first shot here (s)", ylabel=y_label, ylim=limits
    )
    axes.grid(axis="y")
    return figure


def pixel_histograms(title: str, unit: str, edges: np.ndarray, counts: dict[str, np.ndarray]) -> Any:
    """The share of pixels in each bin, a line for each name."""
    figure, axes = new(4.3, 3.2)
    for n, (name, of_name) in enumerate(counts.items()):
        dash = ("-", "--", ":", "-.")[n // len(COLORS) % 4]
        axes.stairs(
            of_name / of_name.sum(), edges, label=clip(name), color=COLORS[n % len(COLORS)], ls=dash, lw=1.4
        )
    axes.set(title=title, xlabel=f"pixel ({unit})", ylabel="share of pixels", yscale="log")
    axes.legend()
    return figure


def blocks(
    time: np.ndarray, row: np.ndarray, split: np.ndarray, splits: Sequence[str], names: list[str]
) -> Any:
    """A mark for each shot: its run's line and its time; splits a little apart, in color."""
    figure, axes = new(4.3, 1.3 + 0.45 * len(names))
    for n, name in enumerate(splits):
        of_split = split == n
        offset = 0.18 * (n - (len(splits) - 1) / 2)
        axes.plot(
            time[of_split], row[of_split] + offset, "|", color=SPLIT_MARKS[name], ms=7, mew=0.8, label=name
        )
    axes.set_yticks(range(len(names)), [clip(name) for name in names])
    axes.set(
        title="Which shots, and of which split",
        xlabel="time since the run's first shot here (s)",
        ylim=(len(names) - 0.5, -0.5),
    )
    figure.legend(loc="outside lower center", ncols=4, markerscale=1.5)
    return figure


def spreads(title: str, x_label: str, of_run: dict[str, np.ndarray]) -> Any:
    """A box for each run: quartiles, median, and lines from the 5th to the 95th percentile."""
    figure, axes = new(4.3, 1.1 + 0.32 * len(of_run))
    for y, values in enumerate(of_run.values()):
        if not len(values):
            axes.text(0.5, y, "no record", transform=axes.get_yaxis_transform(), color=GRAY, va="center")
            continue
        low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
        axes.plot([low, high], [y, y], color=COLORS[0], lw=1)
        axes.barh(y, third - first, left=first, height=0.5, color=COLORS[5])
        axes.plot([middle, middle], [y - 0.25, y + 0.25], color="black", lw=1.6)
    axes.set_yticks(range(len(of_run)), [clip(name) for name in of_run])
    axes.set(title=title, xlabel=x_label, ylim=(len(of_run) - 0.5, -0.5))
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure
