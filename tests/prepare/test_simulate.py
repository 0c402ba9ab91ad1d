"""Simulated runs: the file format, the machine's statistics, the physics of lasing, the camera."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

from common.config import Model, from_data
from common.errors import ConfigError, OutputExists
from common.shots import EBEAM_UNITS
from prepare.config import PrepareConfig
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.simulate import camera, machine, phasespace, shots
from prepare.simulate.config import BeamOnScreen, Bunch, OpalCamera, SimulateConfig
from prepare.simulate.run import plan, simulate
from prepare.sources.native import XtcSource

SHAPE = (96, 80)
PHY = 0x2E000300


def config(tmp_path: Path, **simulated: object) -> PrepareConfig:
    return PrepareConfig.model_validate_json(
        PrepareConfig(
            name="x",
            source={"dir": str(tmp_path / "xtc")},
            camera={"shape": SHAPE},
            runs={"dark": [68], "classes": {"nolasing": [69], "lasing": [70]}},
            select={"train": 10, "test": 10},
            simulate=SimulateConfig(**{"shots": {"dark": 12, "nolasing": 60, "lasing": 60}, **simulated}),
        ).model_dump_json()
    )


def digests(paths) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_one_seed_gives_byte_identical_files(tmp_path):
    first = digests(simulate(config(tmp_path / "a")))
    assert digests(simulate(config(tmp_path / "b"))) == first
    other = digests(simulate(config(tmp_path / "c", seed=2)))
    assert set(other) == set(first)
    assert all(other[name] != first[name] for name in first)


def test_the_chunks_change_nothing_but_the_files(tmp_path):
    whole, cut = config(tmp_path / "a"), config(tmp_path / "b", chunk_shots=7)
    simulate(whole)
    names = {path.name for path in simulate(cut)}
    assert {f"e815-r0069-s80-c{chunk:02d}.xtc" for chunk in range(9)} <= names
    a, b = (XtcSource(each.source.dir, each.camera.address) for each in (whole, cut))
    assert a.shots(69).tobytes() == b.shots(69).tobytes()
    for i in np.flatnonzero(a.shots(69)["status"] == USABLE)[::10]:
        assert np.array_equal(a.frame(69, i), b.frame(69, i))
    a.close(), b.close()


def test_nothing_is_overwritten_unasked(tmp_path):
    simulate(config(tmp_path))
    path = tmp_path / "xtc" / "e815-r0070-s80-c00.xtc"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExists, match="r0068"):
        simulate(config(tmp_path))
    assert simulate(config(tmp_path), if_missing=True) == []
    assert path.read_bytes() == b"mine"
    simulate(config(tmp_path), force=True)
    assert path.stat().st_size > 100_000


def test_an_interrupted_run_leaves_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shots, "frame", fail)
    with pytest.raises(KeyboardInterrupt):
        simulate(config(tmp_path))
    assert list((tmp_path / "xtc").iterdir()) == []


# --- the files, walked with nothing but struct ------------------------------------------------


def walk(raw: bytes):
    """(offset, seconds, nanoseconds, transition, fiducial, env, end) of every datagram."""
    at = 0
    while at < len(raw):
        ns, s, word2, word3, env = struct.unpack_from("<5I", raw, at)
        end = at + 20 + struct.unpack_from("<I", raw, at + 36)[0]
        yield at, s, ns, word2 >> 24 & 15, word3 & 0x1FFFF, env, end
        at = end
    assert at == len(raw)


def test_streams_have_the_transitions_and_the_clocks_of_real_ones(tmp_path):
    simulate(config(tmp_path, missing=0.0, damaged=0.0, clock_skew=3))
    streams = {n: (tmp_path / "xtc" / f"e815-r0070-s{n:02d}-c00.xtc").read_bytes() for n in (0, 1, 80)}
    events = {}
    for n, raw in streams.items():
        rows = list(walk(raw))
        other = [row[3] for row in rows if row[3] != 12]
        assert other == [4, 6, 8, 10, 11, 9, 7, 5]
        begin_run = next(row for row in rows if row[3] == 6)
        assert begin_run[5] == (70 if n < 80 else 0)
        events[n] = [row for row in rows if row[3] == 12]
        assert all(row[0] % 4 == 0 for row in rows)
    assert len(events[0]) == len(events[1]) == 30
    recorder = {row[4]: row for row in events[80]}
    for row in events[0] + events[1]:
        mine = recorder[row[4]]
        assert row[1] - mine[1] == 3
        assert mine[2] & 0x1FFFF == mine[4]
        assert mine[2] < 10**9
    fiducials = sorted(recorder)
    assert set(np.diff(fiducials)) == {3}


def test_the_first_frame_is_where_the_format_says(tmp_path):
    simulate(config(tmp_path, missing=0.0, damaged=0.0))
    raw = (tmp_path / "xtc" / "e815-r0068-s80-c00.xtc").read_bytes()
    at = next(row[0] for row in walk(raw) if row[3] == 12)
    assert struct.unpack_from("<5I", raw, at + 40)[3:] == (0x10001, 20 + 20 + 16 + 2 * 96 * 80)  # one Segment
    damage, log, phy, kind, extent = struct.unpack_from("<5I", raw, at + 60)
    assert (damage, log >> 24, phy, kind, extent) == (0, 1, PHY, 0x10002, 20 + 16 + 2 * 96 * 80)
    assert struct.unpack_from("<4I", raw, at + 80) == (80, 96, 12, 32)  # columns, rows, bits, offset
    pixels = np.frombuffer(raw, "<u2", 96 * 80, at + 96)
    assert 30 < pixels.mean() < 40


def test_missing_and_damaged_frames_are_as_configured(tmp_path):
    many = {"dark": 5, "nolasing": 400, "lasing": 5}
    simulate(config(tmp_path, shots=many, missing=0.2, damaged=0.1))
    status = XtcSource(str(tmp_path / "xtc"), "xtcav").shots(69)["status"]
    assert len(status) == 400
    assert 50 < (status == NO_FRAME).sum() < 110
    assert 15 < (status == DAMAGED).sum() < 55


def test_shots_follow_each_other_through_the_wrap_of_fiducials(tmp_path):
    simulate(config(tmp_path, rate=0.5, shots={"dark": 3, "nolasing": 250, "lasing": 3}))
    found = XtcSource(str(tmp_path / "xtc"), "xtcav").shots(69)
    assert len(found) == 250  # no shot was split in two, none joined to another
    assert found["fiducial"].max() > 130_000
    assert (found["fiducial"] < 131_040).all()
    assert (found["seconds"] - found["seconds"][0] == 2 * np.arange(250)).all()


# --- the machine -----------------------------------------------------------------------------

N, RATE = 40_000, 10.0  # 4000 s: many times the slowest drift that is tested here


@pytest.fixture(scope="module")
def lasing_run():
    return machine.run_shots(np.random.default_rng(5), N, RATE, lasing=True)


def autocorrelation(series: np.ndarray, seconds: float) -> float:
    lag = int(seconds * RATE)
    return float(np.corrcoef(series[:-lag], series[lag:])[0, 1])


@pytest.mark.parametrize("name", machine.QUANTITIES)
def test_means_and_spreads_are_the_measured_ones(lasing_run, name):
    mean, std, *_ = machine.QUANTITIES[name]
    good = lasing_run.ebeam[lasing_run.beam, list(EBEAM_UNITS).index(name)]
    assert abs(good.mean() - mean) < 0.3 * std  # slow drifts leave this much over 4000 s
    assert abs(good.std() / std - 1) < 0.15


@pytest.mark.parametrize(
    "name, rho_1, rho_10",
    [("ebeamXTCAVPhase", 0.93, 0.71), ("ebeamL3Energy", 0.76, 0.30), ("ebeamCharge", 0.35, 0.07)],
)
def test_drifts_are_as_slow_as_the_measured_ones(lasing_run, name, rho_1, rho_10):
    series = lasing_run.truth[name]
    assert autocorrelation(series, 1) == pytest.approx(rho_1, abs=0.08)
    assert autocorrelation(series, 10) == pytest.approx(rho_10, abs=0.12)


def test_the_pulse_energy_is_distributed_as_measured():
    pulses = np.concatenate(
        [machine.run_shots(np.random.default_rng(i), 10_000, 1.0, True).pulse for i in range(5)]
    )
    pulses = pulses[pulses > 0]
    assert pulses.mean() == pytest.approx(0.0441, rel=0.15)
    assert pulses.std() == pytest.approx(0.0302, rel=0.15)
    assert np.quantile(pulses, [0.5, 0.99]) == pytest.approx([0.0374, 0.1278], rel=0.2)
    assert np.quantile(pulses, 0.01) == pytest.approx(0.0024, abs=0.002)  # measured with the detector's noise


def test_the_gas_detector_tells_the_pulse_energy_and_the_l3_energy_follows_it(lasing_run):
    good = lasing_run.beam
    assert np.corrcoef(lasing_run.gas[good, 0], lasing_run.pulse[good])[0, 1] > 0.99
    assert np.corrcoef(lasing_run.gas[good, 0], lasing_run.gas[good, 4])[0, 1] > 0.98
    energy = lasing_run.truth["ebeamL3Energy"][good]
    assert np.corrcoef(lasing_run.pulse[good], energy)[0, 1] == pytest.approx(0.36, abs=0.1)


def test_beam_fails_in_bursts(lasing_run):
    off = ~lasing_run.beam
    bursts = (np.diff(off.astype(int)) == 1).sum()
    assert off.mean() == pytest.approx(0.033, abs=0.012)
    assert off.sum() / bursts / RATE == pytest.approx(1.0, abs=0.4)
    charge = lasing_run.ebeam[:, 0]
    assert charge[off].max() < 0.05 < 0.25 < charge[~off].min()
    assert (lasing_run.mask[off] & 1 == 0).all()


def test_without_lasing_only_the_pulse_is_missing(lasing_run):
    dark_twin = machine.run_shots(np.random.default_rng(5), N, RATE, lasing=False)
    assert (dark_twin.pulse == 0).all()
    assert np.array_equal(dark_twin.ebeam, lasing_run.ebeam)
    assert np.array_equal(dark_twin.beam, lasing_run.beam)
    assert dark_twin.gas[:, 0].mean() == pytest.approx(machine.GAS_FLOOR, abs=1e-4)


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


def test_the_pattern_is_the_cameras_not_the_runs(tmp_path):
    simulate(config(tmp_path, shots={"dark": 40, "nolasing": 40, "lasing": 1}, missing=0.0, damaged=0.0))
    source = XtcSource(str(tmp_path / "xtc"), "xtcav")
    dark, beam = (np.mean([source.frame(run, i) for i in range(40)], axis=0) for run in (68, 69))
    source.close()
    edge = np.s_[:8]  # rows that the beam does not reach
    assert np.corrcoef(dark[edge].ravel(), beam[edge].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_planted_drift_is_the_only_other_difference_between_runs(tmp_path, strength):
    """Pixels without beam: alike in all runs, unless the config plants a difference."""
    simulate(
        config(
            tmp_path,
            shots={"dark": 5, "nolasing": 60, "lasing": 60},
            camera=OpalCamera(background_drift=strength),
        )
    )
    source = XtcSource(str(tmp_path / "xtc"), "xtcav")
    means = []
    for run in (69, 70):
        good = np.flatnonzero(source.shots(run)["status"] == USABLE)
        means.append(np.mean([source.frame(run, int(i))[:6].astype(float) for i in good], axis=0).mean())
    source.close()
    assert (abs(means[0] - means[1]) > 0.5) == bool(strength)


# --- what is refused -------------------------------------------------------------------------


def test_an_unknown_lasing_class_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="simulate.lasing: 'lazing' is not a class"):
        plan(config(tmp_path, lasing=["lazing"]))


def test_runs_without_a_length_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="simulate.shots: says nothing of 'nolasing'"):
        plan(config(tmp_path, shots={"dark": 3, "lasing": 3}))


@pytest.mark.parametrize("rate", [0.0, 50.0, 240.0, -1.0])
def test_rates_the_machine_does_not_have_are_refused(rate):
    with pytest.raises(ValueError, match="Hz is not 120 Hz divided"):
        SimulateConfig(shots={"dark": 1}, rate=rate)


def numbers(model: type[Model], path: tuple = ()) -> Iterator[tuple[tuple, type]]:
    """The path and the type of each number in the sections of `model`."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if kind in (int, float):
            yield (*path, name), kind
        elif hasattr(kind, "model_fields") and name != "vary":
            yield from numbers(kind, (*path, name))


