"""Three classes through everything: fit, evaluate, predict, controls, sweep, report, comparison."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from matplotlib.image import imread
from scipy import stats

from common.report.drawing import drawing
from tests.page import Page
from tests.train.runs import SETTINGS, write_runs
from train.commands import main
from train.report import errors

CLASSES = ["off", "weak", "strong"]
RUNS = {69: (0, 360), 70: (1, 300), 71: (1, 300), 72: (2, 300), 73: (2, 300)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("three")


def command(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def config(folder) -> Path:
    write_runs(folder / "data.h5", runs=RUNS, classes=CLASSES)
    path = folder / "three.yaml"
    settings = {**SETTINGS, "steps": 40, "name": "three", "data": str(folder / "data.h5")}
    settings |= {"runs_dir": str(folder / "runs"), "threads": {"intra": 1, "inter": 1}, "report": True}
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def fitted(config) -> str:
    """What `fit` printed."""
    return command("fit", config)


@pytest.fixture(scope="module")
def scores(folder, fitted) -> dict:
    """What `evaluate --json` says of the test split."""
    return json.loads(command("evaluate", folder / "runs/three", "--json"))["splits"]["test"]


def test_the_table_counts_each_class(folder, fitted):
    assert "step m1s/m2s  tr.acc/#1s/#2s tst.acc/#1s/#2s xentropy" in fitted
    with (folder / "runs/three/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"m1s", "m2s", "test_ones", "test_2s"} <= set(rows[0])
    assert any(int(row["m2s"]) for row in rows)
    summary = json.loads((folder / "runs/three/summary.json").read_text())
    n = summary["splits"]["test"]["n"]
    assert all(int(row["test_ones"]) + int(row["test_2s"]) <= n for row in rows)


def test_z_and_p_are_against_the_larger_of_three_classes(scores):
    confusion = np.array(scores["confusion"])
    assert scores["correct"] == np.trace(confusion)
    chance = confusion.sum(axis=1).max() / confusion.sum()
    assert scores["chance"] == pytest.approx(chance) and 0.3 < chance < 0.45
    z = (scores["accuracy"] - chance) / np.sqrt(chance * (1 - chance) / scores["n_effective"])
    assert scores["z"] == pytest.approx(z)
    assert scores["p_value"] == pytest.approx(stats.t.sf(z, scores["freedom"]))
    assert scores["finding"] == "above chance" and z > 0


def test_thresholds_and_bands_are_of_each_class_but_the_first(scores):
    counts = np.array(scores["confusion"]).sum(axis=1)
    for label, name in ((1, "weak"), (2, "strong")):
        rows = [row for row in scores["thresholds"] if row["class"] == name]
        assert [row["of"] for row in rows] == [counts[label]] * 4
        assert {row["of_others"] for row in rows} == {counts.sum() - counts[label]}
        bands = [band for band in scores["by_pulse_energy"] if band["class"] == name]
        assert sum(band["found"] for band in bands) == scores["confusion"][label][label]
    assert len(scores["thresholds"]) == 8 and set(scores["half_recognized"]) <= {"weak", "strong"}


@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_roc_says_where_the_network_decides(label):
    """Of three classes a shot is called one of them with less than a half, too."""
    rng = np.random.default_rng(label)
    probabilities = rng.dirichlet([1, 1, 1], 300)
    labels = np.array([rng.choice(3, p=p) for p in probabilities])
    predicted = probabilities.argmax(axis=1)
    assert (probabilities.max(axis=1) < 0.5).sum() > 30
    with drawing():
        scores = probabilities[:, label]
        area = (0.8, 0.7, 0.9)
        figure = errors.roc_figure("a", labels == label, scores, predicted == label, None, area)
    (point,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    expected = [(predicted[labels != label] == label).mean(), (predicted[labels == label] == label).mean()]
    np.testing.assert_allclose(point.get_xydata()[0], expected)


def test_predictions_tell_each_class(folder, fitted):
    run = folder / "runs/three"
    output = command("predict", run, folder / "data.h5", "--split", "test", "--force")
    assert "called weak" in output and "called strong" in output
    with (run / "predictions_data.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        shares = [float(row[f"probability_{name}"]) for name in CLASSES]
        assert sum(shares) == pytest.approx(1) and row["predicted"] == CLASSES[int(np.argmax(shares))]
    of_runs = json.loads((run / "predictions_data.json").read_text())["runs"]
    for one in of_runs:
        mine = [row["predicted"] for row in rows if int(row["run"]) == one["run"]]
        for name in CLASSES[1:]:
            assert one[f"called_{name}"] == mine.count(name)
            low, high = one[f"interval_{name}"]
            assert low <= mine.count(name) / len(mine) <= high
    picture = imread(run / "predictions_data.png")
    assert (np.ptp(picture[..., :3], axis=2) > 0.2).sum() > 200  # points in color


def test_controls_tell_each_class(folder, config, fitted):
    words = " ".join(command("controls", config).split())
    kept = json.loads((folder / "runs/three/controls.json").read_text())
    network = kept["controls"]["network"][0]
    assert 0.3 < network["chance"] < 0.45 and network["value"] > 0.6
    assert kept["verdict"]["leak"] in ("not found", "cannot be decided")
    unseen = [row for row in kept["controls"]["other_runs"] if row["kind"] == "accuracy"]
    assert {called["class_name"] for row in unseen for called in row["called"]} == {"weak", "strong"}
    rises = [row for row in kept["controls"]["other_runs"] if row["kind"] == "correlation"]
    assert {row["control"] for row in rises} == {
        f"energy_{name}_{run}" for run, name in ((70, "weak"), (71, "weak"), (72, "strong"), (73, "strong"))
    }
    assert "called weak: run" in words and "called strong: run" in words
    card = (folder / "runs/three/card.md").read_text()
    assert f"Leak: {kept['verdict']['leak']}" in card and "weak or strong shots that hardly lase" in card


def test_the_pages_tell_each_class(folder, config, fitted):
    run = folder / "runs/three"
    page = Page(run / "report.html")
    text = " ".join(page.text.split())
    for name in CLASSES:
        assert any(alt.startswith(f"ROC curve of {name}") for alt, _ in page.images)
        assert f"Of {name}" in text or f"{name}, called" in text
    assert any(alt.startswith("Histogram of p(strong) by class") for alt, _ in page.images)
    assert any("called weak or strong" in alt for alt, _ in page.images)
    assert "better than always guessing the larger class" in text
    table = command("sweep", config, "--set", "steps=3", "--seeds", "2")
    assert re.search(r"always guessing the larger class is right on 0\.[34]\d+, and \d of 2 runs", table)
    swept = sorted(path for path in (folder / "runs/three_sweep").iterdir() if path.is_dir())
    command("report", run, *swept, "--out", folder / "comparison.html")
    text = " ".join(Page(folder / "comparison.html").text.split())
    assert "off, weak, strong" in text and "highest of these: three" in text
    rows = json.loads(command("compare", run, swept[0], "--json"))["rows"]
    assert {row["network"] for row in rows} == {"three", swept[0].name}
    for row in rows:
        assert row["n"] == 221 and row["interval"][0] <= row["accuracy"] <= row["interval"][1]
