"""What is in the runs of a folder."""

from __future__ import annotations

import datetime
from typing import Dict, List, NamedTuple

import numpy as np

from common.progress import bar
from common.shots import nanoseconds
from common.stats import evenly
from prepare.config import PrepareConfig
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.sources import Source


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
    shape: str


def summarize(source: Source, config: PrepareConfig, frames: int) -> List[RunSummary]:
    """A summary of every run that the source has; reads at most `frames` frames of each, spread evenly."""
    roles = _roles(config)
    return [_one(source, run, roles.get(run, ""), frames) for run in bar(source.runs(), "runs", "run")]


def table(summaries: List[RunSummary]) -> List[str]:
    """The summaries as lines of text."""
    lines = [
        f"{'run':>5} {'what':<12} {'shots':>7} {'frames':>7} {'damaged':>7} {'missing':>7} {'other':>5} "
        f"{'first shot (UTC)':<23} {'length':>9} {'mean':>8}  frame"
    ]
    for s in summaries:
        first = datetime.datetime.fromtimestamp(s.first, datetime.timezone.utc) if s.shots else None
        shown = first.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if first else "-"
        lines.append(
            f"{s.run:>5} {s.what or '-':<12} {s.shots:>7} {s.usable:>7} {s.damaged:>7} {s.missing:>7} "
            f"{s.other:>5} {shown:<23} {s.last - s.first:>7.1f} s {s.intensity:>8.2f}  {s.shape}"
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
        shape=" x ".join(map(str, read[0].shape)) if read else "-",
    )


def _roles(config: PrepareConfig) -> Dict[int, str]:
    roles = {**dict.fromkeys(config.runs.dark, "dark"), **dict.fromkeys(config.runs.unlabeled, "unlabeled")}
    for label, runs in config.runs.classes.items():
        roles.update(dict.fromkeys(runs, label))
    return roles
