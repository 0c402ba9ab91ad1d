"""The scale of a real picture, MeV in a row and fs in a column, from the calibration of the XTCAV screen."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import h5py
import numpy as np

from common.dataset.layout import CALIBRATION, present
from common.dataset.view import View

ALIKE = 0.05  # by which the scales of runs may differ, so that one is good for axes of all of them

Scale = tuple[float, float]


def view_of(attributes: Mapping[str, Any], files: Sequence[h5py.File]) -> View:
    """The view of data files with these root attributes; the scale from their calibration, if any."""
    view = View.of(attributes)
    return view if view.scale or not view.camera else view._replace(scale=scale(files))


def scale(files: Sequence[h5py.File]) -> Optional[Scale]:
    """(MeV in a row, fs in a column) of the camera; None where a run's is not known, or runs differ."""
    found = [of_run for file in files for of_run in _of_runs(file)]
    if not found or None in found:
        return None
    values = np.array(found)
    middle = np.median(values, axis=0)
    return tuple(middle.tolist()) if (np.abs(values / middle - 1) <= ALIKE).all() else None


def of_run(calibration: Mapping[str, float], amplitude: float) -> Optional[Scale]:
    """The scale of one run by the formulas of psana's XTCAV module; amplitude: MV, of the run's shots.

    None where a value is missing or 0.
    """
    um = calibration["um_per_pixel"]
    with np.errstate(divide="ignore", invalid="ignore"):
        row = np.float64(um) * calibration["dump_energy"] / calibration["dump_dispersion"] * 1e-3
        streak = np.float64(0.3) * calibration["streak_strength"] * amplitude
        column = np.float64(um) * calibration["rf_amplitude"] / streak
    known = np.isfinite([row, column]).all() and row != 0 and column != 0
    return (abs(float(row)), abs(float(column))) if known else None


def _of_runs(file: h5py.File) -> list[Optional[Scale]]:
    """Of each run of a file's shots."""
    splits = [file[name] for name in present(file) if len(file[name]["run"])]
    run = np.concatenate([split["run"][...] for split in splits])
    amplitude = np.concatenate([split["ebeam/ebeamXTCAVAmpl"][...] for split in splits])
    if CALIBRATION not in file:
        return [None for _ in np.unique(run)]
    group, found = file[CALIBRATION], []
    numbers = group["run"][...]
    for number in np.unique(run):
        mine = amplitude[(run == number) & np.isfinite(amplitude)]
        where = np.flatnonzero(numbers == number)
        if not len(where) or not len(mine):
            found.append(None)
            continue
        values = {name: float(group[name][where[0]]) for name in group if name != "run"}
        found.append(of_run(values, float(np.median(mine))))
    return found
