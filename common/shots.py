"""The identity of a shot and the machine records that travel with it.

A shot is one electron bunch: (run, seconds, nanoseconds, fiducial), four integers. Fiducials
alone repeat every 364 s and a time glued from two integers loses digits, so all four are kept.
The record names are psana's own accessor names, the units those of the LCLS-I data types.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Union

import numpy as np


class ShotId(NamedTuple):
    """The key of a shot: run number, Unix time in two parts, 360 Hz pulse id."""

    run: int
    seconds: int
    nanoseconds: int
    fiducial: int

    def __str__(self) -> str:
        return f"run {self.run} {self.seconds}.{self.nanoseconds:09d} fiducial {self.fiducial}"


ID_FIELDS: tuple[str, ...] = ShotId._fields

# EBeam v7 in the order of the record on disk: name -> unit ("" where LCLS gives none).
EBEAM_UNITS: dict[str, str] = {
    "ebeamCharge": "nC",
    "ebeamL3Energy": "MeV",
    "ebeamLTUPosX": "mm",
    "ebeamLTUPosY": "mm",
    "ebeamLTUAngX": "mrad",
    "ebeamLTUAngY": "mrad",
    "ebeamPkCurrBC2": "A",
    "ebeamEnergyBC2": "mm",
    "ebeamPkCurrBC1": "A",
    "ebeamEnergyBC1": "mm",
    "ebeamUndPosX": "mm",
    "ebeamUndPosY": "mm",
    "ebeamUndAngX": "mrad",
    "ebeamUndAngY": "mrad",
    "ebeamXTCAVAmpl": "MV",
    "ebeamXTCAVPhase": "deg",
    "ebeamDumpCharge": "electrons",
    "ebeamPhotonEnergy": "eV",
    "ebeamLTU250": "mm",
    "ebeamLTU450": "mm",
}

# FEEGasDetEnergy v1: f_11, f_12 before the attenuator (two detectors, two photomultipliers each).
GAS_DETECTOR_UNITS: dict[str, str] = {
    "f_11_ENRC": "mJ",
    "f_12_ENRC": "mJ",
    "f_21_ENRC": "mJ",
    "f_22_ENRC": "mJ",
    "f_63_ENRC": "mJ",
    "f_64_ENRC": "mJ",
}

# LCLS-II's gas monitor detector: the pulse energy of the soft X-ray line.
GMD_UNITS: dict[str, str] = {"milliJoulesPerPulse": "mJ"}

# What the control room says of the XTCAV screen, once a run: name -> unit. With them psana's XTCAV module
# makes a row um_per_pixel * dump_energy / dump_dispersion * 1e-3 MeV, and a column um_per_pixel *
# rf_amplitude / (0.3 * streak_strength * ebeamXTCAVAmpl) fs.
CALIBRATION_UNITS: dict[str, str] = {
    "um_per_pixel": "um",
    "streak_strength": "",
    "rf_amplitude": "MV",
    "rf_phase": "deg",
    "dump_energy": "GeV",
    "dump_dispersion": "m",
    "roi_start_x": "pixel",
    "roi_start_y": "pixel",
}

ID_DTYPE = np.dtype([("run", "<i4"), ("seconds", "<u4"), ("nanoseconds", "<u4"), ("fiducial", "<u4")])
RECORD_DTYPE = np.dtype([(name, "<f8") for name in (*EBEAM_UNITS, *GAS_DETECTOR_UNITS, *GMD_UNITS)])


def shot_id(row: np.void) -> ShotId:
    """The ShotId of one row of a structured array that has the fields of ID_DTYPE."""
    return ShotId(*(int(row[name]) for name in ID_FIELDS))


def nanoseconds(ids: Union[np.ndarray, Mapping[str, np.ndarray]]) -> np.ndarray:
    """Unix time of each shot of an array with the fields of ID_DTYPE, (n,) int64, ns."""
    return ids["seconds"].astype(np.int64) * 1_000_000_000 + ids["nanoseconds"]


def time_in_run(ids: np.ndarray) -> np.ndarray:
    """Seconds since the first of the shots `ids` of the same run, (n,) float64."""
    time = nanoseconds(ids)
    since = np.empty(len(ids))
    for run in np.unique(ids["run"]):
        of_run = ids["run"] == run
        since[of_run] = (time[of_run] - time[of_run].min()) / 1e9
    return since


def pulse_energy(record: Callable[[str], np.ndarray]) -> np.ndarray:
    """The X-ray pulse energy of each shot, mJ: the mean of the two detectors before the attenuator.

    record: gives the values of `gas_detector/NAME`, (n,) mJ; NaN where a shot has none.
    """
    return (record("gas_detector/f_11_ENRC") + record("gas_detector/f_12_ENRC")) / 2


def first_of_key(ids: np.ndarray) -> np.ndarray:
    """The place of the first shot of the same key, for each shot, (n,) int64.

    ids: (n,) with the fields of ID_DTYPE.
    """
    high, low = (
        ids[upper].astype(np.uint64) << np.uint64(32) | ids[lower]
        for upper, lower in (("run", "seconds"), ("nanoseconds", "fiducial"))
    )
    order = np.lexsort([low, high])  # stable: the first of a key stays its first
    high, low = high[order], low[order]
    new = np.ones(len(ids), bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.empty(len(ids), np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def places_of(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The place in `among` of each of the shots `ids`, (n,) int64: of the first with its key, or -1.

    Both have the fields of ID_DTYPE.
    """
    names = list(ID_FIELDS)
    both = np.concatenate([among[names].astype(ID_DTYPE), ids[names].astype(ID_DTYPE)])
    first = first_of_key(both)[len(among) :]
    return np.where(first < len(among), first, -1)


def uniform_hashes(ids: np.ndarray) -> np.ndarray:
    """A number from 0 to 2^64 - 1 for each shot, a function of its key alone, (n,) uint64.

    SplitMix64 (Steele, Lea, Flood 2014), taken in by field after field; ids: (n,) ID_DTYPE.
    """
    state = np.zeros(len(ids), np.uint64)
    for name in ID_FIELDS:
        state = state + ids[name].astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state