EXTREMES = {int: (-1, 0, 1 << 33, 1 << 62), float: (-1e30, -1.0, 0.0, 1e-300, 1e-9, 1e9, 1e300)}


@pytest.mark.parametrize("path, kind", [*numbers(SimulateConfig), *numbers(Bunch, ("bunch",))])
def test_numbers_out_of_reach_are_refused_and_all_others_make_pictures(tmp_path, path, kind):
    """In one line, when the config is read or the runs are planned; what is left overflows nowhere."""
    for value in EXTREMES[kind]:
        section = {"shots": {"dark": 2, "nolasing": 3, "lasing": 3}}
        if path[0] == "bunch":
            changed = {**BEAM.bunches[0].model_dump(), path[1]: value}
            section["beam"] = {"bunches": [changed]}
        else:
            inner = section
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = value
        data = config(tmp_path).model_dump(mode="json")
        data.update(camera={"shape": [4, 6]}, simulate=section)
        with contextlib.suppress(ConfigError), np.errstate(all="raise", under="ignore"):
            made = from_data(data, PrepareConfig, "x.yaml")
            simulate(made, force=True)
            with XtcSource(made.source.dir, made.camera.address) as source:
                assert len(source.shots(70)) == 3


@pytest.mark.parametrize("run", [-1, 0, 1 << 31])
def test_numbers_that_no_run_has_are_refused(run):
    data = {"name": "x", "source": {"kind": "psana"}, "runs": {"dark": [run], "unlabeled": [70]}}
    with pytest.raises(ConfigError, match=f"runs.dark.0.: {run}: input should be"):
        from_data(data, PrepareConfig, "x.yaml")


