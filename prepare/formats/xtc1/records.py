"""The beam-line records of LCLS-I, EBeam and FEEGasDetEnergy: their versions, fields and damage.

After the LCLS-I data definitions (psddl: bld.ddl). Each version of a record has the fields of
the one before it, in the same order, and some more: version n is the first so many fields of
the newest. Both readers of LCLS-I take them from here; fields that a version lacks are NaN.
"""

from __future__ import annotations

import struct
from typing import Optional, Sequence

import numpy as np

from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, GMD_UNITS

# {version on disk: number of fields}, in the order of common.shots.EBEAM_UNITS. Version 2 calls its
# last field, EnergyBC2, an energy in MeV where later ones have a position in mm.
EBEAM_FIELDS: dict[int, int] = {0: 6, 1: 7, 2: 8, 3: 10, 4: 14, 5: 17, 6: 20, 7: 20}
# The same, in the order of common.shots.GAS_DETECTOR_UNITS.
GAS_DETECTOR_FIELDS: dict[int, int] = {0: 4, 1: 6}

NO_EBEAM = (np.nan,) * len(EBEAM_UNITS)
NO_GAS_DETECTOR = (np.nan,) * len(GAS_DETECTOR_UNITS)
NO_GMD = (np.nan,) * len(GMD_UNITS)  # LCLS-II's; no shot of LCLS-I has one

_MASK = struct.Struct("<I")
_USER_DEFINED = 1 << 14
_USER_BITS = 0xFF << 24  # what the user-defined damage is; free where that bit is set


def ebeam_may_be_used(damage: int) -> bool:
    """Whether an EBeam record of this damage counts: an undamaged one, or one of user-defined damage alone.

    psana's rule (PSXtcInput: DamagePolicy, `store-user-ebeam-damage`), for this record only: the
    damage says that some field is not good, and the record's own mask says which.
    """
    return damage == 0 or damage & ~_USER_BITS == _USER_DEFINED


def ebeam_values(mask: int, values: Sequence[float]) -> tuple[float, ...]:
    """All EBeam fields from the `values` of a record of any version; NaN where there is none.

    Bit n of `mask` says that the n-th value is not to be used: NaN, though psana gives the
    number. A shot whose charge is masked so counts as one without a charge.
    """
    good = tuple(np.nan if mask >> n & 1 else value for n, value in enumerate(values))
    return good + NO_EBEAM[len(good) :]


def gas_detector_values(values: Sequence[float]) -> tuple[float, ...]:
    """All gas-detector fields from the `values` of a record of any version; NaN where there is none."""
    return (*values, *NO_GAS_DETECTOR[len(values) :])


def unpack_ebeam(version: int, payload: bytes) -> Optional[tuple[float, ...]]:
    """All EBeam fields of a record on disk, or None if its version is not known or it is cut short."""
    values = _unpack(EBEAM_FIELDS.get(version), payload, _MASK.size)
    return None if values is None else ebeam_values(_MASK.unpack_from(payload)[0], values)


def unpack_gas_detector(version: int, payload: bytes) -> Optional[tuple[float, ...]]:
    """All gas-detector fields of a record on disk, or None if its version is not known or it is cut short."""
    values = _unpack(GAS_DETECTOR_FIELDS.get(version), payload, 0)
    return None if values is None else gas_detector_values(values)


def _unpack(fields: Optional[int], payload: bytes, start: int) -> Optional[tuple[float, ...]]:
    if fields is None or len(payload) < start + 8 * fields:
        return None
    return struct.unpack_from(f"<{fields}d", payload, start)
