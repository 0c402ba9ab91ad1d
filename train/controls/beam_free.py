"""Find the pixels that the beam never reaches, from the statistics of the shots.

The light of a beam comes and goes from shot to shot and falls on neighboring pixels together;
the noise of a camera is each pixel's own, and a background that differs between runs stands still
within a run. So the picture is cut into small squares, and the variance of a square's mean, shot
to shot within runs, is compared with what the variances of its single pixels explain. Light of a
few hundredths of a count in the mean is detected; a constant background of any height, which the
control is about, is not. A square must also be dark in the mean over all shots, and so must its
neighbors, because the tails of the beam reach further than they can be detected.
"""

from __future__ import annotations

from typing import Iterable, Iterator, NamedTuple

import numpy as np
from scipy import ndimage

from common.stats import Moments

SQUARE = 8  # pixels
# Squares without beam scatter by sqrt(2 / shots) around their mean; this many times that is light.
_LIGHT = 6.0
# And that scatter itself, 1 for noise that is each pixel's own, may be this: a camera whose pixels go up and
# down together by a fifth of their noise.
_COMMON = 4.0
_DARK = 0.25  # of the way from the darkest squares to the brightest, in the mean of all shots


class Sums(NamedTuple):
    """Over the shots of one run: moments of the pixels, and of the squares' means."""

    pixels: Moments
    squares: Moments


def side(shape: tuple[int, int]) -> int:
    """Pixels along a square's side: 8, or fewer for small pictures."""
    return max(2, min(SQUARE, min(shape) // 10))


def squares(images: np.ndarray, size: int) -> np.ndarray:
    """Means over squares of `size` pixels, (n, h, w) -> (n, h // size, w // size); the rest is left out."""
    n, h, w = len(images), images.shape[1] // size, images.shape[2] // size
    return images[:, : h * size, : w * size].reshape(n, h, size, w, size).mean(axis=(2, 4), dtype=np.float64)


def sums(batches: Iterator[np.ndarray], shape: tuple[int, int]) -> Sums:
    """The sums over one run's images, (n, rows, columns, 1) float32 a batch."""
    found, size = Sums(Moments(), Moments()), side(shape)
    for batch in batches:
        found.pixels.add(batch[..., 0])
        found.squares.add(squares(batch[..., 0], size))
    return found


def mask(of_runs: Iterable[Sums], shape: tuple[int, int]) -> np.ndarray:
    """The pixels without beam, `shape` bool; the sums of one run at a time are in memory."""
    size = side(shape)
    together, alone, total, freedom, count = 0.0, 0.0, 0.0, 0, 0
    for run in of_runs:
        together = together + _within(run.squares)
        alone = alone + _within(run.pixels)
        total = total + run.squares.total
        freedom, count = freedom + run.pixels.count - 1, count + run.squares.count
    together, alone = together / freedom, squares(alone[None], size)[0] / freedom / size**2
    ratio = np.divide(together, alone, out=np.ones_like(together), where=alone > 0)
    steady = ratio <= min(np.percentile(ratio, 5), _COMMON) * (1 + _LIGHT * np.sqrt(2 / freedom))
    mean = total / count
    low, high = np.percentile(mean, 5), np.percentile(mean, 99.5)
    lit = ~(steady & (mean <= low + _DARK * (high - low)))
    free = ~ndimage.binary_dilation(lit, np.ones((3, 3)))  # nor beside light
    result = np.zeros(shape, bool)
    result[: free.shape[0] * size, : free.shape[1] * size] = np.kron(free, np.ones((size, size), bool))
    return result


def cells(images: np.ndarray, keep: np.ndarray, parts: int = 4) -> np.ndarray:
    """The mean of the kept pixels in each of parts x parts fields of a picture, (n, fields) float64.

    images: (n, h, w); keep: (h, w) bool. Fields without such pixels are left out.
    """
    found = []
    for rows in np.array_split(np.arange(keep.shape[0]), parts):
        for columns in np.array_split(np.arange(keep.shape[1]), parts):
            field = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if keep[field].any():
                found.append(images[(slice(None), *field)][:, keep[field]].mean(axis=1, dtype=np.float64))
    return np.stack(found, axis=1)


def _within(of_run: Moments) -> np.ndarray:
    """Sum over the shots of a run of the squared distances from the run's mean."""
    return of_run.squares - of_run.total**2 / of_run.count
