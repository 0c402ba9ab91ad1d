"""Simulated runs without files: the shots that `prepare simulate` would write, made when asked for."""

from __future__ import annotations

import hashlib
from typing import Iterator, Sequence

import numpy as np

from common.errors import DataError
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, GMD_UNITS
from prepare.config import PrepareConfig
from prepare.shots import SHOT_DTYPE
from prepare.simulate.run import plan
from prepare.simulate.sequence import FIRST_TRANSITIONS, TRANSITION_PAUSE, Clock, Simulated
from prepare.sources.base import FrameResult, Source


class SimulatedSource(Source):
    """The runs of `config.simulate`. Memory: two frames, and the records, for each run that was asked for."""

    def __init__(self, config: PrepareConfig) -> None:
        self._config = config
        self._plans = {each.run: each for each in plan(config)}
        self._made: dict[int, Simulated] = {}

    def runs(self) -> tuple[int, ...]:
        """The runs that the config names."""
        return tuple(self._plans)

    def shots(self, run: int) -> np.ndarray:
        """The shots of `run` in order of time, (n,) SHOT_DTYPE: those that its files would hold."""
        made, settings = self._run(run), self._config.simulate
        shots = np.zeros(len(made.status), SHOT_DTYPE)
        clock = Clock(self._plans[run], settings.clock_skew)
        clock.advance((FIRST_TRANSITIONS + 1) * TRANSITION_PAUSE)
        for i in range(len(shots)):
            shots[i]["seconds"], shots[i]["nanoseconds"] = clock.daq
            shots[i]["fiducial"] = clock.fiducial
            clock.advance(settings.fiducial_step)
        shots["run"], shots["status"] = run, made.status
        for bit, name in enumerate(EBEAM_UNITS):
            shots[name] = np.where(made.state.mask >> bit & 1, np.nan, made.state.ebeam[:, bit])
        for column, name in enumerate(GAS_DETECTOR_UNITS):
            shots[name] = made.state.gas[:, column]
        for name in GMD_UNITS:
            shots[name] = np.nan
        return shots

    def files(self, run: int) -> tuple[tuple[str, int], ...]:
        """There are none; in their place, a name that is another when the simulation is."""
        settings = hashlib.sha256(self._config.simulate.canonical().encode()).hexdigest()
        return ((f"simulated run {run}, settings {settings[:16]}", 0),)

    def _frames(self, run: int, indices: Sequence[int]) -> Iterator[FrameResult]:
        made = self._run(run)
        for index in indices:
            yield FrameResult(index, made.picture(index))

    def _run(self, run: int) -> Simulated:
        if run not in self._plans:
            there = ", ".join(map(str, self.runs()))
            raise DataError(f"the simulator: no run {run}; the config has runs {there}")
        if run not in self._made:
            self._made[run] = Simulated(self._config, self._plans[run])
        return self._made[run]
