"""The domain's own reading of a picture: charge, mean energy and energy spread, slice by slice of time.

Functions of arrays, no file. A picture here is (time, energy), counts, as `View.light` gives it; what is
found is in the camera's pixels: columns of time, rows of energy, energy upwards.

The picture of a real screen has more than the beam: the two halves of the readout have different
baselines, columns have offsets that are not in the dark run, the screen's edge is a thin bright line, tails
are long, a bright head saturates, and a beam can leave the frame. So baselines are measured in the
picture itself, thin lines do not count as beam, and a picture that cannot be read has a reason.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np

from common.dataset.view import View

PLACES = 24  # of each bunch
BUNCHES = 2
FOUND, NO_BEAM, OFF_FRAME, SATURATED, TOO_MANY = range(5)
REASONS: dict[int, str] = {
    NO_BEAM: "no beam",
    OFF_FRAME: "the beam leaves the frame",
    SATURATED: "the camera is saturated",
    TOO_MANY: "more islands than two bunches",
}

SMALLEST = 8  # pixels
_SIZE = 180  # pixels along the longer side, to which pictures are binned: a slice stays some pixels wide
_LINE = 5  # binned pixels: what is narrower in time, or in energy at most times, is no beam
_EVERY = 3  # of the binned times is looked at, for lines along time
_NOISE = 6.0  # standard deviations of the noise, and
_EDGE = 0.01  # of the brightest pixel: where an island ends
_APART = 4.0  # times as far as usual: so the two halves of a column differ where a beam fills one
_LEAST = 0.05  # of the light: a smaller island is no bunch
_REACH = 2  # binned pixels that a bunch reaches beyond its island
_ENDS = 0.02  # of the charge: where the first slice begins, and the last one ends
# A peak that is cut off is flat: this share of the pixels above half of it is within 1.5 % of it. A peak
# that is not has 2 % (ln(1 / .985) / ln 2, for a round one).
_FLAT, _HALF, _PLATEAU, _FEWEST = 0.985, 0.5, 0.1, 6


class Slices(NamedTuple):
    """What was read of n pictures; NaN where nothing could be read, and of a second bunch that is not there.

    status: (n,) uint8, FOUND or a key of REASONS. bunches: (n,) int, how many there are, in order of time.
    charge: (n, 2, 24), each slice's share of the light of all bunches. energy: (n, 2, 24) rows, mean of each
    slice above the mean of its bunch. spread: (n, 2, 24) rows, rms in each slice. place: (n, 2) columns and
    length: (n, 2) columns: middle and full width of what was cut into slices. height: (n, 2) rows, mean
    energy of the bunch from the lower edge of the frame.
    """

    status: np.ndarray
    bunches: np.ndarray
    charge: np.ndarray
    energy: np.ndarray
    spread: np.ndarray
    place: np.ndarray
    length: np.ndarray
    height: np.ndarray

    @property
    def features(self) -> np.ndarray:
        """Mean energy and rms spread of every slice, (n, 96) float64, rows: what tells lasing."""
        return np.concatenate([self.energy, self.spread], axis=2).reshape(len(self.status), -1)


def of_images(images: np.ndarray, view: View) -> Optional[Slices]:
    """The slices of stored images, (n, h, w); None if no camera took them or they are too small."""
    if not view.camera or min(images.shape[1:]) < SMALLEST:
        return None
    return read(view.light(images), view.blocks)


def joined(parts: Sequence[Slices]) -> Optional[Slices]:
    """Slices that were read a few pictures at a time; None if there are none."""
    return Slices(*(np.concatenate(of) for of in zip(*parts))) if parts else None


def read(pictures: np.ndarray, blocks: tuple[int, int] = (1, 1)) -> Slices:
    """The slices of `pictures`, (n, time, energy) counts, energy falling along the last axis.

    blocks: camera (rows, columns) in one pixel. Bunches are found as islands of light; each is aligned by
    itself: its slices divide the time from 2 % to 98 % of its charge, and energies are relative to its mean.
    Raises ValueError for pictures of under 8 x 8 pixels.
    """
    if min(pictures.shape[1:]) < SMALLEST:
        raise ValueError(f"pictures are {pictures.shape[1]} x {pictures.shape[2]} pixels, too few for slices")
    factor = max(1, round(max(pictures.shape[1:]) / _SIZE))
    binned = _binned(pictures, factor)
    flat = _flat(pictures, binned.max(axis=(1, 2)))
    light, noise = _above_baseline(binned, pictures.shape[2] / factor / 2)
    light -= _lines_along_time(light)
    labels, of_picture, share, off = _islands(light, noise)
    status, chosen = _chosen(len(pictures), of_picture, share, off)
    status[(status == FOUND) & flat] = SATURATED
    found = _empty(status, (chosen >= 0).sum(axis=1))
    for bunch in range(BUNCHES):
        rows = np.flatnonzero((status == FOUND) & (chosen[:, bunch] >= 0))
        if len(rows):
            _measure(found, bunch, rows, light, labels, chosen[rows, bunch])
    found = found._replace(height=found.height + (pictures.shape[2] % factor) / factor)  # rows not binned
    return _in_camera_pixels(_in_order(found), factor, blocks)


# --- from the picture to light ----------------------------------------------------------------------


def _flat(pictures: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Whether the brightest spot is a plateau, (n,) bool: the camera is saturated.

    peak: (n,) counts, of the binned pictures, which no single hot pixel is.
    """
    bright = pictures >= _HALF * peak[:, None, None]
    of_picture = np.nonzero(bright)[0]
    height = pictures[bright] / np.where(peak > 0, peak, 1)[of_picture]
    half = np.bincount(of_picture, minlength=len(pictures))
    top = np.bincount(of_picture[(height >= _FLAT) & (height <= 1 / _FLAT)], minlength=len(pictures))
    return (peak > 0) & (top >= _FEWEST) & (top >= _PLATEAU * half)


