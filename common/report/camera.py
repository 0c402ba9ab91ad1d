"""Figures of camera images, oriented as the camera saw them, with axis names, scale and unit."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from common.dataset.view import View
from common.report.drawing import new, show


def camera_image(
    title: str,
    view: View,
    image: np.ndarray,
    unit: str,
    limits: Optional[tuple[float, float]] = None,
    signed: bool = False,
    outline: Optional[np.ndarray] = None,
    marked: Optional[np.ndarray] = None,
    width: float = 4.1,
) -> Any:
    """One image as the camera saw it, with a color bar.

    outline: an image whose half height is drawn; marked: (h, w) bool, pixels to draw a circle around;
    width: inches.
    """
    rows, columns = view.picture(image).shape
    figure, axes = new(width, min(5.2, max(2.0, 0.6 + (width - 1.1) * rows / columns)))
    shown = show(axes, view, image, limits, signed)
    if outline is not None:
        picture = view.picture(outline)
        half = (picture.min() + picture.max()) / 2
        axes.contour(*view.centers(outline), picture, [half], colors="black", linewidths=0.7)
    if marked is not None:
        y, x = np.nonzero(view.picture(marked))
        size = 5 if len(x) < 1000 else 1
        columns_at, rows_at = view.centers(marked)
        axes.plot(columns_at[x], rows_at[y], "o", mfc="none", mec="#d55e00", ms=size, mew=0.9)
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.85)
    return figure


def thumbnail(view: View, image: np.ndarray, limits: tuple[float, float]) -> Any:
    """A small figure of one shot, with axis names and a color bar."""
    from matplotlib.ticker import MaxNLocator

    rows, columns = view.picture(image).shape
    width, across = 2.6, 1.6
    height = min(2.6, max(1.0, across * rows / columns))
    total = height + 0.6
    figure, axes = new(width, total, layout=None)  # there are many of them, and layout takes time
    left, bottom = 0.48 / width, 0.42 / total
    axes.set_position((left, bottom, across / width, height / total))
    shown = show(axes, view, image, limits)
    bar = figure.add_axes((left + (across + 0.07) / width, bottom, 0.07 / width, height / total))
    figure.colorbar(shown, cax=bar, label=view.unit)
    bar.yaxis.label.set_fontsize(7)
    bar.tick_params(labelsize=6.5, length=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(8)
        axis.set_major_locator(MaxNLocator(3, integer=True))
        axis.set_tick_params(labelsize=7, length=2)
    return figure
