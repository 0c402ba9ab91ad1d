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
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common.errors import DataError
from common.progress import warn
from common.shots import RECORD_DTYPE
from prepare.formats import xtc2
from prepare.formats.files import XTC2, Files, files_by_run, files_of_run, is_growing, small_data
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.formats.xtc1.format import FIDUCIALS
from prepare.shots import BAD_FIDUCIAL, DAMAGED, NO_FRAME, REASONS, SHOT_DTYPE, USABLE
from prepare.sources import psana2_calls
from prepare.sources.base import FrameResult, Source
from prepare.sources.listings import Listings
from prepare.sources.reconcile import reconcile


class _Stream(NamedTuple):
    """The files of one stream, chunk by chunk, and the names of the detectors in it."""

    paths: Tuple[Path, ...]
    detectors: Tuple[str, ...]


class Psana2Source(Source):
    """Runs of `experiment` in the folder `directory`; frames of the detector `camera`."""

    def __init__(
        self,
        psana: ModuleType,
        experiment: str,
        directory: str,
        camera: str,
        listings: Optional[Path] = None,
    ) -> None:
        self._psana = psana
        self._listings = Listings(listings)
        self._experiment = experiment
        self._directory = Path(directory)
        self._camera = camera
        self._files = files_by_run(self._directory, XTC2)
        self._streams: Dict[int, List[_Stream]] = {}
        self._read: Dict[Path, xtc2.Headers] = {}
        self._shots: Dict[int, np.ndarray] = {}
        self._small_data: Dict[int, bool] = {}

    def epoch(self) -> str:
        """LCLS-II's seconds count from EPICS' day."""
        return "1990-01-01"

    def runs(self) -> Tuple[int, ...]:
        """The runs that have files in the folder."""
        return tuple(sorted(self._files))

    def files(self, run: int) -> Tuple[Tuple[str, int], ...]:
        """Name and size of the data files of `run`."""
        return tuple((path.name, path.stat().st_size) for s in self._of(run) for path in s.paths)

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE."""
        if run not in self._shots:
            data = [path for stream in self._of(run) for path in stream.paths]
            small = [path for path in map(small_data, data) if path.is_file()]
            made_by = ("psana2", self._camera)
            self._shots[run] = self._listings.get(
                run, made_by, [*data, *small], lambda: self._read_shots(run)
            )
        return self._shots[run]

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        shots = self.shots(run)
        status = shots["status"]
        times = _timestamps(shots)
        wanted = [(i, (int(times[i]),)) for i in indices if status[i] == USABLE]
        # An empty array of timestamps would be no filter at all: with none wanted psana is not asked.
        received = self._read_frames(run, wanted) if wanted else ()
        results = reconcile(f"run {run}: psana 2", wanted, received, "is the camera in this stream at all?")
        for index in indices:
            if status[index] == USABLE:
                yield next(results)
            else:
                yield FrameResult(index, None, REASONS[int(status[index])])
        for _ in results:  # what comes after the last one wanted is an error
            pass

    # --- shots ---------------------------------------------------------------------------------

    def _read_shots(self, run: int) -> np.ndarray:
        streams = self._of(run)
        camera = self._camera_name(run, streams)
        headers = [[self._headers(path) for path in stream.paths] for stream in streams]
        times = np.unique(np.concatenate([h.times for of_stream in headers for h in of_stream]))
        if not len(times):
            raise DataError(f"run {run}: has no events in {self._directory}")
        shots = np.zeros(len(times), SHOT_DTYPE)
        for name in RECORD_DTYPE.names:
            shots[name] = np.nan
        shots["run"], shots["status"] = run, NO_FRAME
        shots["seconds"], shots["nanoseconds"] = times >> np.uint64(32), times & np.uint64(0xFFFFFFFF)
        for stream, of_stream in zip(streams, headers):
            if camera in stream.detectors:
                for h in of_stream:
                    shots["status"][np.searchsorted(times, h.times)] = np.where(h.damage, DAMAGED, USABLE)
        self._read_records(run, streams, shots)
        shots["status"][shots["fiducial"] >= FIDUCIALS] = BAD_FIDUCIAL
        return shots

    def _read_records(self, run: int, streams: List[_Stream], shots: np.ndarray) -> None:
        """Fill in the fiducials and the records of `shots`, from the streams that have them."""
        there = {name for stream in streams for name in stream.detectors}
        wanted = [name for name in (psana2_calls.TIMING, *psana2_calls.RECORDS) if name in there]
        with_records = [stream for stream in streams if set(wanted) & set(stream.detectors)]
        self._refuse_cut_off(with_records)
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
        expected = {time for s in with_records for p in s.paths for time in self._headers(p).times.tolist()}
        if len(seen) != len(expected):
            raise DataError(
                f"run {run}: psana 2 gave the records of {len(seen)} of {len(expected)} shots; "
                "copy the files again"
            )

    def _refuse_cut_off(self, streams: List[_Stream]) -> None:
        """Without its fiducial a shot has not its key: no half a run, as for a camera's stream."""
        for path in (path for stream in streams for path in stream.paths):
            headers = self._headers(path)
            if headers.end < headers.size:
                raise DataError(
                    f"{path}: offset {headers.end}: the file with the fiducials and records is cut off or "
                    "still being written; copy it again, or wait"
                )

    def _camera_name(self, run: int, streams: List[_Stream]) -> str:
        names = sorted({name for stream in streams for name in stream.detectors})
        if self._camera in names:
            return self._camera
        if self._camera == XTCAV_ADDRESS and "xtcav" in names:  # LCLS-II has no addresses
            return "xtcav"
        raise DataError(
            f"run {run}: no detector '{self._camera}' (camera.address); "
            f"psana 2 finds {', '.join(names) or 'none'}"
        )

    # --- frames --------------------------------------------------------------------------------

    def _read_frames(self, run: int, wanted: list) -> Iterator[Tuple[tuple, Optional[np.ndarray]]]:
        """(timestamp,) and frame of the shots `wanted`, as psana gives them."""
        camera = self._camera_name(run, self._of(run))
        keys = {key for _, key in wanted}
        times = np.array(sorted(key[0] for key in keys), np.uint64)  # nothing else is a filter to psana
        sequential = not self._has_small_data(run)
        for psana_run in self._passes(run, [camera], times):
            read = psana2_calls.frame_reader(psana2_calls.detector(self._psana, psana_run, camera), camera)
            for event in psana_run.events():
                key = (int(event.timestamp),)
                if sequential and key not in keys:
                    continue
                yield key, read(event)
                if sequential and key[0] == times[-1]:
                    return

    # --- psana ---------------------------------------------------------------------------------

    def _of(self, run: int) -> List[_Stream]:
        """The streams of `run`, in order."""
        if run not in self._streams:
            files = files_of_run(self._directory, self._files, run, XTC2)
            self._streams[run] = [
                _Stream(paths, psana2_calls.detectors(self._open(paths[0]))) for paths in _by_stream(files)
            ]
        return self._streams[run]

    def _passes(
        self, run: int, detectors: Sequence[str], timestamps: Optional[np.ndarray] = None
    ) -> Iterator:
        """psana's Run objects that together give all events of the streams with these `detectors`."""
        if self._has_small_data(run):
            chosen = {} if timestamps is None else {"timestamps": timestamps}
            yield psana2_calls.open_run(
                self._psana, self._experiment, str(self._directory), run, detectors=list(detectors), **chosen
            )
            return
        for stream in self._of(run):
            if set(detectors) & set(stream.detectors):
                if len(stream.paths) > 1:
                    raise DataError(
                        f"{stream.paths[1]}: psana 2 reads further chunks only with small-data files; "
                        "make them with psana's smdwriter"
                    )
                yield self._open(stream.paths[0])

    def _open(self, path: Path):
        """psana's Run object for one file; it has seen no pixel yet."""
        self._headers(path)  # psana does not survive a file that is not xtc2
        return psana2_calls.open_file(self._psana, str(path))

    def _headers(self, path: Path) -> xtc2.Headers:
        """The headers of a file, read once, with a warning if it is cut off."""
        if path not in self._read:
            headers = self._read[path] = xtc2.read_headers(path)
            if headers.end < headers.size:
                what = "is still being written" if is_growing(path) else "is cut off"
                warn(f"{path}: offset {headers.end}: the last datagram {what}; its stream ends here")
        return self._read[path]

    def _has_small_data(self, run: int) -> bool:
        """Whether all streams of `run` have small-data files; raises DataError for one that does not fit."""
        if run not in self._small_data:
            files = [(small_data(stream.paths[0]), stream) for stream in self._of(run)]
            missing = [path for path, _ in files if not path.is_file()]
            if missing:
                warn(
                    f"run {run}: {missing[0]} is not there, so that psana 2 reads all frames up to the last "
                    "one wanted: slower; psana's smdwriter makes small-data files"
                )
            else:
                for path, stream in files:
                    self._check_small_data(path, stream)
            self._small_data[run] = not missing
        return self._small_data[run]

    def _check_small_data(self, path: Path, stream: _Stream) -> None:
        """psana leaves out what its small data do not have, and some of that it does not survive."""
        small = self._headers(path).times
        data = np.concatenate([self._headers(chunk).times for chunk in stream.paths])
        both = min(len(small), len(data))
        growing = is_growing(stream.paths[-1])
        if not np.array_equal(small[:both], data[:both]) or (len(small) < len(data) and not growing):
            raise DataError(
                f"{path}: has not the {len(data)} shots of {stream.paths[0].name}, but {len(small)}: is it "
                "cut off, or another run's? make it again with psana's smdwriter"
            )


def _timestamps(shots: np.ndarray) -> np.ndarray:
    return shots["seconds"].astype("u8") << np.uint64(32) | shots["nanoseconds"].astype("u8")


def _by_stream(files: Files) -> List[Tuple[Path, ...]]:
    streams: Dict[int, List[Path]] = {}
    for name in sorted(files):
        streams.setdefault(name.stream, []).append(files[name])
    return [tuple(paths) for paths in streams.values()]
