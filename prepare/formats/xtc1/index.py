"""The index of one run: which shots there are, and where in which file each frame lies."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common.errors import DataError
from common.shots import EBEAM_UNITS, RECORD_DTYPE
from prepare.formats.xtc1.format import (
    ALIAS,
    BLD_EBEAM,
    BLD_GAS_DETECTOR,
    CONFIGURE,
    EBEAM,
    FIDUCIALS,
    FIRST_RECORDER_STREAM,
    FRAME_HEADER,
    GAS_DETECTOR,
    JOIN_SECONDS,
    L1_ACCEPT,
    LEVEL_BLD,
    LEVEL_SHIFT,
    LEVEL_SOURCE,
    TYPE_ALIAS,
    TYPE_EBEAM,
    TYPE_FRAME,
    TYPE_GAS_DETECTOR,
    TYPE_XTC,
    FileName,
    pixel_dtype,
    source_phy,
)
from prepare.formats.xtc1.reader import Contribution, Datagram, XtcFile
from prepare.shots import BAD_FIDUCIAL, DAMAGED, DUPLICATE, NO_FRAME, SHOT_DTYPE, USABLE, mark_repeats

LOCATION_DTYPE = np.dtype(
    [("file", "<i4"), ("offset", "<i8"), ("rows", "<i4"), ("columns", "<i4"), ("depth", "<i4")]
)
_EVENT_DTYPE = np.dtype(
    [("seconds", "<u4"), ("nanoseconds", "<u4"), ("fiducial", "<u4"), ("status", "u1"), ("recorder", "?"),
     *((name, LOCATION_DTYPE[name]) for name in LOCATION_DTYPE.names), *RECORD_DTYPE.descr]
)  # fmt: skip
_ROWS = 4096  # rows of Python objects, 1 kB each, before they are packed into 250 bytes
_NOWHERE = (-1, 0, 0, 0, 0)
_NO_RECORDS = (np.nan,) * len(RECORD_DTYPE)


class RunIndex(NamedTuple):
    """The shots of a run and where their frames are.

    shots: (n,) SHOT_DTYPE in order of time; locations: (n,) LOCATION_DTYPE, `file` indexes
    `files` and is -1 where there is no frame; warnings: one line each.
    """

    shots: np.ndarray
    locations: np.ndarray
    files: Tuple[Path, ...]
    warnings: Tuple[str, ...]


def index_run(run: int, files: Dict[FileName, Path], address: str) -> RunIndex:
    """Walk all streams and chunks of a run and join what belongs to one shot.

    `address` names the camera: an LCLS address, an alias of the run, or a hexadecimal phy.
    Memory is about 2 kB a shot while joining, 250 bytes after. Raises DataError for a camera
    that is not in the run and, with file and offset, for frames that cannot be read by anyone.
    """
    names = sorted(files)
    paths = tuple(files[name] for name in names)
    warnings = _missing_chunks(run, names)
    phy = _camera_phy(run, names, paths, address)
    tables: List[np.ndarray] = []
    for number, (name, path) in enumerate(zip(names, paths)):
        with XtcFile(path) as file:
            walk = _Walk(file, number, phy, name.stream >= FIRST_RECORDER_STREAM)
            tables += walk.events()
            warnings += walk.warnings
    table = np.concatenate([np.zeros(0, _EVENT_DTYPE), *tables])
    if not (table["file"] >= 0).any():
        warnings.append(f"run {run}: not one frame of camera {address}")
    return RunIndex(*_join(run, table), paths, tuple(warnings))


class _Walk:
    """One pass over one file."""

    def __init__(self, file: XtcFile, number: int, phy: int, recorder: bool) -> None:
        self.file, self.number, self.phy, self.recorder = file, number, phy, recorder
        self.warnings: List[str] = []
        self._other_versions: set = set()

    def events(self) -> List[np.ndarray]:
        """A row of _EVENT_DTYPE for every L1Accept of the file, in tables of at most _ROWS."""
        tables: List[np.ndarray] = []
        rows: List[tuple] = []
        end = 0
        for datagram in self.file.datagrams():
            end = datagram.end
            if datagram.transition == L1_ACCEPT:
                rows.append(self._event(datagram))
            if len(rows) == _ROWS:
                tables.append(np.array(rows, _EVENT_DTYPE))
                rows = []
        if end < self.file.size:
            what = "is still being written" if self.file.path.suffix == ".inprogress" else "is cut off"
            self.warnings.append(
                f"{self.file.path}: offset {end}: the last datagram {what}; its stream ends here"
            )
        return [*tables, np.array(rows, _EVENT_DTYPE)]

    def _event(self, datagram: Datagram) -> tuple:
        status, location, ebeam, gas = NO_FRAME, _NOWHERE, None, None
        for child in self.file.contributions(datagram):
            level = child.log >> LEVEL_SHIFT
            # A placeholder of another type stands where the camera had no picture for the shot.
            if child.phy == self.phy and level == LEVEL_SOURCE and child.type_id == TYPE_FRAME:
                status, location = self._frame(child)
                if self.recorder:
                    break  # what follows are EPICS values: half of the reads, for nothing
            elif level == LEVEL_BLD and child.type_id != TYPE_XTC and not child.damage:
                if child.phy == BLD_EBEAM and child.type_id == TYPE_EBEAM:
                    ebeam = self._ebeam(child)
                elif child.phy == BLD_GAS_DETECTOR and child.type_id == TYPE_GAS_DETECTOR:
                    gas = self._gas_detector(child)
        if datagram.fiducial >= FIDUCIALS:
            status = BAD_FIDUCIAL
        records = _NO_RECORDS
        if ebeam is not None or gas is not None:
            records = (*(ebeam or _NO_RECORDS[: len(EBEAM_UNITS)]), *(gas or _NO_RECORDS[len(EBEAM_UNITS) :]))
        return (
            datagram.seconds, datagram.nanoseconds, datagram.fiducial, status, self.recorder,
            *location, *records,
        )  # fmt: skip

    def _frame(self, child: Contribution) -> Tuple[int, tuple]:
        """Status and location of the camera's contribution to a shot."""
        if child.damage:
            return DAMAGED, _NOWHERE
        if child.compressed:
            raise self.file.error(child.start, "the frame is compressed, which this software does not read")
        size = child.end - child.start
        if child.version != 1 or size < FRAME_HEADER.size:
            raise self.file.error(
                child.start, f"a Frame of version {child.version} in {size} bytes; only 1 is read"
            )
        columns, rows, depth, _ = FRAME_HEADER.unpack(self.file.read(child.start, FRAME_HEADER.size))
        needed = rows * columns * pixel_dtype(depth).itemsize
        if not 1 <= depth <= 16 or needed == 0 or needed > size - FRAME_HEADER.size:
            raise self.file.error(
                child.start,
                f"a frame of {rows} x {columns} pixels of {depth} bits in {size - FRAME_HEADER.size} bytes: "
                "the file is damaged here; copy it again",
            )
        return USABLE, (self.number, child.start + FRAME_HEADER.size, rows, columns, depth)

    def _ebeam(self, child: Contribution) -> Optional[tuple]:
        if child.version != 7 or child.end - child.start < EBEAM.size:
            self._warn_version("EBeam", child.version, 7)
            return None
        mask, *values = EBEAM.unpack(self.file.read(child.start, EBEAM.size))
        # Bit n of the record's damage mask says that its n-th value is not to be used.
        return tuple(np.nan if mask >> n & 1 else value for n, value in enumerate(values))

    def _gas_detector(self, child: Contribution) -> Optional[tuple]:
        if child.version != 1 or child.end - child.start < GAS_DETECTOR.size:
            self._warn_version("FEEGasDetEnergy", child.version, 1)
            return None
        return GAS_DETECTOR.unpack(self.file.read(child.start, GAS_DETECTOR.size))

    def _warn_version(self, name: str, version: int, known: int) -> None:
        if (name, version) not in self._other_versions:
            self._other_versions.add((name, version))
            self.warnings.append(f"{self.file.path}: {name} version {version} is not read, only {known}")


