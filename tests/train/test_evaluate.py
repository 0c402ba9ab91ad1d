"""A finished run on its own and on other data, wherever both are: `python -m train evaluate`."""

from __future__ import annotations

import shutil

import h5py
import pytest

from common.dataset import writing
from tests.command_line import refused
from tests.train.conftest import write_data


def test_a_damaged_model_is_refused(data, write_config, fitted, train, tmp_path):
    fitted(steps=1)
    (tmp_path / "runs/small/model.keras").write_bytes(b"rubbish")
    refused(train("evaluate", str(tmp_path / "runs" / "small")), "model.keras: cannot be loaded")


def test_evaluate_on_other_data(data, write_config, fitted, train, tmp_path):
    fitted(steps=1)
    run, other = str(tmp_path / "runs" / "small"), write_data(tmp_path / "other.h5", {"train": 8, "test": 6})
    assert "accuracy" in train("evaluate", run, "--data", str(other)).output
    with h5py.File(other, "r+") as file:
        writing.set_text(file, classes='["lasing", "nolasing"]')
    refused(
        train("evaluate", run, "--data", str(other)),
        "other.h5: has the classes lasing, nolasing",
        "trained on",
    )


@pytest.mark.parametrize("command", [["evaluate"], ["export", "--format", "keras"]])
def test_a_run_whose_data_are_gone_asks_for_others(data, write_config, fitted, train, tmp_path, command):
    fitted(steps=1)
    run, moved = str(tmp_path / "runs" / "small"), data.rename(tmp_path / "moved.h5")
    refused(train(*command, run), "data.h5: is not there any more", "--data FILE")
    assert train(*command, run, "--data", str(moved)).exit_code == 0


def test_evaluate_without_a_run(train, tmp_path):
    refused(train("evaluate", str(tmp_path / "none")), "no run here")


def test_evaluate_on_a_data_set_of_test_shots_alone(data, write_config, fitted, train, tmp_path):
    fitted()
    other = write_data(tmp_path / "next.h5", {"test": 24}, seed=3)
    result = train("evaluate", str(tmp_path / "runs" / "small"), "--data", str(other))
    assert result.exit_code == 0, result.output
    assert any(line.startswith("test ") and "of 24 shots" in line for line in result.output.splitlines())
    unlabeled = write_data(tmp_path / "unlabeled.h5", {"predict": 24})
    result = train("evaluate", str(tmp_path / "runs" / "small"), "--data", str(unlabeled))
    refused(result, "has no labeled split", "train predict")


def test_evaluate_on_a_new_run_of_one_class(data, write_config, fitted, train, tmp_path):
    fitted()
    other = write_data(tmp_path / "next.h5", {"test": 24}, seed=3)
    with h5py.File(other, "r+") as file:
        file["test/labels"][...] = 1
    result = train("evaluate", str(tmp_path / "runs" / "small"), "--data", str(other))
    assert result.exit_code == 0, result.output
    assert any("24 lasing: " in line for line in result.output.splitlines())


def test_a_run_is_evaluated_from_anywhere_and_after_a_move(data, write_config, train, tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    data.rename(home / "data.h5")
    monkeypatch.chdir(home)
    assert train("fit", write_config(data="data.h5", runs_dir="runs")).exit_code == 0
    monkeypatch.chdir(elsewhere)
    assert train("evaluate", str(home / "runs" / "small")).exit_code == 0
    shutil.copytree(home / "runs" / "small", elsewhere / "copy")  # its data are where they were
    assert train("evaluate", "copy").exit_code == 0
    home.rename(tmp_path / "moved")  # a project as a whole
    result = train("evaluate", str(tmp_path / "moved" / "runs" / "small"))
    assert result.exit_code == 0, result.output
    refused(train("evaluate", "copy"), "data.h5")
    write_data(elsewhere / "data.h5", {"train": 40, "test": 30}, seed=9)  # by accident of the same name
    refused(train("evaluate", "copy"), "is not what copy was trained on", "--data")
