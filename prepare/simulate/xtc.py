"""Simulated runs as XTC files: which shot goes into which stream, by which clock, with what damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator, NamedTuple

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

_DAMAGE = 1 << 12  # out of order: what a camera recorder that lost step marks
PATTERN = "*-r{run:04d}-s*-c*.xtc"


def write_run(directory: Path, config: PrepareConfig, plan: RunPlan) -> list[Path]:
    """Write one run's streams and chunks; returns the files. Memory: one frame."""
    with contextlib.ExitStack() as stack:
        files = _RunFiles(directory, config.simulate, plan.run, stack)
        for datagrams in _datagrams(config, plan):
            files.write(datagrams)
        return files.paths


class _Event(NamedTuple):
    """One datagram for a stream."""

    stream: int
    data: bytes
    is_frame: bool = False


class _RunFiles:
    """The open files of a run; the camera's stream goes on to a new chunk after `chunk_shots` frames."""

    def __init__(
        self, directory: Path, settings: SimulateConfig, run: int, stack: contextlib.ExitStack
    ) -> None:
        self.directory, self.settings, self.run, self.stack = directory, settings, run, stack
        self.paths: list[Path] = []
        self._open: dict[int, object] = {}
        self._frames = 0

    def write(self, event: _Event) -> None:
        if event.is_frame and self._frames and self._frames % self.settings.chunk_shots == 0:
            del self._open[event.stream]
        if event.stream not in self._open:
            chunk = self._frames // self.settings.chunk_shots if event.stream == FIRST_RECORDER_STREAM else 0
            name = FileName(f"e{self.settings.experiment_number}", self.run, event.stream, chunk)
            path = self.directory / str(name)
            partial = self.stack.enter_context(atomic.replacing(path))
            self._open[event.stream] = self.stack.enter_context(partial.open("wb"))
            self.paths.append(path)
        self._frames += event.is_frame
        self._open[event.stream].write(event.data)


def _datagrams(config: PrepareConfig, plan: RunPlan) -> Iterator[_Event]:
    """Every datagram of a run, in order of time."""
    settings = config.simulate
    phy = source_phy(config.camera.address)
    if phy is None:
        raise ConfigError(
            f"camera.address: '{config.camera.address}' is an alias; simulated runs need the address"
        )
    streams = (*range(settings.daq_streams), FIRST_RECORDER_STREAM)
    clock = Clock(plan, settings.clock_skew)
    yield from _transitions(streams, clock, plan, phy, (CONFIGURE, BEGIN_RUN, BEGIN_CALIB_CYCLE, ENABLE))
    for exposure in exposures(config, plan, clock):
        yield _daq_event(exposure, settings.daq_streams)
        if exposure.picture is not None:
            yield _camera_event(exposure, phy)
    yield from _transitions(streams, clock, plan, phy, (DISABLE, END_CALIB_CYCLE, END_RUN, UNCONFIGURE))


def _daq_event(shot: Exposure, streams: int) -> _Event:
    bld = writer.segment(
        [writer.ebeam(shot.ebeam.tolist(), shot.mask), writer.gas_detector(shot.gas.tolist())]
    )
    ticks, vector = 7919 * shot.number & 0x3FFFF, shot.number & 0x7FFF
    data = writer.datagram(shot.daq, shot.fiducial, L1_ACCEPT, [bld], ticks=ticks, vector=vector, env=1)
    return _Event(shot.number % streams, data)


def _camera_event(shot: Exposure, phy: int) -> _Event:
    damage = _DAMAGE if shot.damaged else 0
    contribution = writer.frame(phy, shot.picture, camera.DEPTH, 32, damage)
    children = [writer.segment([contribution], damage)]
    data = writer.datagram(shot.recorder, shot.fiducial, L1_ACCEPT, children, damage=damage)
    return _Event(FIRST_RECORDER_STREAM, data, is_frame=True)


def _transitions(
    streams: tuple, clock: Clock, plan: RunPlan, phy: int, transitions: tuple
) -> Iterator[_Event]:
    """The same transitions in every stream; the recorder knows no run number."""
    for transition in transitions:
        for stream in streams:
            recorder = stream >= FIRST_RECORDER_STREAM
            children: list[bytes] = [writer.segment([])] if recorder else []
            if transition == CONFIGURE:
                camera_config = [writer.opal1k_config(phy, 32, 100)] if recorder else []
                names = [("xtcav", phy)] if recorder else []
                children = [writer.segment(camera_config), writer.segment([writer.aliases(names)])]
            env = plan.run if transition == BEGIN_RUN and not recorder else 0
            time = clock.recorder if recorder else clock.daq
            yield _Event(stream, writer.datagram(time, clock.fiducial, transition, children, env=env))
        clock.advance(TRANSITION_PAUSE)
