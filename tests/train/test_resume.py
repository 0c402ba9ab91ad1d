"""Runs that were stopped, killed, or whose folder was damaged, go on as if nothing had been."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common.ranks import Ranks
from tests.command_line import refused
from tests.limits import HANGS
from tests.preloaded import Preloaded
from tests.train.conftest import write_data
from tests.train.test_commands import table
from train.config import load_config
from train.data.dataset import open_data
from train.fit import loop
from train.fit.setup import stepper_of
from train.run import checkpoint, folder

LAYERS_WITH_STATE = [
    {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
    {"batch_normalization": {"momentum": 0.5}},
    "relu",
    {"dropout": {"rate": 0.4}},
    {"hidden": {"units": 5, "stddev": 0.1}},
    {"dropout": {"rate": 0.2}},
    {"output": {"stddev": 0.1}},
]


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "runs" / "small"


@pytest.fixture
def often(monkeypatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(loop, "SAVING_SHARE", 1e9)


def same(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    pairs = zip([*a.model, *a.optimizer, a.gradient], [*b.model, *b.optimizer, b.gradient])
    return a.step == b.step and a.table == b.table and all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_dropout_and_batch_normalization_go_on_too(data, write_config, train, run, optimizer):
    settings = {
        "optimizer": {"kind": optimizer},
        "network": LAYERS_WITH_STATE,
        "preprocess": ["whiten_minibatch"],
    }
    whole = train("fit", write_config(steps=9, table_every=2, **settings))
    end = checkpoint.load(run)
    shutil.rmtree(run)
    for steps in (2, 5):
        assert train("fit", write_config(steps=steps, table_every=2, **settings), "--resume").exit_code == 0
    resumed = train("fit", write_config(steps=9, table_every=2, **settings), "--resume")
    assert table(resumed.output) == table(whole.output)
    assert same(checkpoint.load(run), end)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_train_split_is_read_for_its_statistics_only_where_no_checkpoint_has_them(
    data, write_config, resumed
):
    config = load_config(write_config(preprocess=["standardize"]))
    with open_data(data, None, ["train"], "stream") as opened:
        first = stepper_of(config, opened, Ranks())
        read = opened.splits["train"].reading
        stepper = stepper_of(config, opened, Ranks(), resumed)
        assert (opened.splits["train"].reading == read) == resumed
        stepper.restore(*first.state())
        for expected, weights in zip(first.whole.get_weights(), stepper.whole.get_weights()):
            np.testing.assert_array_equal(weights, expected)


def test_each_moment_of_a_run_is_one_to_go_on_from(data, write_config, train, run, often, tmp_path):
    """Killed before or after any file is written, whatever the table and the settings file say then."""
    config = write_config(checkpoint_seconds=0, table_every=3)
    whole = train("fit", config)
    end, summary = checkpoint.load(run), json.loads((run / "summary.json").read_text())
    metrics = (run / "metrics.csv").read_bytes()
    kept = [path.read_bytes() for path in checkpoint.find(run)]
    assert len(kept) == checkpoint.KEEP
    shutil.copytree(run, tmp_path / "whole")
    for lost in (
        ["summary.json"],
        ["summary.json", "model.keras"],
        ["summary.json", "model.keras", "checkpoints/step-00000011.npz"],
        ["summary.json", "model.keras", "checkpoints/step-00000011.npz", "checkpoints/step-00000010.npz"],
        ["summary.json", "model.keras", "metrics.csv", "config.yaml", "checkpoints/step-00000011.npz"],
        ["summary.json", "model.keras", "metrics.csv", "config.yaml", "checkpoints"],
    ):
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "whole", run)
        for name in lost:
            shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
        (run / "partial.model.keras").write_bytes(b"half")
        resumed = train("fit", config, "--resume")
        assert table(resumed.output) == table(whole.output), lost
        assert same(checkpoint.load(run), end), lost
        assert (run / "metrics.csv").read_bytes() == metrics
        again = json.loads((run / "summary.json").read_text())
        assert again["splits"] == summary["splits"]
        assert again["step_seconds"] > 0


def test_a_row_that_was_only_half_written(data, write_config, train, run, often):
    config = write_config(checkpoint_seconds=0)
    train("fit", config)
    whole = (run / "metrics.csv").read_bytes()
    folder.reopen(run)  # killed before the end: there is no model yet
    checkpoint.find(run)[-1].unlink()  # its row is in metrics.csv already
    (run / "metrics.csv").write_bytes(whole[:-7])
    assert train("fit", config, "--resume").exit_code == 0
    assert (run / "metrics.csv").read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut", "flip", "rubbish", "empty", "foreign zip"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(data, write_config, train, run, often, damage):
    config = write_config(checkpoint_seconds=0)
    whole = train("fit", config)
    end = checkpoint.load(run)
    (run / "summary.json").unlink()
    newest = checkpoint.find(run)[-1]
    raw = newest.read_bytes()
    newest.write_bytes(
        {
            "cut": raw[:-200],
            "flip": raw.replace(b'"timed": ', b'"tImed": '),
            "rubbish": b"PK\x03\x04rubbish",
            "empty": b"",
            "foreign zip": b"PK\x05\x06" + bytes(18),
        }[damage]
    )
    resumed = train("fit", config, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert f"warning: {newest}: is damaged" in resumed.output
    assert "resuming after step 10" in resumed.output
    assert table(resumed.output) == table(whole.output)
    assert same(checkpoint.load(run), end)


def test_no_flipped_bit_of_a_checkpoint_passes(data, write_config, fitted, train, run):
    fitted(steps=1)
    path = checkpoint.find(run)[-1]
    good, raw = checkpoint.load(run), path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(400):
        at, bit = int(rng.integers(len(raw))), int(rng.integers(8))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
        try:
            read = checkpoint._read(path)
        except Exception:  # what kind `load` turns it into is the business of the tests above
            continue
        assert same(read, good), (at, bit)  # a bit that means nothing, such as a date's


def test_when_all_checkpoints_are_damaged(data, write_config, train, run):
    train("fit", write_config(steps=1))
    for path in checkpoint.find(run):
        path.write_bytes(b"rubbish")
    refused(train("fit", write_config(), "--resume"), "step-00000001.npz: is damaged", "--force")


def test_resuming_what_never_began_begins(data, write_config, train, run):
    result = train("fit", write_config(steps=1), "--resume")
    assert result.exit_code == 0
    assert "no checkpoint yet; starting at the beginning" in result.output
    assert (run / "summary.json").exists()


def test_an_unfinished_run_says_how_to_go_on(data, write_config, fitted, train, run):
    fitted(steps=1)
    (run / "summary.json").unlink()
    refused(train("fit", write_config()), "an unfinished run", "--resume", "--force")


def test_going_on_with_a_finished_run_makes_it_unfinished(data, write_config, train, run, monkeypatch):
    train("fit", write_config(steps=1))

    def killed(*_):
        raise MemoryError("as if")

    monkeypatch.setattr(loop.Stepper, "step", killed)
    refused(train("fit", write_config(steps=20), "--resume"), "out of memory")
    assert not (run / "summary.json").exists()
    assert not (run / "model.keras").exists()
    assert checkpoint.load(run).step == 1


def test_tensorflow_without_memory(data, write_config, train, run, monkeypatch):
    import tensorflow as tf

    def refuse(*_):
        raise tf.errors.ResourceExhaustedError(
            None, None, "OOM when allocating tensor with shape[9,9]\n more"
        )

    train("fit", write_config(steps=1))
    monkeypatch.setattr(loop.Stepper, "step", refuse)
    result = train("fit", write_config(steps=20), "--resume")
    refused(result, "out of memory: OOM when allocating tensor with shape[9,9]; reserve more")
    assert checkpoint.load(run).step == 1


def test_a_checkpoint_of_another_network_is_refused(data, write_config, train, run):
    train("fit", write_config(steps=1))
    state = checkpoint.load(run)
    checkpoint.save(run, state._replace(model=state.model[:-1]))
    refused(train("fit", write_config(), "--resume"), "another network")


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "number, code, start", [(signal.SIGINT, 130, start), (signal.SIGTERM, 143, Preloaded)]
)
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(
    data, write_config, train, run, number, code, start
):
    settings = {"learning_rate": {"start": 1e-4}, "table_every": 5, "checkpoint_seconds": 1000.0}
    config = write_config(steps=100_000, **settings)
    process = start("fit", config)
    for line in process.stdout:  # wait until it trains
        if line.split()[0] == "11":
            break
    refused(train("fit", config, "--resume"), f"is being worked on by process {process.pid}")
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == code
    assert f"continue with: python -m train fit {config} --resume" in errors
    assert "Traceback" not in errors
    state = checkpoint.load(run)
    assert state.step >= 10
    assert not (run / "model.keras").exists()
    whole = train("fit", write_config(steps=state.step + 5, name="whole", **settings))
    resumed = train("fit", write_config(steps=state.step + 5, **settings), "--resume")
    assert table(resumed.output) == table(whole.output)
    assert same(checkpoint.load(run), checkpoint.load(run.parent / "whole"))


def test_checkpoints_come_by_the_clock(data, write_config, run):
    config = write_config(
        steps=1_000_000, table_every=1_000_000, checkpoint_seconds=0.3, learning_rate={"start": 1e-5}
    )
    process = Preloaded("fit", config)
    until = time.monotonic() + HANGS
    while len(checkpoint.find(run)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert checkpoint.load(run).step > 1


def test_the_table_comes_back_as_it_was(data, write_config, fitted, train, run):
    fitted()
    rows = list(loop.History((run / "metrics.csv").read_bytes()))
    raw = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [{key: str(value) for key, value in row.items()} for row in rows] == raw
    assert isinstance(rows[0]["step"], int) and isinstance(rows[0]["train_accuracy"], float)


def test_other_data_is_not_gone_on_with(data, write_config, train, run):
    train("fit", write_config(steps=1))
    write_data(data, {"train": 40, "test": 30}, seed=9)
    refused(train("fit", write_config(), "--resume"), "data.h5: is not the file", "digests differ")


def test_fewer_steps_than_are_done_are_refused_and_change_nothing(data, write_config, train, run):
    assert train("fit", write_config(steps=11)).exit_code == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    refused = train("fit", write_config(steps=6), "--resume")
    assert refused.exit_code == 2
    assert "11 steps are done" in refused.output and "`steps: 6`" in refused.output
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_times_of_a_resumed_run_go_on(data, write_config, train, run):
    train("fit", write_config(steps=6))
    first = json.loads((run / "summary.json").read_text())["time"]
    train("fit", write_config(steps=11), "--resume")
    second = json.loads((run / "summary.json").read_text())["time"]
    assert second["step"] > first["step"] and second["total"] > first["total"]


def test_a_minibatch_of_more_shots_than_there_are_is_refused(data, write_config, train):
    refused = train("fit", write_config(minibatch=41))
    assert refused.exit_code == 2
    assert "split train has 40 shots, `minibatch: 41` is more" in refused.output
