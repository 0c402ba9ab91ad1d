"""Writing XTC: datagrams and what goes into them, as bytes. The counterpart of `reader`."""

from __future__ import annotations

from typing import Iterable, Sequence

import numpy as np

from prepare.formats.xtc1.format import (
    ALIAS,
    BLD_EBEAM,
    BLD_GAS_DETECTOR,
    DATAGRAM,
    EBEAM,
    FRAME_HEADER,
    GAS_DETECTOR,
    LEVEL_BLD,
    LEVEL_EVENT,
    LEVEL_SEGMENT,
    LEVEL_SHIFT,
    LEVEL_SOURCE,
    TRANSITION_SHIFT,
    TYPE_ALIAS,
    TYPE_EBEAM,
    TYPE_FRAME,
    TYPE_GAS_DETECTOR,
    TYPE_OPAL1K_CONFIG,
    TYPE_XTC,
    VECTOR_SHIFT,
    XTC,
    XTC_SIZE,
)

# Addresses of the machines that wrote the real files have no meaning for a reader; these are ours.
_EVENT_PHY, _SEGMENT_PHY = 0xAC150A20, 0xAC150A21
_PROCESS = 0x1234


def xtc(type_id: int, version: int, log: int, phy: int, payload: bytes, damage: int = 0) -> bytes:
    """One Xtc: its 20-byte header and `payload`."""
    return XTC.pack(damage, log, phy, type_id | version << 16, XTC_SIZE + len(payload)) + payload


def source(type_id: int, version: int, phy: int, payload: bytes, damage: int = 0) -> bytes:
    """The contribution of a detector."""
    return xtc(type_id, version, LEVEL_SOURCE << LEVEL_SHIFT | _PROCESS, phy, payload, damage)


def segment(children: Iterable[bytes], damage: int = 0) -> bytes:
    """A container for the contributions of one readout node."""
    log = LEVEL_SEGMENT << LEVEL_SHIFT | _PROCESS
    return xtc(TYPE_XTC, 1, log, _SEGMENT_PHY, b"".join(children), damage)


def datagram(
    time: tuple[int, int],
    fiducial: int,
    transition: int,
    children: Sequence[bytes] = (),
    ticks: int = 0,
    vector: int = 0,
    env: int = 0,
    damage: int = 0,
) -> bytes:
    """One datagram; time: (seconds, nanoseconds)."""
    payload = b"".join(children)
    seconds, nanoseconds = time
    log = LEVEL_EVENT << LEVEL_SHIFT | _PROCESS
    return DATAGRAM.pack(
        nanoseconds, seconds, ticks | transition << TRANSITION_SHIFT, fiducial | vector << VECTOR_SHIFT, env,
        damage, log, _EVENT_PHY, TYPE_XTC | 1 << 16, XTC_SIZE + len(payload),
    ) + payload  # fmt: skip


def frame(phy: int, image: np.ndarray, depth: int, offset: int, damage: int = 0) -> bytes:
    """Camera::FrameV1; image: (rows, columns), of `pixel_dtype(depth)`, offset: the pedestal it names."""
    rows, columns = image.shape
    payload = FRAME_HEADER.pack(columns, rows, depth, offset) + image.tobytes()
    return source(TYPE_FRAME, 1, phy, payload + b"\0" * (-len(payload) % 4), damage)


def opal1k_config(phy: int, black_level: int, gain_percent: int) -> bytes:
    """Opal1kConfigV1 for 12 bits (option 2), without defects."""
    words = np.array([black_level | gain_percent << 16, 2, 0], "<u4")
    return source(TYPE_OPAL1K_CONFIG, 1, phy, words.tobytes())


def aliases(names: Sequence[tuple[str, int]]) -> bytes:
    """AliasConfigV1; names: (alias, phy)."""
    entries = b"".join(ALIAS.pack(LEVEL_SOURCE << LEVEL_SHIFT, phy, name.encode()) for name, phy in names)
    return xtc(TYPE_ALIAS, 1, _PROCESS, _SEGMENT_PHY, len(names).to_bytes(4, "little") + entries)


def ebeam(values: Sequence[float], mask: int) -> bytes:
    """BldDataEBeamV7; values: the 20 of common.shots.EBEAM_UNITS, mask: bit k says value k is not good."""
    return _bld(TYPE_EBEAM, 7, BLD_EBEAM, EBEAM.pack(mask, *values))


def gas_detector(values: Sequence[float]) -> bytes:
    """BldDataFEEGasDetEnergyV1; values: the 6 of common.shots.GAS_DETECTOR_UNITS, mJ."""
    return _bld(TYPE_GAS_DETECTOR, 1, BLD_GAS_DETECTOR, GAS_DETECTOR.pack(*values))


def _bld(type_id: int, version: int, phy: int, payload: bytes) -> bytes:
    """A BLD record in the container of its own that the DAQ puts around each."""
    log = LEVEL_BLD << LEVEL_SHIFT
    return xtc(TYPE_XTC, 1, log, phy, xtc(type_id, version, log, phy, payload))
