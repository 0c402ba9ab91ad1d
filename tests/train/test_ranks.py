"""Training on several ranks, started by mpirun as a user does, and the sums they exchange."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ranks import Ranks
from tests.limits import HANGS
from train.run import checkpoint

MPIRUN = Path(sys.executable).with_name("mpirun")  # PyPI's mpich, of the extra `dev`

# All that is computed over a minibatch, a last minibatch of fewer shots than ranks (40 = 13 * 3 + 1).
OVER_THE_MINIBATCH = {
    "preprocess": ["log", "augment", "whiten_minibatch"],
    "network": [
        {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
        "batch_normalization",
        "relu",
        {"average_pool": {"pool_size": [3, 3], "strides": [2, 2]}},
        {"hidden": {"units": 5, "stddev": 0.1, "l2": 0.01}},
        "batch_normalization",
        "relu",
        {"output": {"stddev": 0.1}},
    ],
    "augment": [{"shift": [1, 1]}],
    "optimizer": {"kind": "momentum", "momentum": 0.5, "clip_norm": 1.0},
    "minibatch": 13,
    "steps": 31,
}


def mpirun(ranks: int, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [str(MPIRUN), "-n", str(ranks), sys.executable, "-m", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fit(ranks: int, *words: str) -> None:
    process = mpirun(ranks, "fit", *words)
    output, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, output + errors


def table(run: Path) -> list:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_ranks_train_what_one_process_trains_and_the_same_bits_each_time(data, write_config, train, tmp_path):
    alone = train("fit", write_config(name="one", **OVER_THE_MINIBATCH))
    assert alone.exit_code == 0, alone.output
    for name in ("several", "again"):
        fit(2, write_config(name=name, **OVER_THE_MINIBATCH))
    one, several, again = (tmp_path / "runs" / name for name in ("one", "several", "again"))
    assert len(table(one)) == len(table(several)) == 7
    for expected, row in zip(table(one), table(several)):
        for name, value in expected.items():
            if name in ("watch", "provenance"):
                assert row[name] == value
            elif value:
                assert float(row[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5), name
    for expected, values in zip(checkpoint.load(one).model, checkpoint.load(several).model):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert (several / "metrics.csv").read_bytes() == (again / "metrics.csv").read_bytes()
    states = (checkpoint.load(run) for run in (several, again))
    for a, b in zip(*([*state.model, *state.optimizer] for state in states)):
        np.testing.assert_array_equal(a, b)


def test_stopped_on_two_ranks_it_goes_on_with_three(data, write_config, train, tmp_path):
    settings = {**OVER_THE_MINIBATCH, "table_every": 100, "steps": 100000}
    process = mpirun(2, "fit", write_config(name="several", **settings))
    run = tmp_path / "runs/several"
    deadline = time.monotonic() + HANGS
    while not (run / "metrics.csv").exists() or len(table(run)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 143, output + errors
    assert errors.count("stopped by SIGTERM") == 1 and "--resume" in errors
    state = checkpoint.load(run)
    assert state is not None
    settings["steps"] = state.step + 30
    fit(3, write_config(name="several", **settings), "--resume")
    assert train("fit", write_config(name="one", **settings)).exit_code == 0
    for row, expected in zip(table(run), table(tmp_path / "runs/one")):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=2e-3)
    assert checkpoint.load(run).step == settings["steps"]


def test_a_rank_that_is_killed_ends_all(data, write_config, tmp_path):
    config = write_config(name="several", **{**OVER_THE_MINIBATCH, "steps": 100000})
    process = mpirun(2, "fit", config)
    run = tmp_path / "runs/several"
    deadline = time.monotonic() + HANGS
    while not (run / "metrics.csv").exists() or len(table(run)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    of_ranks = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _runs(p, config)]
    assert len(of_ranks) == 2
    os.kill(max(of_ranks), signal.SIGKILL)
    process.communicate(timeout=HANGS)
    assert process.returncode != 0


def test_a_mistake_is_said_once_and_ends_all(data, write_config):
    process = mpirun(2, "fit", write_config(name="several", stop_when={"split": "validation", "accuracy": 1}))
    output, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert errors.count("error: ") == 1 and "has no split 'validation'" in errors


def _runs(process: Path, config: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return words[1:4] == ["-m", "train", "fit"] and config in words


@given(st.integers(1, 9), st.integers(0, 40))
def test_every_shot_of_a_minibatch_is_some_ranks(size, n):
    ranks = [Ranks() for _ in range(size)]
    for number, one in enumerate(ranks):
        one.rank, one.size = number, size
    shares = [np.arange(n)[one.share(n)] for one in ranks]
    assert np.array_equal(np.concatenate(shares), np.arange(n))
    parts = [np.arange(n)[one.minibatch_part(n)] for one in ranks]
    assert sum(map(len, parts)) == ranks[0].minibatch(n)[1]
    assert all(len(part) for part in parts) or n == 0
