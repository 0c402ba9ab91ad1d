"""The report of a training run: what is in it, and that it stands alone."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from common.dataset import writing
from tests.page import Page, check
from tests.train.conftest import SHAPE, write_data
from train import report
from train.config import load_config
from train.controls import record
from train.model.saliency import contributions
from train.report import compare, evidence, page
from train.run import folder

SECTIONS = {
    "result", "slices", "errors", "time", "decision", "means", "aligned", "gallery", "trust", "controls",
    "curves", "watch", "cost", "network",
}  # fmt: skip
HOSTILE = '<script>alert("1")</script> & $x_{1}$'


@pytest.fixture
def run(data, fitted) -> Path:
    return fitted(report=True, optimizer={"kind": "adam"}, table_every=2)


def test_fit_ends_with_a_report_that_has_every_part(run):
    page = Page(run / "report.html")
    check(page, SECTIONS)
    test = json.loads((run / "summary.json").read_text())["splits"]["test"]
    low, high = (100 * end for end in test["interval"])
    assert f"{100 * test['accuracy']:.1f} % right" in page.text
    assert (
        f"{low:.1f} to {high:.1f} % (95 %), 30 shots ({test['n_effective']:.0f} effective): not told apart "
        "from always guessing the larger class (50.0 %)" in page.text
    )
    for words in ("AUC (95 % interval)", "lasing, called lasing", "run 70", "convolution_1", "minibatch: 16"):
        assert words in page.text
    assert (run / "report.html").stat().st_size < 5e6
    assert folder.REPORT in {path.name for path in run.iterdir()}


def test_report_draws_it_again_and_says_what_is_missing(run, data, train):
    first = Page(run / "report.html")
    (run / "report.html").unlink()
    assert train("report", str(run)).exit_code == 0
    again = Page(run / "report.html")
    assert first.text.splitlines()[:-5] == again.text.splitlines()[:-5]  # all but when it was made
    assert first.images == again.images
    data.unlink()
    assert train("report", str(run)).exit_code == 2  # the page with the images stays
    result = train("report", str(run), "--force")
    assert result.exit_code == 0, result.output
    page = Page(run / "report.html")
    check(page, SECTIONS)
    assert "data.h5: no such data file" in page.text
    write_data(data, {"train": 40, "test": 30}, seed=9)
    train("report", str(run), "--force")
    assert "is not the file that this run was trained on" in Page(run / "report.html").text


ROW = {
    "control": "permuted", "what": "the network, labels permuted <&>", "kind": "accuracy", "n": 30,
    "value": 0.5, "n_effective": 20.0, "freedom": 8, "interval": [0.3, 0.7], "strict": [0.2, 0.8],
    "chance": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {},
            [
                "Leak: not found. Nothing tells.",
                "All is well.",
                "the network, labels permuted <&>",
                "at chance",
            ],
        ),
        ({"verdict": None}, ["Not all of the controls are done yet", "at chance"]),
        ({"key": "other"}, ["of another config or data file"]),
        ({"controls": {"permuted": [{"what": 1}]}}, ["controls.json: is damaged"]),
        (None, ["Not run yet"]),
    ],
)
def test_the_controls_are_in_the_report(run, train, change, words):
    if change is not None:
        config, summary = (
            load_config(str(run / "config.yaml")),
            json.loads((run / "summary.json").read_text()),
        )
        whole = {
            "key": record.key_of(config, summary["data_digest"]),
            "controls": {"permuted": [ROW]},
            "verdict": {"leak": "not found", "because": "nothing tells", "reasons": ["all is well"]},
            "version": record.VERSION,
            "provenance": "real",
        }
        (run / "controls.json").write_text(json.dumps({**whole, **change}))
    assert train("report", str(run)).exit_code == 0
    page = Page(run / "report.html")
    check(page, SECTIONS)
    for each in words:
        assert each in page.text


def test_names_are_text_and_nothing_else(data, write_config, train, tmp_path):
    with h5py.File(data, "r+") as file:
        writing.set_text(file, classes=json.dumps([HOSTILE, "<b>lasing</b>"]))
    result = train("fit", write_config(report=True))
    assert result.exit_code == 0 and "report.html: open it in a browser" in result.output
    page = Page(tmp_path / "runs" / "small" / "report.html")
    check(page, SECTIONS)
    assert HOSTILE in page.text
    assert "b" not in page.tags


def test_the_watch_speaks_in_plain_words(data, write_config, train, tmp_path):
    train("fit", write_config(report=True, steps=2, network=[{"output": {"stddev": 50.0}}]))
    text = Page(tmp_path / "runs" / "small" / "report.html").text
    assert "the first loss was far from ln(classes)" in text
    assert "a smaller stddev or preprocess helps" in text


def test_a_report_that_cannot_be_drawn_does_not_fail_the_training(
    data, write_config, train, tmp_path, monkeypatch
):
    def fail(*_):
        raise ValueError("no ink\nleft")

    monkeypatch.setattr(report, "_write", fail)
    result = train("fit", write_config(report=True))
    assert result.exit_code == 0
    warnings = [line for line in result.output.splitlines() if "no ink" in line]
    assert len(warnings) == 1
    assert "no report was drawn (no ink left); try again with: python -m train report" in warnings[0]
    assert (tmp_path / "runs" / "small" / "summary.json").exists()


def test_several_runs_side_by_side(data, write_config, fitted, train, tmp_path):
    fitted()
    fitted(name="quick", learning_rate={"start": 0.05}, steps=6)
    data.unlink()  # not needed
    runs = tmp_path / "runs"
    result = train("report", str(runs / "small"), str(runs / "quick"))
    assert result.exit_code == 0, result.output
    page = Page(runs / "comparison.html")
    check(page, {"result", "settings", "curves", "cost"})
    for words in ("learning_rate.start", "0.05", "highest of these: ", "95 % interval", "quick"):
        assert words in page.text
    assert "minibatch" not in page.text  # the same in both


def test_runs_of_other_classes_or_other_test_shots_are_not_ranked(
    data, write_config, fitted, train, tmp_path
):
    """A: two runs on one file. B: other test shots. C: three classes."""
    fitted()
    fitted(name="same", steps=3)
    for name, n, classes in (("shots", 28, ("nolasing", "lasing")), ("three", 30, ("a", "b", "c"))):
        path = write_data(tmp_path / f"{name}.h5", {"train": 42, "test": n}, classes=classes)
        train("fit", write_config(name=name, data=str(path), steps=3))
    runs = [str(tmp_path / "runs" / name) for name in ("small", "same", "shots", "three")]
    assert train("report", *runs).exit_code == 0
    page = Page(tmp_path / "runs/comparison.html")
    text = " ".join(page.text.split())
    curves = [alt for alt, _ in page.images if alt.startswith("Accuracy, test")]
    assert [alt.split(", ")[2:-1] for alt in curves] == [["of small", "same"], ["of shots"], ["of three"]]
    assert "These runs are 3 groups, and an accuracy of one says nothing against one of another" in text
    assert "they do not tell the same classes apart and they were not tested on the same shots" in text
    assert text.count("highest of these") == 1  # of the two that can be compared
    for words in (
        "Group 1: nolasing, lasing, 30 test",
        "Group 2: nolasing, lasing, 28",
        "Group 3: a, b, c, 30",
    ):
        assert words in text
    assert train("report", runs[0], runs[2]).exit_code == 0
    assert "highest" not in Page(tmp_path / "runs/comparison.html").text
    groups = compare.groups([evidence.read_run(Path(run)) for run in runs])
    assert [[run.config.name for run in group] for group in groups] == [
        ["small", "same"],
        ["shots"],
        ["three"],
    ]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda run: (run / "config.yaml").unlink(), "no run here"),
        (lambda run: (run / "summary.json").unlink(), "has no summary.json"),
        (lambda run: (run / "summary.json").write_text("{"), "damaged"),
    ],
)
def test_runs_that_cannot_be_reported(data, write_config, fitted, train, tmp_path, change, words):
    fitted(steps=1)
    change(tmp_path / "runs" / "small")
    result = train("report", str(tmp_path / "runs" / "small"))
    assert result.exit_code == 2
    assert words in result.output and "Traceback" not in result.output


def test_out_is_not_overwritten_unasked(data, write_config, fitted, train, tmp_path):
    fitted(steps=1)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    folder = str(tmp_path / "runs" / "small")
    command = ("report", folder, folder, "--out", str(mine))
    result = train(*command)
    assert result.exit_code == 2 and "--force" in result.output
    assert mine.read_text() == "mine"
    assert train(*command, "--force").exit_code == 0
    assert "2 training runs" in Page(mine).text


# --- what is drawn ---------------------------------------------------------------------------


def test_contributions_of_a_linear_model_are_its_weights_times_the_departure():
    """For logits that are sums over pixels, gradient times input is exact."""
    inputs = keras.Input((*SHAPE, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="random_normal", name="d")(flat))
    rng = np.random.default_rng(0)
    images = rng.random((6, *SHAPE, 1), dtype=np.float32)
    reference = rng.random(SHAPE)
    found, n = contributions(model, [images[:4], images[4:]], reference, 1)
    kernel = np.asarray(model.get_layer("d").kernel).astype(np.float64)
    slope = (kernel[:, 1] - kernel[:, 0]).reshape(SHAPE)
    np.testing.assert_allclose(found, (images[..., 0].mean(axis=0) - reference) * slope, atol=1e-6)
    assert n == 6


def test_the_decision_comes_from_where_the_signal_is(data, write_config, train, tmp_path):
    """The planted patch is at rows 5 to 8, columns 6 to 11."""
    write_data(data, {"train": 40, "test": 30}, signal=1.0)
    settings = {"optimizer": {"kind": "adam"}, "learning_rate": {"start": 0.02}}
    train("fit", write_config(steps=60, table_every=30, preprocess=["standardize"], **settings))
    run = evidence.read_run(tmp_path / "runs" / "small")
    from train.data.dataset import open_data
    from train.model.saved import load_model

    with open_data(run.config.data, run.config.input, ["train", "test"]) as opened:
        shots = evidence.look(load_model(run.run_dir), opened)
        lasing = opened.splits["train"].labels == 1
        mean = opened.splits["train"].images(np.flatnonzero(lasing)).mean(axis=0)[..., 0]
    np.testing.assert_allclose(shots.means[1], mean, atol=1e-6)
    patch = np.zeros(SHAPE, bool)
    patch[5:9, 6:12] = True
    for image in shots.contributions:
        assert image[patch].mean() > 5 * np.abs(image[~patch]).mean()
    row = shots.examples[0]
    assert row.shot.run == 69 + row.label


def test_examples_are_of_every_kind():
    labels = np.array([0] * 10 + [1] * 10)
    sure = np.linspace(0.55, 0.99, 10)
    one = np.concatenate([1 - sure, sure])
    one[2:8] = sure[2:8]  # six of class 0 are called 1, surest last
    chosen = evidence.choose(labels, np.stack([1 - one, one], axis=1))
    assert chosen[4:8] == [7, 6, 5, 4]
    assert sorted(chosen[:4]) == [0, 1, 8, 9]
    assert len(chosen) == 12 and all(labels[row] == 1 for row in chosen[8:])


def test_swings_between_the_classes_are_counted(data, write_config, fitted, train, tmp_path):
    fitted(steps=6, table_every=1)
    run = evidence.read_run(tmp_path / "runs" / "small")
    for n, row in enumerate(run.rows):
        row["watch"] = "collapsed"
        for split in ("train", "test"):
            row[f"{split}_largest"], row[f"{split}_largest_share"] = n % 2, 1.0
    table, text = page._watch(run)
    assert table.rows[0][:3] == ("(nearly) all shots were called one class", 6, "1 to 6")
    assert "to another class 5 times" in text.text
