"""The machine of simulated runs has the statistics of the measured one."""

from __future__ import annotations

import numpy as np
import pytest

from common.shots import EBEAM_UNITS
from prepare.simulate import machine

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
