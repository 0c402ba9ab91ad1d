"""The camera: from light on the screen to counts."""

from __future__ import annotations

from typing import Optional

import numpy as np

from prepare.simulate.config import OpalCamera

DEPTH = 12  # bits
SATURATION = (1 << DEPTH) - 1


def pedestal(rng: np.random.Generator, shape: tuple[int, int], camera: OpalCamera) -> np.ndarray:
    """The fixed pattern without light, (rows, columns) float32, counts: the same in all runs."""
    counts = camera.pedestal + camera.pattern * rng.standard_normal(shape)
    counts += 0.4 * camera.pattern * rng.standard_normal(shape[1])  # column amplifiers
    hot = rng.choice(counts.size, min(camera.hot_pixels, counts.size), replace=False)
    counts.flat[hot] += rng.exponential(250.0, len(hot))
    return counts.astype(np.float32)


def drift(shape: tuple[int, int], strength: float, rng: np.random.Generator) -> np.ndarray:
    """The planted difference between runs: a smooth background, (rows, columns) float32, counts."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    offset, tilt_x, tilt_y = rng.standard_normal(3)
    return (strength * (offset + 0.5 * tilt_x * x + 0.5 * tilt_y * y)).astype(np.float32)


def not_in_the_dark(shape: tuple[int, int], camera: OpalCamera, rng: np.random.Generator) -> np.ndarray:
    """What the background of a run has over that of the dark run, (rows, columns) float32, counts."""
    columns = camera.level + camera.stripes * rng.standard_normal(shape[1])
    rows = camera.readout_step * (np.arange(shape[0]) >= shape[0] // 2)
    return (rows[:, None] + columns).astype(np.float32)


def expose(
    rng: np.random.Generator, light: Optional[np.ndarray], background: np.ndarray, camera: OpalCamera
) -> np.ndarray:
    """One frame, (rows, columns) uint16: light and background with shot and read noise, saturated.

    light: expected counts, (rows, columns), or None without beam. Shot noise is normal with
    variance light / electrons_per_count: where it matters there are over 20 electrons.
    """
    frame = rng.standard_normal(background.shape, dtype=np.float32)
    if light is None:
        frame *= np.float32(camera.read_noise)
    else:
        variance = light * np.float32(1 / camera.electrons_per_count)
        variance += np.float32(camera.read_noise**2)
        frame *= np.sqrt(variance, out=variance)
        frame += light
    frame += background
    frame += np.float32(0.5)  # truncation below then rounds
    np.clip(frame, 0, SATURATION, out=frame)
    return frame.astype(np.uint16)
