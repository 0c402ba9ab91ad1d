"""Sweeps: a grid of settings, each with several seeds, every run a process of its own.

A run that fails does not touch the others; a sweep that is started again skips what is finished
and goes on with what was interrupted.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Sequence

from common import cli, parallel, text_table
from common.config import dump
from common.cores import available_cores
from common.files import atomic, lock
from common.progress import bar, say, warn
from train.config import Threads, TrainConfig
from train.run import folder
from train.run.folder import digest_of_data, is_finished, is_same
from train.sweep import sweep_table
from train.sweep.grid import parse_setting, plan


class _Running(NamedTuple):
    """A run under way."""

    config: TrainConfig
    process: subprocess.Popen


def run_sweep(
    base: TrainConfig, texts: Sequence[str], seeds: int, one_at_a_time: bool = False, jobs: int = 1
) -> int:
    """The whole of `python -m train sweep`; returns how many runs failed. Raises UserError.

    Of `jobs` runs side by side each gets its share of the cores, unless the config says `threads`.
    """
    cases = plan(base, [parse_setting(text, base) for text in texts], seeds, one_at_a_time)
    for case in cases:
        digest_of_data(case.runs[0])  # data that are not there: rather one error than one for each run
    failed = run_all([config for case in cases for config in case.runs], jobs)
    rows = sweep_table.table(cases, is_finished)
    for line in sweep_table.lines(rows):
        say(line)
    path = cases[0].runs[0].run_dir.parent / "sweep.csv"
    atomic.write_text(path, text_table.csv_text(rows))
    say(f"{path}: this table; each run's files and log beside it")
    return failed


def run_all(configs_of_runs: Sequence[TrainConfig], jobs: int = 1) -> int:
    """Run all configs that are not finished, `jobs` at a time; returns how many failed.

    A run that another process is at work on is waited for.

    Interrupted, it lets the runs under way save their checkpoints before it goes on as Interrupted.
    """
    waiting = list({c.name: c for c in configs_of_runs if not is_finished(c)}.values())
    running: list[_Running] = []
    failed, told = 0, set()
    total = len(configs_of_runs)
    progress = bar(None, "sweep", "run", total=total, initial=total - len(waiting))
    try:
        while waiting or running:
            for config in waiting[:]:
                if len(running) == jobs:
                    break
                holder = lock.holder(config.run_dir / folder.LOCK)
                if holder and config.name not in told:
                    told.add(config.name)
                    warn(f"{config.name}: {holder} is at work on it; waiting for its end")
                if not holder:
                    waiting.remove(config)
                    if config.name in told and is_finished(config):
                        progress.update()
                    else:
                        running.append(_start(config, jobs))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                failed += _ended(one)
                progress.update()
            progress.update(0)
            time.sleep(0.05 if running else 0.5)
    finally:
        progress.close()
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.process.stdin.close()
    return failed


def _start(config: TrainConfig, jobs: int) -> _Running:
    if config.threads.intra is None and jobs > 1:
        threads = Threads(intra=max(1, available_cores() // jobs), inter=config.threads.inter)
        config = config.model_copy(update={"threads": threads})
    path = _beside(config, ".yaml")
    atomic.write_text(path, dump(config))
    unfinished = is_same(config) and not (config.run_dir / folder.SUMMARY).exists()
    command = cli.child("train", "fit", str(path), "--resume" if unfinished else "--force")
    with open(_beside(config, ".log"), "a" if unfinished else "w", encoding="utf-8") as log:
        # A session of its own, so that Ctrl-C reaches it once, from us; a pipe, so that it ends with us.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=parallel.environment_of_one(),
        )
    return _Running(config, process)


def _ended(one: _Running) -> int:
    """1 and a warning if the run failed, else 0."""
    one.process.stdin.close()
    code = one.process.returncode
    if code == 0:
        return 0
    path = _beside(one.config, ".log")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    # What it said of its end, if it could: the last line may as well be one of its table.
    told = [line for line in lines if line.startswith(("error: ", "stopped by ", "interrupted"))]
    why = f"ended by {signal.Signals(-code).name}" if code < 0 else (told or lines or ["no message"])[-1]
    warn(f"{one.config.name} failed ({why}); its log: {path}")
    return 1


def _beside(config: TrainConfig, ending: str) -> Path:
    # not with_suffix: the names of runs have dots
    return config.run_dir.parent / f"{config.name}{ending}"
