"""What the rows of the table judge: small splits whole, of large ones the same few, at a bounded cost."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.conftest import SHAPE, write_data
from train.config import TrainConfig
from train.data.dataset import open_data
from train.data.minibatches import sample
from train.fit import judged
from train.metrics.effective import interval

SETTINGS = {"name": "a", "data": "a.h5", "network": [{"output": {}}], "steps": 9}


def config(**changes):
    return TrainConfig(**{**SETTINGS, **changes})


@pytest.mark.parametrize("sizes", [{"train": 80, "test": 60}, {"train": 1000, "validation": 90, "test": 300}])
def test_the_2016_study_and_the_demo_are_judged_whole_in_every_row(sizes):
    assert judged.plan(config(minibatch=40, table_every=20), sizes) == (20, sizes)


def test_without_a_limit_all_are_judged():
    sizes = {"train": 62_000, "test": 9_000}
    assert judged.plan(config(table_shots=None), sizes) == (5, sizes)


@given(
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.one_of(st.integers(1, 500), st.just("full")),
    st.integers(1, 1000),
    st.floats(0.001, 2),
    st.integers(1, 5000),
)
def test_a_row_costs_at_most_its_share_and_tells_as_much_as_that_allows(
    train, test, minibatch, every, share, most
):
    sizes = {"train": train, "test": test}
    rows = judged.plan(
        config(minibatch=minibatch, table_every=every, table_share=share, table_shots=most), sizes
    )
    if max(train, test) <= most:
        assert rows == (every, sizes)
        return
    per_step = share * judged.PASSES * (train if minibatch == "full" else minibatch)
    assert list(rows.shots) == list(sizes)
    assert sum(rows.shots.values()) <= per_step * rows.every * (1 + 1e-9)
    assert rows.every % every == 0
    for name, size in sizes.items():
        assert min(judged.FEWEST, most, size) <= rows.shots[name] <= min(most, size)
    if rows.every > every:  # further apart than asked for only where the fewest already cost more
        assert sum(rows.shots.values()) > per_step * every
        assert max(rows.shots.values()) <= judged.FEWEST
    elif any(n < min(most, sizes[name]) for name, n in rows.shots.items()):
        assert sum(rows.shots.values()) + len(sizes) > per_step * every


def test_the_split_that_may_stop_a_training_is_judged_by_table_shots():
    stopping = config(minibatch=80, stop_when={"split": "validation", "accuracy": 0.9})
    sizes = {"train": 62_000, "validation": 7_000, "test": 9_000}
    rows = judged.plan(stopping, sizes)
    assert rows.shots == {"train": 80, "validation": 2000, "test": 80} and rows.every == 270


def test_the_fewest_tell_what_is_promised():
    for accuracy, within in ((0.5, 0.11), (0.9, 0.09)):
        low, high = interval(accuracy, judged.FEWEST, None)
        assert accuracy - within < low < high < accuracy + within


@pytest.mark.parametrize("cache", ["stream", "memory"])
def test_the_shots_judged_are_read_once_and_are_those_of_the_sample(tmp_path, cache):
    path = write_data(tmp_path / "data.h5", {"train": 40, "test": 30})
    with open_data(path, SHAPE, ["train"], cache) as data:
        split = data.splits["train"]
        rows = sample(split, 11)
        shots = judged.chosen(split, 11, 1)
        expected, before = split.images(rows), split.reading
        for _ in range(2):
            assert np.array_equal(np.concatenate([batch.copy() for batch in shots.batches(4)]), expected)
        assert split.reading == before
        assert np.array_equal(shots.labels, split.labels[rows])
        assert judged.chosen(split, 40, 1) is split


def test_a_table_of_a_sample_says_so_and_ends_with_all_shots(data, write_config, train, tmp_path):
    result = train("fit", write_config(table_shots=20, table_every=1, minibatch=40, table_share=0.1))
    assert result.exit_code == 0, result.output
    said = (
        "rows every 5 steps judge the same 20 of 40 train shots (0.90 is then [0.70, 0.97] at best), 20 of 30"
    )
    assert said in result.output
    with (tmp_path / "runs/small/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 6, 11]
    assert all(float(row["train_accuracy"]) * 20 % 1 == 0 for row in rows)
    assert "of 40" in result.output.partition("stopped:")[2]
