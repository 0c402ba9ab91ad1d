"""The runs of a sweep: which are trained, with what, and what a failure leaves."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from common import parallel, processes
from tests.limits import HANGS
from tests.train.conftest import write_data
from train.config import load_config
from train.sweep import sweep
from train.sweep.grid import plan


@pytest.fixture
def base(data, write_config):
    return load_config(write_config())


def table(path: Path) -> list:
    return list(csv.DictReader((path / "sweep.csv").read_text().splitlines()))


def test_a_failed_run_leaves_the_others_and_what_is_finished_is_not_run_again(
    data, write_config, train, tmp_path, monkeypatch
):
    """Three real runs, one of which ends in NaN; then the same command again."""
    command = [
        "sweep",
        write_config(),
        "--set",
        "learning_rate.start=.02,1e30",
        "--seeds",
        "1",
        "--jobs",
        "2",
    ]
    result = train(*command)
    assert result.exit_code == 1
    runs = tmp_path / "runs" / "small_sweep"
    assert "warning: learning_rate.start_1e_30_seed1 failed (error: step" in result.output
    assert "step" in (runs / "learning_rate.start_1e_30_seed1.log").read_text()
    good, bad = table(runs)
    assert (good["settings"], good["finished"], good["nan"]) == ("learning_rate.start=0.02", "1", "0")
    assert (bad["finished"], bad["nan"], bad["test_mean"]) == ("0", "1", "")
    assert (good["test_n"], float(good["test_chance"])) == ("30", 0.5)
    for words in ("settings", "NaN", "test: 30 shots", "larger class is right on 0.500", "sweep.csv"):
        assert words in result.output
    started = record_starts(monkeypatch, "import sys; sys.exit(2)")
    again = train(*command[:-2], "--json")
    assert again.exit_code == 1
    told = json.loads(again.stdout)
    assert [row["finished"] for row in told["table"]] == [1, 0] and told["failed"] == 1
    assert told["table"][0]["test_mean"] == float(good["test_mean"])
    assert started == [("learning_rate.start_1e_30_seed1", "--resume")]


def record_starts(monkeypatch, code: str = "") -> list:
    """Let `sweep` start `python -c code` instead of trainings; gives the list of what it started."""
    started = []
    real = subprocess.Popen

    def start(command, **settings):
        started.append((Path(command[-2]).name[: -len(".yaml")], command[-1]))
        return real([sys.executable, "-c", code], **settings)

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    return started


def finish(config, train, *options) -> None:
    """Train one run of a sweep in this process."""
    path = config.run_dir.parent / f"{config.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sweep.dump(config))
    assert train("fit", str(path), *options).exit_code == 0


def test_what_is_finished_of_other_settings_or_other_data_is_run_again(
    base, data, write_config, train, monkeypatch
):
    run = plan(base, [], seeds=1)[0].runs[0]
    finish(run, train)
    started = record_starts(monkeypatch)
    assert sweep.run_all([run]) == 0 and started == []
    changed = run.model_copy(update={"steps": 12})
    sweep.run_all([changed])
    assert started == [(run.name, "--force")]
    other_threads = run.model_copy(update={"threads": run.threads.model_copy(update={"intra": 2})})
    assert sweep.is_finished(other_threads)
    write_data(data, {"train": 40, "test": 30}, seed=5)
    assert not sweep.is_finished(run)


def test_a_data_set_of_several_files(base, data, tmp_path, train):
    write_data(tmp_path / "more.h5", {"train": 20}, seed=8, first=1000)
    both = base.model_copy(update={"data": [str(data), str(tmp_path / "more.h5")]})
    run = plan(both, [], seeds=1)[0].runs[0]
    finish(run, train)
    assert sweep.is_finished(run) and not sweep.is_finished(plan(base, [], seeds=1)[0].runs[0])


def test_an_interrupted_run_is_gone_on_with(base, train, monkeypatch):
    run = plan(base, [], seeds=1)[0].runs[0]
    finish(run, train)
    (run.run_dir / "summary.json").unlink()
    started = record_starts(monkeypatch)
    sweep.run_all([run])
    assert started == [(run.name, "--resume")]


def test_jobs_share_the_cores(base, monkeypatch):
    monkeypatch.setattr(processes, "available_cores", lambda: 8)
    record_starts(monkeypatch)
    alone = base.model_copy(update={"threads": type(base.threads)()})
    runs = plan(alone, [], seeds=3)[0].runs
    with parallel.executor(3) as workers:
        sweep.run_all(runs, workers)
    threads = [load_config(str(run.run_dir.parent / f"{run.name}.yaml")).threads.intra for run in runs]
    assert threads == [2, 2, 2]


def test_as_many_runs_side_by_side_as_asked_for(base, monkeypatch, tmp_path):
    """Each waits for the others, and ends only when all four are there."""
    here = tmp_path / "here"
    here.mkdir()
    wait = (
        "import os, sys, time\n"
        f"open(os.path.join({str(here)!r}, str(os.getpid())), 'x').close()\n"
        f"until = time.monotonic() + {HANGS}\n"
        f"while len(os.listdir({str(here)!r})) < 4:\n"
        "    if time.monotonic() > until: sys.exit(2)\n"
        "    time.sleep(0.01)\n"
    )
    record_starts(monkeypatch, wait)
    runs = plan(base, [], seeds=4)[0].runs
    with parallel.executor(4) as workers:
        assert sweep.run_all(runs, workers) == 0
    assert len(list(here.iterdir())) == 4
