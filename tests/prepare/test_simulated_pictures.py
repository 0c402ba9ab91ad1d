"""What simulated bunches leave on the screen, and what the camera makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from prepare.simulate import camera, machine, phasespace, shots
from prepare.simulate.config import BeamOnScreen, OpalCamera, SimulateConfig
from tests.prepare.simulated import SHAPE

# --- the beam --------------------------------------------------------------------------------

BEAM = BeamOnScreen()


def mean_energy(light: np.ndarray, energy: np.ndarray) -> float:
    return float((light.sum(axis=1) * energy).sum() / light.sum())


def test_the_energy_on_the_screen_that_is_missing_is_the_pulse_energy():
    """Mean energy of all electrons, with and without lasing, from the pictures alone."""
    rng = np.random.default_rng(7)
    on = machine.run_shots(np.random.default_rng(6), 50, 1.0, lasing=True)
    off = machine.run_shots(np.random.default_rng(6), 50, 1.0, lasing=False)
    wide = BEAM.model_copy(update={"energy_span": 300.0})  # so that no electron leaves the screen
    _, energy = shots.pixel_axes(wide, (600, 200))
    checked = 0
    for i in np.flatnonzero(on.pulse > 0.02)[:10]:
        seed = rng.integers(1 << 30)
        lit = [shots.light(np.random.default_rng(seed), run, i, wide, (600, 200)) for run in (on, off)]
        lost = mean_energy(lit[1], energy) - mean_energy(lit[0], energy)
        electrons = on.truth["ebeamDumpCharge"][i]
        assert lost * electrons / phasespace.MEV_PER_MJ == pytest.approx(on.pulse[i], rel=0.02)
        checked += 1
    assert checked > 5


def test_lasing_takes_the_energy_asked_for_and_widens_what_it_takes_it_from():
    before = phasespace.bunch(80, 1.2, 8, 6, 4, 1.0)
    profile = phasespace.lasing_profile(np.random.default_rng(1), before.time, 80, 0.3, 7)
    after = phasespace.lase(before, profile, loss=0.5, widening=0.7)
    lost = before.energy - after.energy
    assert (before.charge * lost).sum() == pytest.approx(0.5, rel=1e-9)
    assert (lost >= 0).all()
    assert np.array_equal(after.spread > before.spread, lost > 1e-7)
    assert (lost[np.abs(before.time) > 35] < 1e-3).all()  # the horns do not lase
    assert np.array_equal(phasespace.lase(before, profile, 0.0, 0.7).energy, before.energy)


def test_a_bunch_has_horns_and_a_chirp():
    slices = phasespace.bunch(80, 1.2, 20, 0, 0, 1.0)
    middle, horn = (slices.charge[np.abs(slices.time - t).argmin()] for t in (0, 35))
    assert horn > 1.5 * middle
    assert np.polyfit(slices.time[30:66], slices.energy[30:66], 1)[0] == pytest.approx(20 / 80, rel=0.05)
    assert slices.charge.sum() == pytest.approx(1)


def test_two_islands_mirrored_by_the_streaks_sign():
    state = machine.run_shots(np.random.default_rng(2), 5, 1.0, lasing=False)
    pictures = [
        shots.light(np.random.default_rng(3), state, 2, BEAM.model_copy(update={"streak_sign": sign}), SHAPE)
        for sign in (1, -1)
    ]
    np.testing.assert_allclose(pictures[0], pictures[1][:, ::-1], rtol=1e-5, atol=1e-3)
    profile = pictures[0].sum(axis=1)
    lit = np.flatnonzero(profile > 0.05 * profile.max())
    assert (np.diff(lit) > 3).sum() == 1  # two groups of rows with a gap between them


def test_full_size_pictures_have_the_measured_range():
    state = machine.run_shots(np.random.default_rng(2), 12, 1.0, lasing=True)
    pedestal = camera.pedestal(np.random.default_rng(0), (726, 568), OpalCamera())
    settings = SimulateConfig(shots={"dark": 1})
    hot = pedestal > 60
    for i in np.flatnonzero(state.beam)[:4]:
        subtracted = shots.frame(np.random.default_rng(i), state, i, settings, pedestal) - pedestal
        assert 900 < subtracted[~hot].max() < 2600
        assert -25 < subtracted[~hot].min() < -5


def test_without_beam_there_is_no_light():
    state = machine.run_shots(np.random.default_rng(2), 5, 1.0, lasing=True, beam_on=False)
    assert not state.beam.any()
    assert shots.light(np.random.default_rng(3), state, 2, BEAM, SHAPE) is None


# --- the camera ------------------------------------------------------------------------------


def test_read_noise_and_shot_noise():
    background = np.full((200, 200), 32.0, np.float32)
    settings = OpalCamera(read_noise=2.0, electrons_per_count=4.0)
    rng = np.random.default_rng(0)
    dark = camera.expose(rng, None, background, settings)
    lit = camera.expose(rng, np.full_like(background, 400.0), background, settings)
    assert dark.mean() == pytest.approx(32.0, abs=0.05)
    assert dark.var() == pytest.approx(2.0**2 + 1 / 12, rel=0.05)  # 1/12: rounding to whole counts
    assert lit.mean() == pytest.approx(432.0, abs=0.3)
    assert lit.var() == pytest.approx(2.0**2 + 400 / 4 + 1 / 12, rel=0.05)


def test_saturation():
    background = np.full((10, 10), 32.0, np.float32)
    frame = camera.expose(np.random.default_rng(0), np.full_like(background, 1e6), background, OpalCamera())
    assert (frame == 4095).all()
