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
        left, right, bottom, top = view.extent(outline)
        x = (np.arange(columns) + 0.5) * (right - left) / columns
        y = (np.arange(rows) + 0.5) * (bottom - top) / rows
        axes.contour(x, y, picture, [half], colors="black", linewidths=0.7)
    if marked is not None:
        y, x = np.nonzero(view.picture(marked))
        size = 5 if len(x) < 1000 else 1
        axes.plot(x * view.blocks[1], y * view.blocks[0], "o", mfc="none", mec="#d55e00", ms=size, mew=0.9)
    axes.set_title(title)
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.85)
    return figure


def thumbnail(view: View, image: np.ndarray, limits: tuple[float, float]) -> Any:
    """A small figure of one shot, with axis names."""
    rows, columns = view.picture(image).shape
    height = min(2.6, max(1.0, 1.6 * rows / columns))
    figure, axes = new(2.2, height + 0.5, layout=None)  # there are many of them, and layout takes time
    figure.subplots_adjust(0.5 / 2.2, 0.4 / (height + 0.5), 2.15 / 2.2, 1 - 0.08 / (height + 0.5))
    show(axes, view, image, limits)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(8)
        axis.set_major_locator(_few_ticks())
        axis.set_tick_params(labelsize=7, length=2)
    return figure


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3, integer=True)
