"""How LCLS-I names its detectors: addresses such as XrayTransportDiagnostic.0:Opal1000.0.

The names are those of the LCLS-I data definitions (pdsdata: Pds::DetInfo), which psana uses; a
name's place in its list is its number on disk.
"""

from __future__ import annotations

import difflib
import re
from typing import Optional, Sequence

from common.errors import DataError

XTCAV_ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"

DETECTORS = (
    "NoDetector", "AmoIMS", "AmoGD", "AmoETOF", "AmoITOF", "AmoMBES", "AmoVMI", "AmoBPS", "Camp",
    "EpicsArch", "BldEb", "SxrBeamline", "SxrEndstation", "XppSb1Ipm", "XppSb1Pim", "XppMonPim",
    "XppSb2Ipm", "XppSb3Ipm", "XppSb3Pim", "XppSb4Pim", "XppGon", "XppLas", "XppEndstation",
    "AmoEndstation", "CxiEndstation", "XcsEndstation", "MecEndstation", "CxiDg1", "CxiDg2", "CxiDg3",
    "CxiDg4", "CxiKb1", "CxiDs1", "CxiDs2", "CxiDsu", "CxiSc1", "CxiDsd", "XcsBeamline", "CxiSc2",
    "MecXuvSpectrometer", "MecXrtsForw", "MecXrtsBack", "MecFdi", "MecTimeTool", "MecTargetChamber",
    "FeeHxSpectrometer", "XrayTransportDiagnostic", "Lamp", "MfxEndstation", "MfxDg1", "MfxDg2", "XrtDiag",
    "DetLab",
)  # fmt: skip
DEVICES = (
    "NoDevice", "Evr", "Acqiris", "Opal1000", "Tm6740", "pnCCD", "Princeton", "Fccd", "Ipimb", "Encoder",
    "Cspad", "AcqTDC", "Xamps", "Cspad2x2", "Fexamp", "Gsc16ai", "Phasics", "Timepix", "Opal2000",
    "Opal4000", "OceanOptics", "Opal1600", "Opal8000", "Fli", "Quartz4A150", "Andor", "USDUSB", "OrcaFl40",
    "Imp", "Epix", "Rayonix", "EpixSampler", "Pimax", "Fccd960", "Epix10k", "Epix100a", "EpixS", "Gotthard",
    "DualAndor", "Wave8", "LeCroy", "ControlsCamera", "Archon", "Jungfrau", "Zyla", "Epix10ka", "Pixis",
    "Uxi", "Epix10ka2M", "StreakC7700", "Epix10kaQuad", "JungfrauSegment", "JungfrauSegmentM2",
    "JungfrauSegmentM3", "JungfrauSegmentM4", "iStar", "QuadAdc", "Alvium",
)  # fmt: skip

_ADDRESS = re.compile(r"^(\w+)\.(\d{1,3}):(\w+)\.(\d{1,3})$")


def source_phy(address: str) -> Optional[int]:
    """The `phy` word of a detector: detector << 24 | id << 16 | device << 8 | id.

    `address` is LCLS' own form with names, or numbers (`46.0:3.0`), or a hexadecimal word. None
    if it is neither; then it may be an alias, which only the run's own AliasConfig explains.
    Raises DataError for an address with a name or number that there is not.
    """
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", address):
        return int(address, 16)
    match = _ADDRESS.match(address)
    if match is None:
        return None
    detector = _number(address, "detector", match[1], DETECTORS)
    device = _number(address, "device", match[3], DEVICES)
    ids = int(match[2]), int(match[4])
    if max(ids) > 255:
        raise DataError(f"camera.address '{address}': {max(ids)} is no number of a detector; 0 to 255")
    return detector << 24 | ids[0] << 16 | device << 8 | ids[1]


def address_of(phy: int) -> str:
    """The address of the source `phy`, by names where it has them, else by numbers."""
    detector, device = _name(phy >> 24, DETECTORS), _name(phy >> 8 & 0xFF, DEVICES)
    return f"{detector}.{phy >> 16 & 0xFF}:{device}.{phy & 0xFF}"


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if number < len(names) else str(number)


def _number(address: str, kind: str, word: str, names: Sequence[str]) -> int:
    if word in names:
        return names.index(word)
    if word.isdigit() and int(word) <= 255:
        return int(word)
    near = difflib.get_close_matches(word, names, 1)
    meant = f"; did you mean '{near[0]}'?" if near else f"; LCLS-I has {', '.join(names[1:])}"
    raise DataError(f"camera.address '{address}': no {kind} '{word}'{meant}")
