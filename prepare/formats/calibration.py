"""The calibration of the XTCAV screen among the EPICS values of a run: which process variables have it."""

from __future__ import annotations

from typing import Mapping

from common.shots import CALIBRATION_UNITS

# {name in common.shots.CALIBRATION_UNITS: process variables}, as psana's XTCAV module names them; the
# screen is OTRS:DMP1:695, since December 2024 OTRS:DMPH:695.
PVS: dict[str, tuple[str, ...]] = {
    "um_per_pixel": ("XTCAV_calib_umPerPx", "OTRS:DMP1:695:RESOLUTION", "OTRS:DMPH:695:RESOLUTION"),
    "streak_strength": (
        "XTCAV_strength_par_S", "Streak_Strength", "OTRS:DMP1:695:TCAL_X", "OTRS:DMPH:695:TCAL_X",
    ),
    "rf_amplitude": ("XTCAV_Amp_Des_calib_MV", "XTCAV_Cal_Amp", "SIOC:SYS0:ML01:AO214"),
    "rf_phase": ("XTCAV_Phas_Des_calib_deg", "XTCAV_Cal_Phase", "SIOC:SYS0:ML01:AO215"),
    "dump_energy": (
        "XTCAV_Beam_energy_dump_GeV", "Dump_Energy", "REFS:DMP1:400:EDES", "REFS:DMPH:400:EDES",
    ),
    "dump_dispersion": ("XTCAV_calib_disp_posToEnergy", "Dump_Disp", "SIOC:SYS0:ML01:AO216"),
    "roi_start_x": ("XTCAV_ROI_startX", "ROI_X_Offset", "OTRS:DMP1:695:MinX", "OTRS:DMPH:695:MinX"),
    "roi_start_y": ("XTCAV_ROI_startY", "ROI_Y_Offset", "OTRS:DMP1:695:MinY", "OTRS:DMPH:695:MinY"),
}  # fmt: skip
WANTED = frozenset(pv for pvs in PVS.values() for pv in pvs)


def by_name(values: Mapping[str, float]) -> dict[str, float]:
    """{name: value} of the calibration, from values of process variables, without those that are missing."""
    found = {name: next((values[pv] for pv in PVS[name] if pv in values), None) for name in CALIBRATION_UNITS}
    return {name: value for name, value in found.items() if value is not None}
