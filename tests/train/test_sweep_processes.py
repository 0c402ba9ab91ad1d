"""Sweeps that are interrupted, killed, started twice, or spread over ranks: nothing is lost or left over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.limits import HANGS
from tests.train.test_ranks import MPIRUN


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
    _, errors = process.communicate(timeout=HANGS)
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
    deadline = time.monotonic() + HANGS
    while not all((run / "metrics.csv").exists() for run in runs):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    workers = [pid for pid, parent in parents().items() if parent == process.pid]
    trainings = [pid for pid, parent in parents().items() if parent in workers]
    assert len(workers) == len(trainings) == 2
    killed = process.pid if which == "the first" else workers[0]
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=HANGS)
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
    deadline = time.monotonic() + HANGS
    while not (run / "metrics.csv").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.1)
    (training,) = [pid for pid, parent in parents().items() if parent == first.pid]
    os.kill(training, signal.SIGSTOP)
    first.kill()
    first.communicate(timeout=HANGS)
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
        _, errors = again.communicate(timeout=HANGS)
    finally:
        again.kill()
    assert again.returncode == 143 and errors.count("\n") == 1
    assert "resum" in (run.parent / "base_seed1.log").read_text()


def test_ranks_train_what_one_process_trains(data, write_config, train, tmp_path):
    command = [str(MPIRUN), "-n", "3", sys.executable, "-m", "train", "sweep", write_config(), "--seeds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sweep.csv") == 1
    for seed in (1, 2):
        assert train("fit", write_config(name=f"alone{seed}", seed=seed)).exit_code == 0
        swept, alone = (tmp_path / "runs" / name for name in (f"small_sweep/base_seed{seed}", f"alone{seed}"))
        assert (swept / "metrics.csv").read_bytes() == (alone / "metrics.csv").read_bytes()
