"""The domain's own reading of a picture: charge, mean energy and energy spread, slice by slice of time.

Functions of arrays, no file. A picture here is (time, energy), counts, as `View.light` gives it; what is
found is in the camera's pixels: columns of time, rows of energy, energy upwards. common/bunches.py finds
the bunches.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np

from common.bunches import (
    BUNCHES,
    FOUND,
    SATURATED,
    TOO_DIM,
    above_baseline,
    binned,
    chosen_islands,
    is_dim,
    is_flat,
    islands,
    lines_along_time,
)
from common.dataset.view import View

PLACES = 24  # of each bunch
SMALLEST = 8  # pixels
_SIZE = 180  # pixels along the longer side, to which pictures are binned: a slice stays some pixels wide
_REACH = 2  # binned pixels that a bunch reaches beyond its island
_ENDS = 0.02  # of the charge: where the first slice begins, and the last one ends


class Slices(NamedTuple):
    """What was read of n pictures; NaN where nothing could be read, and of a second bunch that is not there.

    status: (n,) uint8, FOUND or a key of REASONS. bunches: (n,) int, how many there are, in order of time.
    charge: (n, 2, 24), each slice's share of the light of all bunches. energy: (n, 2, 24) rows, mean of each
    slice above the mean of its bunch. spread: (n, 2, 24) rows, rms in each slice. place: (n, 2) columns and
    length: (n, 2) columns: middle and full width of what was cut into slices. height: (n, 2) rows, mean
    energy of the bunch from the lower edge of the frame. left_out: (n,), share of the light in islands that
    are no bunch.
    """

    status: np.ndarray
    bunches: np.ndarray
    charge: np.ndarray
    energy: np.ndarray
    spread: np.ndarray
    place: np.ndarray
    length: np.ndarray
    height: np.ndarray
    left_out: np.ndarray

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
    """Slices that were read a few pictures at a time, put together; None if there are none."""
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
    small = binned(pictures, factor)
    flat = is_flat(pictures, small.max(axis=(1, 2)))
    light, noise = above_baseline(small, pictures.shape[2] / factor / 2)
    light -= lines_along_time(light)
    labels, of_picture, share, off = islands(light, noise)
    status, chosen, left_out = chosen_islands(len(pictures), of_picture, share, off)
    status[(status == FOUND) & flat] = SATURATED
    status[(status == FOUND) & is_dim(light, noise)] = TOO_DIM
    bunches = np.where(status == FOUND, (chosen >= 0).sum(axis=1), 0)
    shapes = [(len(status), BUNCHES, PLACES)] * 3 + [(len(status), BUNCHES)] * 3
    found = Slices(status, bunches, *(np.full(shape, np.nan) for shape in shapes), left_out)
    for bunch in range(BUNCHES):
        rows = np.flatnonzero((status == FOUND) & (chosen[:, bunch] >= 0))
        if len(rows):
            _measure(found, bunch, rows, light, labels, chosen[rows, bunch])
    found = found._replace(height=found.height + (pictures.shape[2] % factor) / factor)  # rows not binned
    return _in_camera_pixels(_in_order(found), factor, blocks)


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
    for of_bunches in found[2:-1]:
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
