"""The LCLS-I source: XTC files through psana 1, as the LCLS-I environment has it.

psana reads a run in its small-data mode, from the first event to the last: the shots and their
records come from the small data, and of the frames only those that are wanted are read. Its index
mode would be quicker for a few frames of a long run (140 of 6,000: 1.7 s against 2.6 s), but gives
uninitialized memory where a file is cut off, ends the process at damaged index files, and has no
shots that only the camera's stream has. psana joins the camera's stream with the DAQ's, and the
DAQ's time is the shot's, as in the native reader. It does not tell damaged frames from missing ones.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Iterator, NamedTuple, Optional, Sequence

import numpy as np

from common.errors import DataError
from common.progress import warn
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.formats.files import files_by_run, files_of_run, parse_name
from prepare.formats.xtc1 import records
from prepare.formats.xtc1.addresses import address_of, source_phy
from prepare.formats.xtc1.epics import read_calibration
from prepare.formats.xtc1.format import FIRST_RECORDER_STREAM, JOIN_SECONDS, TYPE_FRAME
from prepare.formats.xtc1.join import attach, by_fiducial, clock, partners, sharing, unclear_line
from prepare.formats.xtc1.reader import XtcFile
from prepare.formats.xtc1.walk import frame_header
from prepare.shots import NO_FRAME, SHOT_DTYPE, USABLE, merge_repeats
from prepare.sources.base import FrameResult, Source
from prepare.sources.listings import Listings
from prepare.sources.psana1_files import ADVICE, RunFiles, look
from prepare.sources.reconcile import reconcile

Key = tuple[int, int, int]  # seconds, nanoseconds, fiducial
Received = tuple[Key, Optional[np.ndarray]]
# A row of a listing: a shot, which of psana's events it is (or has its frame), which streams are in
# that; psana gives none that is `empty`.
_LISTED = np.dtype([*SHOT_DTYPE.descr, ("event", "<i4"), ("daq", "?"), ("recorder", "?"), ("empty", "?")])
_FROM_RECORDER = ("status", "event", "recorder")
# Frames that came before their turn and are kept: shots that only the camera's stream has are put in
# order by the camera's clock, which may be a second off.
_KEPT = 128


class _Pass(NamedTuple):
    """psana on its way through the events of `run`; `numbered` gives each with its number."""

    run: int
    numbered: Iterator[tuple[int, object]]
    camera: object


class Psana1Source(Source):
    """Runs of `experiment` in the folder `directory`; frames of `camera`, an address or an alias."""

    def __init__(
        self, psana: ModuleType, experiment: str, directory: str, camera: str, keep: Optional[Path] = None
    ) -> None:
        self._psana = psana
        psana.setConfigFile("")  # or a psana.cfg in the working directory is read
        self._listings = Listings(keep)
        self._experiment = experiment
        self._directory = Path(directory)
        self._files = files_by_run(self._directory)
        phy = source_phy(camera)  # psana knows addresses by names alone
        self._camera = camera if phy is None else address_of(phy)
        self._looked_at: dict[int, RunFiles] = {}
        self._listed: dict[int, np.ndarray] = {}
        self._pass: Optional[_Pass] = None
        self._opened: dict[str, XtcFile] = {}  # the large files of the run that is read
        self._next = 0  # the number of the event that the pass gives next
        # psana's dir= takes no colon and no space.
        self._folder = os.open(directory, os.O_RDONLY)
        self._ebeam_types = _fields(psana.Bld, "BldDataEBeam", EBEAM_UNITS)
        self._gas_types = _fields(psana.Bld, "BldDataFEEGasDetEnergy", GAS_DETECTOR_UNITS)

    def runs(self) -> tuple[int, ...]:
        return tuple(sorted(self._files))

    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        return tuple((path.name, path.stat().st_size) for path in self._look(run).paths)

    def shots(self, run: int) -> np.ndarray:
        return self._list(run)[list(SHOT_DTYPE.names)].astype(SHOT_DTYPE)

    def calibration(self, run: int) -> dict[str, float]:
        # Not through psana's EPICS store, which has the values of the event that it is at.
        return read_calibration(files_of_run(self._directory, self._files, run))

    def close(self) -> None:
        os.close(self._folder)
        self._close_files()

    def _close_files(self) -> None:
        for file in self._opened.values():
            file.close()
        self._opened.clear()

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        wanted = self._list(run)[list(indices)]
        keys = zip(indices, map(_key_of_row, wanted))
        hint = f"are the small data those of another copy of the run? {ADVICE}"
        return reconcile(f"run {run}: psana 1", keys, self._read(run, wanted), hint)

    def _look(self, run: int) -> RunFiles:
        if run not in self._looked_at:
            found = look(run, files_of_run(self._directory, self._files, run))
            for line in found.warnings:
                warn(line)
            self._looked_at[run] = found
        return self._looked_at[run]

    # --- shots ---------------------------------------------------------------------------------

    def _list(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) _LISTED."""
        if run not in self._listed:
            files = self._look(run)
            version = getattr(self._psana, "__version__", None) or getattr(self._psana, "__file__", "")
            made_by = ("psana1", version, self._experiment, self._camera, str(_LISTED))
            listed = self._listings.get(run, made_by, files.paths, lambda: self._read_list(run))
            if not (listed["status"] == USABLE).any():
                warn(f"run {run}: not one frame of camera {self._camera}")
            self._listed[run] = listed
        return self._listed[run]

    def _read_list(self, run: int) -> np.ndarray:
        events = enumerate(self._open(run).events())
        rows = ((*self._shot(run, event), n, *self._streams(event), False) for n, event in events)
        listed = np.fromiter(rows, _LISTED)
        self._pass = None  # what it would give now belongs to this DataSource
        if not len(listed):
            raise DataError(f"run {run}: psana 1 finds no events in it; {ADVICE}")
        if not (listed["status"] == USABLE).any():
            self._detector(run)  # an error if there is no such camera
        return merge_repeats(_sorted(self._joined(run, listed)))[0]

    def _joined(self, run: int, listed: np.ndarray) -> np.ndarray:
        """`listed`, joined as the native reader does (prepare/formats/xtc1/join.py).

        psana joins in the order of fiducials: where they are not in the order of time it leaves apart what
        belongs together, and of two events with one fiducial it takes either.
        """
        unclear = partners(clock(self._look(run).unclear), clock(listed)) >= 0
        alone, with_frame = listed["recorder"] & ~listed["daq"], listed["status"] == USABLE
        if (with_frame & ~listed["recorder"]).any():  # the camera is in a DAQ stream
            return listed
        daq = by_fiducial(listed[~alone])
        shared = daq["event"][sharing(daq) & daq["recorder"]]
        taken = with_frame & ~alone & (unclear | np.isin(listed["event"], shared))
        listed["status"][taken] = NO_FRAME
        table, again, left_out = attach(listed[~alone], listed[alone & ~unclear], _FROM_RECORDER)
        for line in unclear_line(run, left_out + int((taken | alone & unclear).sum())):
            warn(line)
        return np.concatenate([table, again])

    def _streams(self, event) -> tuple[bool, bool]:
        """Whether the event has parts of DAQ streams, and of recorders'."""
        names = map(parse_name, map(os.path.basename, event.get(self._psana.EventOffset).filenames()))
        recorders = {name.stream >= FIRST_RECORDER_STREAM for name in names}
        return False in recorders, True in recorders

    def _shot(self, run: int, event) -> tuple:
        """A row of SHOT_DTYPE."""
        status, ebeam, gas = NO_FRAME, records.NO_EBEAM, records.NO_GAS_DETECTOR
        keys = event.keys()
        for key in keys:
            kind = key.type()
            if kind is self._psana.Camera.FrameV1 and self._is_camera(key):
                status = NO_FRAME if self._is_cut_off(run, event) else USABLE
            elif kind in self._ebeam_types and str(key.src()) == "BldInfo(EBeam)":
                record, names = event.get(kind, key.src()), self._ebeam_types[kind]
                ebeam = records.ebeam_values(record.damageMask(), [getattr(record, n)() for n in names])
            elif kind in self._gas_types and str(key.src()) == "BldInfo(FEEGasDetEnergy)":
                record, names = event.get(kind, key.src()), self._gas_types[kind]
                gas = records.gas_detector_values([getattr(record, n)() for n in names])
        return (run, *_key(self._psana, event), status, *ebeam, *gas, *records.NO_GMD)

    def _is_camera(self, key) -> bool:
        return self._camera == key.alias() or f"DetInfo({self._camera})" == str(key.src())

    def _is_cut_off(self, run: int, event) -> bool:
        """Whether a part of the event, which the small data have, is not in its large file any more."""
        cut = self._look(run).cut
        if not cut:
            return False
        parts = event.get(self._psana.EventOffset)
        names = map(os.path.basename, parts.filenames())
        return any(offset >= cut.get(name, offset + 1) for name, offset in zip(names, parts.offsets()))

    # --- frames --------------------------------------------------------------------------------

    def _read(self, run: int, wanted: np.ndarray) -> Iterator[Received]:
        """Keys and frames of the shots `wanted`, (n,) _LISTED, in that order.

        The pass goes on where the last call left it. psana gives nearly that order; frames that
        come too early are kept, and those for which there is no room are read in another pass.
        """
        left = {int(row["event"]): _key_of_row(row) for row in wanted}
        kept: dict[int, Optional[np.ndarray]] = {}
        for number in list(left):
            if number not in kept and (self._pass is None or self._pass.run != run or self._next > number):
                self._start(run)
            while number not in kept:
                at, event = self._event(run)
                if at in left and at not in kept and (at == number or len(kept) < _KEPT):
                    self._check_key(run, event, left[at])
                    self._check_frames(run, event)
                    kept[at] = self._pass.camera.raw(event)  # which stays as it is while it is held
            yield left.pop(number), kept.pop(number)

    def _start(self, run: int) -> None:
        self._close_files()
        source = self._open(run)
        self._pass, self._next = _Pass(run, enumerate(source.events()), self._detector(run)), 0

    def _event(self, run: int) -> tuple[int, object]:
        at, event = next(self._pass.numbered, (-1, None))
        if event is None:
            ended, self._pass = self._next, None
            raise DataError(
                f"run {run}: psana 1 ended after {ended} events; were its files changed? {ADVICE}"
            )
        self._next = at + 1
        return at, event

    def _check_key(self, run: int, event, key: Key) -> None:
        seconds, _, fiducial = _key(self._psana, event)  # the time may be the recorder's
        if fiducial != key[2] or abs(seconds - key[0]) >= JOIN_SECONDS:
            raise DataError(f"run {run}: psana 1 gives other shots than before; start again")

    def _check_frames(self, run: int, event) -> None:
        """Raise DataError for a frame with too few bytes: psana gives what lies behind it in memory."""
        parts = event.get(self._psana.EventOffset)
        for path, offset in zip(map(Path, parts.filenames()), parts.offsets()):
            file = self._opened.get(path.name)
            if file is None:
                there = {there.name: there for there in self._look(run).paths}
                file = self._opened[path.name] = XtcFile(there[path.name])
            for datagram in itertools.islice(file.datagrams(offset), 1):
                for child in file.contributions(datagram):
                    if child.type_id == TYPE_FRAME and not (child.damage or child.compressed):
                        frame_header(file, child)

    # --- psana ---------------------------------------------------------------------------------

    def _open(self, run: int):
        """psana's DataSource for a run."""
        files = self._look(run)
        where = f"exp={self._experiment}:run={run}:smd:dir=/proc/self/fd/{self._folder}"
        try:
            return self._psana.DataSource(where)
        except RuntimeError as error:
            raise DataError(
                f"run {run}: psana 1 finds nothing to read for experiment '{self._experiment}' (experiment) "
                f"in {self._directory}, where files are named {files.paths[0].name}: "
                f"{' '.join(str(error).split())}"
            ) from None

    def _detector(self, run: int):
        """The camera. It belongs to the newest DataSource, so it is made again for each."""
        try:
            return self._psana.Detector(self._camera)
        except KeyError as error:
            raise DataError(f"run {run}: psana 1 has no '{self._camera}' (camera.address): {error}") from None


def _fields(bld: object, record: str, units: dict[str, str]) -> dict[type, list[str]]:
    """{psana's type: its fields, in their order} of the versions of a record that this psana has."""
    kinds = [getattr(bld, name) for name in dir(bld) if re.fullmatch(rf"{record}(V\d+)?", name)]
    # Under the name without a version psana has the oldest one, or a list of all.
    return {kind: [f for f in units if hasattr(kind, f)] for kind in kinds if isinstance(kind, type)}


def _sorted(listed: np.ndarray) -> np.ndarray:
    return listed[np.lexsort([listed["fiducial"], listed["nanoseconds"], listed["seconds"]])]


def _key(psana: ModuleType, event) -> Key:
    identity = event.get(psana.EventId)
    seconds, nanoseconds = identity.time()
    return seconds, nanoseconds, identity.fiducials()


def _key_of_row(row: np.void) -> Key:
    return int(row["seconds"]), int(row["nanoseconds"]), int(row["fiducial"])
