"""Simulated runs: which ones, in which order, and the files that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from common.errors import ConfigError
from common.files import atomic
from common.progress import say
from prepare.config import PrepareConfig, load_config
from prepare.simulate import variety, xtc, xtc2
from prepare.simulate.sequence import RunPlan

FORMATS: dict[str, Callable[[Path, PrepareConfig, RunPlan], list[Path]]] = {
    "xtc": xtc.write_run,
    "xtc2": xtc2.write_run,
}

_MARGIN = 2  # s for the transitions around the shots of a run


def load(config_path: str) -> PrepareConfig:
    """The config at `config_path`; raises ConfigError if it simulates nothing."""
    config = load_config(config_path)
    if config.simulate is None:
        raise ConfigError(
            f"{config_path}: simulate: missing, so these runs are real ones; "
            "start from `base: demo.yaml`, or add a `simulate:` section"
        )
    return config


def simulate(
    config: PrepareConfig, force: bool = False, if_missing: bool = False, form: str = "xtc"
) -> list[Path]:
    """Write the runs of `config.runs` into `config.source.dir`, as one of FORMATS; returns the files written.

    Each run's files appear under their names when all of the run is written. A run that is there
    is an error (OutputExists), is replaced with `force`, or left alone with `if_missing`.
    """
    directory = Path(config.source.dir)
    written: list[Path] = []
    todo = []
    for each in plan(config):
        there = sorted(directory.glob(f"*-r{each.run:04d}-s*-c*.{form}"))
        if there and if_missing:
            say(f"run {each.run}: is there, kept")
            continue
        if there:
            atomic.refuse_existing(there[0], force)
        todo.append((each, there))
    for each, there in todo:
        files = FORMATS[form](directory, config, each)
        for stale in set(there) - set(files):
            stale.unlink()
        size = sum(path.stat().st_size for path in files)
        say(f"run {each.run}: {each.what}, {each.shots} shots, {len(files)} files, {size / 1e6:.0f} MB")
        if each.what != "dark" and config.simulate.vary.ranges():
            say(f"run {each.run}: its machine: {variety.describe(config.simulate, each.run)}")
        written += files
    return written


def plan(config: PrepareConfig) -> list[RunPlan]:
    """The runs in order, each with its length and start; raises ConfigError for what does not fit."""
    settings = config.simulate
    unknown = sorted(set(settings.lasing) - set(config.runs.classes))
    if unknown:
        raise ConfigError(
            f"simulate.lasing: '{unknown[0]}' is not a class; there are {', '.join(config.runs.classes)}"
        )
    stray = sorted(set(settings.unlabeled_lasing) - set(config.runs.unlabeled))
    if stray:
        raise ConfigError(f"simulate.unlabeled_lasing: run {stray[0]} is not one of runs.unlabeled")
    other = dict(zip(config.runs.classes, reversed(list(config.runs.classes)))) if settings.switched else {}
    plans, start = [], settings.start
    for run, what in sorted(config.runs.roles.items()):
        length = other.get(what, what)
        if length not in settings.shots:
            raise ConfigError(f"simulate.shots: says nothing of '{length}' (run {run})")
        n = settings.shots[length]
        lasing = what in settings.lasing or run in settings.unlabeled_lasing
        plans.append(RunPlan(run, what, n, start, lasing))
        end = start + int(n / settings.rate)
        if start < max(settings.clock_skew, 0) or max(end, end - settings.clock_skew) + _MARGIN >= 1 << 32:
            raise ConfigError(
                f"simulate.start: run {run} would be from second {start} to {end}, by the recorder's clock "
                f"{settings.clock_skew} earlier; seconds are from 0 to {(1 << 32) - 1}"
            )
        start = end + settings.pause
    return plans
