"""Sweeps: a grid of settings, each with several seeds; every run is a process of its own.

A run that fails does not affect the others; a sweep that is started again skips finished runs and
resumes interrupted ones.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Optional, Sequence

from common import cli, interrupt, parallel, processes, text_table
from common.config import dump
from common.files import atomic, lock
from common.progress import bar, say, warn
from train.config import Threads, TrainConfig
from train.run import folder
from train.run.folder import digest_of_data, is_finished, is_same
from train.sweep import sweep_table
from train.sweep.grid import parse_setting, plan


def run_sweep(
    base: TrainConfig,
    texts: Sequence[str],
    seeds: int,
    one_at_a_time: bool,
    workers: Executor,
    as_json: bool = False,
) -> int:
    """The whole of `python -m train sweep`; returns how many runs failed. Raises UserError.

    Runs that are trained at the same time share the cores, unless the config sets `threads`.
    """
    cases = plan(base, [parse_setting(text, base) for text in texts], seeds, one_at_a_time)
    for case in cases:
        digest_of_data(case.runs[0])  # data that are not there: rather one error than one for each run
    failed = run_all([config for case in cases for config in case.runs], workers)
    rows = sweep_table.table(cases, is_finished)
    path = cases[0].runs[0].run_dir.parent / "sweep.csv"
    atomic.write_text(path, text_table.csv_text(rows))
    if as_json:
        cli.print_json({"table": rows, "failed": failed, "csv": str(path)})
        return failed
    for line in sweep_table.lines(rows):
        say(line)
    say(f"{path}: this table; each run's files and log beside it")
    return failed


def run_all(configs_of_runs: Sequence[TrainConfig], workers: Optional[Executor] = None) -> int:
    """Train all configs that are not finished; returns how many failed.

    workers: the executor that does the work. Runs that another process is working on come last, after
    waiting for its end. If interrupted, the runs under way save their checkpoints first.
    """
    todo = list({c.name: c for c in configs_of_runs if not is_finished(c)}.values())
    holders = {config.name: _holder(config) for config in todo}
    for name, holder in holders.items():
        if holder:
            warn(f"{name}: {holder} is at work on it; waiting for its end")
    todo.sort(key=lambda config: bool(holders[config.name]))
    tasks = [(config, bool(holders[config.name])) for config in todo]
    total, failed = len(configs_of_runs), 0
    with bar(None, "sweep", "run", total=total, initial=total - len(todo)) as progress:
        for failure in parallel.results(workers or parallel.Here(), train, tasks):
            if failure:
                warn(failure)
                failed += 1
            progress.update()
    return failed


def train(config: TrainConfig, held: bool = False) -> str:
    """Train `config` in a process of its own; returns why it failed, or ''.

    held: another process is working on this run; wait for its end and take its result.
    """
    while held and _holder(config):
        with interrupt.waiting():
            time.sleep(0.5)
    if held and is_finished(config):
        return ""
    place = processes.own
    if config.threads.intra is None and place.sharing > 1:
        threads = Threads(intra=place.cores, inter=config.threads.inter)
        config = config.model_copy(update={"threads": threads})
    path, log = _beside(config, ".yaml"), _beside(config, ".log")
    atomic.write_text(path, dump(config))
    unfinished = is_same(config) and not (config.run_dir / folder.SUMMARY).exists()
    command = cli.child("train", "fit", str(path), "--resume" if unfinished else "--force")
    code = processes.run_child(command, log, append=unfinished)
    return f"{config.name} failed ({_why(code, log)}); its log: {log}" if code else ""


def _holder(config: TrainConfig) -> str:
    return lock.holder(config.run_dir / folder.LOCK)


def _why(code: int, log: Path) -> str:
    """Why a run ended: the error line of its log if there is one, else the last line."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.startswith(("error: ", "stopped by ", "interrupted"))]
    return (told or lines or ["no message"])[-1]


def _beside(config: TrainConfig, ending: str) -> Path:
    # not with_suffix: the names of runs have dots
    return config.run_dir.parent / f"{config.name}{ending}"
