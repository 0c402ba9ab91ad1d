"""One simulated run as a sequence of exposures, whatever the format they are written in."""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional

import numpy as np

from common.progress import bar
from prepare.config import PrepareConfig
from prepare.formats.xtc1.format import FIDUCIAL_MASK, FIDUCIAL_RATE, FIDUCIALS
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.simulate import camera, machine, shots, variety
from prepare.simulate.config import SimulateConfig

# What each random stream is for; the seed sequence is (seed, purpose, run, shot). 6 is variety's.
_CAMERA, _MACHINE, _FAILURES, _FRAME, _DRIFT, _STRIPES = range(6)
TRANSITION_PAUSE = 15  # fiducials between transitions
FIRST_TRANSITIONS = 4  # before the first shot: configure, begin run, begin calib cycle (or step), enable
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


class Exposure(NamedTuple):
    """One shot: its place in the run, its times (seconds, nanoseconds), its records, its picture."""

    number: int
    daq: tuple[int, int]
    recorder: tuple[int, int]  # by the camera recorder's clock
    fiducial: int
    ebeam: np.ndarray  # (20,) common.shots.EBEAM_UNITS
    mask: int  # bit k: value k of the ebeam record is not good
    gas: np.ndarray  # (6,) common.shots.GAS_DETECTOR_UNITS
    picture: Optional[np.ndarray]  # (rows, columns) uint16; None where the camera missed the shot
    damaged: bool


class Simulated:
    """One run before it is written: every shot's records, and its picture when asked for.

    state: the machine, shot by shot. status: (n,) of prepare.shots, whether the camera has the shot. Memory:
    two frames.
    """

    def __init__(self, config: PrepareConfig, plan: RunPlan) -> None:
        dark = plan.what == "dark"
        settings = config.simulate if dark else variety.of_run(config.simulate, plan.run)
        shape, of_camera = config.camera.shape, settings.camera
        self.state = machine.run_shots(
            _rng(settings, _MACHINE, plan.run),
            plan.shots,
            settings.rate,
            plan.lasing,
            not dark,
            settings.machine,
        )
        failures = _rng(settings, _FAILURES, plan.run).random((plan.shots, 2))
        self.status = np.where(failures[:, 1] < settings.damaged, DAMAGED, USABLE)
        self.status[failures[:, 0] < settings.missing] = NO_FRAME
        self._background = camera.pedestal(_rng(settings, _CAMERA), shape, of_camera)
        self._background += camera.drift(shape, of_camera.background_drift, _rng(settings, _DRIFT, plan.run))
        if not dark:
            stripes = _rng(settings, _STRIPES, plan.run)
            self._background += camera.not_in_the_dark(shape, of_camera, stripes)
        self._settings, self._run = settings, plan.run

    def picture(self, i: int) -> np.ndarray:
        """The camera's frame of shot `i`, (rows, columns) uint16, damaged or not."""
        rng = _rng(self._settings, _FRAME, self._run, i)
        return shots.frame(rng, self.state, i, self._settings, self._background)


def exposures(config: PrepareConfig, plan: RunPlan, clock: "Clock") -> Iterator[Exposure]:
    """The shots of a run in order of time, from where `clock` stands. Memory: one frame."""
    run = Simulated(config, plan)
    clock.advance(TRANSITION_PAUSE)
    for i in bar(range(plan.shots), f"run {plan.run} {plan.what}", "shot"):
        picture = None if run.status[i] == NO_FRAME else run.picture(i)
        yield Exposure(
            i, clock.daq, clock.recorder, clock.fiducial, run.state.ebeam[i], int(run.state.mask[i]),
            run.state.gas[i], picture, bool(run.status[i] == DAMAGED),
        )  # fmt: skip
        clock.advance(config.simulate.fiducial_step)


class Clock:
    """The DAQ's clock and the camera recorder's, at one 360 Hz pulse after another."""

    def __init__(self, plan: RunPlan, skew: int) -> None:
        self._start = plan.start * _SECOND + _FIRST_NANOSECOND
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
