"""The train commands as a user calls them: the table, the files, resuming, and what they print."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from common.dataset import reading
from tests.command_line import refused
from tests.train.conftest import write_data
from train.run.checkpoint import load


def table(output: str) -> list:
    """The rows of the 2016 study's table in a command's output, as lists of words."""
    lines = output.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:2] == ["step", "m1s"])
    rows = []
    for line in lines[start + 1 :]:
        if line.split()[0].isdigit():
            rows.append(line.split())
        elif not line.startswith(("warning: ", "training: ")):
            break
    return rows


def test_fit_prints_the_table_of_the_2016_study_and_writes_its_files(data, write_config, train, tmp_path):
    result = train("fit", write_config())
    assert result.exit_code == 0, result.output
    header = "  step m1s  tr.acc/#1s tst.acc/#1s xentropy  loss  |grad| gr-ang  learnrate"
    assert header in result.output.splitlines()
    rows = table(result.output)
    assert [row[0] for row in rows] == ["1", "6", "11"]
    assert rows[0][6] == rows[0][7] == "0.6931"  # small weights: both classes equally likely
    assert rows[0][9] == "0.00"
    assert [row[10] for row in rows] == ["0.0200", "0.0180", "0.0162"]
    run = tmp_path / "runs" / "small"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.csv", "model.keras", "checkpoints", "summary.json", "reference.npz",
        "card.md",
    }  # fmt: skip
    metrics = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in metrics] == ["1", "6", "11"]
    assert f"{float(metrics[2]['cross_entropy']):.4f}" == rows[2][6]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["splits"]["test"]["n"] == 30
    assert summary["splits"]["test"]["without_pulse_energy"] == 1
    for words in (
        "train      accuracy",
        "test       accuracy",
        "; Z ",
        ", p ",
        "CPU time",
        "peak memory",
        "threads",
    ):
        assert words in result.output


def test_gradient_norm_and_angle_are_of_the_whole_vector(data, write_config, train, tmp_path):
    """One full-batch step at a time, against gradients from another way: finite differences of the loss."""
    config = write_config(minibatch="full", steps=2, table_every=1)
    train("fit", config)
    metrics = list(csv.DictReader((tmp_path / "runs/small/metrics.csv").read_text().splitlines()))
    gradient = load(tmp_path / "runs" / "small").gradient.astype(np.float64)
    assert np.linalg.norm(gradient) == pytest.approx(float(metrics[1]["gradient_norm"]), rel=1e-5)
    train("fit", write_config(minibatch="full", steps=1, table_every=1), "--force")
    first = load(tmp_path / "runs" / "small").gradient.astype(np.float64)
    cosine = first @ gradient / np.linalg.norm(first) / np.linalg.norm(gradient)
    assert cosine == pytest.approx(float(metrics[1]["gradient_cosine"]), abs=1e-5)
    model = keras.saving.load_model(tmp_path / "runs/small/model.keras", compile=False)
    bias = model.trainable_variables[-1].numpy()
    rate = 0.02
    np.testing.assert_allclose(bias, -rate * first[-2:], rtol=1e-4, atol=1e-7)  # w = 0 - rate * g


def test_one_seed_gives_the_same_table_twice(data, write_config, train, tmp_path):
    config = write_config()
    first = train("fit", config)
    weights = load(tmp_path / "runs" / "small").model
    second = train("fit", config, "--force")
    assert table(first.output) == table(second.output)
    for a, b in zip(weights, load(tmp_path / "runs" / "small").model):
        assert np.array_equal(a, b)
    other = train("fit", write_config(seed=2), "--force")
    assert table(other.output) != table(first.output)


@pytest.mark.parametrize("optimizer", [{"kind": "momentum"}, {"kind": "adam"}])
@pytest.mark.parametrize("minibatch", [16, "full"])
def test_resuming_continues_the_same_trajectory_bit_for_bit(
    data, write_config, train, tmp_path, optimizer, minibatch
):
    settings = {"optimizer": optimizer, "minibatch": minibatch, "learning_rate": {"start": 0.005}}
    whole = train("fit", write_config(**settings))
    state = load(tmp_path / "runs" / "small")
    shutil.rmtree(tmp_path / "runs")
    assert train("fit", write_config(steps=4, **settings)).exit_code == 0
    resumed = train("fit", write_config(**settings), "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert table(resumed.output) == table(whole.output)
    again = load(tmp_path / "runs" / "small")
    for a, b in zip(
        [*state.model, *state.optimizer, state.gradient], [*again.model, *again.optimizer, again.gradient]
    ):
        assert np.array_equal(a, b)


def test_it_learns_and_the_saved_model_needs_nothing_else(data, write_config, train, tmp_path):
    write_data(data, {"train": 40, "test": 30}, signal=1.0)
    settings = {
        "optimizer": {"kind": "adam"},
        "learning_rate": {"start": 0.02},
        "preprocess": ["standardize"],
    }
    result = train("fit", write_config(steps=60, table_every=30, **settings))
    summary = json.loads((tmp_path / "runs/small/summary.json").read_text())
    assert summary["splits"]["test"]["accuracy"] > 0.9
    evaluated = train("evaluate", str(tmp_path / "runs" / "small"))
    assert evaluated.exit_code == 0, evaluated.output
    scores = [line for line in result.output.splitlines() if line.startswith(("train ", "test "))]
    assert scores == [line for line in evaluated.output.splitlines() if line.startswith(("train ", "test "))]
    with reading.open_data(data) as file:
        images, labels = file["test/images"][...][..., None], file["test/labels"][...]
    model = keras.saving.load_model(tmp_path / "runs/small/model.keras", compile=False)
    predicted = np.asarray(model(images)).argmax(axis=1)
    assert (predicted == labels).mean() == summary["splits"]["test"]["accuracy"]


def test_streamed_and_in_memory_give_the_same_table(data, write_config, train, tmp_path):
    results, weights = [], []
    for cache in ("memory", "stream"):
        results.append(train("fit", write_config(cache=cache), "--force"))
        weights.append(load(tmp_path / "runs" / "small").model)
    assert table(results[0].output) == table(results[1].output)
    assert all(np.array_equal(a, b) for a, b in zip(*weights))


def test_several_files_train_as_one(data, write_config, train, tmp_path):
    other = write_data(tmp_path / "other.h5", {"train": 20}, seed=5, first=1000)
    config = write_config(data=[str(data), str(other)], steps=2)
    result = train("fit", config)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "runs/small/summary.json").read_text())
    assert summary["splits"]["train"]["n"] == 60
    assert summary["data"] == f"{data}, {other}"
    refused(train("fit", write_config(data=[str(data)], steps=3), "--resume"), "another `data:`")
    assert (
        "(60, 20, 24, 1)"
        in train("describe", write_config(data=[str(data), str(other)], minibatch="full")).output
    )
    refused(train("fit", write_config(data=[]), "--force"), "data")


def test_the_end_says_where_the_time_went(data, write_config, train, tmp_path):
    result = train("fit", write_config(cache="stream"))
    times = json.loads((tmp_path / "runs/small/summary.json").read_text())["time"]
    assert list(times) == ["total", "step", "waiting", "evaluation", "saving", "other", "reading"]
    assert sum(times[name] for name in list(times)[1:6]) == pytest.approx(times["total"])
    assert min(times.values()) > 0
    last = next(line for line in result.output.splitlines() if line.startswith("time "))
    for words in ("step", "waiting for input", "evaluation", "reading", "%"):
        assert words in last


def test_stop_when_stops_at_the_first_row_that_reaches_it(data, write_config, train):
    settings = {
        "optimizer": {"kind": "adam"},
        "learning_rate": {"start": 0.02},
        "preprocess": ["standardize"],
    }
    result = train("fit", write_config(steps=200, stop_when={"split": "train", "accuracy": 0.9}, **settings))
    rows = table(result.output)
    assert float(rows[-1][2]) >= 0.9 > float(rows[-2][2])
    assert int(rows[-1][0]) < 200
    assert "train accuracy " in result.output and "reached" in result.output


def test_predictions_of_a_model_that_is_replaced(data, write_config, train, tmp_path):
    config, run = write_config(steps=1), tmp_path / "runs" / "small"
    train("fit", config)
    assert train("predict", str(run), str(data)).exit_code == 0
    kept = (run / "predictions_data.csv").read_bytes()
    result = train("fit", config, "--force")
    assert "predictions_data.csv: made by the model that is being replaced" in result.output
    assert (run / "predictions_data.csv").read_bytes() == kept


@pytest.mark.parametrize("command", ["fit", "describe", "evaluate"])
def test_help_shows_examples(train, command):
    assert f"python -m train {command} " in train(command, "--help").output


def test_threads_are_set_before_tensorflow_starts(data, write_config, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "train", "fit", write_config(steps=1, threads={"intra": 3, "inter": 1})],
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "(3 within an operation, 1 between operations)" in process.stdout
    assert process.stderr == "loading TensorFlow ...\n"  # no chatter of its own


def test_results_as_json(data, write_config, fitted, train, tmp_path):
    fitted()
    run = str(tmp_path / "runs" / "small")
    found = json.loads(train("evaluate", run, "--json").output)
    assert found["splits"]["test"]["n"] == 30 and found["classes"] == ["nolasing", "lasing"]
    layers = json.loads(train("describe", write_config(), "--json").output)["layers"]
    assert [layer["kind"] for layer in layers][0] == "convolution"
    predicted = json.loads(train("predict", run, str(data), "--json").output)
    assert {row["split"] for row in predicted["splits"]} == {"train", "test"}


def test_quiet_and_verbose(data, write_config):
    def stderr(*words: str) -> str:
        command = [sys.executable, "-m", "train", "fit", write_config(steps=1), "--force", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    assert stderr("-q") == ""
    assert "oneDNN" in stderr("-v")
