"""Simulated runs as XTC files: which shot goes into which stream, by which clock, with what damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Sequence

from common.errors import ConfigError
from common.files import atomic
from prepare.config import PrepareConfig
from prepare.formats.files import FileName
from prepare.formats.xtc1 import writer
from prepare.formats.xtc1.addresses import source_phy
from prepare.formats.xtc1.format import (
    BEGIN_CALIB_CYCLE,
    BEGIN_RUN,
    CONFIGURE,
    DISABLE,
    ENABLE,
    END_CALIB_CYCLE,
    END_RUN,
    FIRST_RECORDER_STREAM,
    L1_ACCEPT,
    UNCONFIGURE,
)
from prepare.simulate import camera
from prepare.simulate.config import SimulateConfig
from prepare.simulate.sequence import TRANSITION_PAUSE, Clock, Exposure, RunPlan, exposures

_CAMERA = FIRST_RECORDER_STREAM
_DAMAGE = 1 << 12  # out of order: what a camera recorder that lost step marks


def write_run(directory: Path, config: PrepareConfig, plan: RunPlan) -> list[Path]:
    """Write one run's streams and chunks; returns the files. Memory: one frame."""
    settings = config.simulate
    phy = source_phy(config.camera.address)
    if phy is None:
        raise ConfigError(
            f"camera.address: '{config.camera.address}' is an alias; simulated runs need the address"
        )
    clock = Clock(plan, settings.clock_skew)
    with contextlib.ExitStack() as stack:
        files = _RunFiles(directory, settings, plan.run, stack)
        _write_transitions(files, clock, phy, (CONFIGURE, BEGIN_RUN, BEGIN_CALIB_CYCLE, ENABLE))
        for shot in exposures(config, plan, clock):
            files.write(shot.number % settings.daq_streams, _daq_event(shot))
            if shot.picture is not None:
                files.write_frame(_camera_event(shot, phy))
        _write_transitions(files, clock, phy, (DISABLE, END_CALIB_CYCLE, END_RUN, UNCONFIGURE))
    return files.paths


class _RunFiles:
    """The open files of a run; the camera's stream goes on to a new chunk after `chunk_shots` frames."""

    def __init__(
        self, directory: Path, settings: SimulateConfig, run: int, stack: contextlib.ExitStack
    ) -> None:
        self.directory, self.settings, self.run, self.stack = directory, settings, run, stack
        self.paths: list[Path] = []
        self._frames = 0
        self._open = {stream: self._begin(stream) for stream in (*range(settings.daq_streams), _CAMERA)}

    def write(self, stream: int, datagram: bytes) -> None:
        self._open[stream].write(datagram)

    def write_frame(self, datagram: bytes) -> None:
        """Write a datagram that has a frame into the camera's stream."""
        chunk, in_chunk = divmod(self._frames, self.settings.chunk_shots)
        if chunk and not in_chunk:
            self._open[_CAMERA] = self._begin(_CAMERA, chunk)
        self._frames += 1
        self.write(_CAMERA, datagram)

    def _begin(self, stream: int, chunk: int = 0) -> BinaryIO:
        path = self.directory / str(FileName(f"e{self.settings.experiment_number}", self.run, stream, chunk))
        self.paths.append(path)
        return self.stack.enter_context(self.stack.enter_context(atomic.replacing(path)).open("wb"))


def _daq_event(shot: Exposure) -> bytes:
    bld = writer.segment(
        [writer.ebeam(shot.ebeam.tolist(), shot.mask), writer.gas_detector(shot.gas.tolist())]
    )
    ticks, vector = 7919 * shot.number & 0x3FFFF, shot.number & 0x7FFF
    return writer.datagram(shot.daq, shot.fiducial, L1_ACCEPT, [bld], ticks=ticks, vector=vector, env=1)


def _camera_event(shot: Exposure, phy: int) -> bytes:
    damage = _DAMAGE if shot.damaged else 0
    contribution = writer.frame(phy, shot.picture, camera.DEPTH, 32, damage)
    children = [writer.segment([contribution], damage)]
    return writer.datagram(shot.recorder, shot.fiducial, L1_ACCEPT, children, damage=damage)


def _write_transitions(files: _RunFiles, clock: Clock, phy: int, transitions: Sequence[int]) -> None:
    """The same transitions in every stream; the recorder knows no run number."""
    for transition in transitions:
        for stream in range(files.settings.daq_streams):
            none = [writer.segment([]), writer.segment([writer.aliases([])])]
            children = none if transition == CONFIGURE else []
            env = files.run if transition == BEGIN_RUN else 0
            files.write(stream, writer.datagram(clock.daq, clock.fiducial, transition, children, env=env))
        children = [writer.segment([])]
        if transition == CONFIGURE:
            aliases = writer.aliases([("xtcav", phy)])
            children = [writer.segment([writer.opal1k_config(phy, 32, 100)]), writer.segment([aliases])]
        files.write(_CAMERA, writer.datagram(clock.recorder, clock.fiducial, transition, children))
        clock.advance(TRANSITION_PAUSE)
