"""Images aligned on the centroid of their light, and their projections on the energy axis."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from common.dataset.view import View
from common.report.camera import camera_image
from common.report.drawing import COLORS, GRAY, clip, new, png, svg
from common.report.page import Block, Picture, Pictures, Text
from train.data.minibatches import Samples, some_batches

_NOISE = 0.05  # of an image's brightest pixel: under it, pixels do not count for the centroid


class Means(NamedTuple):
    """The mean of the images of a class as stored, (h, w), and of its light aligned on the centroid.

    aligned: (time, energy) counts, as `View.light` orients it, the centroid in the middle; NaN where
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
    """Add a picture, moved by whole pixels so that its centroid is in the middle, to sums and counts."""
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
    """The share of the light at each energy, (energy,), above the picture's faintest energies; sum 1."""
    profile = np.nansum(aligned, axis=0)
    profile = np.maximum(profile - np.percentile(profile, 10), 0)
    return profile / max(profile.sum(), 1e-12)


def section(classes: Sequence[str], aligned: np.ndarray, shots: Sequence[int], view: View) -> list[Block]:
    """Pictures of each class, their differences, and the projections; aligned: (classes, time, energy)."""
    if not view.camera:
        return [Text("No camera took these images, so there is no beam to align them on.")]
    stored = [_as_stored(picture, view) for picture in aligned]
    top = float(np.nanmax(aligned))
    pictures = []
    for name, image, n in zip(classes, stored, shots):
        figure = camera_image(f"Aligned mean of {clip(name)}", view, image, "counts", (0, top))
        alt = f"Mean of {n} {name} images aligned on the centroid of their light"
        pictures.append(Picture(png(figure), alt, f"{n} shots of split train, counts."))
    for name, image in zip(classes[1:], stored[1:]):
        title = f"{clip(name)} minus {clip(classes[0])}, aligned"
        figure = camera_image(title, view, np.nan_to_num(image - stored[0]), "counts", signed=True)
        pictures.append(Picture(png(figure), f"Difference, {title}", "Red: brighter; blue: darker."))
    figure = _projections(classes, aligned, view)
    what = "Light against energy, each image aligned; below, the difference from the first class."
    pictures.append(Picture(svg(figure), f"Energy projection of {', '.join(classes)}", what))
    return [
        Pictures(pictures),
        Text(
            "Each image is moved by whole pixels so that the centroid of its light is in the middle: where "
            "the beam is on the screen no longer blurs the mean. Lasing moves light to lower energies: the "
            "projection then falls beside its middle and rises at both sides.",
            "note",
        ),
    ]


def _as_stored(light: np.ndarray, view: View) -> np.ndarray:
    return np.nan_to_num(light if view.transposed else light.T)


def _projections(classes: Sequence[str], aligned: np.ndarray, view: View) -> Any:
    size = view.blocks[0] * (view.scale[0] if view.scale else 1)
    energies = aligned.shape[2]
    energy = ((energies - 1) / 2 - np.arange(energies)) * size  # it falls along the last axis
    unit = "MeV" if view.scale else "camera rows"
    shares = [projection(picture) / size for picture in aligned]
    figure, (above, below) = new(4.6, 3.9, nrows=2, sharex=True, height_ratios=(2, 1))
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
