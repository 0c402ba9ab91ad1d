"""Images aligned on the centroid of their light, and their projections on the energy axis."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from common.dataset.view import View
from common.report.drawing import COLORS, GRAY, IMAGE_COLORS, SIGNED_COLORS, clip, new, png, svg
from common.report.page import Block, Picture, Pictures, Text
from train.data.minibatches import Samples, some_batches

_LIT, _MARGIN = 0.02, 0.08  # of the brightest pixel: what is shown; and of that, how much around it
_NOISE = 0.05  # of an image's brightest pixel: under it, pixels do not count for the centroid


class Means(NamedTuple):
    """The mean image of a class as stored, (h, w), and the mean of its light aligned on the centroid.

    aligned: (time, energy), counts, oriented as by `View.light`, with the centroid in the middle; NaN where
    no image reaches.
    """

    stored: np.ndarray
    aligned: np.ndarray


def means(samples: Samples, rows: np.ndarray, view: View) -> Means:
    """The means of the images of `rows`, a few in memory at a time."""
    stored = total = count = None
    for batch in some_batches(samples, rows):
        images = batch[..., 0]
        light = view.light(images)
        if total is None:
            stored = np.zeros(images.shape[1:])
            total, count = np.zeros(light.shape[1:]), np.zeros(light.shape[1:])
        stored += images.sum(axis=0, dtype=np.float64)
        for picture in light:
            add_aligned(picture, total, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Means(stored / max(len(rows), 1), total / count)


def add_aligned(picture: np.ndarray, total: np.ndarray, count: np.ndarray) -> None:
    """Add a picture to `total` and `count`, moved by whole pixels so that its centroid is in the middle."""
    light = np.where(picture > _NOISE * picture.max(), picture, 0)
    into, out = [], []
    for axis, size in enumerate(picture.shape):
        profile = light.sum(axis=1 - axis, dtype=np.float64)
        center = float(profile @ np.arange(size) / max(profile.sum(), 1e-12))
        by = round((size - 1) / 2 - center)
        into.append(slice(max(by, 0), size + min(by, 0)))
        out.append(slice(max(-by, 0), size - max(by, 0)))
    total[tuple(into)] += picture[tuple(out)]
    count[tuple(into)] += 1


def projection(aligned: np.ndarray) -> np.ndarray:
    """The share of the light at each energy, (energy,), with a sum of 1; the faintest tenth is subtracted."""
    profile = np.nansum(aligned, axis=0)
    profile = np.maximum(profile - np.percentile(profile, 10), 0)
    return profile / max(profile.sum(), 1e-12)


def section(classes: Sequence[str], aligned: np.ndarray, shots: Sequence[int], view: View) -> list[Block]:
    """Pictures of each class, their differences, and the projections; aligned: (classes, time, energy)."""
    if not view.camera:
        return [Text("No camera took these images, so there is no beam to align them on.")]
    window = _lit(np.nanmax(np.nan_to_num(aligned), axis=0))
    cut, middle = np.nan_to_num(aligned[(slice(None), *window)]), (np.array(aligned.shape[1:]) - 1) / 2
    top, pictures = float(cut.max()), []
    for name, image, n in zip(classes, cut, shots):
        figure = _picture(f"Aligned mean of {clip(name)}", image, window, middle, view, (0, top))
        alt = f"Mean of {n} {name} images aligned on the centroid of their light"
        pictures.append(Picture(png(figure), alt, f"{n} shots of split train."))
    for name, image in zip(classes[1:], cut[1:]):
        title, away = f"{clip(name)} minus {clip(classes[0])}, aligned", image - cut[0]
        reach = float(np.abs(away).max()) or 1.0
        figure = _picture(title, away, window, middle, view, (-reach, reach), SIGNED_COLORS)
        pictures.append(Picture(png(figure), f"Difference, {title}", "Red: brighter; blue: darker."))
    figure = _projections(classes, aligned, view)
    what = "Light against energy, each image aligned; below, the difference from the first class."
    pictures.append(Picture(svg(figure), f"Energy projection of {', '.join(classes)}", what))
    return [
        Pictures(pictures, "medium" if len(pictures) % 4 == 0 else "large"),
        Text(
            "Each image is moved by whole pixels so that the centroid of its light is in the middle: where "
            "the beam is on the screen no longer blurs the mean. Light that lasing moved to lower energies "
            "is missing where the difference is negative.",
            "note",
        ),
    ]


def _lit(light: np.ndarray) -> tuple[slice, slice]:
    """The part of a picture, (time, energy), with light, and a margin around it."""
    window = []
    for axis in (1, 0):
        profile = light.max(axis=axis)
        where = np.flatnonzero(profile > _LIT * light.max())
        low, high = (where[0], where[-1]) if len(where) else (0, len(profile) - 1)
        margin = round(_MARGIN * (high - low)) + 2
        window.append(slice(max(low - margin, 0), min(high + margin + 1, len(profile))))
    return window[0], window[1]


def _size(view: View) -> tuple[float, float]:
    """The size of a stored pixel in time (fs or camera columns) and energy (MeV or camera rows)."""
    energy, time = view.scale or (1.0, 1.0)
    return view.blocks[1] * time, view.blocks[0] * energy


def _picture(
    title: str,
    image: np.ndarray,
    window: tuple[slice, slice],
    middle: np.ndarray,
    view: View,
    limits: tuple[float, float],
    colors: str = IMAGE_COLORS,
) -> Any:
    """Part of an aligned mean, (time, energy), on axes that count from the centroid."""
    ends = [
        (np.array([of.start, of.stop]) - 0.5 - at) * size for of, at, size in zip(window, middle, _size(view))
    ]
    columns, rows = image.shape[0] * view.blocks[1], image.shape[1] * view.blocks[0]
    figure, axes = new(3.5, min(4.6, max(1.8, 0.6 + 2.4 * rows / columns)))
    shown = axes.imshow(
        image.T,
        cmap=colors,
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
        extent=(*ends[0], -ends[1][1], -ends[1][0]),
    )
    axes.set_box_aspect(rows / columns)
    time, energy = ("fs", "MeV") if view.scale else ("camera columns", "camera rows")
    axes.set(
        title=title, xlabel=f"time from the centroid ({time})", ylabel=f"energy from the centroid ({energy})"
    )
    figure.colorbar(shown, ax=axes, label="counts", shrink=0.85)
    return figure


def _projections(classes: Sequence[str], aligned: np.ndarray, view: View) -> Any:
    size = _size(view)[1]
    energies = aligned.shape[2]
    energy = ((energies - 1) / 2 - np.arange(energies)) * size  # it falls along the last axis
    unit = "MeV" if view.scale else "camera rows"
    shares = [projection(picture) / size for picture in aligned]
    figure, (above, below) = new(3.6, 3.4, nrows=2, sharex=True, height_ratios=(2, 1))
    for label, (name, share) in enumerate(zip(classes, shares)):
        above.plot(energy, share, color=COLORS[label % len(COLORS)], label=clip(name))
        if label:
            below.plot(energy, share - shares[0], color=COLORS[label % len(COLORS)])
    below.axhline(0, color=GRAY, ls=":")
    lit = energy[np.max(shares, axis=0) > 0.002 * np.max(shares)]
    if len(lit):
        below.set_xlim(lit.min(), lit.max())
    above.set(title="Energy projection", ylabel=f"light per {unit.removesuffix('s')}", ylim=(0, None))
    below.set(xlabel=f"energy from the centroid ({unit})", ylabel="difference")
    above.legend()
    return figure
