"""The LCLS-I source: XTC files through psana 1, as the LCLS-I environment has it.

Which shots a run has is read in psana's small-data mode, from the events' keys and beam-line data:
no frame is read for it. Frames are read by index files, event by event, or without them in one
sequential pass. psana joins the camera's stream with the DAQ's, and the DAQ's time is the shot's,
as in the native reader. psana does not tell damaged frames from missing ones.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterable, Iterator, Optional, Sequence, Tuple

import numpy as np

from common.errors import DataError
from common.progress import warn
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.formats.files import files_by_run
from prepare.shots import NO_FRAME, REASONS, SHOT_DTYPE, USABLE, merge_repeats
from prepare.sources.base import FrameResult, Source, default_directory
from prepare.sources.listings import Listings
from prepare.sources.reconcile import reconcile

Key = Tuple[int, int, int]  # seconds, nanoseconds, fiducial
Received = Tuple[Key, Optional[np.ndarray]]
_NAN = float("nan")
# Shots that only the camera's stream has come early by up to a second of the camera's clock.
_OUT_OF_ORDER = 240


class Psana1Source(Source):
    """Runs of `experiment` in the folder `directory`; frames of `camera`, an address or an alias."""

    def __init__(
        self,
        psana: ModuleType,
        experiment: str,
        directory: Optional[str],
        camera: str,
        listings: Optional[Path] = None,
    ) -> None:
        self._psana = psana
        self._listings = Listings(listings)
        self._experiment = experiment
        self._given = directory
        self._files = files_by_run(Path(default_directory(experiment, directory)))
        self._camera = camera
        self._shots: Dict[int, np.ndarray] = {}
        self._warned: set = set()

    def runs(self) -> Tuple[int, ...]:
        """The runs that have files in the folder."""
        return tuple(sorted(self._files))

    def files(self, run: int) -> Tuple[Tuple[str, int], ...]:
        """Name and size of the files of `run`."""
        files = self._files.get(run, {})
        return tuple((files[name].name, files[name].stat().st_size) for name in sorted(files))

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE."""
        if run not in self._shots:
            files = [self._files.get(run, {})[name] for name in sorted(self._files.get(run, {}))]
            made_by = ("psana1", self._camera)
            self._shots[run] = self._listings.get(run, made_by, files, lambda: self._read_shots(run))
        return self._shots[run]

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        shots = self.shots(run)
        keys = list(zip(*(shots[name].tolist() for name in ("seconds", "nanoseconds", "fiducial"))))
        wanted = [(i, keys[i]) for i in indices if shots["status"][i] == USABLE]
        received = self._read_frames(run, [key for _, key in wanted]) if wanted else ()
        hint = "is the index file of the camera's stream (index/*.xtc.idx) missing or empty?"
        results = reconcile(f"run {run}: psana 1", wanted, received, hint)
        for index in indices:
            status = int(shots["status"][index])
            yield next(results) if status == USABLE else FrameResult(index, None, REASONS[status])
        for _ in results:  # what comes after the last one wanted is an error
            pass

    # --- shots ---------------------------------------------------------------------------------

    def _read_shots(self, run: int) -> np.ndarray:
        source = self._open(run, "smd")
        shots = np.fromiter((self._shot(run, event) for event in source.events()), SHOT_DTYPE)
        if not len(shots):
            raise DataError(f"run {run}: psana 1 finds no events in it")
        if not (shots["status"] == USABLE).any():
            raise DataError(
                f"run {run}: no frame of camera '{self._camera}' (camera.address) in {len(shots)} events"
            )
        shots = shots[np.lexsort([shots["fiducial"], shots["nanoseconds"], shots["seconds"]])]
        return merge_repeats(shots)[0]

    def _shot(self, run: int, event) -> tuple:
        """A row of SHOT_DTYPE."""
        bld, source = self._psana.Bld, self._psana.Source
        there = any(self._is_camera(key) for key in event.keys())  # noqa: SIM118 (no dict)
        ebeam = event.get(bld.BldDataEBeamV7, source("BldInfo(EBeam)"))
        gas = event.get(bld.BldDataFEEGasDetEnergyV1, source("BldInfo(FEEGasDetEnergy)"))
        return (run, *_key(self._psana, event), USABLE if there else NO_FRAME, *_ebeam(ebeam), *_gas(gas))

    def _is_camera(self, key) -> bool:
        named = self._camera == key.alias() or f"DetInfo({self._camera})" == str(key.src())
        return named and key.type() is self._psana.Camera.FrameV1

    # --- frames --------------------------------------------------------------------------------

    def _read_frames(self, run: int, wanted: Sequence[Key]) -> Iterator[Received]:
        """Keys and frames of the shots `wanted`, in order of time."""
        try:
            psana_run = next(self._open(run, "idx").runs())
        except (RuntimeError, StopIteration, DataError) as error:
            if run not in self._warned:
                warn(
                    f"run {run}: no index files ({error}), so that psana 1 reads all events up to the last "
                    "one wanted: slower"
                )
                self._warned.add(run)
            return _in_order(self._sequential(run, wanted), wanted)
        return self._by_index(run, psana_run, wanted)

    def _by_index(self, run: int, psana_run, wanted: Sequence[Key]) -> Iterator[Received]:
        times = {(time.time(), time.fiducial()): time for time in psana_run.times()}
        if not times:
            raise DataError(f"run {run}: psana 1 finds no times in its index files (index/*.xtc.idx): empty?")
        detector = self._detector(run)
        for key in wanted:
            # To ask for a time that the index has not is undefined: shots of the camera's stream alone.
            time = times.get((key[0] << 32 | key[1], key[2]))
            event = psana_run.event(time) if time is not None else None
            if event is None:
                yield key, None
            else:
                yield _key(self._psana, event), detector.raw(event)

    def _sequential(self, run: int, wanted: Sequence[Key]) -> Iterator[Received]:
        source = self._open(run, "smd")
        detector = self._detector(run)
        left = set(wanted)
        for event in source.events():
            key = _key(self._psana, event)
            if key in left:
                left.remove(key)
                yield key, detector.raw(event)
            if not left:
                return

    # --- psana ---------------------------------------------------------------------------------

    def _open(self, run: int, mode: str):
        """psana's DataSource for a run, `mode` smd or idx."""
        if run not in self._files:
            there = ", ".join(map(str, self.runs())) or "none"
            raise DataError(f"run {run}: no XTC files of it for psana 1; runs there: {there}")
        where = f"exp={self._experiment}:run={run}:{mode}"
        where += f":dir={self._given}" if self._given is not None else ""
        try:
            return self._psana.DataSource(where)
        except RuntimeError as error:
            raise DataError(f"psana 1 cannot open '{where}': {' '.join(str(error).split())}") from None

    def _detector(self, run: int):
        """The camera. It belongs to the newest DataSource, so it is made again for each."""
        try:
            return self._psana.Detector(self._camera)
        except KeyError as error:
            raise DataError(f"run {run}: psana 1 has no '{self._camera}' (camera.address): {error}") from None


