"""What is in the runs of a folder."""

from __future__ import annotations

import datetime
from typing import NamedTuple, Optional

import numpy as np

from common import cli
from common.errors import DataError
from common.progress import bar, say, warn
from common.shots import nanoseconds
from common.stats import evenly
from prepare.config import PrepareConfig
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.sources import open_source
from prepare.sources.base import Source, check_shape, pixels


class RunSummary(NamedTuple):
    """One run: counts, time range (Unix seconds), mean intensity (counts) over `looked_at` frames."""

    run: int
    what: str
    shots: int
    usable: int
    damaged: int
    missing: int
    other: int
    first: float
    last: float
    intensity: float
    looked_at: int
    shape: Optional[tuple[int, ...]]


class Found(NamedTuple):
    """The runs that can be read, and what is wrong with runs of the config, a line each."""

    summaries: list[RunSummary]
    problems: list[str]


def print_runs(config: PrepareConfig, frames: int, as_json: bool) -> None:
    """Print what is asked for and `summarize`; raises DataError for the last of several problems."""
    with open_source(config) as source:
        found = summarize(source, config, frames)
    if as_json:
        cli.print_json({"runs": [s._asdict() for s in found.summaries], "problems": found.problems})
    else:
        for line in (*config.plan(), *table(found.summaries)):
            say(line)
    for problem in found.problems[:-1]:
        warn(problem)
    if found.problems:
        raise DataError(found.problems[-1])


def summarize(source: Source, config: PrepareConfig, frames: int) -> Found:
    """Every run that the source has or the config names; reads at most `frames` frames of each.

    What is wrong with a run that the config does not name is only a warning.
    """
    roles = config.runs.roles
    found = Found([], [])
    source.shape = None  # that of each run is listed
    there = source.runs()
    for run in bar([*there, *(run for run in roles if run not in there)], "runs", "run"):
        try:
            summary = _one(source, run, roles.get(run, ""), frames)
            found.summaries.append(summary)
            if run in roles and summary.shape is not None:
                check_shape(run, summary.shape, config.camera.shape)
        except (DataError, OSError) as error:
            line = str(error) if isinstance(error, DataError) else f"{error.filename}: {error.strerror}"
            if run in roles:
                found.problems.append(line)
            else:
                warn(f"{line} (the config does not name run {run})")
    without = [str(s.run) for s in found.summaries if s.run in roles and not s.usable + s.damaged]
    if without:
        found.problems.append(
            f"run {', '.join(without)}: not one frame of camera {config.camera.address}; which cameras are "
            f"there, `python -m prepare init {config.source.dir or 'DIR'}` tells"
        )
    return found


def table(summaries: list[RunSummary]) -> list[str]:
    """The summaries as lines of text."""
    lines = [
        f"{'run':>5} {'what':<12} {'shots':>7} {'frames':>7} {'damaged':>7} {'missing':>7} {'other':>5} "
        f"{'first shot (UTC)':<23} {'length':>9} {'mean':>8}  frame"
    ]
    for s in summaries:
        first = datetime.datetime.fromtimestamp(s.first, datetime.timezone.utc) if s.shots else None
        shown = first.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if first else "-"
        size = "-" if s.shape is None else pixels(s.shape)
        lines.append(
            f"{s.run:>5} {s.what or '-':<12} {s.shots:>7} {s.usable:>7} {s.damaged:>7} {s.missing:>7} "
            f"{s.other:>5} {shown:<23} {s.last - s.first:>7.1f} s {s.intensity:>8.2f}  {size}"
        )
    looked_at = max((s.looked_at for s in summaries), default=0)
    lines.append(f"mean: of raw counts over up to {looked_at} frames of each run")
    return lines


def _one(source: Source, run: int, what: str, frames: int) -> RunSummary:
    shots = source.shots(run)
    status = shots["status"]
    usable = np.flatnonzero(status == USABLE)
    times = nanoseconds(shots) / 1e9
    looked_at = evenly(usable, frames)
    read = [t.frame for t in source.frames(run, looked_at.tolist()) if t.frame is not None]
    return RunSummary(
        run=run,
        what=what,
        shots=len(shots),
        usable=len(usable),
        damaged=int((status == DAMAGED).sum()),
        missing=int((status == NO_FRAME).sum()),
        other=int((~np.isin(status, (USABLE, DAMAGED, NO_FRAME))).sum()),
        first=float(times.min()) if len(times) else 0.0,
        last=float(times.max()) if len(times) else 0.0,
        intensity=float(np.mean([frame.mean() for frame in read])) if read else float("nan"),
        looked_at=len(read),
        shape=read[0].shape if read else None,
    )
