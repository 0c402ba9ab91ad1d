"""Sweeps: a grid of settings, each with several seeds, every run a process of its own.

A run that fails does not touch the others; a sweep that is started again skips what is finished
and goes on with what was interrupted.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import yaml

from common import atomic, interrupt
from common import config as configs
from common import table as tables
from common.config import suggest
from common.errors import ConfigError, UserError
from common.progress import bar, say, warn
from train.config import TrainConfig
from train.data import number_of_classes
from train.shapes import layer_shapes


class Setting(NamedTuple):
    """One --set: a key of the config and the values to try."""

    key: Tuple[str, ...]
    values: List[Any]


class Case(NamedTuple):
    """One point of the grid: its label, and the configs of its runs, one for each seed."""

    label: str
    runs: List[TrainConfig]


def parse_setting(text: str, base: TrainConfig) -> Setting:
    """`learning_rate.start=.1,.01`: a dotted key, or the end of one that is the only such, and values.

    Raises UserError for a key that the config does not have or that fits more than one place.
    """
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise UserError(f"--set {text}: give KEY=VALUE[,VALUE...]")
    keys = _keys(base.model_dump(mode="json"))
    wanted = tuple(name.split("."))
    fitting = [key for key in keys if key == wanted] or [key for key in keys if key[-len(wanted) :] == wanted]
    if len(fitting) > 1:
        raise UserError(
            f"--set {name}: fits {', '.join('.'.join(key) for key in fitting)}; name one of them whole"
        )
    if not fitting:
        raise UserError(f"--set {name}: no such key{suggest(name, ['.'.join(key) for key in keys])}")
    return Setting(fitting[0], [_value(part) for part in re.split(r",(?![^\[]*\])", values)])


def plan(base: TrainConfig, settings: Sequence[Setting], seeds: int) -> List[Case]:
    """All points of the grid, validated before anything runs; raises ConfigError."""
    cases = []
    for values in itertools.product(*(setting.values for setting in settings)):
        pairs = list(zip(settings, values))
        label = ",".join(f"{setting.key[-1]}={_short(value)}" for setting, value in pairs) or "base"
        runs = []
        for seed in range(1, seeds + 1):
            data = base.model_dump(mode="json")
            for setting, value in pairs:
                _put(data, setting.key, value)
            data["seed"] = seed
            data["name"] = "_".join([re.sub(r"[^A-Za-z0-9.=-]+", "_", label).strip("_"), f"seed{seed}"])
            data["runs_dir"] = str(Path(base.runs_dir) / f"{base.name}_sweep")
            runs.append(configs.from_data(data, TrainConfig, f"--set {label}"))
        layer_shapes(runs[0].network, runs[0].input, number_of_classes(runs[0]) or 2)
        cases.append(Case(label, runs))
    return cases


def run(cases: Sequence[Case]) -> int:
    """Run what is not finished; returns how many runs failed."""
    failed = 0
    for config in bar([config for case in cases for config in case.runs], "sweep", "run"):
        if (config.run_dir / "summary.json").exists() and _same(config):
            continue
        path = config.run_dir.parent / f"{config.name}.yaml"
        atomic.write_text(path, configs.dump(config))
        how = "--resume" if _same(config) else "--force"
        command = [sys.executable, "-m", "train", "fit", str(path), how]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        atomic.write_text(config.run_dir.parent / f"{config.name}.log", done.stdout + done.stderr)
        if done.returncode in (130, 143):
            raise interrupt.Interrupted(done.returncode - 128)
        if done.returncode:
            failed += 1
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            warn(f"{config.name} failed ({last}); its log: {config.run_dir}.log")
    return failed


def table(cases: Sequence[Case]) -> List[Dict[str, Any]]:
    """One row a case: mean and spread over the seeds of the runs that finished, and what the watch saw."""
    rows = []
    for case in cases:
        ends = [json.loads((c.run_dir / "summary.json").read_text()) for c in case.runs if _finished(c)]
        row: Dict[str, Any] = {"settings": case.label, "runs": f"{len(ends)}/{len(case.runs)}"}
        for split in ("train", "validation", "test"):
            values = [end["splits"][split]["accuracy"] for end in ends if split in end["splits"]]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                row[split] = f"{statistics.mean(values):.3f} +- {spread:.3f}"
        row["median steps"] = statistics.median([end["step"] for end in ends]) if ends else ""
        row["one-sided"] = sum("one_sided" in end["watch"] for end in ends)
        rows.append(row)
    return rows


def sweep(base: TrainConfig, texts: Sequence[str], seeds: int) -> int:
    """The whole of `python -m train sweep`; returns how many runs failed."""
    cases = plan(base, [parse_setting(text, base) for text in texts], seeds)
    failed = run(cases)
    rows = table(cases)
    for line in tables.lines(rows):
        say(line)
    path = cases[0].runs[0].run_dir.parent / "sweep.csv"
    atomic.write_text(path, tables.csv_text(rows))
    say(f"{path}: this table; each run's files and log beside it")
    return failed


def _finished(config: TrainConfig) -> bool:
    return (config.run_dir / "summary.json").exists() and _same(config)


def _same(config: TrainConfig) -> bool:
    """Whether the run in the folder is one of this very config."""
    try:
        return configs.load(config.run_dir / "config.yaml", TrainConfig) == config
    except ConfigError:
        return False


def _keys(data: Dict[str, Any], before: Tuple[str, ...] = ()) -> List[Tuple[str, ...]]:
    keys = []
    for name, value in data.items():
        keys.append((*before, name))
        if isinstance(value, dict):
            keys += _keys(value, (*before, name))
    return keys


def _put(data: Dict[str, Any], key: Tuple[str, ...], value: Any) -> None:
    for name in key[:-1]:
        data = data[name]
    data[key[-1]] = value


def _value(text: str) -> Any:
    try:
        return yaml.load(text, configs.Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set: {text!r} is not a value ({' '.join(str(error).split())[:80]})") from None


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return str(value)
