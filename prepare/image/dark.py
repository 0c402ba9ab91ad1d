"""The dark image: the mean of frames without beam, with outliers rejected."""

from __future__ import annotations

import itertools
from typing import Callable, Iterable, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.stats import robust_std

# A frame's mean intensity scatters by noise / sqrt(pixels), about 0.005 counts; slow changes of a
# good camera are well under this, and are no reason to reject a frame.
INTENSITY_FLOOR = 0.1  # counts
# A pixel's values are whole counts: a spread below one rounding step would reject at random.
PIXEL_FLOOR = 0.5  # counts


class Dark(NamedTuple):
    """mean, std: (H, W) float64, counts. frames: how many were averaged; what was rejected."""

    mean: np.ndarray
    std: np.ndarray
    frames: int
    rejected_frames: int
    rejected_pixels: int


def average(frames: Callable[[], Iterable[np.ndarray]], reject_frames: float, reject_pixels: float) -> Dark:
    """Mean and standard deviation of the dark frames, per pixel.

    `frames()` iterates over the (H, W) frames, unsigned integers up to 16 bits; it is called
    twice, and once more if it has frames to reject. A frame is rejected when its mean intensity lies
    over `reject_frames` robust standard deviations (1.4826 x the median absolute deviation) from
    the median of all: beam in a dark run. Then a pixel value is rejected when it lies over
    `reject_pixels` standard deviations from that pixel's mean: cosmic rays. Sums are exact, so that
    the result does not depend on the order of the frames. Raises DataError with fewer than 2
    frames left.
    """
    sums = _ExactSums()
    means = np.array([sums.add(frame) for frame in frames()])
    good = _good(means, reject_frames)
    kept = int(good.sum())
    if kept < 2:
        raise DataError(
            f"the dark has {len(means)} frames, {len(means) - kept} of them outliers; needs 2 or more"
        )
    if kept < len(means):
        sums = _ExactSums()
        for frame in itertools.compress(frames(), good):
            sums.add(frame)
    total, squares = sums.total, sums.squares
    mean, std = _moments(total, squares, kept)
    limit = reject_pixels * np.maximum(std, PIXEL_FLOOR)
    count = np.full(mean.shape, kept)
    least, most = np.ceil(mean - limit), np.floor(mean + limit)
    for frame in itertools.compress(frames(), good):
        if frame.dtype != least.dtype:  # compared as whole numbers, 10 times faster than in float64
            least, most = (
                np.clip(of, 0, np.iinfo(frame.dtype).max).astype(frame.dtype) for of in (least, most)
            )
        out = (frame < least) | (frame > most)
        if out.any():
            values = frame[out].astype(np.int64)
            total[out] -= values
            squares[out] -= values**2
            count[out] -= 1
    rejected = kept * mean.size - int(count.sum())
    mean, std = _moments(total, squares, np.maximum(count, 1))
    return Dark(mean, std, kept, len(means) - kept, rejected)


def _good(means: np.ndarray, limit: float) -> np.ndarray:
    if not len(means):
        return np.zeros(0, bool)
    return np.abs(means - np.median(means)) <= limit * max(robust_std(means), INTENSITY_FLOOR)


class _ExactSums:
    """Sums and sums of squares, (H, W) int64, exact: a square of 16 bits fits in 32."""

    def __init__(self) -> None:
        self.total = self.squares = np.zeros((), np.int64)
        self._wide: Optional[np.ndarray] = None

    def add(self, frame: np.ndarray) -> float:
        """Add a frame, (H, W) unsigned, counts; returns its mean intensity."""
        if self._wide is None:
            self.total, self.squares = np.zeros(frame.shape, np.int64), np.zeros(frame.shape, np.int64)
            self._wide = np.empty(frame.shape, np.uint32)
        wide = self._wide
        wide[...] = frame
        self.total += wide
        intensity = float(wide.sum(dtype=np.int64)) / wide.size
        wide *= wide
        self.squares += wide
        return intensity


def _moments(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation; count^2 var = count squares - total^2 is exact in int64."""
    spread = (count * squares - total * total).astype(np.float64)
    return total / count, np.sqrt(spread / (count * np.maximum(count - 1, 1)))
