"""Simulated runs as LCLS-II xtc2 files with small-data files: the same shots as the XTC files hold.

Stream 0 has the camera, `xtcav`, an opal as LCLS-II's DAQ writes one. Stream 1 has `timing`, whose
pulseId holds the fiducial with bit 63 set (LCLS-I's timing system), and the beam-line data `ebeam`
and `gasdet` under psana's names. An event has the DAQ's time; a missing frame is an event that
stream 0 lacks; damage is marked in the datagram's header.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from common.errors import DataError
from common.files import atomic
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS
from prepare.config import PrepareConfig
from prepare.formats import xtc2
from prepare.formats.files import XTC2, FileName, small_data
from prepare.simulate.sequence import TRANSITION_PAUSE, Clock, RunPlan, exposures
from prepare.sources.psana import import_psana

_LCLS1_PULSE = 1 << 63
_CAMERA, _RECORDS = 0, 1  # streams

# Detector: (type, algorithm's version, number of its names in its file).
_DETECTORS = {
    "xtcav": ("opal", [2, 0, 0], 1),
    "timing": ("ts", [2, 1, 0], 1),
    "ebeam": ("ebeam", [2, 0, 0], 2),
    "gasdet": ("gasdet", [1, 0, 0], 3),
}


def write_run(directory: Path, config: PrepareConfig, plan: RunPlan) -> list[Path]:
    """Write one run's streams and their small-data files; returns all files. Memory: one frame."""
    create = import_psana("psana2", "psana.dgramCreate")
    smdwriter = _smdwriter()
    names = [FileName(config.experiment, plan.run, stream, 0, XTC2) for stream in (_CAMERA, _RECORDS)]
    paths = [directory / str(name) for name in names]
    small = [small_data(path) for path in paths]
    with contextlib.ExitStack() as stack:
        partial = [stack.enter_context(atomic.replacing(path)) for path in (*paths, *small)]
        streams = [_Stream(create, path, config.experiment, plan.run) for path in partial[: len(paths)]]
        with contextlib.ExitStack() as open_files:
            for stream in streams:
                open_files.callback(stream.close)
            _write_events(streams, config, plan)
        for data, index in zip(partial, partial[len(paths) :]):
            _write_small_data(smdwriter, data, index)
    return [*paths, *small]


def _write_events(streams: list["_Stream"], config: PrepareConfig, plan: RunPlan) -> None:
    clock = Clock(plan, config.simulate.clock_skew)
    blank = [
        {"xtcav": {"image": np.zeros(config.camera.shape, np.uint16)}},
        _records(0, np.zeros(len(EBEAM_UNITS)), 0, np.zeros(len(GAS_DETECTOR_UNITS))),
    ]

    def transitions(*numbers: int) -> None:
        for number in numbers:
            for stream, contents in zip(streams, blank):
                stream.write(clock.daq, number, contents if number == xtc2.CONFIGURE else {})
            clock.advance(TRANSITION_PAUSE)

    transitions(xtc2.CONFIGURE, xtc2.BEGIN_RUN, xtc2.BEGIN_STEP, xtc2.ENABLE)
    for shot in exposures(config, plan, clock):
        records = _records(shot.fiducial, shot.ebeam, shot.mask, shot.gas)
        streams[_RECORDS].write(shot.daq, xtc2.L1_ACCEPT, records)
        if shot.picture is not None:
            damage = xtc2.OUT_OF_ORDER if shot.damaged else 0
            streams[_CAMERA].write(shot.daq, xtc2.L1_ACCEPT, {"xtcav": {"image": shot.picture}}, damage)
    transitions(xtc2.DISABLE, xtc2.END_STEP, xtc2.END_RUN)


def _records(fiducial: int, ebeam: np.ndarray, mask: int, gas: np.ndarray) -> dict[str, dict]:
    return {
        "timing": {"pulseId": np.uint64(fiducial | _LCLS1_PULSE)},
        "ebeam": {"damageMask": np.uint32(mask), **dict(zip(EBEAM_UNITS, map(float, ebeam)))},
        "gasdet": dict(zip(GAS_DETECTOR_UNITS, map(float, gas))),
    }


class _Stream:
    """One xtc2 file being written."""

    def __init__(self, create: ModuleType, path: Path, experiment: str, run: int) -> None:
        self._file = path.open("wb")
        self._datagram = create.CyDgram()
        self._algorithms = {
            name: (create.nameinfo(name, kind, "1", number), create.alg("raw", version))
            for name, (kind, version, number) in _DETECTORS.items()
        }
        self._run_info = (create.nameinfo("runinfo", "runinfo", "", 0), create.alg("runinfo", [0, 0, 1]))
        self._run = {"expt": experiment, "runnum": run}

    def write(self, time: tuple, transition: int, contents: dict[str, dict], damage: int = 0) -> None:
        """Append a datagram; contents: {detector: {field: value}}, all that there will be in a Configure."""
        if transition in (xtc2.CONFIGURE, xtc2.BEGIN_RUN):
            self._datagram.addDet(*self._run_info, self._run)
        for name, fields in contents.items():
            self._datagram.addDet(*self._algorithms[name], fields)
        seconds, nanoseconds = time
        data = bytearray(self._datagram.get(seconds << 32 | nanoseconds, transition))
        xtc2.DAMAGE.pack_into(data, xtc2.DAMAGE_OFFSET, damage)
        self._file.write(data)

    def close(self) -> None:
        self._file.close()


def _smdwriter() -> Path:
    """psana's program that makes small-data files: on the PATH, or in its wheel beside the package."""
    found = shutil.which("smdwriter")
    path = Path(found) if found else Path(import_psana("psana2").__file__).parents[1] / "bin" / "smdwriter"
    if not path.is_file():
        raise DataError(f"{path}: psana's smdwriter is not there; add the folder that has it to PATH")
    return path


def _write_small_data(smdwriter: Path, data: Path, small: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        program = smdwriter
        if not os.access(program, os.X_OK):  # pip may install it without its run bit
            program = Path(shutil.copy(smdwriter, folder))
            program.chmod(0o700)
            environment["LD_LIBRARY_PATH"] = str(smdwriter.parents[1] / "psana.libs")
        command = [str(program), "-f", str(data), "-o", str(small)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode or not small.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise DataError(f"{data}: smdwriter exit code {done.returncode}: {last[0]}")
