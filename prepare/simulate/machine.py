"""The accelerator, shot by shot: what varies, how much, and how slowly.

Means and spreads are those of amo86815 run 70 (69,402 good shots); autocorrelations after 1 s and
10 s: XTCAV phase .93 .71, L3 energy .76 .30, charge .35 .07, gas detector .35 .22. Each quantity
is a sum of white noise and two Ornstein-Uhlenbeck processes, whose variances follow from the
two autocorrelations; correlations between quantities come from a shared part.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import numpy as np

from common.shots import EBEAM_UNITS
from prepare.simulate.config import MachineMeans

MEDIUM = 5.0  # s, time constant of the faster process
# name: mean, std, autocorrelation after 1 s and 10 s, time constant (s) of the slower process.
QUANTITIES: dict[str, tuple[float, float, float, float, float]] = {
    "ebeamCharge": (0.3005, 0.0039, 0.35, 0.07, 60.0),
    "ebeamL3Energy": (3484.68, 6.67, 0.76, 0.30, 60.0),
    "ebeamPkCurrBC2": (1351.7, 66.3, 0.50, 0.20, 60.0),
    "ebeamPkCurrBC1": (119.97, 5.25, 0.50, 0.20, 60.0),
    "ebeamEnergyBC1": (0.0009, 0.0898, 0.50, 0.20, 60.0),
    "ebeamEnergyBC2": (0.0004, 0.300, 0.50, 0.20, 60.0),
    "ebeamLTUPosX": (-0.2622, 0.0306, 0.50, 0.20, 60.0),
    "ebeamLTUPosY": (0.1022, 0.0050, 0.50, 0.20, 60.0),
    "ebeamLTUAngX": (0.0691, 0.0173, 0.50, 0.20, 60.0),
    "ebeamLTUAngY": (0.0168, 0.0031, 0.50, 0.20, 60.0),
    "ebeamXTCAVAmpl": (30.0, 0.045, 0.50, 0.20, 60.0),
    "ebeamXTCAVPhase": (144.54, 0.547, 0.93, 0.71, 60.0),
    "ebeamDumpCharge": (1.0625e9, 2.53e7, 0.35, 0.07, 60.0),
}
# Which of them a key of `simulate.machine` moves.
_MOVED = {
    "charge": "ebeamCharge",
    "l3_energy": "ebeamL3Energy",
    "current": "ebeamPkCurrBC2",
    "ltu_x": "ebeamLTUPosX",
    "ltu_y": "ebeamLTUPosY",
    "xtcav_amplitude": "ebeamXTCAVAmpl",
    "xtcav_phase": "ebeamXTCAVPhase",
}
_GAS = (0.35, 0.22, 300.0)  # drifts over a whole run: fifths .065 .049 .037 .031 .038 mJ
# Correlation with the gas detector.
_WITH_GAS = {"ebeamL3Energy": 0.36, "ebeamPkCurrBC2": -0.18}

# Pulse energy: gamma distribution with the gas detector's mean .0441 and std .0302 mJ; its
# median (.037) and 99th percentile (.137) then are close to the measured .0374 and .1278.
_PULSE_MEAN, _PULSE_STD = 0.0441, 0.0302
GAS_FLOOR = 0.0033  # mJ, what the gas detector reads without beam
_GAS_NOISE = 0.0012  # mJ
_RECORD_NOISE = 0.1  # of a quantity's std: what the diagnostics add to the truth

_NO_BEAM_SHARE, _NO_BEAM_SECONDS = 0.033, 1.0


class State(NamedTuple):
    """The machine at n shots. Arrays (n,).

    truth: EBeam quantities as they are. beam: whether there is a beam. pulse: pulse energy, mJ, 0 where the
    machine does not lase. ebeam (n, 20), mask (n,), gas (n, 6): the records of the diagnostics.
    """

    truth: dict[str, np.ndarray]
    beam: np.ndarray
    pulse: np.ndarray
    ebeam: np.ndarray
    mask: np.ndarray
    gas: np.ndarray


def run_shots(
    rng: np.random.Generator,
    n: int,
    rate: float,
    lasing: bool,
    beam_on: bool = True,
    off: Optional[MachineMeans] = None,
) -> State:
    """Draw a run of `n` shots at `rate` Hz. The draws do not depend on `lasing`: it only decides
    whether the pulse energy is given to the pulse or is 0. Without `beam_on` (a dark run) no shot
    has beam. off: by how much the means are off those in QUANTITIES."""
    gas_process = _process(rng, n, rate, *_GAS)
    truth: dict[str, np.ndarray] = {}
    for name, (mean, std, rho_1, rho_10, slow) in QUANTITIES.items():
        shared = _WITH_GAS.get(name, 0.0)
        own = [(rho - shared**2 * rho_gas) / (1 - shared**2) for rho, rho_gas in zip((rho_1, rho_10), _GAS)]
        process = shared * gas_process + math.sqrt(1 - shared**2) * _process(rng, n, rate, *own, slow)
        truth[name] = mean + std * process
    if off is not None:
        for key, name in _MOVED.items():
            truth[name] += getattr(off, key)
        truth["ebeamDumpCharge"] *= 1 + off.charge / QUANTITIES["ebeamCharge"][0]
    beam = _beam(rng, n, rate) & beam_on
    pulse = np.where(beam & lasing, _gamma_quantile(gas_process), 0.0)
    ebeam, mask = _ebeam_records(rng, truth, beam)
    return State(truth, beam, pulse, ebeam, mask, _gas_records(rng, pulse))


def _process(
    rng: np.random.Generator, n: int, rate: float, rho_1: float, rho_10: float, slow: float
) -> np.ndarray:
    """A stationary Gaussian series (n,), mean 0, std 1, with these autocorrelations after 1 s and 10 s."""
    a, b = np.linalg.solve(
        [[math.exp(-1 / MEDIUM), math.exp(-1 / slow)], [math.exp(-10 / MEDIUM), math.exp(-10 / slow)]],
        [rho_1, rho_10],
    )
    a, b = max(a, 0.0), max(b, 0.0)
    series = math.sqrt(max(1 - a - b, 0.0)) * rng.standard_normal(n)
    for variance, tau in ((a, MEDIUM), (b, slow)):
        keep = math.exp(-1 / (rate * tau))
        kicks = math.sqrt(1 - keep * keep) * rng.standard_normal(n)
        value = rng.standard_normal()
        walk = np.empty(n)
        for i in range(n):
            walk[i] = value
            value = keep * value + kicks[i]
        series += math.sqrt(variance) * walk
    return series


def _gamma_quantile(normal: np.ndarray) -> np.ndarray:
    """Pulse energy, mJ, of the same rank in its gamma distribution as `normal` in the standard normal."""
    shape, scale = (_PULSE_MEAN / _PULSE_STD) ** 2, _PULSE_STD**2 / _PULSE_MEAN
    x = np.linspace(0, 25 * scale, 20_001)
    density = np.zeros_like(x)
    density[1:] = np.exp((shape - 1) * np.log(x[1:] / scale) - x[1:] / scale)
    cumulative = np.cumsum((density + np.roll(density, 1)) / 2)
    cumulative -= cumulative[0]
    rank = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in normal.tolist()])
    return np.interp(rank, cumulative / cumulative[-1], x)


def _beam(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
    """Whether there is beam: off for 3.3 % of the shots, in bursts of about 1 s."""
    off_to_on = 1 - math.exp(-1 / (rate * _NO_BEAM_SECONDS))
    on_to_off = off_to_on * _NO_BEAM_SHARE / (1 - _NO_BEAM_SHARE)
    beam = np.empty(n, bool)
    on = True
    for i, draw in enumerate(rng.random(n).tolist()):
        on = draw >= on_to_off if on else draw < off_to_on
        beam[i] = on
    return beam


def _ebeam_records(
    rng: np.random.Generator, truth: dict[str, np.ndarray], beam: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The EBeam records (n, 20) and their damage masks: bit k is set where value k means nothing."""
    names = list(EBEAM_UNITS)
    records = np.zeros((len(beam), len(names)))
    for name, values in truth.items():
        noise = _RECORD_NOISE * QUANTITIES[name][1] * rng.standard_normal(len(beam))
        records[:, names.index(name)] = values + noise
    records[~beam] = 0.0
    # Without beam only the charge, near 0, is a measurement.
    records[~beam, names.index("ebeamCharge")] = 0.002 * rng.standard_normal(int((~beam).sum()))
    every = (1 << len(names)) - 1
    return records, np.where(beam, 0, every & ~(1 << names.index("ebeamCharge"))).astype("u4")


def _gas_records(rng: np.random.Generator, pulse: np.ndarray) -> np.ndarray:
    """The gas detectors (n, 6), mJ: two before the attenuator, two behind it, two of low gain."""
    scale = np.array([1.0, 1.0, 0.97, 0.97, 0.68, 0.68])
    noise = _GAS_NOISE * rng.standard_normal((len(pulse), len(scale)))
    return (np.maximum(pulse, GAS_FLOOR)[:, None] + noise) * scale
