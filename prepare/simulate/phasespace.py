"""Longitudinal phase space and its picture on the screen: pure functions of arrays.

A bunch is cut into slices of time. Each has a share of the charge, a mean energy and a spread;
lasing takes energy from some and widens them. On the screen each slice is a Gaussian in energy
and, by the resolution of the streak, a Gaussian in time.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

MEV_PER_MJ = 1e-3 / 1.602176634e-13  # MeV in a millijoule
SLICES = 96  # of each bunch
# A density under it is 0: in a product of two such, numbers too small for float32 take processors far longer.
_NOTHING = 1e-18


class PhaseSpace(NamedTuple):
    """A bunch in slices of time. Arrays (SLICES,): charge (share of the bunch, sum 1), time (fs), energy and
    rms spread (MeV)."""

    charge: np.ndarray
    time: np.ndarray
    energy: np.ndarray
    spread: np.ndarray


def bunch(
    length: float,
    horns: float,
    chirp: float,
    curvature: float,
    wake: float,
    spread: float,
    horn_asymmetry: float = 0.0,
    spread_slope: float = 0.0,
) -> PhaseSpace:
    """A bunch without lasing, centered on time 0 and energy 0.

    length: fs, full width; horns: their height above the core's current, at head and tail;
    chirp: MeV across the length, linear; curvature: MeV at the ends, quadratic; wake: MeV, cubic;
    spread: MeV, of each slice. horn_asymmetry, spread_slope: by which share the horn and the spread
    at the head are higher, and those at the tail lower. The current is a flat top with soft edges
    and two horns, as bunch compressors leave it; the mean energy is a polynomial of the place in the
    bunch, x in -1..1.
    """
    x = np.linspace(-1.35, 1.35, SLICES)
    core = 1 / (1 + np.abs(x) ** 10)
    horn = np.exp(-(((np.abs(x) - 0.88) / 0.09) ** 2) / 2)
    charge = core * (1 + horns * (1 + horn_asymmetry * np.sign(x)) * horn)
    charge = charge / charge.sum()
    inside = np.clip(x, -1.2, 1.2)  # few electrons beyond; a polynomial would fling them far away
    energy = chirp * inside / 2 + curvature * inside**2 + wake * inside**3
    energy = energy - (charge * energy).sum()
    return PhaseSpace(charge, x * length / 2, energy, spread * (1 + spread_slope * np.clip(x, -1, 1)))


def lasing_profile(
    rng: np.random.Generator,
    time: np.ndarray,
    length: float,
    window: float,
    coherence: float,
    place: float = 0.0,
) -> np.ndarray:
    """Relative energy loss of each slice, (n,) >= 0: SASE spikes inside a window of the bunch.

    A SASE pulse is the square of a complex Gaussian field filtered to a coherence time
    (Saldin, Schneidmiller, Yurkov 1998); the window is where gain is: the core, not the horns, in the
    middle or off it by `place` lengths.
    """
    step = time[1] - time[0]
    reach = int(np.clip(4 * coherence / step, 1, 10 * len(time)))  # beyond, the field is the same all along
    kernel = np.exp(-((np.arange(-reach, reach + 1) * step / coherence) ** 2) / 2)
    field = rng.standard_normal((2, len(time) + 2 * reach))
    filtered = np.array([np.convolve(part, kernel, "valid") for part in field])
    center = (rng.normal(0, 0.06) + place) * length
    gain = np.exp(-(((time - center) / (window * length / 2)) ** 4))
    return (filtered**2).sum(axis=0) * gain


def ripple(slices: PhaseSpace, amplitude: float, period: float, phase: float) -> PhaseSpace:
    """The bunch with a wave of `amplitude` MeV and `period` fs along it: mean energies that are no cubic."""
    wave = amplitude * np.sin(2 * np.pi * slices.time / period + phase)
    return slices._replace(energy=slices.energy + wave - (slices.charge * wave).sum())


def lase(slices: PhaseSpace, profile: np.ndarray, loss: float, widening: float) -> PhaseSpace:
    """The bunch after lasing: it has lost `loss` MeV per electron, on average over its charge.

    profile: relative loss of each slice. A slice that loses d MeV is widened in quadrature by
    widening * d: electrons of a slice lose unequally.
    """
    weight = (slices.charge * profile).sum()
    lost = profile * (loss / weight) if weight > 0 and loss > 0 else np.zeros_like(profile)
    return slices._replace(energy=slices.energy - lost, spread=np.hypot(slices.spread, widening * lost))


def screen(
    slices: PhaseSpace, time: np.ndarray, energy: np.ndarray, time_resolution: float, energy_resolution: float
) -> np.ndarray:
    """Density on the screen, (rows, columns) float32, per pixel; sums to 1 if nothing is off the screen.

    time: (columns,) fs and energy: (rows,) MeV, the centers of the pixels, evenly spaced.
    """
    sigma = np.hypot(slices.spread, energy_resolution)
    rows = _gaussians(energy, slices.energy, sigma) * slices.charge.astype(np.float32)
    columns = _gaussians(time, slices.time, np.full(len(slices.time), time_resolution))
    return rows @ columns.T


@functools.lru_cache(maxsize=2)
def edge_line(shape: tuple, place: float) -> np.ndarray:
    """The edge of a round screen, lit by the beam: a bent line, (rows, columns) float32, 0 to 1.

    place: where it is, as a share of the width. It fades towards its ends, as far as half the height.
    """
    rows, columns = shape
    y = np.linspace(-1, 1, rows)[:, None]
    line = place * (columns - 1) - 0.05 * columns * y**2
    distance = np.arange(columns) - line
    return (np.exp(-((distance / 1.5) ** 2)) * np.exp(-((y / 0.5) ** 4))).astype(np.float32)


def _gaussians(grid: np.ndarray, centers: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(grid, centers) float32: each center's normal density times the grid's step."""
    z = ((grid[:, None] - centers) / sigmas).astype(np.float32)
    step = abs(grid[1] - grid[0])
    density = np.exp(-0.5 * z * z) * (step / (np.sqrt(2 * np.pi) * sigmas)).astype(np.float32)
    density[density < _NOTHING] = 0
    return density