def _join(run: int, events: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Shots and locations from the events of all streams.

    A DAQ event and a camera recorder's are one shot when their fiducials are equal and their
    seconds differ by less than JOIN_SECONDS (fiducials repeat every 364 s); the DAQ's time then
    is the shot's time (psana1's rule).
    """
    daq, recorder = events[~events["recorder"]], events[events["recorder"]]
    order = np.argsort(_clock(daq), kind="stable")
    daq = daq[order]
    partner = _partners(_clock(daq), _clock(recorder))
    joined = partner >= 0
    # The first frame of a shot counts; a second one for the same shot is put aside.
    _, first = np.unique(partner[joined], return_index=True)
    duplicate = joined.copy()
    duplicate[np.flatnonzero(joined)[first]] = False
    for name in ("status", *LOCATION_DTYPE.names):
        daq[name][partner[joined & ~duplicate]] = recorder[name][joined & ~duplicate]
    daq["status"][daq["fiducial"] >= FIDUCIALS] = BAD_FIDUCIAL
    recorder["status"][duplicate] = DUPLICATE
    table = np.concatenate([daq, recorder[~joined | duplicate]])
    table = table[np.lexsort([table["fiducial"], table["nanoseconds"], table["seconds"]])]
    shots = np.zeros(len(table), SHOT_DTYPE)
    for name in SHOT_DTYPE.names:
        shots[name] = run if name == "run" else table[name]
    mark_repeats(shots)
    locations = np.zeros(len(table), LOCATION_DTYPE)
    for name in LOCATION_DTYPE.names:
        locations[name] = table[name]
    return shots, locations


def _clock(events: np.ndarray) -> np.ndarray:
    """(fiducial, seconds) as one sortable int64."""
    return (events["fiducial"].astype("i8") << 33) + events["seconds"]


def _partners(daq: np.ndarray, recorder: np.ndarray) -> np.ndarray:
    """For each recorder clock the index of the nearest matching DAQ clock (sorted), or -1."""
    partner = np.full(len(recorder), -1)
    best = np.full(len(recorder), JOIN_SECONDS, "i8")
    right = np.searchsorted(daq, recorder)
    for candidate in (right - 1, right):
        inside = (candidate >= 0) & (candidate < len(daq))
        distance = np.full(len(recorder), JOIN_SECONDS, "i8")
        distance[inside] = np.abs(daq[candidate[inside]] - recorder[inside])
        nearer = distance < best  # another fiducial is at least 2**33 - 2**32 away
        partner[nearer], best[nearer] = candidate[nearer], distance[nearer]
    return partner


def _camera_phy(run: int, names: Sequence[FileName], paths: Sequence[Path], address: str) -> int:
    """The phy of the camera, by its address or by the aliases in the run's Configure datagrams."""
    phy = source_phy(address)
    if phy is not None:
        return phy
    aliases: Dict[str, int] = {}
    for name, path in zip(names, paths):
        if name.chunk == 0:
            with XtcFile(path) as file:
                aliases.update(_aliases(file))
    if address not in aliases:
        known = ", ".join(sorted(aliases)) or "none"
        raise DataError(f"run {run}: no camera '{address}'; the aliases of this run are: {known}")
    return aliases[address]


