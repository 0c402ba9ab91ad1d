"""The watch: which rows it marks, what it says, and that training can stop on it."""

from __future__ import annotations

import csv
import json
import math

import pytest

from train.config import Watch
from train.fit.watch import Watcher, collapsed, swings


def row(step=2, train=(0, 0.5), test=(0, 0.5), cross_entropy=0.69, first=0.1) -> dict:
    """A row of the table; train, test: the class most shots are called, and their share."""
    return {
        "step": step, "cross_entropy": cross_entropy, "gradient_norm": 0.2, "first_gradient_norm": first,
        "train_largest": train[0], "train_largest_share": train[1],
        "test_largest": test[0], "test_largest_share": test[1],
    }  # fmt: skip


@pytest.fixture
def watcher():
    return Watcher(Watch(share=0.9, evaluations=3), ["nolasing", "lasing"], ["train", "test"])


def looks(watcher, rows) -> list:
    return [(watcher.look(row), row["watch"]) for row in rows]


def test_collapsed_rows_running_are_said_once_and_marked(watcher):
    rows = [row(n, (n % 2, 0.95), (n % 2, 1.0)) for n in range(2, 7)]
    said = looks(watcher, rows)
    assert [mark for _, mark in said] == ["", "", "collapsed", "collapsed", "collapsed"]
    assert [len(lines) for lines, _ in said] == [0, 0, 1, 0, 0]
    for words in ("step 4", "3 rows running", "nolasing: 95% of train, 100% of test", "what usually helps"):
        assert words in said[2][0][0]


def test_a_row_between_starts_the_count_anew_and_it_is_said_again(watcher):
    sick, sound = row(3, (1, 1.0), (1, 1.0)), row(3, (1, 1.0), (1, 0.89))
    said = looks(watcher, [dict(r) for r in (sick, sick, sound, sick, sick, sick, sound, sick, sick, sick)])
    assert [mark for _, mark in said] == ["", "", "", "", "", "collapsed", "", "", "", "collapsed"]
    assert [len(lines) for lines, _ in said] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("stop, expected", [(True, [False, False, True]), (False, [False] * 3)])
def test_it_asks_to_stop_only_where_the_config_does(stop, expected):
    watcher = Watcher(Watch(stop=stop), ["a", "b"], ["train", "test"])
    asked = []
    for n in (2, 3, 4):
        watcher.look(row(n, (1, 1.0), (1, 1.0)))
        asked.append(watcher.should_stop)
    assert asked == expected


def test_one_that_learns_and_predicts_one_class_is_told_so_and_not_stopped():
    """As with batch normalization whose moving averages have not caught up."""
    watcher = Watcher(Watch(share=0.9, evaluations=2, stop=True), ["a", "b"], ["train", "test"])
    rows = [row(n, (1, 1.0), (1, 1.0), cross_entropy) for n, cross_entropy in enumerate([0.3, 0.4, 0.69], 2)]
    said = looks(watcher, rows)
    assert [mark for _, mark in said] == ["", "lagging", "collapsed"]
    assert "its minibatches it tells apart (cross entropy 0.35)" in said[1][0][0]
    assert "lower momentum of batch_normalization" in said[1][0][0]
    watcher.look(row(5, (1, 1.0), (1, 1.0), 0.1))
    assert not watcher.should_stop  # the last one is of a network that learns


def test_collapsed_is_one_class_of_however_many():
    assert collapsed(row(train=(2, 0.98), test=(2, 0.97)), ["train", "test"], 0.97) == 2
    assert collapsed(row(train=(2, 0.98), test=(2, 0.96)), ["train", "test"], 0.97) is None
    assert collapsed(row(train=(0, 1.0), test=(1, 1.0)), ["train", "test"], 0.97) is None


def test_swings_count_changes_of_side_whatever_lies_between():
    none, zero, one = row(), row(train=(0, 1.0), test=(0, 1.0)), row(train=(1, 1.0), test=(1, 1.0))
    assert swings([zero, one, one, none, one, zero, none], ["train", "test"], 0.97) == 2
    assert swings([none, none], ["train", "test"], 0.97) == 0


@pytest.mark.parametrize(
    "classes, loss, marked", [(2, 0.693, False), (2, 4.33, True), (2, 0.3, True), (4, 1.386, False)]
)
def test_a_first_loss_far_from_ln_classes(classes, loss, marked):
    watcher = Watcher(Watch(), [str(n) for n in range(classes)], ["train", "test"])
    first = row(1, cross_entropy=loss)
    lines = watcher.look(first)
    assert (first["watch"] == "first_loss") == bool(lines) == marked
    if marked:
        assert f"the first loss is {loss:.2f}" in lines[0] and f"{math.log(classes):.2f}" in lines[0]
    later = row(2, cross_entropy=loss)
    assert not watcher.look(later)


def test_a_gradient_that_vanished_is_a_fault_only_before_anything_is_learned(watcher):
    stuck, learned = row(first=1e-9), row(first=1e-9, cross_entropy=1e-6)
    assert "step 2: no gradient reaches the first layer (1.0e-09)" in watcher.look(stuck)[0]
    assert stuck["watch"] == "vanished"
    assert not watcher.look(learned) and learned["watch"] == ""


# --- in training -----------------------------------------------------------------------------


def metrics(tmp_path) -> list:
    return list(csv.DictReader((tmp_path / "runs/small/metrics.csv").read_text().splitlines()))


# Weights of 0 give every image the same logits: collapsed to one class, and no gradient but the output bias'.
DEAD = [{"hidden": {"units": 3, "stddev": 0}}, "relu", {"output": {"stddev": 0}}]


def test_training_says_marks_and_stops(data, write_config, train, tmp_path):
    result = train("fit", write_config(network=DEAD, table_every=1, steps=50, watch={"stop": True}))
    assert result.exit_code == 0, result.output
    assert "warning: step 3: 3 rows running the network calls (nearly) all shots one class" in result.output
    assert "stopped: the network has collapsed to one class at step 3 (watch.stop)" in result.output
    assert [row["watch"] for row in metrics(tmp_path)] == ["vanished", "vanished", "vanished collapsed"]
    assert json.loads((tmp_path / "runs/small/summary.json").read_text())["watch"] == [
        "collapsed",
        "vanished",
    ]


def test_training_goes_on_unless_told_to_stop(data, write_config, train, tmp_path):
    settings = {"network": DEAD, "minibatch": "full", "table_every": 1}
    result = train("fit", write_config(**settings, steps=5))
    assert [row["watch"].split() for row in metrics(tmp_path)] == [
        ["vanished"], ["vanished"], *[["vanished", "collapsed"]] * 3,
    ]  # fmt: skip
    assert result.output.count("warning: ") == 2


def test_the_count_goes_on_over_a_resume(data, write_config, train, tmp_path):
    train("fit", write_config(network=DEAD, table_every=1, steps=2))
    train("fit", write_config(network=DEAD, table_every=1, steps=3), "--resume")
    assert ["collapsed" in row["watch"] for row in metrics(tmp_path)] == [False, False, True]


def test_a_loss_that_is_not_a_number_is_marked_too(data, write_config, train, tmp_path):
    result = train("fit", write_config(learning_rate={"start": 1e30}, steps=50, table_every=50))
    assert result.exit_code == 2
    assert "the loss is nan" in result.output or "the loss is inf" in result.output
    rows = metrics(tmp_path)
    assert rows[0]["watch"] == "" and rows[-1]["watch"] == "nan"
    assert int(rows[-1]["step"]) > 1 and rows[-1]["train_accuracy"] == ""
