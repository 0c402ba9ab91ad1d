"""The control with lasing switched: how much of an accuracy comes from the runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.dataset import layout, reading, writing
from common.errors import DataError
from tests.train.runs import SETTINGS, SHAPE, pictures, write_runs
from train.config import load_config
from train.controls import job, record
from train.controls.counterfactual import opened_beside, paths_beside
from train.controls.outcome import Outcome
from train.controls.verdict import verdict
from train.data.dataset import open_data


def write_switched(path: Path, leak: float = 0.0, change=lambda shots: shots) -> Path:
    """Beside the data file `path` its test shots with lasing switched, `leak` as it is there.

    change: what is done to the shots (keys and labels) before they are written.
    """
    beside = path.with_name("data.counterfactual.h5")
    rng = np.random.default_rng(5)
    with h5py.File(path) as file:
        split = file["test"]
        shots = {name: split[name][...] for name in ("run", "seconds", "labels")}
    shots["labels"] = 1 - shots["labels"]
    shots = change(shots)
    n = len(shots["run"])
    energy = rng.uniform(0.02, 0.1, n)
    with writing.create(beside, {"test": n}, SHAPE, SHAPE) as file:
        group = file["test"]
        for name, values in shots.items():
            group[name][...] = values
        for i in range(n):
            background = 0.5 + (leak if shots["run"][i] == 69 else 0.0)
            image = pictures(rng, 1, bool(shots["labels"][i]), energy[i : i + 1], background)[0]
            group["images"][i], group["crc32"][i] = image, reading.image_checksum(image)
        attributes = {name: "{}" for name in layout.ATTRIBUTES}
        attributes["classes"] = json.dumps(["nolasing", "lasing"])
        writing.finish(file, attributes)
    return beside


@pytest.fixture
def controls(write_config, tmp_path, monkeypatch):
    """Run the network and the counterfactual, no other control; returns outcomes and what is said."""
    few = {name: job.CONTROLS[name] for name in ("network", "counterfactual")}
    monkeypatch.setattr(job, "CONTROLS", few)
    config = load_config(write_config(**SETTINGS))

    def run() -> tuple:
        with (
            open_data(config.data, config.input, ["train", "test"]) as data,
            opened_beside(config, data) as other,
        ):
            lines = job.run_on(config, data, switched=other)
        return {row.control: row for row in record.read(config.run_dir).rows}, " ".join(lines)

    return run


def share_of_the_runs(said: str) -> int:
    """Percent, as the verdict says it."""
    return int(
        re.search(r"so (\d+)% of what the network is right above guessing comes from the run", said)[1]
    )


def test_a_network_that_judges_lasing_is_right_when_lasing_is_switched(controls, tmp_path):
    write_switched(write_runs(tmp_path / "data.h5"))
    rows, said = controls()
    assert rows["network"].value > 0.8
    assert rows["counterfactual"].value > 0.8
    assert rows["counterfactual"].n == rows["network"].n
    assert share_of_the_runs(said) < 20


def test_a_network_that_judges_the_run_is_wrong_when_lasing_is_switched(controls, tmp_path):
    write_switched(write_runs(tmp_path / "data.h5", leak=0.5), leak=0.5)
    rows, said = controls()
    assert rows["network"].value > 0.9
    assert rows["counterfactual"].value < 0.3
    assert share_of_the_runs(said) > 70


def test_it_is_done_when_the_file_is_there(controls, tmp_path):
    path = write_runs(tmp_path / "data.h5")
    assert set(controls()[0]) & {"network", "counterfactual"} == {"network"}
    write_switched(path)
    assert {"network", "counterfactual"} <= set(controls()[0])


def drop_keys(shots: dict) -> dict:
    return {**shots, "seconds": shots["seconds"] + np.arange(len(shots["run"])) // 20 * 10**6}


def keep_labels(shots: dict) -> dict:
    return {**shots, "labels": 1 - shots["labels"]}


@pytest.mark.parametrize(
    "change, message",
    [(drop_keys, "shots are no test shots of the data file"), (keep_labels, "shots of the same class")],
)
def test_a_file_that_does_not_belong_is_refused(controls, tmp_path, change, message):
    write_switched(write_runs(tmp_path / "data.h5"), change=change)
    with pytest.raises(DataError, match=message) as error:
        controls()
    assert "data.counterfactual.h5" in str(error.value)
    assert "make it again" in str(error.value)


@pytest.mark.parametrize("data", ["demo.h5", "demo", "of.2016.h5", "of.2016"])
@pytest.mark.parametrize("form", [".h5", ""])
def test_the_file_or_folder_beside_is_found(tmp_path, data, form):
    beside = tmp_path / f"{data.replace('.h5', '')}.counterfactual{form}"
    assert paths_beside([tmp_path / data]) == []
    beside.mkdir()
    assert paths_beside([tmp_path / data, tmp_path / "other.h5"]) == [beside]


def row(control: str, value: float) -> Outcome:
    usual = (300, value, 300.0, (value - 0.05, value + 0.05), 0.5, (value - 0.05, value + 0.05))
    return Outcome(control, control, "accuracy", *usual, strict=(value - 0.08, value + 0.08))


@pytest.mark.parametrize(
    "value, switched, share", [(0.9, 0.9, 0), (0.9, 0.1, 100), (0.8, 0.6, 33), (0.8, 0.95, 0)]
)
def test_the_share_of_the_runs(value, switched, share):
    said = " ".join(verdict([row("network", value), row("counterfactual", switched)]).lines)
    assert share_of_the_runs(said) == share


def test_where_nothing_was_learned_there_is_no_share():
    said = " ".join(verdict([row("network", 0.5), row("counterfactual", 0.5)]).lines)
    assert "lasing switched" in said and "comes from the run" not in said
