"""Sweeps: the grid, its runs, what a failure or an interruption leaves, and the table."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import parallel, processes
from common.errors import ConfigError, UserError
from tests.train.conftest import write_data
from tests.train.test_ranks import MPIRUN
from train.config import load_config
from train.sweep import sweep, sweep_table
from train.sweep.grid import parse_setting, plan


@pytest.fixture
def base(data, write_config):
    return load_config(write_config())


def set_all(base, *texts):
    return [parse_setting(text, base) for text in texts]


# --- the grid --------------------------------------------------------------------------------


def test_the_grid_is_every_combination_with_every_seed(base):
    cases = plan(base, set_all(base, "momentum=.9,.99", "learning_rate.start=.1,1e-2"), seeds=3)
    assert [case.label for case in cases] == [
        f"momentum={m},learning_rate.start={rate}" for m in ("0.9", "0.99") for rate in ("0.1", "0.01")
    ]
    runs = [run for case in cases for run in case.runs]
    assert len({run.run_dir for run in runs}) == 12
    assert {run.run_dir.parent.name for run in runs} == {"small_sweep"}
    assert [run.seed for run in cases[0].runs] == [1, 2, 3]
    assert {(run.optimizer.momentum, run.learning_rate.start) for run in cases[1].runs} == {(0.9, 0.01)}
    assert all(run.network == base.network and not run.report for run in runs)


def test_one_at_a_time_is_the_config_and_each_value_by_itself(base):
    cases = plan(base, set_all(base, "momentum=.9,.99", "minibatch=8"), seeds=1, one_at_a_time=True)
    assert [case.label for case in cases] == ["base", "momentum=0.9", "momentum=0.99", "minibatch=8"]
    momenta, minibatches = zip(*((c.runs[0].optimizer.momentum, c.runs[0].minibatch) for c in cases))
    assert momenta == (0.4, 0.9, 0.99, 0.4)
    assert minibatches == (16, 16, 16, 8)


def test_values_are_yaml_lists_and_words_included(base):
    cases = plan(base, set_all(base, "preprocess=[],[log],[log,standardize]", "minibatch=full"), seeds=1)
    assert [case.label.split(",")[0] for case in cases] == [
        "preprocess=none", "preprocess=log", "preprocess=log+standardize",
    ]  # fmt: skip
    assert [[step.kind for step in case.runs[0].preprocess] for case in cases] == [
        [],
        ["log"],
        ["log", "standardize"],
    ]
    assert cases[0].runs[0].minibatch == "full"


def test_a_star_sets_a_key_of_every_layer_that_has_it(base):
    cases = plan(base, set_all(base, "network.*.bias=.1", "network.*.convolution.filters=5"), seeds=1)
    convolution, *_, output = cases[0].runs[0].network
    assert (convolution.settings.bias, output.settings.bias) == (0.1, 0.1)
    assert convolution.settings.filters == 5


def test_one_layer_by_its_number(base):
    case = plan(base, set_all(base, "network.3.output.stddev=0.5"), seeds=1)[0]
    assert [getattr(layer.settings, "stddev", None) for layer in case.runs[0].network] == [
        0.1,
        None,
        None,
        0.5,
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("momentum", "--set momentum: give KEY=VALUE"),
        ("momentum=", "give KEY=VALUE"),
        ("momentun=.9", "momentun: no such key; did you mean"),
        ("kind=adam", "fits optimizer.kind, learning_rate.kind; name one of them whole"),
        ("bias=.1", "fits network.0.convolution.bias, network.3.output.bias; name one of them whole, or all"),
        ("network.*.channels=8", "network.*.channels: no such key; it is now called filters"),
        ("network.*.biass=.1", "network.*.biass: no such key"),
        ("momentum=[", "'[' is not a value"),
        ("seed=1,2", "seed: not to be set in a sweep; give --seeds N"),
        ("name=a", "name: not to be set in a sweep"),
    ],
)
def test_settings_that_cannot_be(base, text, message):
    with pytest.raises(UserError) as caught:
        parse_setting(text, base)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("momentum=.9,1.5", "--set momentum=1.5: optimizer.momentum: 1.5: input should be less than 1"),
        ("minibatch=0", "minibatch: 0 is not positive"),
        ("preprocess=[lgo]", "preprocess[0].lgo: unknown key; did you mean 'log'?"),
    ],
)
def test_one_bad_value_stops_the_sweep_before_any_run(base, write_config, train, text, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        plan(base, set_all(base, text), seeds=2)
    assert message in str(caught.value)
    result = train("sweep", write_config(), "--set", text)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "runs").exists()


def test_missing_data_are_one_error_not_one_for_each_run(write_config, train, tmp_path):
    result = train("sweep", write_config(), "--seeds", "3")
    assert result.exit_code == 2
    assert result.output.count("no such data file") == 1
    assert not (tmp_path / "runs").exists()


def test_data_of_another_shape_or_without_the_split_to_stop_by(data, write_config, train, tmp_path):
    other = train("sweep", write_config(input=[20, 20]), "--seeds", "3")
    assert other.exit_code == 2 and other.output.count("images are 20 x 24") == 1
    stop = train("sweep", write_config(stop_when={"split": "validation", "accuracy": 0.9}), "--seeds", "3")
    assert stop.exit_code == 2 and stop.output.count("no split 'validation'") == 1
    assert not (tmp_path / "runs").exists()


# --- the runs --------------------------------------------------------------------------------


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


def test_as_many_runs_side_by_side_as_asked_for(base, monkeypatch):
    record_starts(monkeypatch, "import time; time.sleep(0.5)")
    runs = plan(base, [], seeds=4)[0].runs
    start = time.monotonic()
    with parallel.executor(4) as workers:
        sweep.run_all(runs, workers)
    assert time.monotonic() - start < 1.9  # one after the other they take 2 s


def test_an_interruption_lets_the_runs_under_way_save(data, write_config, tmp_path):
    config = write_config(steps=100_000, table_every=5, learning_rate={"start": 1e-4})
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "sweep", config],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = tmp_path / "runs" / "small_sweep" / "base_seed1"
    for _ in range(600):
        if (run / "metrics.csv").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; the same command continues where it stopped" in errors
    assert list((run / "checkpoints").iterdir())
    log = (run.parent / "base_seed1.log").read_text()
    assert "Traceback" not in log and "stopped by SIGTERM; continue with: python -m train fit" in log


LONG = {"steps": 100_000, "table_every": 5, "learning_rate": {"start": 1e-4}}


def started(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "train", "sweep", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def parents() -> dict:
    """{process: its parent} of all processes that are not dead."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


