"""Reading slices from pictures: against what was put into them, and through what real screens have."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common import bunches, slices
from common.dataset.view import View
from prepare.image.transform import block_mean
from prepare.simulate import camera, phasespace
from prepare.simulate.config import BeamOnScreen, OpalCamera

ROWS, COLUMNS = 726, 568
MEV, FS = 145 / ROWS, 420 / COLUMNS  # of a pixel
RESOLUTION = 3.0, 0.8  # fs, MeV
REAL = np.load(Path(__file__).parents[1] / "data" / "real_screen.npz")["picture"]


class Put(NamedTuple):
    """A bunch as it was put on the screen, its share of the light, and its light."""

    slices: phasespace.PhaseSpace
    charge: float
    light: np.ndarray


def axes() -> tuple:
    return (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * FS, -(np.arange(ROWS) - (ROWS - 1) / 2) * MEV


def put(
    charge: float = 0.5,
    delay: float = 0.0,
    energy: float = 0.0,
    length: float = 85,
    loss: float = 0.0,
    seed: int = 0,
) -> Put:
    """One bunch; `loss`: MeV that its electrons have lost on average."""
    bunch = phasespace.bunch(length, 1.2, 8, 7, 4, 1.0)
    profile = phasespace.lasing_profile(np.random.default_rng(seed), bunch.time, length, 0.2, 7)
    bunch = phasespace.lase(bunch, profile, loss, 0.7)
    bunch = bunch._replace(time=bunch.time + delay, energy=bunch.energy + energy)
    return Put(bunch, charge, charge * phasespace.screen(bunch, *axes(), *RESOLUTION))


def two(**changes: float) -> list[Put]:
    return [put(0.52, -62, 18, **changes), put(0.48, 58, -20, **changes)]


def screen(those: list[Put], counts: float = 6e6) -> np.ndarray:
    """Their light, (rows, columns), counts."""
    return counts * sum((each.light for each in those), np.zeros((ROWS, COLUMNS), np.float32))


def taken(light: Optional[np.ndarray], background: np.ndarray = None, seed: int = 1) -> np.ndarray:
    """The picture that the camera takes, its pedestal subtracted: (1, columns, rows) counts."""
    pedestal = camera.pedestal(np.random.default_rng(0), (ROWS, COLUMNS), OpalCamera())
    more = 0 if background is None else background
    frame = camera.expose(np.random.default_rng(seed), light, pedestal + more, OpalCamera())
    return (frame - pedestal).T[None]


def truth(bunch: Put) -> tuple:
    """Charge, mean energy and spread of the slices, (24,), pixels, and where they begin and end, fs.

    From the phase space, not from a picture.

    A slice of the screen holds of each slice of the bunch what the streak's resolution brings there.
    """
    time = np.linspace(-210, 210, 8401)
    share = bunch.slices.charge * np.exp(-(((time[:, None] - bunch.slices.time) / RESOLUTION[0]) ** 2) / 2)
    cumulated = np.cumsum(share.sum(axis=1))
    first, last = np.interp([0.02, 0.98], cumulated / cumulated[-1], time)
    energy = bunch.slices.energy - (bunch.slices.charge * bunch.slices.energy).sum()
    square = energy**2 + bunch.slices.spread**2 + RESOLUTION[1] ** 2
    number = np.digitize(time, np.linspace(first, last, slices.PLACES + 1)) - 1
    of_slice = np.array([share[number == k].sum(axis=0) for k in range(slices.PLACES)])
    charge = of_slice.sum(axis=1)
    mean = of_slice @ energy / charge
    spread = np.sqrt(of_slice @ square / charge - mean**2)
    return bunch.charge * charge / share.sum(), mean / MEV, spread / MEV, (first, last)


# --- what was put in comes out ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_slices_are_those_that_were_put_in(seed):
    rng = np.random.default_rng(seed)
    length, loss, shift, lift = rng.uniform([70, 0, -25, -12], [100, 0.6, 25, 12])
    single = seed % 3 == 0
    those = [put(0.52, -62 + shift, 18 + lift, length, loss, seed)]
    those += [] if single else [put(0.48, 58 + shift, -20 + lift, length, loss, seed)]
    found = slices.read(taken(screen(those)))
    assert found.status.tolist() == [bunches.FOUND]
    assert found.bunches.tolist() == [len(those)]
    for k, each in enumerate(those):
        charge, energy, spread, ends = truth(each)
        whole = sum(other.charge for other in those)
        assert np.allclose(found.charge[0, k], charge / whole, rtol=0.1, atol=1e-3)
        steep = 0.2 * np.abs(np.gradient(energy))  # a pixel of the reader has a width
        assert (np.abs(found.energy[0, k] - energy) < 1.5 + steep)[1:-1].all()  # rows, 0.2 MeV each
        assert (np.abs(found.spread[0, k] - spread) < 0.12 * spread + steep)[1:-1].all()
        height = (each.slices.charge * each.slices.energy).sum() / MEV + ROWS / 2
        assert found.height[0, k] == pytest.approx(height, abs=1.0)
        assert found.length[0, k] * FS == pytest.approx(ends[1] - ends[0], rel=0.03)
        assert found.place[0, k] * FS - 210 == pytest.approx(sum(ends) / 2, abs=1.0)
    assert np.isfinite(found.energy[0]).all(axis=1).tolist() == [True, not single]


def test_bunches_come_in_order_of_time():
    swapped = [put(0.48, 58, -20), put(0.52, -62, 18)]
    a, b = (slices.read(taken(screen(order))) for order in (two(), swapped))
    assert np.array_equal(a.energy, b.energy)
    assert a.place[0, 0] < a.place[0, 1]
    mirrored = slices.read(taken(screen(two()))[:, ::-1])
    assert mirrored.place[0, 0] < mirrored.place[0, 1]
    assert np.allclose(mirrored.energy[0, 0], a.energy[0, 1, ::-1], atol=1.5)


def test_a_stored_image_gives_what_the_frame_gives():
    """The stored image is smaller, clipped at 0 and logarithmic; what is read is in the camera's pixels."""
    frame = taken(screen(two(loss=0.3)))
    stored = np.log1p(np.maximum(block_mean(frame[0].T, (2, 2)).T, 0)).astype(np.float32)[None]
    view = View(True, (2, 2), True, "log(1 + counts)")
    a, b = slices.read(frame), slices.read(view.light(stored), view.blocks)
    for name in ("energy", "spread", "place", "length", "height"):
        assert np.allclose(getattr(a, name), getattr(b, name), atol=2.0), name
    straight = View(False, (2, 2), True, "log(1 + counts)").light(stored.transpose(0, 2, 1))
    assert np.array_equal(slices.read(straight, (2, 2)).energy, b.energy)


