"""`python -m train controls`: a planted leak is found, and where there is none nothing is cried."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from tests.command_line import refused
from tests.limits import HANGS
from tests.preloaded import Preloaded
from tests.train.runs import SETTINGS, SHAPE, write_runs
from tests.train.test_ranks import MPIRUN
from train.config import load_config
from train.controls import job, record
from train.controls.controls import CONTROLS
from train.data.dataset import open_data


def rows_of(tmp_path: Path) -> dict:
    with (tmp_path / "runs/small/controls.csv").open(newline="") as file:
        return {row["control"]: row for row in csv.DictReader(file)}


# --- the command -----------------------------------------------------------------------------


RECOMMENDED = {
    "input": list(SHAPE),
    "target": "pulse_energy",
    "preprocess": [
        {"center": {"threshold": 1.0, "size": [16, 24]}}, "augment", {"scale": {"subtract": 1.5}}, "log",
    ],
    "augment": [{"shift": [1, 1]}, {"blur": {"variance": [0, 0.5], "share": 0.5}}],
    "network": [
        {"convolution": {"kernel_size": [3, 3], "filters": 8, "strides": [2, 2], "init": "he_normal"}},
        "batch_normalization", "relu", {"mean": {"axis": 1}}, "output",
    ],
    "optimizer": {"kind": "adamw", "weight_decay": 0.001},
    "learning_rate": {"start": 0.01},
    "minibatch": 40,
    "steps": 80,
}  # fmt: skip


def test_a_planted_leak_is_found_also_where_the_network_does_not_see_it(
    write_config, train, tmp_path, monkeypatch
):
    """The recommended kind of network cuts the beam out of its background: what differs there tells it
    nothing, and yet the runs can be told apart without lasing."""
    few = {name: CONTROLS[name] for name in ("simple", "network", "beam_free")}
    monkeypatch.setattr("train.controls.job.CONTROLS", few)
    write_runs(tmp_path / "data.h5", leak=0.3)
    result = train("controls", write_config(**RECOMMENDED))
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert float(rows["network"]["value"]) > 0.8
    assert rows["beam_free"]["finding"] in ("at chance", "barely above")
    assert float(rows["beam_free_intensity"]["value"]) > 0.95
    assert "Leak: found" in result.output and "camera background tells the runs apart" in result.output


def test_simulated_shots_can_be_tried_with_lasing_switched(write_config, tmp_path, monkeypatch):
    monkeypatch.setattr("train.controls.job.CONTROLS", {"network": CONTROLS["network"]})
    write_runs(tmp_path / "data.h5")
    config = load_config(write_config(**{**SETTINGS, "steps": 1}))
    with open_data(config.data, config.input, ["train", "test"]) as data:
        for simulated in (False, True):
            for split in data.splits.values():
                split.simulated[:] = simulated
            said = " ".join(job.run_on(config, data, force=True))
            assert ("python -m prepare counterfactual CONFIG" in said) == simulated
            assert str(tmp_path / "data.h5") in said or not simulated


def test_without_a_leak_the_controls_are_at_chance_and_lasing_is_believed(write_config, train, tmp_path):
    write_runs(tmp_path / "data.h5")
    result = train("controls", write_config(**SETTINGS))
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    for name in ("permuted", "beam_free", "beam_free_intensity", "ebeam", "time_common"):
        assert rows[name]["finding"] in ("at chance", "barely above"), rows[name]
    for name in ("permuted", "beam_free"):
        assert float(rows[name]["low"]) <= 0.5 <= float(rows[name]["high"])
    assert float(rows["network"]["value"]) > 0.8
    for name in ("unseen_70", "unseen_71"):
        assert rows[name]["finding"] == "above chance"
    for name in ("energy_70", "energy_71"):
        assert float(rows[name]["low"]) > 0.3
    assert "Leak: not found" in result.output and "Leak: found" not in result.output
    assert "probability rises with the pulse energy" in result.output


def test_a_planted_leak_is_found_and_said_in_words(write_config, train, tmp_path):
    write_runs(tmp_path / "data.h5", leak=0.1)  # as much as the noise of one pixel
    result = train("controls", write_config(**SETTINGS))
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert rows["beam_free"]["finding"] == rows["beam_free_intensity"]["finding"] == "above chance"
    assert float(rows["permuted"]["low"]) <= 0.5 <= float(rows["permuted"]["high"])
    assert "Leak: found. The runs can be told apart without lasing" in result.output
    assert "Beam-free pixels alone reach 1.00 [" in result.output
    assert "the camera background tells the runs apart" in result.output


def test_every_experiment_is_told():
    assert sorted(record.TOLD) == sorted(CONTROLS)


def test_started_again_it_goes_on_where_it_stopped(write_config, train, tmp_path):
    write_runs(tmp_path / "data.h5")
    config = write_config(**{**SETTINGS, "steps": 1})
    first = train("controls", config).output
    path = tmp_path / "runs/small/controls.json"
    text, table = path.read_text(), (tmp_path / "runs/small/controls.csv").read_text()
    result = json.loads(text)
    kept = {name: rows for name, rows in result["controls"].items() if name != "permuted"}
    path.write_text(json.dumps({**result, "controls": kept, "verdict": None}))
    again = train("controls", config).output
    assert again.splitlines()[0].startswith("the network, labels permuted: ")  # only that one is run
    assert again.partition("\n\n")[2] == first.partition("\n\n")[2]
    assert path.read_text() == text
    assert (tmp_path / "runs/small/controls.csv").read_text() == table
    refused(train("controls", config, "--steps", "2"), "controls.json: is of another config", "--force")
    path.write_text("{")
    refused(train("controls", config), "controls.json: is damaged", "--force")
    fitted = train("fit", config)  # their files are in nobody's way
    assert fitted.exit_code == 0, fitted.output


def test_other_processes_find_the_same(write_config, train, tmp_path):
    write_runs(tmp_path / "data.h5")
    settings = {**SETTINGS, "steps": 5}
    assert train("controls", write_config(name="here", **settings)).exit_code == 0
    here, jobs, ranks = (tmp_path / "runs" / name for name in ("here", "jobs", "ranks"))
    process = Preloaded("controls", write_config(name="jobs", **settings), "--jobs", "2")
    said, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    command = [MPIRUN, "-n", "3", sys.executable, "-m", "train", "controls"]
    done = subprocess.run(
        [*command, write_config(name="ranks", **settings)], capture_output=True, text=True, timeout=HANGS
    )
    assert done.returncode == 0, done.stderr
    for there, output in ((jobs, said), (ranks, done.stdout)):
        assert output.count("controls.csv (the table)") == 1
        for name in ("controls.csv", "controls.json"):
            assert (there / name).read_text() == (here / name).read_text()


def test_help_shows_an_example(train):
    assert "python -m train controls configs/" in train("controls", "--help").output


# --- statistics ------------------------------------------------------------------------------


def test_one_run_a_class_decides_nothing(write_config, train, tmp_path):
    write_runs(tmp_path / "data.h5", runs={69: (0, 480), 70: (1, 480)})
    result = train("controls", write_config(**{**SETTINGS, "steps": 30}))
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Leak: cannot be decided because nolasing and lasing are a single run each" in words
    kept = json.loads((tmp_path / "runs/small/controls.json").read_text())
    assert kept["verdict"]["leak"] == "cannot be decided" and kept["verdict"]["because"] in words
    again = train("controls", write_config(**{**SETTINGS, "steps": 30}), "--json")
    assert json.loads(again.stdout) == kept
