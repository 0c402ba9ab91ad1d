"""The LCLS-II source: xtc2 files through psana 2, as the LCLS-II environment and PyPI have it.

Which shots a run has, and which frames are damaged, is read from the datagrams' headers: psana's
small data do not tell of damage, and its loops end at a cut-off file without a word. All that is
inside a datagram is read by psana: the frames of the shots that are wanted by `timestamps=` with
small-data files, or else in one pass over `files=`.

A shot's seconds and nanoseconds are psana's `evt.timestamp`. Its fiducial is the `timing`
detector's pulse id where that is one of LCLS-I's timing system (17 bits); LCLS-II's own pulses
have no 360 Hz fiducial, and the number is 0.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Iterator, Optional, Sequence

import numpy as np

from common.errors import DataError
from common.shots import RECORD_DTYPE
from prepare.formats import calibration, xtc2
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.formats.xtc1.format import FIDUCIALS
from prepare.shots import BAD_FIDUCIAL, DAMAGED, NO_FRAME, SHOT_DTYPE, USABLE
from prepare.sources import psana2_calls
from prepare.sources.base import FrameResult, Source
from prepare.sources.listings import Listings
from prepare.sources.psana2_files import RunFiles, Stream, refuse_cut_off
from prepare.sources.reconcile import Received, reconcile


class Psana2Source(Source):
    """Runs of `experiment` in the folder `directory`; frames of the detector `camera`."""

    def __init__(
        self, psana: ModuleType, experiment: str, directory: str, camera: str, keep: Optional[Path] = None
    ) -> None:
        self._psana = psana
        self._listings = Listings(keep)
        self._experiment = experiment
        self._directory = Path(directory)
        self._camera = camera
        self._files = RunFiles(self._directory)
        self._shots: dict[int, np.ndarray] = {}
        self._pass: Optional[tuple[int, Iterator[tuple]]] = None  # a run without small data, on the way
        self._passed = 0  # the time of the event it gave last

    def epoch(self) -> str:
        """LCLS-II's seconds count from EPICS' day."""
        return "1990-01-01"

    def runs(self) -> tuple[int, ...]:
        """The runs that have files in the folder."""
        return self._files.runs()

    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        """Name and size of the data files of `run`."""
        return tuple((path.name, path.stat().st_size) for s in self._files.streams(run) for path in s.paths)

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE."""
        if run not in self._shots:
            used, made_by = self._files.used(run), ("psana2", self._camera)
            self._shots[run] = self._listings.get(run, made_by, used, lambda: self._read_shots(run))
        return self._shots[run]

    def calibration(self, run: int) -> dict[str, float]:
        values: dict[str, float] = {}
        for stream in self._files.streams(run):
            there = {field for names in stream.names for field, _, _ in names.fields} & calibration.WANTED
            if there:
                psana_run = psana2_calls.open_file(self._psana, str(stream.paths[0]))
                values.update(psana2_calls.epics_values(psana_run, sorted(there)))
        return calibration.by_name(values)

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        wanted = list(
            zip(indices, ((time,) for time in _timestamps(self.shots(run)[list(indices)]).tolist()))
        )
        # An empty array of timestamps would be no filter at all: with none wanted psana is not asked.
        received = self._read_frames(run, wanted) if wanted else ()
        return reconcile(f"run {run}: psana 2", wanted, received, "is the camera in this stream at all?")

    # --- shots ---------------------------------------------------------------------------------

    def _read_shots(self, run: int) -> np.ndarray:
        streams = self._files.streams(run)
        camera = self._camera_name(run, streams)
        times = np.unique(np.concatenate([stream.times for stream in streams]))
        if not len(times):
            raise DataError(f"run {run}: has no events in {self._directory}")
        shots = np.zeros(len(times), SHOT_DTYPE)
        for name in RECORD_DTYPE.names:
            shots[name] = np.nan
        shots["run"] = run
        shots["seconds"], shots["nanoseconds"] = times >> np.uint64(32), times & np.uint64(0xFFFFFFFF)
        shots["status"] = _status(times, [stream for stream in streams if camera in stream.detectors], camera)
        self._read_records(run, streams, shots)
        shots["status"][shots["fiducial"] >= FIDUCIALS] = BAD_FIDUCIAL
        return shots

    def _read_records(self, run: int, streams: Sequence[Stream], shots: np.ndarray) -> None:
        """Fill in the fiducials and the records of `shots`, from the streams that have them."""
        there = {name for stream in streams for name in stream.detectors}
        wanted = psana2_calls.records_in(run, there)
        with_records = [stream for stream in streams if set(wanted) & stream.detectors]
        refuse_cut_off(with_records)
        rows = {time: i for i, time in enumerate(_timestamps(shots).tolist())}
        seen = set()
        for psana_run in self._passes(run, wanted) if wanted else ():
            fillers = []
            for name in set(wanted) & set(psana2_calls.detectors(psana_run)):
                detector = psana2_calls.detector(self._psana, psana_run, name)
                if name == psana2_calls.TIMING:
                    fillers.append(psana2_calls.fiducial_filler(shots, detector))
                else:
                    fillers.append(psana2_calls.record_filler(shots, name, detector))
            for event in psana_run.events():
                row = rows.get(event.timestamp)
                if row is None:  # written since the headers were read
                    continue
                seen.add(row)
                for fill in fillers:
                    fill(row, event)
        expected = {time for stream in with_records for time in stream.times.tolist()}
        if len(seen) != len(expected):
            raise DataError(
                f"run {run}: psana 2 gave the records of {len(seen)} of {len(expected)} shots; "
                "copy the files again"
            )

    def _camera_name(self, run: int, streams: Sequence[Stream]) -> str:
        names = [names for stream in streams for names in stream.names]
        there = sorted({n.detector for n in names})
        camera = self._camera
        if camera == XTCAV_ADDRESS and camera not in there and "xtcav" in there:  # LCLS-II has no addresses
            camera = "xtcav"
        if camera not in there:
            raise DataError(
                f"run {run}: no detector '{self._camera}' (camera.address); "
                f"psana 2 finds {', '.join(there) or 'none'}"
            )
        with_images = sorted({n.detector for n in names if n.has_images})
        if camera not in with_images:
            only = sorted({field for n in names if n.detector == camera for field, _, _ in n.fields})
            raise DataError(
                f"run {run}: psana 2 has no raw images of detector '{camera}' (camera.address), only "
                f"{', '.join(only)}; detectors with raw images: {', '.join(with_images) or 'none'}"
            )
        return camera

    # --- frames --------------------------------------------------------------------------------

    def _read_frames(self, run: int, wanted: list) -> Iterator[tuple[tuple, Received]]:
        """(timestamp,) and frame of the shots `wanted`, as psana gives them."""
        camera = self._camera_name(run, self._files.streams(run))
        keys = {key for _, key in wanted}
        times = np.array(sorted(key[0] for key in keys), np.uint64)  # nothing else is a filter to psana
        if self._files.has_small_data(run):
            yield from (((time,), read(event)) for time, event, read in self._events(run, camera, times))
            return
        with_camera = [stream for stream in self._files.streams(run) if camera in stream.detectors]
        if len(with_camera) > 1:
            raise DataError(
                f"run {run}: detector '{camera}' has parts in {len(with_camera)} streams (second: "
                f"{with_camera[1].paths[0].name}), which psana 2 puts together only with small-data files; "
                "make them with psana's smdwriter"
            )
        if self._pass is None or self._pass[0] != run or self._passed >= times[0]:
            self._pass = (run, self._events(run, camera))
        for time, event, read in self._pass[1]:  # goes on where the last request ended
            self._passed = time
            if (time,) in keys:
                yield (time,), read(event)
            if time == times[-1]:
                return
        self._pass = None

    def _events(self, run: int, camera: str, times: Optional[np.ndarray] = None) -> Iterator[tuple]:
        """Timestamp and event of each event, and what reads the camera's frame in it."""
        for psana_run in self._passes(run, [camera], times):
            read = psana2_calls.frame_reader(psana2_calls.detector(self._psana, psana_run, camera), camera)
            for event in psana_run.events():
                yield int(event.timestamp), event, read

    # --- psana ---------------------------------------------------------------------------------

    def _passes(
        self, run: int, detectors: Sequence[str], timestamps: Optional[np.ndarray] = None
    ) -> Iterator:
        """psana's Run objects that together give all events of the streams with these `detectors`."""
        if self._files.has_small_data(run):
            chosen = {} if timestamps is None else {"timestamps": timestamps}
            yield psana2_calls.open_run(
                self._psana, self._experiment, str(self._directory), run, detectors=list(detectors), **chosen
            )
            return
        for stream in self._files.streams(run):
            if set(detectors) & stream.detectors:
                if len(stream.paths) > 1:
                    raise DataError(
                        f"{stream.paths[1]}: psana 2 reads further chunks only with small-data files; "
                        "make them with psana's smdwriter"
                    )
                yield psana2_calls.open_file(self._psana, str(stream.paths[0]))


def _status(times: np.ndarray, streams: Sequence[Stream], camera: str) -> np.ndarray:
    """(n,) status of `times`: a frame is there if all its parts are, in each of the camera's `streams`."""
    there, broken = np.zeros(len(times), int), np.zeros(len(times), bool)
    for stream in streams:
        state, at = stream.states_of(camera), np.searchsorted(times, stream.times)
        there[at] += state == xtc2.THERE
        broken[at] |= state == xtc2.BROKEN
    return np.where(broken, DAMAGED, np.where(there == len(streams), USABLE, NO_FRAME))


def _timestamps(shots: np.ndarray) -> np.ndarray:
    return shots["seconds"].astype("u8") << np.uint64(32) | shots["nanoseconds"].astype("u8")
