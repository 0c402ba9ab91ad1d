"""A stand-in for psana 1 (LCLS-I), which no registry has: the calls that prepare makes, and its pitfalls.

It replays what the original psana gave for the runs of tests/data, event by event, with the
pixels that the native reader finds for the same shot (whose CRC-32 the original's record has).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, List

import numpy as np

from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.sources.native import XtcSource

ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"


class BldDataEBeamV7:
    """The record's accessors: values of the native reader, NaN as the damage mask says."""

    def __init__(self, shot: np.void) -> None:
        self._shot = shot

    def damageMask(self) -> int:  # noqa: N802
        return sum(1 << n for n, name in enumerate(EBEAM_UNITS) if np.isnan(self._shot[name]))


class BldDataFEEGasDetEnergyV1:
    def __init__(self, shot: np.void) -> None:
        self._shot = shot


for _type, _names in ((BldDataEBeamV7, EBEAM_UNITS), (BldDataFEEGasDetEnergyV1, GAS_DETECTOR_UNITS)):
    for _name in _names:
        setattr(_type, _name, lambda self, name=_name: float(np.nan_to_num(self._shot[name])))


class FrameV1:
    """The type of the camera's contribution."""


class EventId:
    def __init__(self, record: dict) -> None:
        self._record = record

    def time(self) -> tuple:
        return self._record["sec"], self._record["nsec"]

    def fiducials(self) -> int:
        return self._record["fid"]


class EventTime:
    def __init__(self, time: int, fiducial: int) -> None:
        self._time, self._fiducial = time, fiducial

    def time(self) -> int:
        return self._time

    def fiducial(self) -> int:
        return self._fiducial


class Event:
    def __init__(self, record: dict, shot: np.void) -> None:
        self.record, self._shot = record, shot

    def keys(self) -> List[SimpleNamespace]:
        kinds = [("", BldDataEBeamV7, "BldInfo(EBeam)")] if "ebeam_charge" in self.record else []
        if "crc32" in self.record:
            kinds.append(("xtcav", FrameV1, f"DetInfo({ADDRESS})"))
        return [
            SimpleNamespace(alias=lambda a=a: a, type=lambda t=t: t, src=lambda s=s: s) for a, t, s in kinds
        ]

    def get(self, kind: type, source: str = ""):
        if kind is EventId:
            return EventId(self.record)
        if "ebeam_charge" not in self.record:
            return None
        expected = {BldDataEBeamV7: "BldInfo(EBeam)", BldDataFEEGasDetEnergyV1: "BldInfo(FEEGasDetEnergy)"}
        assert expected[kind] == source
        return kind(self._shot)


class Psana1:
    """The module `psana`, for the runs in one folder of tests/data."""

    MPIDataSource = object
    EventId, EventTime = EventId, EventTime
    Source = staticmethod(str)
    Bld = SimpleNamespace(BldDataEBeamV7=BldDataEBeamV7, BldDataFEEGasDetEnergyV1=BldDataFEEGasDetEnergyV1)
    Camera = SimpleNamespace(FrameV1=FrameV1)

    def __init__(self, folder: Path) -> None:
        self.index_files = True
        self.times_in_index = True
        self.camera_in_index = True
        self.ends_after = None  # events
        self.frames_read = 0
        self.events_read = 0
        self._newest = None
        self._native = XtcSource(str(folder), ADDRESS)
        self._runs: Dict[int, List[Event]] = {}
        for path in sorted(folder.glob("psana1*.jsonl")):
            records = [json.loads(line) for line in path.read_text().splitlines()]
            run = records[0]["run"]
            self._places = {
                (int(s["seconds"]), int(s["nanoseconds"]), int(s["fiducial"])): i
                for i, s in enumerate(self._native.shots(run))
            }
            shots = self._native.shots(run)
            self._runs[run] = [
                Event({**r, "place": self._places[r["sec"], r["nsec"], r["fid"]]}, None) for r in records
            ]
            for event in self._runs[run]:
                event._shot = shots[event.record["place"]]

    def DataSource(self, text: str):  # noqa: N802
        match = re.fullmatch(r"exp=(\w+):run=(\d+):(smd|idx)(:dir=.+)?", text)
        run, mode = int(match[2]), match[3]
        if run not in self._runs:
            raise RuntimeError(f"EmptyInput: no files for run {run}")
        if mode == "idx" and not self.index_files:
            raise RuntimeError("no index files")
        self._newest = SimpleNamespace(mode=mode, run=run)
        return DataSource(self, self._newest, self._runs[run])

    def Detector(self, name: str):  # noqa: N802
        assert self._newest is not None, "a Detector before the DataSource"
        if name not in ("xtcav", ADDRESS):
            raise KeyError(f"Unknown DetInfo device type {name}")
        return SimpleNamespace(raw=lambda event, made_for=self._newest: self._raw(event, made_for))

    def _raw(self, event: Event, made_for):
        assert made_for is self._newest, "a Detector of an older DataSource"
        self.frames_read += 1
        if "crc32" not in event.record or (made_for.mode == "idx" and not self.camera_in_index):
            return None
        return self._native.frame(made_for.run, event.record["place"])


class DataSource:
    def __init__(self, psana: Psana1, token, events: List[Event]) -> None:
        self._psana, self._token, self._events = psana, token, events

    def events(self):
        assert self._token.mode == "smd"
        for event in self._events[: self._psana.ends_after]:
            self._psana.events_read += 1
            yield event

    def runs(self):
        assert self._token.mode == "idx"
        yield Run(self._psana, [e for e in self._events if "ebeam_charge" in e.record])


class Run:
    """A run in index mode: shots that only the camera's stream has are not in it."""

    def __init__(self, psana: Psana1, events: List[Event]) -> None:
        self._psana = psana
        self._by_time = {_time(event): event for event in events}

    def times(self) -> List[EventTime]:
        return [EventTime(*time) for time in self._by_time] if self._psana.times_in_index else []

    def event(self, time: EventTime) -> Event:
        assert (time.time(), time.fiducial()) in self._by_time, "undefined: a time that is not in the run"
        self._psana.events_read += 1
        return self._by_time[time.time(), time.fiducial()]


def _time(event: Event) -> tuple:
    return event.record["sec"] << 32 | event.record["nsec"], event.record["fid"]
