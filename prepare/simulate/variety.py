"""The machine of one run: what `simulate.vary` draws for it."""

from __future__ import annotations

import zlib

import numpy as np

from prepare.simulate.config import SimulateConfig

_VARY = 6  # what this random stream is for, see prepare/simulate/sequence.py


def of_run(settings: SimulateConfig, run: int) -> SimulateConfig:
    """The settings of `run`, with every value that varies drawn from its range.

    A draw depends on (seed, run, key) alone: another range, or one more, changes no other value.
    """
    vary = settings.vary
    sections: dict[str, dict[str, float]] = {"machine": {}, "beam": {}, "camera": {}}
    bunches: list = [{} for _ in settings.beam.bunches]
    for (section, key), (low, high) in vary.ranges().items():
        draws = low + (high - low) * _uniform(settings, run, f"{section}.{key}", len(bunches))
        if section == "bunches":
            for bunch, old, factor in zip(bunches, settings.beam.bunches, draws.tolist()):
                bunch[key] = factor * getattr(old, key)
        else:
            sections[section][key] = float(draws[0])
    beam: dict = {**sections["beam"]}
    beam["bunches"] = [old.model_copy(update=new) for old, new in zip(settings.beam.bunches, bunches)]
    if _uniform(settings, run, "mirrored", 1)[0] < vary.mirrored:
        beam["streak_sign"] = -settings.beam.streak_sign
    return settings.model_copy(
        update={
            "machine": settings.machine.model_copy(update=sections["machine"]),
            "beam": settings.beam.model_copy(update=beam),
            "camera": settings.camera.model_copy(update=sections["camera"]),
        }
    )


def describe(settings: SimulateConfig, run: int) -> str:
    """The values drawn for `run`, as text: `slice_spread 1.24, stripes 0.81`; empty if nothing varies."""
    drawn = of_run(settings, run)
    words = []
    for section, key in settings.vary.ranges():
        if section == "bunches":
            values = [getattr(bunch, key) for bunch in drawn.beam.bunches]
        else:
            values = [getattr(getattr(drawn, section), key)]
        words.append(f"{key} {' and '.join(f'{value:.3g}' for value in values)}")
    if drawn.beam.streak_sign != settings.beam.streak_sign:
        words.append("mirrored")
    return ", ".join(words)


def _uniform(settings: SimulateConfig, run: int, key: str, n: int) -> np.ndarray:
    """`n` numbers in [0, 1) that belong to this key of this run."""
    return np.random.default_rng([settings.seed, _VARY, run, zlib.crc32(key.encode())]).random(n)
