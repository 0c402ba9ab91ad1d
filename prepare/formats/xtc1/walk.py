"""One pass over one XTC file: a row for each L1Accept, with its frame's place and its records."""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np

from common.shots import RECORD_DTYPE
from prepare.formats import files
from prepare.formats.xtc1 import records
from prepare.formats.xtc1.format import (
    BLD_EBEAM,
    BLD_GAS_DETECTOR,
    CONTAINS_INCOMPLETE,
    DROPPED,
    FIDUCIALS,
    FRAME_HEADER,
    INCOMPLETE,
    L1_ACCEPT,
    LEVEL_BLD,
    LEVEL_SHIFT,
    LEVEL_SOURCE,
    TRIMMED,
    TYPE_EBEAM,
    TYPE_EPICS,
    TYPE_FRAME,
    TYPE_GAS_DETECTOR,
    TYPE_XTC,
    pixel_dtype,
)
from prepare.formats.xtc1.reader import Contribution, Datagram, XtcFile
from prepare.shots import BAD_FIDUCIAL, DAMAGED, NO_FRAME, USABLE

LOCATION_DTYPE = np.dtype(
    [("file", "<i4"), ("offset", "<i8"), ("rows", "<i4"), ("columns", "<i4"), ("depth", "<i4")]
)
# `stream` is the number of the L1Accept's; `incomplete`: a part of it, whose contents nobody knows,
# did not arrive; `dropped`: the event builder gave up waiting for a part, which may follow by itself;
# `empty`: there is nothing in it but EPICS values.
EVENT_DTYPE = np.dtype(
    [("seconds", "<u4"), ("nanoseconds", "<u4"), ("fiducial", "<u4"), ("status", "u1"), ("stream", "<u4"),
     ("incomplete", "?"), ("dropped", "?"), ("trimmed", "?"), ("empty", "?"),
     *((name, LOCATION_DTYPE[name]) for name in LOCATION_DTYPE.names), *RECORD_DTYPE.descr]
)  # fmt: skip
_ROWS = 4096  # rows of Python objects, 1 kB each, before they are packed into 260 bytes
_NOWHERE = (-1, 0, 0, 0, 0)
_EBEAM, _GAS = (BLD_EBEAM, TYPE_EBEAM), (BLD_GAS_DETECTOR, TYPE_GAS_DETECTOR)
_BROKEN = INCOMPLETE | CONTAINS_INCOMPLETE


def frame_header(file: XtcFile, child: Contribution) -> tuple[int, int, int]:
    """Columns, rows and bits of a frame; raises DataError where its pixels are not all in it."""
    size = child.end - child.start
    if child.version != 1 or size < FRAME_HEADER.size:
        raise file.error(child.start, f"a Frame of version {child.version} in {size} bytes; only 1 is read")
    columns, rows, depth, _ = FRAME_HEADER.unpack(file.read(child.start, FRAME_HEADER.size))
    needed = rows * columns * pixel_dtype(depth).itemsize
    if not 1 <= depth <= 16 or needed == 0 or needed > size - FRAME_HEADER.size:
        raise file.error(
            child.start,
            f"a frame of {rows} x {columns} pixels of {depth} bits in {size - FRAME_HEADER.size} bytes: "
            "the file is damaged here; copy it again",
        )
    return columns, rows, depth