def test_a_picture_is_read_alike_alone_and_among_others():
    kinds = [taken(screen(two(seed=k, loss=0.1 * k))) for k in range(3)] + [
        taken(None),
        taken(screen([put()])),
    ]
    together = slices.read(np.concatenate(kinds))
    for k, one in enumerate(kinds):
        for many, alone in zip(together, slices.read(one)):
            assert np.array_equal(many[k], alone[0], equal_nan=many.dtype.kind == "f")


# --- what real screens have ---------------------------------------------------------------------

_RNG = np.random.default_rng(4)
DISTURBED = {
    "a step between the halves of the readout": 4.0 * (np.arange(ROWS) >= ROWS // 2)[:, None]
    + np.zeros(COLUMNS),
    "stripes": np.zeros((ROWS, 1)) + 1.5 * _RNG.standard_normal(COLUMNS),
    "stripes of each half": np.repeat(1.5 * _RNG.standard_normal((2, COLUMNS)), ROWS // 2, axis=0),
    "another level": np.full((ROWS, COLUMNS), -3.0),
}


@pytest.mark.parametrize("what", DISTURBED)
@pytest.mark.parametrize("logarithm", [False, True])
def test_levels_that_are_not_the_darks_change_little(what, logarithm):
    clean, other = taken(screen(two(loss=0.3))), taken(screen(two(loss=0.3)), DISTURBED[what])
    if logarithm:
        view = View(True, (1, 1), True, "log(1 + counts)")
        clean, other = (view.light(np.log1p(np.maximum(each, 0))) for each in (clean, other))
    a, b = slices.read(clean), slices.read(other)
    assert b.status[0] == bunches.FOUND
    assert np.abs(a.energy - b.energy)[:, :, 1:-1].max() < 1.0
    assert np.abs(a.spread / b.spread - 1)[:, :, 1:-1].max() < 0.06


@pytest.mark.parametrize("place", [0.06, 0.47, 0.9])
def test_a_thin_line_of_the_screens_edge_is_no_beam(place):
    light = screen(two(loss=0.3))
    line = 300 * phasespace.edge_line(light.shape, place)
    a, b = slices.read(taken(light)), slices.read(taken(light + line))
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.abs(a.height - b.height).max() < 3


HALF = np.repeat([[0.0], [1.0]], ROWS // 2, axis=0) + np.zeros(COLUMNS)


@pytest.mark.parametrize("step", [-25, -5, 5, 20, 60])  # of a pedestal of 32 counts
@pytest.mark.parametrize("blocks", [(1, 1), (2, 2)])
def test_the_halves_of_the_readout_may_stand_apart_either_way(step, blocks):
    """Also where the border between them is within a pixel of the stored image, and of what is read."""
    clean, other = (
        block_mean(taken(screen(two(loss=0.3)), background)[0], blocks)[None]
        for background in (None, step * HALF)
    )
    a, b = slices.read(clean, blocks), slices.read(other, blocks)
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.abs(a.energy - b.energy)[:, :, 1:-1].max() < 1.0
    assert np.abs(a.spread / b.spread - 1)[:, :, 1:-1].max() < 0.05


@pytest.mark.parametrize("width", [1, 4, 12])
@pytest.mark.parametrize("row", [40, 365])  # beside the beam, and through it
def test_a_line_along_time_is_no_beam(width, row):
    line = np.zeros((ROWS, COLUMNS))
    line[row : row + width] = 300
    a, b = (slices.read(taken(screen(two(loss=0.3)), more)) for more in (None, line))
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.abs(a.energy - b.energy)[:, :, 1:-1].max() < 1.0
    assert np.abs(a.spread / b.spread - 1)[:, :, 1:-1].max() < 0.05


def test_hot_pixels_are_neither_a_beam_nor_a_saturated_one():
    rng = np.random.default_rng(0)
    clean = taken(screen(two(loss=0.3)))
    hot, dark = clean.copy(), taken(None)
    at = (0, rng.integers(0, COLUMNS, 20), rng.integers(0, ROWS, 20))
    hot[at] = dark[at] = 4000
    a, b = slices.read(clean), slices.read(hot)
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.median(np.abs(a.energy - b.energy)) < 0.1
    assert slices.read(dark).status.tolist() == [bunches.NO_BEAM]


def test_long_tails_change_little():
    beam = BeamOnScreen()
    wide = [
        each._replace(
            light=0.95 * each.light
            + 0.05
            * each.charge
            * phasespace.screen(each.slices._replace(spread=np.full(96, 8.0)), *axes(), 18.0, 0.0)
        )
        for each in two(loss=0.3)
    ]
    a, b = slices.read(taken(screen(two(loss=0.3)))), slices.read(taken(screen(wide)))
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.median(np.abs(a.energy - b.energy)) < 1.0
    assert np.median(b.spread / a.spread) < 1.35
    assert beam.halo == 0


def real_background() -> np.ndarray:
    """Stripes, step and noise of the real picture, (rows, columns): what is beside the beam."""
    beside = REAL[:, 260:].astype(float) - np.median(REAL)
    many = np.tile(beside, (3, 3))
    return np.repeat(np.repeat(many, 2, axis=0), 2, axis=1)[-ROWS:, :COLUMNS]


def test_a_beam_is_read_from_a_real_screen():
    a, b = (slices.read(taken(screen(two(loss=0.3)), more)) for more in (None, real_background()))
    assert b.status[0] == bunches.FOUND and b.bunches[0] == 2
    assert np.abs(a.energy - b.energy)[:, :, 1:-1].max() < 1.5
    assert np.abs(a.spread / b.spread - 1)[:, :, 1:-1].max() < 0.1


# --- what cannot be read ------------------------------------------------------------------------


def three() -> list[Put]:
    return [*two(), put(0.3, -140, -40, 50)]


def one_saturated(uneven: float = 0.0) -> np.ndarray:
    """The brighter bunch cut off at half its height, the other as it is; uneven: gain of the pixels."""
    first, second = two()
    picture = taken(screen([first._replace(light=2 * first.light), second]))
    picture = np.minimum(picture, 0.5 * picture.max())
    return picture * (1 + uneven * np.random.default_rng(0).standard_normal(picture.shape))


CANNOT = {
    "nothing at all": (lambda: np.zeros((1, COLUMNS, ROWS)), bunches.NO_BEAM),
    "no beam": (lambda: taken(None), bunches.NO_BEAM),
    "the real background": (lambda: taken(None, real_background()), bunches.NO_BEAM),
    "a bright line and no beam": (
        lambda: taken(400 * phasespace.edge_line((ROWS, COLUMNS), 0.9)),
        bunches.NO_BEAM,
    ),
    "one bright pixel": (
        lambda: np.pad(np.full((1, 1, 1), 900.0), ((0, 0), (99, 183), (200, 162))),
        bunches.NO_BEAM,
    ),
    "three islands": (lambda: taken(screen(three())), bunches.TOO_MANY),
    "over the left edge": (lambda: taken(screen([put(delay=-200)])), bunches.OFF_FRAME),
    "over the right edge": (lambda: taken(screen([put(delay=190)])), bunches.OFF_FRAME),
    "over the top": (lambda: taken(screen([put(energy=70)])), bunches.OFF_FRAME),
    "over the bottom": (lambda: taken(screen([put(energy=-70)])), bunches.OFF_FRAME),
    "one of two over the edge": (
        lambda: taken(screen([put(delay=-30), put(delay=170, energy=20)])),
        bunches.OFF_FRAME,
    ),
    "a saturated head": (lambda: np.minimum(taken(screen(two())), 900), bunches.SATURATED),
    "one saturated head of two": (lambda: one_saturated(), bunches.SATURATED),
    "a saturated head of uneven gain": (lambda: one_saturated(uneven=0.01), bunches.SATURATED),
    "saturated at 12 bits": (lambda: taken(screen(two(), 3e7)), bunches.SATURATED),
    "a twentieth of the light": (lambda: taken(screen(two(), 3e5)), bunches.TOO_DIM),
    "the real picture": (lambda: REAL.T[None], bunches.OFF_FRAME),
    "the real picture, upper half": (lambda: REAL[:170].T[None], bunches.NO_BEAM),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_cannot_be_read_is_said(what):
    made, reason = CANNOT[what]
    found = slices.read(made())
    assert found.status.tolist() == [reason]
    assert found.bunches.tolist() == [0]
    assert bunches.REASONS[int(found.status[0])]
    for values in found[2:-1]:
        assert np.isnan(values).all()


def test_light_beside_the_bunches_is_told():
    first, second = put(0.97, -62, 18), put(0.03, 58, -20)
    found = slices.read(np.concatenate([taken(screen([first, second])), taken(screen(two()))]))
    assert found.bunches.tolist() == [1, 2]
    assert 0.01 < found.left_out[0] < 0.05 and found.left_out[1] < 0.005


@settings(max_examples=60)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(8, 40), st.integers(8, 40)),
        elements=st.floats(-100, 65535, width=32),
        fill=st.sampled_from([0.0, 7.0]),
    )
)
def test_any_picture_is_read_or_refused(pictures):
    found = slices.read(pictures)
    for k, status in enumerate(found.status):
        assert (status == bunches.FOUND) == (found.bunches[k] > 0)
        assert status == bunches.FOUND or int(status) in bunches.REASONS
        assert np.isfinite(found.energy[k, : found.bunches[k]]).all()
        assert (found.spread[k, : found.bunches[k]] >= 0).all()


def test_pictures_of_a_few_pixels_are_refused():
    with pytest.raises(ValueError, match="7 x 20 pixels"):
        slices.read(np.zeros((2, 7, 20)))
