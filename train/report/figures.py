"""What several figures of training reports share. Call within `common.report.drawing`."""

from __future__ import annotations

import math
from typing import Any, Optional, Sequence

import numpy as np

from common.report.drawing import COLORS, new
from train.metrics.effective import Share

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


def intervals(axes: Any, at: Sequence[float], shares: Sequence[Share], **style: Any) -> None:
    """Draw shares with their intervals, at these places of the horizontal axis."""
    values, ends = np.array([of.value for of in shares]), np.array([of.interval for of in shares])
    axes.errorbar(at, values, np.abs(ends.T - values), capsize=2, **style)


def accuracies(title: str, rows: Sequence[tuple[str, int, Share]]) -> tuple[Any, Any]:
    """Draw shares with their intervals one below the other. rows: (name, number of the color, share)."""
    figure, axes = new(4.3, 1.1 + 0.3 * len(rows))
    for y, (_, color, share) in enumerate(rows):
        value, (low, high) = share.value, share.interval
        error = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar(value, y, xerr=error, fmt="o", capsize=3, color=COLORS[color % len(COLORS)])
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(title=title, xlabel="share classified correctly", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="x")
    return figure, axes


def finite_log(axes: Any, values: np.ndarray) -> None:
    """Make the y axis logarithmic if the values span more than a factor of 30."""
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min() and math.isfinite(positive.max()):
        axes.set_yscale("log")