@pytest.mark.parametrize("which", ["the first", "another"])
def test_a_killed_process_leaves_none_and_the_runs_under_way_save(data, write_config, tmp_path, which):
    process = started(write_config(**LONG), "--seeds", "2", "--jobs", "2")
    runs = [tmp_path / "runs/small_sweep" / f"base_seed{seed}" for seed in (1, 2)]
    deadline = time.monotonic() + 120
    while not all((run / "metrics.csv").exists() for run in runs):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    workers = [pid for pid, parent in parents().items() if parent == process.pid]
    trainings = [pid for pid, parent in parents().items() if parent in workers]
    assert len(workers) == len(trainings) == 2
    killed = process.pid if which == "the first" else workers[0]
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    if which == "another":
        assert process.returncode == 2
        assert f"error: process {killed} of --jobs 2 was ended by SIGKILL" in errors
        assert errors.count("\n") == 1
    while not parents().keys().isdisjoint([*workers, *trainings]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert all(list((run / "checkpoints").iterdir()) for run in runs)


def test_a_sweep_over_a_run_that_another_process_is_at_waits_and_goes_on(data, write_config, tmp_path):
    """As after kill -9 of a sweep whose training does not end at once."""
    config = write_config(**LONG)
    first, run = started(config), tmp_path / "runs/small_sweep/base_seed1"
    deadline = time.monotonic() + 120
    while not (run / "metrics.csv").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.1)
    (training,) = [pid for pid, parent in parents().items() if parent == first.pid]
    os.kill(training, signal.SIGSTOP)
    first.kill()
    first.communicate(timeout=60)
    again = started(config)
    try:
        warning = again.stderr.readline()
        assert f"warning: base_seed1: process {training} on" in warning and "waiting for its end" in warning
        steps = len((run / "metrics.csv").read_text().splitlines())
        os.kill(training, signal.SIGCONT)  # which saves and ends, as its sweep has gone
        while len((run / "metrics.csv").read_text().splitlines()) < steps + 3:
            assert again.poll() is None and time.monotonic() < deadline, again.communicate()
            time.sleep(0.1)
        assert training not in parents()
        again.send_signal(signal.SIGTERM)
        _, errors = again.communicate(timeout=60)
    finally:
        again.kill()
    assert again.returncode == 143 and errors.count("\n") == 1
    assert "resum" in (run.parent / "base_seed1.log").read_text()


def test_ranks_train_what_one_process_trains(data, write_config, tmp_path):
    metrics = []
    for name, launcher in (("one", []), ("ranks", [str(MPIRUN), "-n", "3"])):
        config = write_config(name=name)
        command = [*launcher, sys.executable, "-m", "train", "sweep", config, "--seeds", "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("sweep.csv") == 1
        runs = [tmp_path / f"runs/{name}_sweep/base_seed{seed}" for seed in (1, 2)]
        metrics.append([(run / "metrics.csv").read_bytes() for run in runs])
    assert metrics[0] == metrics[1]


# --- the table -------------------------------------------------------------------------------


def numbers(**changes) -> dict:
    row = {
        "settings": "a=1",
        "runs": 5,
        "finished": 5,
        "nan": 0,
        "collapsed": 2,
        "collapsed_at_end": 1,
        "vanished": 0,
    }
    row.update({"swings": 1.4, "steps_median": 51, "steps_min": 31, "steps_max": 61})
    row.update({"test_mean": 0.61234, "test_std": 0.0499, "test_min": 0.55, "test_max": 0.68})
    of_test = {"test_n": 300, "test_chance": 0.5, "test_n_effective": 120.0, "test_better": 3}
    return {**row, **of_test, **changes}


def test_the_table_shows_spread_n_chance_and_what_was_collapsed():
    text = sweep_table.lines([numbers(), numbers(settings="a=10", finished=4, nan=1)])
    words = "settings runs test steps collapsed at the end swings vanished NaN"
    assert text[0].split() == words.split()
    assert "0.612 +- 0.050 (0.550 to 0.680)" in text[1] and "51 (31 to 61)" in text[1]
    assert text[2].split()[:2] == ["a=10", "4/5"] and text[2].endswith("1")
    closing = "\n".join(text)
    assert "test: 300 shots, the same for all seeds" in closing
    assert "(120 to 120 effective); always guessing the larger class is right on 0.500" in closing
    assert "and 6 of 9 runs are better than that (95 % interval)" in closing
    assert "the best of 2 settings by test accuracy looks better than it is" in closing


def test_one_run_has_no_spread_and_no_choice():
    text = sweep_table.lines([numbers(runs=1, finished=1, steps_min=51, steps_max=51)])
    assert "+-" not in text[1] and "the best of" not in "\n".join(text)


def test_a_table_of_failures_only():
    row = {"settings": "a=1", "runs": 2, "finished": 0, "nan": 0}
    assert sweep_table.lines([row])[1].split() == ["a=1", "0/2"]
