"""From the machine's state at one shot to the camera's frame of it."""

from __future__ import annotations

from typing import Optional

import numpy as np

from prepare.simulate import camera, machine, phasespace
from prepare.simulate.config import BeamOnScreen, Bunch, SimulateConfig
from prepare.simulate.machine import State

_NOMINAL_CHARGE = 0.3  # nC
_HALO = 6.0  # how much wider the long tails are than what they belong to
# The means of the machine's quantities; the picture moves with the differences from them.
_MEAN = {name: mean for name, (mean, *_) in machine.QUANTITIES.items()}


def frame(
    rng: np.random.Generator, state: State, i: int, config: SimulateConfig, background: np.ndarray
) -> np.ndarray:
    """The camera's frame of shot `i`, (rows, columns) uint16; background: (rows, columns) float32, counts."""
    return camera.expose(rng, light(rng, state, i, config.beam, background.shape), background, config.camera)


def light(
    rng: np.random.Generator, state: State, i: int, beam: BeamOnScreen, shape: tuple
) -> Optional[np.ndarray]:
    """Expected counts from the beam at shot `i`, `shape` float32; None without beam.

    The same draws are made whether the shot lases or not, so that two runs that differ in
    lasing alone differ in nothing else.
    """
    off = {name: float(state.truth[name][i]) - mean for name, mean in _MEAN.items()}
    own = rng.standard_normal((len(beam.bunches), 6))  # each bunch's jitters of its own
    if not state.beam[i]:
        return None
    time, energy = pixel_axes(beam, shape)
    shift = beam.phase_to_time * off["ebeamXTCAVPhase"] + beam.pointing_to_time * off["ebeamLTUPosX"]
    lift = off["ebeamL3Energy"] + beam.pointing_to_energy * off["ebeamLTUPosY"]
    current = 1 + off["ebeamPkCurrBC2"] / _MEAN["ebeamPkCurrBC2"]
    streak = 1 + off["ebeamXTCAVAmpl"] / _MEAN["ebeamXTCAVAmpl"]
    picture = np.zeros(shape, np.float32)
    size = beam.jitter
    for settings, jitter in zip(beam.bunches, own):
        slices = phasespace.bunch(
            length=settings.length * (1 + size.length * jitter[0]) / current,
            horns=max(settings.horns * (1 + size.horns * jitter[1]) * current**2, 0.0),
            chirp=settings.chirp + size.chirp * jitter[2],
            curvature=settings.curvature * (1 + size.curvature * jitter[3]),
            wake=settings.wake * (1 + size.wake * jitter[4]),
            spread=beam.slice_spread,
            horn_asymmetry=beam.horn_asymmetry,
            spread_slope=beam.spread_slope,
        )
        if beam.ripple:
            phase = rng.uniform(0, 2 * np.pi)
            slices = phasespace.ripple(slices, beam.ripple, beam.ripple_period, phase)
        profile = phasespace.lasing_profile(
            rng, slices.time, settings.length, beam.lasing_window, beam.coherence, beam.lasing_place
        )
        slices = phasespace.lase(slices, profile, energy_loss(state, i, beam, settings), beam.lasing_spread)
        slices = slices._replace(
            time=streak * (slices.time + settings.delay + size.delay * jitter[5]) + shift,
            energy=slices.energy + settings.energy + lift,
        )
        picture += np.float32(settings.charge) * _on_screen(slices, time, energy, beam)
    charge = float(state.truth["ebeamCharge"][i]) / _NOMINAL_CHARGE
    picture *= np.float32(beam.counts * charge)
    # `counts` is for the real camera's frame; a smaller one collects proportionally fewer.
    picture *= np.float32(shape[0] * shape[1] / (726 * 568))
    if beam.edge_line:
        picture += np.float32(beam.edge_line * charge) * phasespace.edge_line(shape, beam.edge_place)
    return picture


def _on_screen(
    slices: phasespace.PhaseSpace, time: np.ndarray, energy: np.ndarray, beam: BeamOnScreen
) -> np.ndarray:
    """The density of `phasespace.screen`, a share of it in tails several times as wide."""
    resolution = beam.time_resolution, beam.energy_resolution
    sharp = phasespace.screen(slices, time, energy, *resolution)
    if not beam.halo:
        return sharp
    wide = slices._replace(spread=_HALO * np.hypot(slices.spread, beam.energy_resolution))
    tails = phasespace.screen(wide, time, energy, _HALO * beam.time_resolution, 0.0)
    return np.float32(1 - beam.halo) * sharp + np.float32(beam.halo) * tails


def energy_loss(state: State, i: int, beam: BeamOnScreen, settings: Bunch) -> float:
    """MeV that an electron of this bunch loses at shot `i`, on average: its share of the pulse energy."""
    electrons = float(state.truth["ebeamDumpCharge"][i])
    share = settings.lasing / sum(bunch.lasing for bunch in beam.bunches)
    total = sum(bunch.charge for bunch in beam.bunches)
    return float(state.pulse[i]) * phasespace.MEV_PER_MJ / electrons * share * total / settings.charge


def pixel_axes(beam: BeamOnScreen, shape: tuple) -> tuple:
    """Time (fs) of the columns and energy (MeV) of the rows, 0 in the middle; energy falls downwards."""
    rows, columns = shape
    time = (np.arange(columns) - (columns - 1) / 2) * (beam.time_span / columns) * beam.streak_sign
    energy = -(np.arange(rows) - (rows - 1) / 2) * (beam.energy_span / rows)
    return time, energy