def _binned(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor pixels, (n, t, e) -> (n, t // factor, e // factor) float32."""
    t, e = (size // factor * factor for size in pictures.shape[1:])
    cut = pictures[:, :t, :e]
    lines = sum(cut[:, i::factor].astype(np.float32) for i in range(factor))
    return sum(lines[:, :, i::factor] for i in range(factor)) / np.float32(factor**2)


def _above_baseline(light: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
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


def _lines_along_time(light: np.ndarray) -> np.ndarray:
    """What rows have more than those beside them at most times: thin lines, (n, 1, e); a beam is wider."""
    usual = np.median(light[:, ::_EVERY], axis=1)[:, None]
    return np.maximum(usual - _opened(usual, 2), 0)


# --- from light to bunches --------------------------------------------------------------------------


def _islands(light: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Islands of light: their numbers, (n, t, e) int32 (0: none), and for each, from 1 on, its picture, its
    share of the picture's light, and whether it reaches the frame's edge."""
    from scipy import ndimage  # of the extras `report` and `train`; what else is here needs no slices

    opened = _without_thin_lines(light)
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


def _without_thin_lines(light: np.ndarray) -> np.ndarray:
    """Opened along time: what is narrower than _LINE pixels is gone, the rest nearly as it was."""
    return _opened(light, 1)


def _opened(light: np.ndarray, axis: int) -> np.ndarray:
    """The least, then the greatest of _LINE pixels along an axis of (n, t, e): a morphological opening."""
    size, pad = light.shape[axis], _LINE // 2
    for of in (np.minimum, np.maximum):
        wide = np.pad(light, [(pad, pad) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [wide[(slice(None),) * axis + (slice(i, i + size),)] for i in range(_LINE)]
        light = parts[0].copy()
        for part in parts[1:]:
            of(light, part, out=light)
    return light


def _chosen(
    n: int, of_picture: np.ndarray, share: np.ndarray, off: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The status of each picture and the numbers of its islands, (n, 2) int, -1 for none."""
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
    return status, chosen


# --- from bunches to slices -------------------------------------------------------------------------


def _empty(status: np.ndarray, bunches: np.ndarray) -> Slices:
    n = len(status)
    slices = [np.full((n, BUNCHES, PLACES), np.nan) for _ in range(3)]
    return Slices(
        status,
        np.where(status == FOUND, bunches, 0),
        *slices,
        *(np.full((n, BUNCHES), np.nan) for _ in range(3)),
    )


def _measure(
    into: Slices, bunch: int, rows: np.ndarray, light: np.ndarray, labels: np.ndarray, island: np.ndarray
) -> None:
    """Cut one bunch of each of the pictures `rows` into slices, binned pixels."""
    of_rows = labels[rows]
    mine = of_rows == island[:, None, None]
    weight = light[rows] * (_grown(mine) & (mine | (of_rows == 0)))
    height = light.shape[2] - 0.5 - np.arange(light.shape[2])  # from the lower edge, energy upwards
    moments = (weight @ np.stack([height**k for k in range(3)], axis=1).astype(np.float32)).astype(float)
    # Cumulated along time, from 0 at the first column's left edge: moments of any stretch are differences.
    cumulated = np.concatenate([np.zeros((len(rows), 1, 3)), moments.cumsum(axis=1)], axis=1)
    charge = np.maximum.accumulate(cumulated[:, :, 0], axis=1)
    total = charge[:, -1]
    ends = np.stack([_crossing(charge, total * of) for of in (_ENDS, 1 - _ENDS)], axis=1)
    edges = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0, 1, PLACES + 1)
    of_slice = np.diff(_at(cumulated, edges), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = of_slice[:, :, 1] / of_slice[:, :, 0]
        square = of_slice[:, :, 2] / of_slice[:, :, 0] - mean**2
    center = cumulated[:, -1, 1] / total
    into.charge[rows, bunch] = of_slice[:, :, 0]
    into.energy[rows, bunch] = mean - center[:, None]
    into.spread[rows, bunch] = np.sqrt(np.maximum(square, 0))
    into.place[rows, bunch] = ends.mean(axis=1)
    into.length[rows, bunch] = ends[:, 1] - ends[:, 0]
    into.height[rows, bunch] = center


def _grown(mask: np.ndarray) -> np.ndarray:
    """`mask`, (n, t, e) bool, and what is within _REACH pixels of it, along both axes."""
    for axis in (1, 2):
        grown = mask.copy()
        for by in range(1, _REACH + 1):
            near, far = [slice(None)] * 3, [slice(None)] * 3
            near[axis], far[axis] = slice(None, -by), slice(by, None)
            grown[tuple(near)] |= mask[tuple(far)]
            grown[tuple(far)] |= mask[tuple(near)]
        mask = grown
    return mask


def _crossing(rising: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Where each row of `rising`, (n, m), passes its `value`, (n,), between two of its points, linearly."""
    after = np.clip((rising < value[:, None]).sum(axis=1), 1, rising.shape[1] - 1)
    row = np.arange(len(rising))
    low, high = rising[row, after - 1], rising[row, after]
    return after - 1 + (value - low) / np.maximum(high - low, 1e-12)


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`values`, (n, m, k), between its points, linearly, at `places`, (n, p): (n, p, k)."""
    before = np.clip(places.astype(int), 0, values.shape[1] - 2)
    part = (places - before)[:, :, None]
    row = np.arange(len(values))[:, None]
    return (1 - part) * values[row, before] + part * values[row, before + 1]


def _in_order(found: Slices) -> Slices:
    """The bunches of each picture in order of time."""
    swap = found.place[:, 1] < found.place[:, 0]
    for of_bunches in found[2:]:
        of_bunches[swap] = of_bunches[swap, ::-1]
    charge = found.charge / np.nansum(found.charge, axis=(1, 2), keepdims=True).clip(1e-12)
    return found._replace(charge=charge)


def _in_camera_pixels(found: Slices, factor: int, blocks: tuple[int, int]) -> Slices:
    row, column = factor * blocks[0], factor * blocks[1]
    return found._replace(
        energy=found.energy * row,
        spread=found.spread * row,
        height=found.height * row,
        place=found.place * column,
        length=found.length * column,
    )
