"""The dark: what the camera shows without beam, averaged with outliers rejected."""

from __future__ import annotations

from typing import Callable, Iterable, NamedTuple, Tuple

import numpy as np

from common.errors import DataError

# A frame's mean level scatters by noise / sqrt(pixels), about 0.005 counts; slow changes of a
# good camera are well under this, and are no reason to reject a frame.
LEVEL_FLOOR = 0.1  # counts
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
    twice. A frame is rejected when its mean level lies over `reject_frames` robust standard
    deviations (1.4826 x the median absolute deviation) from the median level: beam in a dark
    run. Then a pixel value is rejected when it lies over `reject_pixels` standard deviations
    from that pixel's mean: cosmic rays. Sums are exact in int64, so that the result does not
    depend on the order of the frames. Raises DataError with fewer than 2 frames left.
    """
    levels = np.array([frame.mean() for frame in frames()])
    good = _good_levels(levels, reject_frames)
    kept = int(good.sum())
    if kept < 2:
        raise DataError(
            f"the dark has {len(levels)} frames, {len(levels) - kept} of them outliers; needs 2 or more"
        )
    total, squares = _sums(frame for frame, keep in zip(frames(), good) if keep)
    mean, std = _moments(total, squares, kept)
    limit = reject_pixels * np.maximum(std, PIXEL_FLOOR)
    count = np.full(mean.shape, kept)
    for frame, keep in zip(frames(), good):
        if keep:
            out = np.abs(frame - mean) > limit
            if out.any():
                values = frame[out].astype(np.int64)
                total[out] -= values
                squares[out] -= values**2
                count[out] -= 1
    rejected = kept * mean.size - int(count.sum())
    mean, std = _moments(total, squares, np.maximum(count, 1))
    return Dark(mean, std, kept, len(levels) - kept, rejected)


def _good_levels(levels: np.ndarray, limit: float) -> np.ndarray:
    if not len(levels):
        return np.zeros(0, bool)
    distance = np.abs(levels - np.median(levels))
    return distance <= limit * max(1.4826 * float(np.median(distance)), LEVEL_FLOOR)


def _sums(frames: Iterable[np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    total = squares = None
    for frame in frames:
        wide = frame.astype(np.int64)
        if total is None:
            total, squares = np.zeros_like(wide), np.zeros_like(wide)
        total += wide
        squares += wide * wide
    return total, squares


def _moments(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation; count^2 var = count squares - total^2 is exact in int64."""
    spread = (count * squares - total * total).astype(np.float64)
    return total / count, np.sqrt(spread / (count * np.maximum(count - 1, 1)))
