"""Simulated runs as XTC files: which shot goes into which stream, by which clock, with what damage."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import numpy as np

from common import atomic
from common.errors import ConfigError
from common.progress import bar, say
from prepare.config import PrepareConfig
from prepare.simulate import camera, machine, shots
from prepare.simulate.config import SimulateConfig
from prepare.xtc import writer
from prepare.xtc.format import (
    BEGIN_CALIB_CYCLE,
    BEGIN_RUN,
    CONFIGURE,
    DISABLE,
    ENABLE,
    END_CALIB_CYCLE,
    END_RUN,
    FIDUCIAL_MASK,
    FIDUCIAL_RATE,
    FIDUCIALS,
    FIRST_RECORDER_STREAM,
    L1_ACCEPT,
    UNCONFIGURE,
    FileName,
    source_phy,
)

# What each random stream is for; the seed sequence is (seed, purpose, run, shot).
_CAMERA, _MACHINE, _LOSSES, _FRAME, _DRIFT = range(5)
_DAMAGE = 1 << 12  # out of order: what a camera recorder that lost step marks
_TRANSITION_PAUSE = 15  # fiducials between transitions
_SECOND = 1_000_000_000
# All runs begin in the middle of a second and of the fiducials' cycle, like real ones.
_FIRST_NANOSECOND, _FIRST_FIDUCIAL = 123_456_789, 1002


class RunPlan(NamedTuple):
    """One run to be simulated."""

    run: int
    what: str
    shots: int
    start: int
    lasing: bool


def simulate(config: PrepareConfig, force: bool = False, if_missing: bool = False) -> List[Path]:
    """Write the runs of `config.runs` into `config.source.dir`; returns the files written.

    Each run's files appear under their names when all of the run is written. A run that is there
    is an error (OutputExists), is replaced with `force`, or left alone with `if_missing`.
    """
    if config.simulate is None:
        raise ConfigError("simulate: missing; these runs are real ones")
    directory = Path(config.source.dir)
    plans = plan(config)
    written: List[Path] = []
    todo = []
    for each in plans:
        there = sorted(directory.glob(f"*-r{each.run:04d}-s*-c*.xtc"))
        if there and if_missing:
            say(f"run {each.run}: is there, kept")
            continue
        if there:
            atomic.refuse_existing(there[0], force)
        todo.append((each, there))
    for each, there in todo:
        files = write_run(directory, config, each)
        for stale in set(there) - set(files):
            stale.unlink()
        size = sum(path.stat().st_size for path in files)
        say(f"run {each.run}: {each.what}, {each.shots} shots, {len(files)} files, {size / 1e6:.0f} MB")
        written += files
    return written


def plan(config: PrepareConfig) -> List[RunPlan]:
    """The runs in order, each with its length and start; raises ConfigError for what does not fit."""
    settings = config.simulate
    unknown = sorted(set(settings.lasing) - set(config.runs.classes))
    if unknown:
        raise ConfigError(
            f"simulate.lasing: '{unknown[0]}' is not a class; there are {', '.join(config.runs.classes)}"
        )
    stray = sorted(set(settings.unlabelled_lasing) - set(config.runs.unlabelled))
    if stray:
        raise ConfigError(f"simulate.unlabelled_lasing: run {stray[0]} is not one of runs.unlabelled")
    what = {**dict.fromkeys(config.runs.dark, "dark"), **dict.fromkeys(config.runs.unlabelled, "unlabelled")}
    what.update({run: label for label, runs in config.runs.classes.items() for run in runs})
    plans, start = [], settings.start
    for run in sorted(what):
        if what[run] not in settings.shots:
            raise ConfigError(f"simulate.shots: says nothing of '{what[run]}' (run {run})")
        n = settings.shots[what[run]]
        lasing = what[run] in settings.lasing or run in settings.unlabelled_lasing
        plans.append(RunPlan(run, what[run], n, start, lasing))
        start += int(n / settings.rate) + settings.pause
    return plans


def write_run(directory: Path, config: PrepareConfig, plan: RunPlan) -> List[Path]:
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
        self.paths: List[Path] = []
        self._open: Dict[int, object] = {}
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
    clock = _Clock(plan.start, settings.clock_skew)
    yield from _transitions(streams, clock, plan, phy, (CONFIGURE, BEGIN_RUN, BEGIN_CALIB_CYCLE, ENABLE))
    state = machine.run_shots(
        _rng(settings, _MACHINE, plan.run), plan.shots, settings.rate, plan.lasing, plan.what != "dark"
    )
    losses = _rng(settings, _LOSSES, plan.run).random((plan.shots, 2))
    background = camera.pedestal(_rng(settings, _CAMERA), config.camera.shape, settings.camera)
    background += camera.drift(
        config.camera.shape, settings.camera.background_drift, _rng(settings, _DRIFT, plan.run)
    )
    clock.advance(_TRANSITION_PAUSE)
    for i in bar(range(plan.shots), f"run {plan.run} {plan.what}", "shot"):
        bld = writer.segment(
            [
                writer.ebeam(state.ebeam[i].tolist(), int(state.mask[i])),
                writer.gas_detector(state.gas[i].tolist()),
            ]
        )
        daq = writer.datagram(
            clock.daq, clock.fiducial, L1_ACCEPT, [bld], ticks=7919 * i & 0x3FFFF, vector=i & 0x7FFF, env=1
        )
        yield _Event(i % settings.daq_streams, daq)
        if losses[i, 0] >= settings.missing:
            damage = _DAMAGE if losses[i, 1] < settings.damaged else 0
            picture = shots.frame(_rng(settings, _FRAME, plan.run, i), state, i, settings, background)
            contribution = writer.frame(phy, picture, camera.DEPTH, 32, damage)
            data = writer.datagram(
                clock.recorder,
                clock.fiducial,
                L1_ACCEPT,
                [writer.segment([contribution], damage)],
                damage=damage,
            )
            yield _Event(FIRST_RECORDER_STREAM, data, is_frame=True)
        clock.advance(settings.fiducial_step)
    yield from _transitions(streams, clock, plan, phy, (DISABLE, END_CALIB_CYCLE, END_RUN, UNCONFIGURE))


def _transitions(
    streams: tuple, clock: "_Clock", plan: RunPlan, phy: int, transitions: tuple
) -> Iterator[_Event]:
    """The same transitions in every stream; the recorder knows no run number."""
    for transition in transitions:
        for stream in streams:
            recorder = stream >= FIRST_RECORDER_STREAM
            children: List[bytes] = [writer.segment([])] if recorder else []
            if transition == CONFIGURE:
                camera_config = [writer.opal1k_config(phy, 32, 100)] if recorder else []
                names = [("xtcav", phy)] if recorder else []
                children = [writer.segment(camera_config), writer.segment([writer.aliases(names)])]
            env = plan.run if transition == BEGIN_RUN and not recorder else 0
            time = clock.recorder if recorder else clock.daq
            yield _Event(stream, writer.datagram(time, clock.fiducial, transition, children, env=env))
        clock.advance(_TRANSITION_PAUSE)


class _Clock:
    """The DAQ's clock and the camera recorder's, at one 360 Hz pulse after another."""

    def __init__(self, start: int, skew: int) -> None:
        self._start = start * _SECOND + _FIRST_NANOSECOND
        self._pulses = 0
        self._skew = skew

    def advance(self, fiducials: int) -> None:
        """Go on by this many pulses."""
        self._pulses += fiducials

    @property
    def fiducial(self) -> int:
        return (_FIRST_FIDUCIAL + self._pulses) % FIDUCIALS

    @property
    def daq(self) -> tuple:
        """(seconds, nanoseconds) by the DAQ's clock."""
        return divmod(self._start + self._pulses * _SECOND // FIDUCIAL_RATE, _SECOND)

    @property
    def recorder(self) -> tuple:
        """(seconds, nanoseconds) by the recorder: the fiducial is in the low 17 bits of nanoseconds."""
        seconds, nanoseconds = self.daq
        marked = (nanoseconds & ~FIDUCIAL_MASK) | self.fiducial
        if marked >= _SECOND:
            marked -= FIDUCIAL_MASK + 1
        return seconds - self._skew, marked


def _rng(settings: SimulateConfig, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([settings.seed, *purpose])))