def _key(psana: ModuleType, event) -> Key:
    identity = event.get(psana.EventId)
    seconds, nanoseconds = identity.time()
    return seconds, nanoseconds, identity.fiducials()


def _ebeam(record) -> tuple:
    if record is None:
        return (_NAN,) * len(EBEAM_UNITS)
    mask = record.damageMask()
    # Bit n of the record's damage mask says that its n-th value is not to be used.
    return tuple(_NAN if mask >> n & 1 else getattr(record, name)() for n, name in enumerate(EBEAM_UNITS))


def _gas(record) -> tuple:
    if record is None:
        return (_NAN,) * len(GAS_DETECTOR_UNITS)
    return tuple(getattr(record, name)() for name in GAS_DETECTOR_UNITS)


def _in_order(received: Iterable[Received], wanted: Sequence[Key]) -> Iterator[Received]:
    """What was `received`, sorted by key, if nothing is more than _OUT_OF_ORDER places from its own."""
    held: list = []
    frames: Dict[Key, Optional[np.ndarray]] = {}
    at = 0
    for key, frame in received:
        frames[key] = frame if frame is None or key == wanted[at] else np.array(frame)
        heapq.heappush(held, key)
        while held and (held[0] == wanted[at] or len(held) > _OUT_OF_ORDER):
            at += held[0] == wanted[at]
            first = heapq.heappop(held)
            yield first, frames.pop(first)
    while held:
        first = heapq.heappop(held)
        yield first, frames.pop(first)
