"""Simulated runs of machines that differ: what `simulate.vary` draws, and what it does to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import from_data
from common.errors import ConfigError
from prepare.config import load_config
from prepare.simulate import camera, machine, phasespace, sequence, shots, variety
from prepare.simulate.config import BeamOnScreen, MachineMeans, OpalCamera, SimulateConfig
from prepare.simulate.run import plan, simulate
from tests.prepare.simulated import config

ROOT = Path(__file__).parents[2]
SHAPE = (363, 284)


def simulated(**sections: object) -> SimulateConfig:
    return from_data({"shots": {"dark": 1}, **sections}, SimulateConfig, "x.yaml")


def light(beam: Optional[dict] = None, means: Optional[dict] = None, lasing: bool = False) -> np.ndarray:
    """The light of one shot, the same shot for every beam and machine."""
    off = MachineMeans(**(means or {}))
    state = machine.run_shots(np.random.default_rng(2), 5, 1.0, lasing, off=off)
    return shots.light(np.random.default_rng(3), state, 2, BeamOnScreen(**(beam or {})), SHAPE)


def center_and_width(picture: np.ndarray, axis: int) -> tuple:
    profile = picture.sum(axis=1 - axis, dtype=float)
    at = np.arange(len(profile))
    center = (profile * at).sum() / profile.sum()
    return center, np.sqrt((profile * (at - center) ** 2).sum() / profile.sum())


# --- the machine that was always there ---------------------------------------------------------


def test_without_variety_the_pictures_are_those_of_before(tmp_path):
    """Pictures written before runs could differ; a linear algebra library may round one another way."""
    kept = np.load(ROOT / "tests/data/simulated/demo_machine.npz")
    same = config(tmp_path, shots={"dark": 2, "nolasing": 5, "lasing": 6})
    made = {
        (each.run, shot.number): shot.picture
        for each in plan(same)
        for shot in sequence.exposures(same, each, sequence.Clock(each, 1))
    }
    for run, number, before in zip(kept["run"].tolist(), kept["number"].tolist(), kept["picture"]):
        off = np.abs(made[run, number].astype(int) - before)
        assert off.max() <= 1
        assert (off > 0).mean() < 1e-3


# --- what is drawn -----------------------------------------------------------------------------

CHANGED = simulated(
    vary={
        "machine": {"current": [-100, 100]},
        "beam": {"slice_spread": [0.8, 1.4], "lasing_place": [-0.1, 0.1]},
        "bunches": {"length": [0.9, 1.1]},
        "camera": {"stripes": [0.0, 2.0]},
    }
)


@given(st.integers(0, 99_999), st.integers(0, 1000))
def test_every_value_is_within_its_range_and_the_runs_own(run, seed):
    settled = CHANGED.model_copy(update={"seed": seed})
    drawn, again = variety.of_run(settled, run), variety.of_run(settled, run)
    assert drawn == again
    assert -100 <= drawn.machine.current <= 100
    assert 0.8 <= drawn.beam.slice_spread <= 1.4
    assert 0 <= drawn.camera.stripes <= 2
    for new, old in zip(drawn.beam.bunches, settled.beam.bunches):
        assert 0.9 * old.length <= new.length <= 1.1 * old.length
        assert new.model_copy(update={"length": old.length}) == old
    other = variety.of_run(settled, run + 1)
    assert other.beam.slice_spread != drawn.beam.slice_spread
    assert other.beam.bunches[0].length != drawn.beam.bunches[0].length


def test_draws_fill_their_ranges():
    drawn = [variety.of_run(CHANGED, run).beam.slice_spread for run in range(300)]
    assert np.allclose(np.percentile(drawn, [1, 50, 99]), [0.8, 1.1, 1.4], atol=0.05)


def test_one_more_range_changes_no_other_draw():
    more = CHANGED.model_dump()
    more["vary"]["beam"]["energy_resolution"] = [0.5, 1.5]
    more["vary"]["bunches"]["charge"] = [0.9, 1.1]
    a, b = (variety.of_run(each, 70) for each in (CHANGED, from_data(more, SimulateConfig, "x")))
    assert a.beam.slice_spread == b.beam.slice_spread
    assert [bunch.length for bunch in a.beam.bunches] == [bunch.length for bunch in b.beam.bunches]
    assert a.beam.energy_resolution != b.beam.energy_resolution


def test_a_share_of_the_runs_is_mirrored():
    signs = [variety.of_run(simulated(vary={"mirrored": 0.3}), run).beam.streak_sign for run in range(400)]
    assert 0.2 < np.mean(np.array(signs) == -1) < 0.4


def test_the_values_of_each_run_are_said(tmp_path, capsys):
    simulate(config(tmp_path, shots={"dark": 2, "nolasing": 2, "lasing": 2}, vary=CHANGED.vary))
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "its machine" in line]
    assert [line.split(":")[0] for line in lines] == ["run 69", "run 70"]  # the dark run has no beam
    assert f"slice_spread {variety.of_run(CHANGED, 70).beam.slice_spread:.3g}" in lines[1]


@pytest.mark.parametrize(
    "vary, message",
    [
        ({"beam": {"slice_spred": [1, 2]}}, "slice_spred: unknown key; did you mean 'slice_spread'?"),
        ({"beam": {"slice_spread": [2, 1]}}, "vary.beam.slice_spread: .* the lower end comes first"),
        ({"beam": {"slice_spread": [-1, 2]}}, "vary.beam.slice_spread: -1: input should be greater than 0"),
        ({"bunches": {"length": [0, 2]}}, "vary.bunches.length: 0: input should be greater than 0"),
        ({"camera": {"hot_pixels": [0, 2]}}, "hot_pixels: unknown key"),
        ({"beam": {"slice_spread": 1.2}}, "slice_spread: 1.2: is to be a list"),
    ],
)
def test_ranges_that_cannot_be_are_refused(vary, message):
    with pytest.raises(ConfigError, match=message):
        simulated(vary=vary)


def test_the_unseen_runs_are_of_machines_that_differ():
    unseen, demo = (load_config(str(ROOT / f"configs/prepare/{name}.yaml")) for name in ("unseen", "demo"))
    assert not set(unseen.runs.measured) & set(demo.runs.measured)
    assert (unseen.simulate.seed, unseen.image) == (demo.simulate.seed, demo.image)  # the same camera
    spreads = {variety.of_run(unseen.simulate, run).beam.slice_spread for run in unseen.runs.measured}
    assert len(spreads) == len(unseen.runs.measured) >= 6


# --- what it does ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, name, mean",
    [
        ("current", "ebeamPkCurrBC2", 200.0),
        ("xtcav_amplitude", "ebeamXTCAVAmpl", 2.0),
        ("charge", "ebeamCharge", 0.1),
    ],
)
def test_another_machine_shows_in_the_records(key, name, mean):
    means = MachineMeans(**{key: mean})
    a, b = (machine.run_shots(np.random.default_rng(5), 200, 1.0, True, off=off) for off in (None, means))
    column = list(machine.EBEAM_UNITS).index(name)
    assert np.allclose((b.ebeam - a.ebeam)[a.beam, column], mean)
    assert np.array_equal(a.pulse, b.pulse)
    electrons = b.truth["ebeamDumpCharge"] / a.truth["ebeamDumpCharge"]
    assert np.allclose(electrons, 1 + (0.1 / 0.3005 if key == "charge" else 0))


def test_another_machine_moves_and_stretches_the_picture():
    pixels_per_fs, pixels_per_mev = SHAPE[1] / 420, SHAPE[0] / 145
    time, energy = (center_and_width(light(), axis) for axis in (1, 0))
    moved = light(means={"ltu_x": 0.1, "ltu_y": 0.05})
    assert center_and_width(moved, 1)[0] - time[0] == pytest.approx(15 * pixels_per_fs, abs=0.1)
    assert center_and_width(moved, 0)[0] - energy[0] == pytest.approx(-5 * pixels_per_mev, abs=0.1)
    stretched = light(means={"xtcav_amplitude": 3.0})
    assert center_and_width(stretched, 1)[1] / time[1] == pytest.approx(1.1, abs=0.005)
    assert light(means={"charge": 0.1}).sum() / light().sum() == pytest.approx(0.4 / 0.3, rel=0.01)


def test_the_lasing_window_is_where_it_is_put():
    def lost_at(place: float) -> float:
        bunch = phasespace.bunch(80, 1.2, 8, 6, 4, 1.0)
        centers = []
        for seed in range(40):
            profile = phasespace.lasing_profile(np.random.default_rng(seed), bunch.time, 80, 0.2, 7, place)
            centers.append((profile * bunch.time).sum() / profile.sum())
        return float(np.mean(centers))

    assert lost_at(0.2) - lost_at(0.0) == pytest.approx(0.2 * 80, abs=1.0)


def test_a_ripple_is_a_wave_that_moves_from_shot_to_shot_and_keeps_the_mean():
    bunch = phasespace.bunch(80, 0, 0, 0, 0, 1.0)
    wave = phasespace.ripple(bunch, 0.5, 20.0, 1.0).energy
    assert np.allclose(wave - wave.mean(), 0.5 * np.sin(2 * np.pi * bunch.time / 20 + 1), atol=0.05)
    assert (bunch.charge * wave).sum() == pytest.approx(0, abs=1e-12)
    assert np.abs(light({"ripple": 1.0}) - light()).max() > 20


def test_spread_and_horns_can_be_uneven():
    even, uneven = (phasespace.bunch(80, 1.0, 0, 0, 0, 1.0, *of) for of in ((), (0.5, 0.2)))
    head, tail = (int(np.abs(even.time - t).argmin()) for t in (35.2, -35.2))
    assert uneven.charge[head] > 1.3 * uneven.charge[tail]
    assert even.charge[head] == pytest.approx(even.charge[tail], rel=0.02)
    assert uneven.spread[head] / uneven.spread[tail] == pytest.approx(1.18 / 0.82, rel=0.02)


def test_a_halo_takes_its_share_of_the_light_far_out():
    plain, scattered = light(), light({"halo": 0.1})
    assert scattered.sum() == pytest.approx(plain.sum(), rel=0.01)
    far = plain < 1e-3
    assert scattered[far].sum() > 0.01 * plain.sum()


def test_the_screens_edge_is_a_thin_line_that_only_a_beam_lights():
    line = light({"edge_line": 80.0, "edge_place": 0.9}) - light()
    middle = line[SHAPE[0] // 2]
    assert middle.argmax() == pytest.approx(0.9 * SHAPE[1], abs=2)
    assert middle.max() == pytest.approx(80, rel=0.15)
    assert (middle > 20).sum() < 6
    state = machine.run_shots(np.random.default_rng(2), 5, 1.0, False, beam_on=False)
    assert shots.light(np.random.default_rng(3), state, 2, BeamOnScreen(edge_line=80.0), SHAPE) is None


def test_what_the_dark_run_does_not_have():
    of = OpalCamera(level=2.0, stripes=1.0, readout_step=3.0)
    extra = camera.not_in_the_dark((200, 500), of, np.random.default_rng(1))
    assert np.allclose(extra[100:] - extra[:100], 3.0, atol=1e-5)
    assert extra[:100].mean() == pytest.approx(2.0, abs=0.2)
    assert extra[0].std() == pytest.approx(1.0, rel=0.15)
    assert not camera.not_in_the_dark((200, 500), OpalCamera(), np.random.default_rng(1)).any()


def test_only_runs_with_beam_have_it(tmp_path):
    def level(**keys: float) -> dict:
        made = config(
            tmp_path, shots={"dark": 3, "nolasing": 3, "lasing": 3}, camera=OpalCamera(**keys), missing=0
        )
        return {
            each.run: np.mean(
                [s.picture[:4] for s in sequence.exposures(made, each, sequence.Clock(each, 1))]
            )
            for each in plan(made)
        }

    before, after = level(), level(level=5.0)
    assert after[68] == before[68]
    assert after[69] - before[69] == pytest.approx(5, abs=0.1)
