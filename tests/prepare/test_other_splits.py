"""Variants of a config, and data sets of other classes and splits than the base's train and test."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from tests.command_line import refused


def variant(base: str, tmp_path, text: str) -> str:
    path = tmp_path / "variant.yaml"
    path.write_text(f"base: {Path(base).name}\nname: next\n{text}")
    return str(path)


def test_other_classes_replace_those_of_the_base(write_config, prepare, tmp_path):
    config = variant(write_config(), tmp_path, "runs: {classes: {off: [69], on: [70]}}\n")
    listed = prepare("list", config).output
    assert "runs: dark (68), 0 off (69), 1 on (70)" in listed
    assert "shots: train 20, test 10, by event" in listed
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    with h5py.File(tmp_path / "data" / "next.h5") as file:
        assert json.loads(file.attrs["classes"]) == ["off", "on"]
        assert sorted(set(file["train/run"][...])) == [69, 70]


def test_a_new_run_for_a_test_alone(write_config, prepare, tmp_path):
    config = variant(write_config(), tmp_path, "select: {train: 0, test: 12}\n")
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "test: 12 shots (6 lasing, 6 nolasing)" in result.output, result.output
    path = tmp_path / "data" / "next.h5"
    with h5py.File(path) as file:
        assert "train" not in file and "statistics" not in file
    assert prepare("verify", str(path)).exit_code == 0


def test_a_new_run_of_one_class(write_config, prepare, tmp_path):
    """The other class keeps its place, so that the labels are those a model knows."""
    text = "runs: {classes: {nolasing: [], lasing: [70]}}\nselect: {train: 0, test: 7}\n"
    config = variant(write_config(), tmp_path, text)
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "test: 7 shots (7 lasing)" in result.output, result.output
    path = tmp_path / "data" / "next.h5"
    with h5py.File(path) as file:
        assert set(file["test/labels"][...]) == {1}
    assert prepare("verify", str(path)).exit_code == 0
    assert prepare("report", str(path)).exit_code == 0


def test_unlabeled_runs_alone_from_a_labeled_base(write_config, prepare, tmp_path):
    runs = "runs: {classes: {}, unlabeled: [70]}\n"
    refused(
        prepare("select", variant(write_config(), tmp_path, runs)),
        "runs.classes is empty",
        "select: {train: 0, test: 0}",
    )
    config = variant(write_config(), tmp_path, runs + "select: {train: 0, test: 0, predict: 9}\n")
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "predict: 9 shots" in result.output, result.output
    assert prepare("verify", str(tmp_path / "data" / "next.h5")).exit_code == 0