class Walk:
    """One pass over one file, the `number`-th of the run, of stream `stream`, for the camera `phy`.

    has_frames: whether the camera wrote into this file; warnings: a line each.
    """

    def __init__(self, file: XtcFile, number: int, phy: int, stream: int, recorder: bool) -> None:
        self.file, self.number, self.phy = file, number, phy
        self.stream, self.recorder = stream, recorder
        self.has_frames = False
        self.warnings: list[str] = []
        self._other_versions: set = set()

    def events(self) -> list[np.ndarray]:
        """A row of EVENT_DTYPE for every L1Accept of the file, in tables of at most _ROWS."""
        tables: list[np.ndarray] = []
        rows: list[tuple] = []
        end = unknown = 0
        for datagram in self.file.datagrams():
            end = datagram.end
            if datagram.transition == L1_ACCEPT and datagram.damage & INCOMPLETE:
                unknown += 1  # psana has no small data of it
            elif datagram.transition == L1_ACCEPT:
                rows.append(self._event(datagram))
            if len(rows) == _ROWS:
                tables.append(np.array(rows, EVENT_DTYPE))
                rows = []
        if end < self.file.size:
            what = "is still being written" if files.is_growing(self.file.path) else "is cut off"
            self.warnings.append(
                f"{self.file.path}: offset {end}: the last datagram {what}; its stream ends here"
            )
        if unknown:
            self.warnings.append(
                f"{self.file.path}: {unknown} events did not arrive completely and are left out"
            )
        return [*tables, np.array(rows, EVENT_DTYPE)]

    def _event(self, datagram: Datagram) -> tuple:
        status, location = NO_FRAME, _NOWHERE
        ebeam: Optional[tuple] = None
        gas: Optional[tuple] = None
        incomplete = bool(datagram.damage & INCOMPLETE)
        empty = True
        for child in self.file.contributions(datagram):
            empty = empty and child.type_id in (TYPE_XTC, TYPE_EPICS)
            level = child.log >> LEVEL_SHIFT
            incomplete |= bool(child.damage & _BROKEN)
            # A placeholder of another type stands where the camera had no picture for the shot.
            if child.phy == self.phy and level == LEVEL_SOURCE:
                if child.type_id == TYPE_FRAME and status != USABLE:
                    status, location = self._frame(child)
                elif child.damage & _BROKEN:
                    status = DAMAGED if status != USABLE else USABLE
                if status == USABLE and self.recorder:
                    break  # what follows are EPICS values: half of the reads, for nothing
            elif level == LEVEL_BLD and (child.phy, child.type_id) == _EBEAM and ebeam is None:
                if records.ebeam_may_be_used(child.damage):
                    ebeam = self._record("EBeam", child, records.EBEAM_FIELDS, records.unpack_ebeam)
            elif (
                level == LEVEL_BLD and (child.phy, child.type_id) == _GAS and gas is None and not child.damage
            ):
                gas = self._record(
                    "FEEGasDetEnergy", child, records.GAS_DETECTOR_FIELDS, records.unpack_gas_detector
                )
        if datagram.fiducial >= FIDUCIALS:
            status = BAD_FIDUCIAL
        return (
            datagram.seconds, datagram.nanoseconds, datagram.fiducial, status, self.stream,
            incomplete, bool(datagram.damage & DROPPED), bool(datagram.env & TRIMMED), empty,
            *location, *(ebeam or records.NO_EBEAM), *(gas or records.NO_GAS_DETECTOR),
            *records.NO_GMD,
        )  # fmt: skip

    def _frame(self, child: Contribution) -> tuple[int, tuple]:
        """Status and location of the camera's contribution to a shot."""
        self.has_frames = True
        if child.damage:
            return DAMAGED, _NOWHERE
        if child.compressed:
            raise self.file.error(
                child.start,
                "the frame is compressed, which this software does not read by itself; read the run through "
                "psana 1: source: {kind: psana}",
            )
        columns, rows, depth = frame_header(self.file, child)
        return USABLE, (self.number, child.start + FRAME_HEADER.size, rows, columns, depth)

    def _record(self, name: str, child: Contribution, versions: dict, unpack: Callable) -> Optional[tuple]:
        """The fields of a beam-line record, or None, with a warning, if they are not to be read."""
        size = child.end - child.start
        found = None if child.compressed else unpack(child.version, self.file.read(child.start, size))
        if found is None and (name, child.version, size) not in self._other_versions:
            self._other_versions.add((name, child.version, size))
            shown = f"{name} version {child.version} of {size} bytes is not read"
            self.warnings.append(
                f"{self.file.path}: offset {child.start}: {shown}, only versions {min(versions)} to "
                f"{max(versions)}; its fields are missing from the records"
            )
        return found
