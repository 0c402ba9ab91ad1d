"""Compare psana and the native reader: read the same runs by both; compare keys, records, pixels."""

from __future__ import annotations

from typing import NamedTuple

import click
import numpy as np

from common.progress import bar, say
from common.shots import ID_FIELDS, RECORD_DTYPE
from prepare.config import PrepareConfig
from prepare.select import uniform_hash
from prepare.shots import BAD_FIDUCIAL, DUPLICATE, USABLE
from prepare.sources import Source
from prepare.sources.native import XtcSource
from prepare.sources.psana import find_directory, open_psana

_SHOWN = 3  # differences of a kind that are shown
Key = tuple[int, int, int]


class Verdict(NamedTuple):
    """What was compared, a line for each run, and what differs, a line for each difference."""

    compared: list[str]
    differences: list[str]


def print_check(config: PrepareConfig, shots: int) -> bool:
    """Print what `check` finds; returns whether all is the same."""
    verdict = check(config, shots)
    for line in verdict.compared:
        say(line)
    for line in verdict.differences:
        click.echo(f"difference: {line}", err=True)
    if verdict.differences:
        click.echo("psana and the native reader differ", err=True)
    else:
        say("psana and the native reader give the same shots, records and pixels")
    return not verdict.differences


def check(config: PrepareConfig, shots: int) -> Verdict:
    """Compare all keys and records of the config's runs, and the pixels of `shots` shots spread over them."""
    kind = "psana" if config.source.kind == "xtc" else config.source.kind
    directory = find_directory(config.experiment, config.source.dir)
    source = config.source.model_copy(update={"kind": kind, "dir": directory})
    config = config.model_copy(update={"source": source})
    native = XtcSource(directory, config.camera.address)
    psana = open_psana(config, keep_listings=False)
    runs = [*config.runs.dark, *config.runs.measured]
    verdict = Verdict([], [])
    with native, psana:
        for n, run in enumerate(runs):
            of_run = shots * (n + 1) // len(runs) - shots * n // len(runs)
            _check_run(run, psana, native, of_run, verdict)
    return verdict


def _check_run(run: int, psana: Source, native: Source, shots: int, verdict: Verdict) -> None:
    mine, theirs = _by_key(native.shots(run)), _by_key(psana.shots(run))
    differences: list[str] = []
    _differ(differences, "only the native reader has", [key for key in mine if key not in theirs])
    _differ(differences, "only psana has", [key for key in theirs if key not in mine])
    both = [key for key in mine if key in theirs]
    usable = [
        (native.shots(run)["status"][mine[key]] == USABLE, psana.shots(run)["status"][theirs[key]] == USABLE)
        for key in both
    ]
    _differ(differences, "a frame by the native reader alone at", _where(both, usable, (True, False)))
    _differ(differences, "a frame by psana alone at", _where(both, usable, (False, True)))
    a = native.shots(run)[[mine[key] for key in both]]
    b = psana.shots(run)[[theirs[key] for key in both]]
    for name in RECORD_DTYPE.names:
        unequal = np.flatnonzero((a[name] != b[name]) & ~(np.isnan(a[name]) & np.isnan(b[name])))
        _differ(differences, f"{name} differs at", [both[i] for i in unequal])
    chosen = [key for key, good in zip(both, usable) if good == (True, True)]
    chosen = sorted(sorted(chosen, key=lambda key: uniform_hash(0, (run, *key)))[:shots])
    _differ(differences, "pixels differ at", _unequal_frames(run, psana, native, chosen, mine, theirs))
    verdict.compared.append(
        f"run {run}: {len(both)} shots by both, {usable.count((True, True))} with a frame, "
        f"pixels of {len(chosen)} compared: {'differs' if differences else 'same'}"
    )
    verdict.differences.extend(f"run {run}: {line}" for line in differences)


def _unequal_frames(
    run: int, psana: Source, native: Source, keys: list[Key], mine: dict[Key, int], theirs: dict[Key, int]
) -> list[Key]:
    unequal = []
    ours = native.frames(run, [mine[key] for key in keys])
    other = psana.frames(run, [theirs[key] for key in keys])
    for key, a, b in bar(zip(keys, ours, other), f"comparing run {run}", "shot", len(keys)):
        same = a.frame is not None and b.frame is not None and a.frame.dtype == b.frame.dtype
        if not (same and np.array_equal(a.frame, b.frame)):
            unequal.append(key)
    return unequal


def _by_key(shots: np.ndarray) -> dict[Key, int]:
    """{key: index} of the shots that psana shows as well: not those it skips, each once."""
    shown = np.flatnonzero(~np.isin(shots["status"], (BAD_FIDUCIAL, DUPLICATE)))
    return {key: i for key, i in zip(shots[list(ID_FIELDS[1:])][shown].tolist(), shown.tolist())}


def _where(keys: list[Key], usable: list[tuple], case: tuple) -> list[Key]:
    return [key for key, these in zip(keys, usable) if these == case]


def _differ(lines: list[str], what: str, keys: list[Key]) -> None:
    if keys:
        shown = ", ".join(f"{s}.{ns:09d} fiducial {f}" for s, ns, f in sorted(keys)[:_SHOWN])
        lines.append(f"{what} {len(keys)} shots: {shown}{', ...' if len(keys) > _SHOWN else ''}")
