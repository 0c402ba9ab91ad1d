"""A stand-in for psana 1 (LCLS-I), which no registry has: the calls that prepare makes, and its pitfalls.

It reads small data and large files as the original does, in the order of events that the original
gave for the runs of tests/data (psana1*.jsonl beside the files). What the original does not survive
ends the process here, too: it writes a line of its logger and aborts. What a test wants to go
wrong is in the environment: STAND_IN="abort@5" (or segv, kill, exit, raise, end, hang) at
event 5 of a run (from 1), at 0 when it is opened. STAND_IN_DIFFERS="pixels 70" (or ids, frames,
records) makes run 70 another one than it is. STAND_IN_LOG names a file for the runs that are opened.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator, NamedTuple, Optional

import numpy as np

from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.formats.files import files_by_run, small_data
from prepare.formats.xtc1 import records
from prepare.formats.xtc1.addresses import address_of
from prepare.formats.xtc1.format import (
    FRAME_HEADER,
    JOIN_SECONDS,
    L1_ACCEPT,
    LEVEL_SHIFT,
    LEVEL_SOURCE,
    TYPE_EBEAM,
    TYPE_FRAME,
    TYPE_GAS_DETECTOR,
    XTC,
    XTC_SIZE,
    pixel_dtype,
)
from prepare.formats.xtc1.reader import XtcFile

ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"
MPIDataSource = object  # by which the LCLS-I psana is told from the other
_IN_CONFIGURE = (ADDRESS, "NoDetector.0:Evr.0", "XppEndstation.0:Opal1000.1")
_ORIGINAL, _PROXY = 90, 91  # type ids of the small data
_config_file: Optional[str] = None
_newest: Optional["DataSource"] = None
events_read = frames_read = 0


def _fatal(line: str) -> None:
    print(f"[fatal:PSXtcInput] {line}", file=sys.stderr, flush=True)
    os.abort()


def _go_wrong(at: int) -> bool:
    """What STAND_IN says of event `at`; True if the run ends here."""
    what, _, number = os.environ.get("STAND_IN", "@-1").partition("@")
    if int(number) != at:
        return False
    if what == "abort":
        _fatal("Datagram size exceeds sanity check")
    if what == "hang":
        time.sleep(600)
    if what in ("segv", "kill"):
        os.kill(os.getpid(), {"segv": signal.SIGSEGV, "kill": signal.SIGKILL}[what])
    if what == "exit":
        os._exit(3)
    if what == "raise":
        raise RuntimeError("XTCReadException [in function next]\nfailed to read")
    return what == "end"


def _differs(what: str, run: int) -> bool:
    return os.environ.get("STAND_IN_DIFFERS") == f"{what} {run}"


def setConfigFile(name: str) -> None:
    global _config_file
    _config_file = name


def Source(text: str) -> str:
    return text


class FrameV1:
    """The type of the camera's contribution."""


class EventId:
    def __init__(self, record: dict) -> None:
        self._record = record

    def time(self) -> tuple:
        return self._record["sec"], self._record["nsec"]

    def fiducials(self) -> int:
        return self._record["fid"]


class EventOffset:
    """Where the parts of an event lie in the large files."""

    def __init__(self, parts: list["_Part"]) -> None:
        self._parts = parts

    def filenames(self) -> list[str]:
        return [str(part.file) for part in self._parts]

    def offsets(self) -> list[int]:
        return [part.start for part in self._parts]


class _Record:
    """A beam-line record: an accessor for each field, in which a value that is not good is a number, too."""

    def __init__(self, values: tuple) -> None:
        self._values = dict(zip(type(self).fields, values))

    def damageMask(self) -> int:
        return sum(1 << n for n, name in enumerate(type(self).fields) if np.isnan(self._values[name]))


def _record_type(name: str, fields: list[str]) -> type:
    made = type(name, (_Record,), {"fields": fields})
    for field in fields:
        setattr(made, field, lambda self, field=field: float(np.nan_to_num(self._values[field])))
    return made