def _aliases(file: XtcFile) -> Dict[str, int]:
    """{alias: phy} from a stream's Configure, its first datagram."""
    found: Dict[str, int] = {}
    first = next(file.datagrams(), None)
    if first is None or first.transition != CONFIGURE:
        return found
    for child in file.contributions(first):
        if child.type_id == TYPE_ALIAS and child.end - child.start >= 4:
            payload = file.read(child.start, child.end - child.start)
            count = min(int.from_bytes(payload[:4], "little"), (len(payload) - 4) // ALIAS.size)
            for _, phy, name in ALIAS.iter_unpack(payload[4 : 4 + count * ALIAS.size]):
                found[name.split(b"\0")[0].decode("ascii", "replace")] = phy
    return found


def _missing_chunks(run: int, names: Sequence[FileName]) -> List[str]:
    """A warning for each stream whose chunks do not run from 0 without a gap."""
    chunks: Dict[int, List[int]] = {}
    for name in names:
        chunks.setdefault(name.stream, []).append(name.chunk)
    warnings = []
    for stream, present in chunks.items():
        gaps = sorted(set(range(max(present) + 1)) - set(present))
        if gaps:
            chunk = ", ".join(map(str, gaps))
            warnings.append(f"run {run}: stream {stream} lacks chunk {chunk}; its shots are missing")
    return warnings
