"""Finding the electron bunches in a picture of a real screen: functions of arrays.

The picture of a real screen has more than the beam: the two halves of the readout have different
baselines, columns have offsets that are not in the dark run, the screen's edge is a thin bright line, tails
are long, a bright head saturates, and a beam can leave the frame. So baselines are measured in the
picture itself, thin lines do not count as beam, and a picture that cannot be read has a reason.
"""

from __future__ import annotations

import numpy as np

BUNCHES = 2
FOUND, NO_BEAM, OFF_FRAME, SATURATED, TOO_MANY, TOO_DIM = range(6)
REASONS: dict[int, str] = {
    NO_BEAM: "no beam",
    OFF_FRAME: "the beam leaves the frame",
    SATURATED: "the camera is saturated",
    TOO_MANY: "more islands than two bunches",
    TOO_DIM: "too little light for slices",
}

_LINE = 5  # binned pixels: what is narrower in time, or in energy at most times, is no beam
_EVERY = 3  # of the binned times is looked at, for lines along time
_NOISE = 6.0  # standard deviations of the noise, and
_EDGE = 0.01  # of the brightest pixel: where an island ends
_APART = 4.0  # times as far as usual: so the two halves of a column differ where a beam fills one
_LEAST = 0.05  # of the light: a smaller island is no bunch
# Times the noise: a peak under it is of so little light that energies of slices are off by more than lasing
# moves them, 1.8 rows (rms) at a tenth of the simulated light; at a sixth it is 0.2.
_DIM = 300.0
# A peak that is cut off is flat: this share of the pixels above half of it is within 1.5 % of it. A peak
# that is not has 2 % (ln(1 / .985) / ln 2, for a round one).
_FLAT, _HALF, _PLATEAU, _FEWEST = 0.985, 0.5, 0.1, 6


def is_flat(pictures: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Whether the brightest spot is a plateau, (n,) bool: the camera is saturated.

    peak: (n,) counts, of the binned pictures, which no single hot pixel is.
    """
    bright = pictures >= _HALF * peak[:, None, None]
    of_picture = np.nonzero(bright)[0]
    height = pictures[bright] / np.where(peak > 0, peak, 1)[of_picture]
    half = np.bincount(of_picture, minlength=len(pictures))
    top = np.bincount(of_picture[(height >= _FLAT) & (height <= 1 / _FLAT)], minlength=len(pictures))
    return (peak > 0) & (top >= _FEWEST) & (top >= _PLATEAU * half)


def is_dim(light: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Whether the noise is too much for slices, (n,) bool. light, noise: as of `above_baseline`."""
    return _opened(light, 1).max(axis=(1, 2)) < _DIM * noise


def binned(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor pixels, (n, t, e) -> (n, t // factor, e // factor) float32."""
    t, e = (size // factor * factor for size in pictures.shape[1:])
    cut = pictures[:, :t, :e]
    lines = sum(cut[:, i::factor].astype(np.float32) for i in range(factor))
    return sum(lines[:, :, i::factor] for i in range(factor)) / np.float32(factor**2)


def above_baseline(light: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """The light above the baseline of its column in its half of the readout, and the noise, (n,), counts.

    middle: pixels before the second half, which may begin within one. The baseline is the median of the half
    column, which a beam may fill: then it stands out against the other half of that column, compared with
    how the two halves of the other columns differ.
    """
    first, last = int(middle), int(np.ceil(middle))
    halves = [np.sort(half[:, :, ::2], axis=2) for half in (light[:, :, :first], light[:, :, last:])]
    upper, lower = (half[:, :, half.shape[2] // 2] for half in halves)
    # Of the noise its upper half alone is looked at: what is below 0 may have been cut off.
    third = [half[:, :, 3 * half.shape[2] // 4] for half in halves]
    spread = np.minimum(third[0] - upper, third[1] - lower)
    step = lower - upper
    usual = np.median(step, axis=1, keepdims=True)
    allowed = _APART * np.median(np.abs(step - usual), axis=1, keepdims=True) + 1e-6
    upper = np.where(step < usual - allowed, lower - usual, upper)
    lower = np.where(step > usual + allowed, halves[0][:, :, halves[0].shape[2] // 2] + usual, lower)
    light = light.copy()
    light[:, :, :first] -= upper[:, :, None]
    light[:, :, last:] -= lower[:, :, None]
    if last > first:
        light[:, :, first] -= (middle - first) * upper + (last - middle) * lower
    return light, np.median(spread, axis=1) / 0.6745


def lines_along_time(light: np.ndarray) -> np.ndarray:
    """The light that rows have above those beside them at most times: thin lines, (n, 1, e), counts."""
    usual = np.median(light[:, ::_EVERY], axis=1)[:, None]
    return np.maximum(usual - _opened(usual, 2), 0)


def islands(light: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Islands of light: their numbers, (n, t, e) int32 (0: none), and for each, from 1 on, its picture, its
    share of the picture's light, and whether it reaches the frame's edge."""
    from scipy import ndimage  # of the extras `report` and `train`; what else is here needs no slices

    opened = _opened(light, 1)  # without thin lines
    peak = opened.max(axis=(1, 2))
    edge = np.maximum(_EDGE * peak, _NOISE * noise)
    mask = opened > np.maximum(edge, 1e-6)[:, None, None]
    within = np.zeros((3, 3, 3), bool)
    within[1] = True
    labels, count = ndimage.label(mask, within)
    number = labels.ravel()
    where = np.flatnonzero(number)
    total = np.bincount(number[where], light.ravel()[where], count + 1)
    of_picture = np.zeros(count + 1, int)
    of_picture[number[where]] = where // light[0].size
    of_all = np.bincount(of_picture[1:], total[1:], len(light))
    share = total / np.maximum(of_all[of_picture], 1e-12)
    off = np.zeros(count + 1, bool)
    for border in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        off[border.ravel()] = True
    return labels, of_picture[1:], share[1:], off[1:]


def _opened(light: np.ndarray, axis: int) -> np.ndarray:
    """A morphological opening along an axis of (n, t, e): what is narrower than _LINE pixels is gone.

    The least, then the greatest of _LINE pixels: the numbers of scipy's grey_opening in half its time.
    """
    size, pad = light.shape[axis], _LINE // 2
    for of in (np.minimum, np.maximum):
        wide = np.pad(light, [(pad, pad) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [wide[(slice(None),) * axis + (slice(i, i + size),)] for i in range(_LINE)]
        light = parts[0].copy()
        for part in parts[1:]:
            of(light, part, out=light)
    return light


def chosen_islands(
    n: int, of_picture: np.ndarray, share: np.ndarray, off: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The status of each picture, the numbers of its islands, (n, 2) int, -1 for none, and the share of its
    light, (n,), that is in islands too small to be bunches."""
    large = np.flatnonzero(share >= _LEAST)
    count = np.bincount(of_picture[large], minlength=n)
    status = np.full(n, FOUND, np.uint8)
    status[count == 0] = NO_BEAM
    status[count > BUNCHES] = TOO_MANY
    status[of_picture[large[off[large]]]] = OFF_FRAME
    chosen = np.full((n, BUNCHES), -1)
    slot = np.zeros(n, int)
    for island in large[count[of_picture[large]] <= BUNCHES]:
        picture = of_picture[island]
        chosen[picture, slot[picture]] = island + 1
        slot[picture] += 1
    small = share < _LEAST
    return status, chosen, np.bincount(of_picture[small], share[small], n)