_EBEAM = {
    n: _record_type(f"BldDataEBeamV{n}", list(EBEAM_UNITS)[:count])
    for n, count in records.EBEAM_FIELDS.items()
}
_GAS = {
    n: _record_type("BldDataFEEGasDetEnergy" + ("V1" if n else ""), list(GAS_DETECTOR_UNITS)[:count])
    for n, count in records.GAS_DETECTOR_FIELDS.items()
}
Bld = SimpleNamespace(
    BldDataEBeam=list(_EBEAM.values()), **{kind.__name__: kind for kind in (*_EBEAM.values(), *_GAS.values())}
)
Camera = SimpleNamespace(FrameV1=FrameV1)


class _Frame(NamedTuple):
    """Where a frame's Xtc lies in the large file, with what its small data say of it."""

    file: Path
    offset: int
    extent: int
    phy: int
    kind: int


class _Part(NamedTuple):
    """A datagram of the small data."""

    file: Path  # the large file
    start: int
    frames: list[_Frame]
    ebeam: Optional[tuple]  # version, values
    gas: Optional[tuple]


class Event:
    def __init__(self, record: dict, parts: list[_Part]) -> None:
        self.record, self.parts = record, parts
        # Whether a frame or record is good enough to be given, the original has said.
        self.frames = [
            f for part in parts for f in part.frames if address_of(f.phy) != ADDRESS or "crc32" in record
        ]
        self._records = {}
        for part in parts if "ebeam_charge" in record else ():
            if part.ebeam:
                self._records[_EBEAM[part.ebeam[0]]] = part.ebeam[1], "BldInfo(EBeam)"
            if part.gas:
                self._records[_GAS[part.gas[0]]] = part.gas[1], "BldInfo(FEEGasDetEnergy)"

    def keys(self) -> list[SimpleNamespace]:
        kinds = [("", kind, source) for kind, (_, source) in self._records.items()]
        for frame in self.frames:
            address = address_of(frame.phy)
            kinds.append(("xtcav" if address == ADDRESS else "", FrameV1, f"DetInfo({address})"))
        kinds.append(("", EventId, "ProcInfo(255.255.255.255, pid=16777215)"))
        return [
            SimpleNamespace(alias=lambda a=a: a, type=lambda t=t: t, src=lambda s=s: s) for a, t, s in kinds
        ]

    def get(self, kind: type, source: str = ""):
        if kind is EventId:
            return EventId(self.record)
        if kind is EventOffset:
            return EventOffset(self.parts)
        values, expected = self._records[kind]
        assert source == expected
        return kind(values)


class DataSource:
    def __init__(self, text: str) -> None:
        global _newest
        options = dict(re.split("=", option, maxsplit=1) for option in text.split(":") if "=" in option)
        directory = options["dir"].split(" ")[0]  # lists in its configuration are separated by spaces
        assert "smd" in text.split(":"), "only small-data mode is here"
        self.run = int(options["run"])
        if options["exp"] == "amo99999":
            raise RuntimeError("ExpNameException [in function Dataset]\ncannot parse experiment name")
        self.limit = _limit()
        self._directory = Path(directory)
        if not (self._directory / "smalldata").is_dir():
            _fatal("std::bad_alloc")
        _newest = self
        if "STAND_IN_LOG" in os.environ:
            with open(os.environ["STAND_IN_LOG"], "a") as log:
                log.write(f"{self.run}\n")
        _go_wrong(0)
        self._files = files_by_run(self._directory).get(self.run, {})
        small = {path for path in map(small_data, self._files.values()) if path.is_file()}
        if not small:
            raise RuntimeError("EmptyInput [in function beginJob]\nXTC file(s) is empty")
        if len(small) < len(self._files):
            _fatal("a stream is not there")  # kinder than the original, which leaves it out

    def events(self) -> Iterator[Event]:
        parts = self._parts()
        global events_read
        listed = _records(self._directory, self.run)[: self.limit]
        if _differs("ids", self.run):
            del listed[0]
        elif _differs("frames", self.run):
            del listed[0]["crc32"]
        for n, record in enumerate(listed, 1):
            if _go_wrong(n):
                return
            events_read += 1
            event = Event(record, _belonging(parts, record))
            if n == 1 and _differs("records", self.run):
                for kind, (values, source) in event._records.items():
                    event._records[kind] = (values[0] + 1, *values[1:]), source
            yield event

    def _parts(self) -> dict[tuple, list[_Part]]:
        """{(from the camera recorder, fiducial): [(time, part)]}."""
        found: dict[tuple, list] = {}
        for name in sorted(self._files):
            large = self._files[name]
            with XtcFile(small_data(large)) as smd:
                for datagram in smd.datagrams():
                    if datagram.transition == L1_ACCEPT:
                        key = name.stream >= 80, datagram.fiducial
                        time = datagram.seconds, datagram.nanoseconds
                        found.setdefault(key, []).append((time, _part(smd, datagram, large)))
        return found