@pytest.mark.parametrize(
    "blocks", [{"length": 1e30}, {"length": 1e-10, "guard": 0.0}, {"cycle": {"train": 1 << 62, "test": 1}}]
)
def test_blocks_that_no_time_has_are_refused(tmp_path, blocks):
    data = config(tmp_path).model_dump(mode="json")
    data["select"]["blocks"] = blocks
    with pytest.raises(ConfigError, match="select.blocks.*: (input should be|cycle: .* at the most)"):
        from_data(data, PrepareConfig, "x.yaml")


def test_unlabeled_runs_are_simulated_and_lase_where_asked(tmp_path):
    both = config(tmp_path, shots={"dark": 12, "nolasing": 60, "lasing": 60, "unlabeled": 9})
    both = both.model_copy(update={"runs": both.runs.model_copy(update={"unlabeled": [72, 73]})})
    simulated = both.simulate.model_copy(update={"unlabeled_lasing": [73]})
    plans = {each.run: each for each in plan(both.model_copy(update={"simulate": simulated}))}
    assert [(plans[run].what, plans[run].shots, plans[run].lasing) for run in (72, 73)] == [
        ("unlabeled", 9, False),
        ("unlabeled", 9, True),
    ]
    stray = both.simulate.model_copy(update={"unlabeled_lasing": [70]})
    with pytest.raises(ConfigError, match="unlabeled_lasing: run 70 is not one of runs.unlabeled"):
        plan(both.model_copy(update={"simulate": stray}))