def _limit() -> Optional[int]:
    """`events` of the configuration file that applies."""
    name = "psana.cfg" if _config_file is None else _config_file
    text = Path(name).read_text() if name and Path(name).is_file() else ""
    found = re.search(r"^events *= *(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def _records(directory: Path, run: int) -> list[dict]:
    for path in (directory / f"psana1-r{run:04d}.jsonl", directory / "psana1.jsonl"):
        if path.is_file():
            return [json.loads(line) for line in path.read_text().splitlines()]
    raise RuntimeError("EmptyInput [in function beginJob]\nXTC file(s) is empty")


def _belonging(parts: dict[tuple, list], record: dict) -> list[_Part]:
    time = record["sec"], record["nsec"]
    daq = [part for at, part in parts.get((False, record["fid"]), ()) if at == time]
    camera = [
        part for at, part in parts.get((True, record["fid"]), ()) if abs(at[0] - time[0]) < JOIN_SECONDS
    ]
    return daq + camera


def _part(smd: XtcFile, datagram, large: Path) -> _Part:
    start, frames, ebeam, gas = 0, [], None, None
    for child in smd.contributions(datagram):
        payload = smd.read(child.start, child.end - child.start)
        if child.type_id == _ORIGINAL:
            start = int.from_bytes(payload[:8], "little")
        elif child.type_id == _PROXY and child.log >> LEVEL_SHIFT == LEVEL_SOURCE and not child.damage:
            offset, kind, extent = (
                int.from_bytes(payload[a:b], "little") for a, b in ((0, 8), (8, 12), (12, 16))
            )
            if kind & 0xFFFF == TYPE_FRAME:
                frames.append(_Frame(large, offset, extent, child.phy, kind))
        elif child.type_id == TYPE_EBEAM and records.ebeam_may_be_used(child.damage):
            ebeam = child.version, records.unpack_ebeam(child.version, payload)
        elif child.type_id == TYPE_GAS_DETECTOR and not child.damage:
            gas = child.version, records.unpack_gas_detector(child.version, payload)
    return _Part(large, start, frames, ebeam, gas)


def Detector(name: str):
    assert _newest is not None, "a Detector before the DataSource"
    if ":" not in name and name != "xtcav":
        raise KeyError(f"Unknown DetInfo device type {name}")
    if name not in ("xtcav", *_IN_CONFIGURE):
        raise KeyError(f"Missing Detector: Source string not found in configStore: {name}")
    return SimpleNamespace(raw=lambda event, made_for=_newest: _raw(event, made_for))


def _raw(event: Event, made_for: DataSource) -> Optional[np.ndarray]:
    global frames_read
    assert made_for is _newest, "a Detector of an older DataSource"
    frames_read += 1
    frame = next((f for f in event.frames if address_of(f.phy) == ADDRESS), None)
    if frame is None:
        return None
    if not frame.file.is_file():
        raise ValueError(f"FileOpenException [in function SharedFileImpl]\nfailed to open {frame.file}")
    with open(frame.file, "rb") as file:
        file.seek(frame.offset)
        data = file.read(frame.extent)
    if len(data) < frame.extent:
        print("[error:SmallDataProxy] failed to read expected amount", file=sys.stderr)
        return None
    if XTC.unpack_from(data)[2:4] != (frame.phy, frame.kind):
        print("[error:SmallDataProxy] mismatch between proxy information in smd and xtc", file=sys.stderr)
        return None
    columns, rows, depth, _ = FRAME_HEADER.unpack_from(data, XTC_SIZE)
    data += b"\xad\x0d" * (rows * columns)  # behind a frame that is shorter than that lies whatever there is
    pixels = np.frombuffer(data, pixel_dtype(depth), rows * columns, XTC_SIZE + FRAME_HEADER.size)
    return pixels.reshape(rows, columns) + _differs("pixels", made_for.run)
