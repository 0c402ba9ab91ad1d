"""Selection: balanced, disjoint, the same anywhere, and untouched by what comes later."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import ManifestError
from prepare.config import PrepareConfig
from prepare.select import eligible, select
from prepare.shots import DAMAGED, NO_FRAME
from tests.prepare.conftest import ArraySource, make_shots

START = 1_435_000_000


def config(**changes) -> PrepareConfig:
    data = {
        "name": "x",
        "source": {"dir": "nowhere"},
        "runs": {"dark": [68], "classes": {"nolasing": [69], "lasing": [70, 71]}},
        "select": {"train": 40, "test": 20, "validation": 10, **changes},
    }
    return PrepareConfig.model_validate(data)


def source(n: int = 200, rate: float = 120.0) -> ArraySource:
    return ArraySource({run: make_shots(run, n, rate, START + 10_000 * run) for run in (69, 70, 71)})


def by_split(rows) -> dict:
    return {split: [row for row in rows if row.split == split] for split in ("train", "validation", "test")}


def test_sizes_balance_and_disjointness():
    rows = select(source(), config()).rows
    splits = by_split(rows)
    assert {split: len(of) for split, of in splits.items()} == {"train": 40, "validation": 10, "test": 20}
    for of in splits.values():
        assert sum(row.label == "lasing" for row in of) == len(of) // 2
    assert len({row.shot for row in rows}) == len(rows)
    assert all((row.shot.run == 69) == (row.label == "nolasing") for row in rows)


def test_the_draw_covers_the_run_and_both_lasing_runs():
    rows = select(source(2000), config(train=400)).rows
    seconds = [row.shot.seconds + row.shot.nanoseconds * 1e-9 for row in rows if row.label == "nolasing"]
    quarters = np.histogram(np.array(seconds) - START - 690_000, 4, (0, 2000 / 120))[0]
    assert quarters.min() > 30
    assert {row.shot.run for row in rows} == {69, 70, 71}


def test_rows_are_in_the_order_of_reading_additions_behind():
    drawn = select(source(), config()).rows
    assert drawn == sorted(drawn, key=lambda row: row.shot)
    more = select(source(), config(train=60), drawn).rows
    assert more[: len(drawn)] == drawn
    assert more[len(drawn) :] == sorted(more[len(drawn) :], key=lambda row: row.shot)


def test_the_same_anywhere_whatever_the_order_of_the_shots():
    forward = select(source(), config()).rows
    shuffled = ArraySource(
        {run: np.random.default_rng(0).permutation(source().shots(run)) for run in (69, 70, 71)}
    )
    assert select(shuffled, config()).rows == forward


def test_another_seed_draws_others():
    assert select(source(), config()).rows != select(source(), config(seed=2)).rows


@pytest.mark.parametrize("by", ["event", "block"])
def test_more_training_images_keep_all_earlier_ones_and_never_touch_the_test_set(by):
    kinds = {
        "by": by,
        "blocks": {"length": 2.0, "guard": 0.2, "cycle": {"train": 3, "test": 1, "validation": 1}},
    }
    runs = source(4000)
    few = by_split(select(runs, config(**kinds)).rows)
    many = by_split(select(runs, config(train=200, **kinds)).rows)
    assert many["test"] == few["test"]
    assert many["validation"] == few["validation"]
    assert set(few["train"]) < set(many["train"])


def test_more_test_images_keep_the_train_set():
    few, many = select(source(), config()).rows, select(source(), config(test=60)).rows
    assert by_split(few)["train"] == by_split(many)["train"]
    assert set(by_split(few)["test"]) < set(by_split(many)["test"])


def test_a_run_that_grew_changes_nothing_already_drawn():
    drawn = select(source(200), config()).rows
    assert select(source(300), config(), drawn).rows == drawn
    more = select(source(300), config(train=60), drawn).rows
    assert set(drawn) < set(more)
    assert len(more) == len(drawn) + 20


def test_extending_equals_drawing_at_once():
    drawn = select(source(), config()).rows
    assert set(select(source(), config(train=80), drawn).rows) == set(select(source(), config(train=80)).rows)


def test_asking_for_fewer_than_drawn_is_refused():
    drawn = select(source(), config()).rows
    with pytest.raises(ManifestError, match="select.train: the manifest has 20 .* asks for 10.*--force"):
        select(source(), config(train=20), drawn)


def test_a_drawn_shot_that_is_gone_is_refused():
    drawn = select(source(200), config()).rows
    with pytest.raises(ManifestError, match="not eligible in these runs"):
        select(source(100), config(), drawn)


def test_too_few_says_how_many_there_are():
    with pytest.raises(ManifestError) as caught:
        select(source(50), config(train=200))
    assert "select.train: 100 shots of class 'nolasing' are needed, 35 are left" in str(caught.value)
    assert "50 eligible shots" in str(caught.value)


def test_left_out_is_counted_by_reason():
    shots = make_shots(69, 100)
    shots["status"][:5], shots["status"][5:8] = NO_FRAME, DAMAGED
    shots["ebeamCharge"][10:14], shots["ebeamCharge"][20:26] = np.nan, 0.001
    candidates, left_out = eligible(shots, config().select)
    assert left_out == {
        "no camera frame": 5,
        "damaged frame": 3,
        "no charge record": 4,
        "no beam (charge under 0.2 nC)": 6,
    }
    assert len(candidates) == 82


def test_the_image_level_decides_where_it_is_asked_for():
    dim = {(run, i) for run in (69, 70, 71) for i in range(0, 200, 2)}
    settings = config(beam={"min_charge": None, "min_mean_intensity": 1.0})
    selection = select(source(), settings, intensity=lambda run, i: 0.0 if (run, i) in dim else 5.0)
    bright = {tuple(source().shots(run)[["run", "seconds", "nanoseconds"]][i].item()) for run, i in dim}
    assert not {row.shot[:3] for row in selection.rows} & bright
    assert selection.left_out[69]["no beam (mean intensity under 1 counts)"] > 10


def test_blocks_of_time_belong_to_one_split_with_a_guard_gap():
    length, guard = 10.0, 3.0
    kinds = {"by": "block", "blocks": {"length": length, "guard": guard, "cycle": {"train": 2, "test": 1}}}
    rows = select(source(1200, rate=4.0), config(train=160, test=80, validation=0, **kinds)).rows
    times = np.array([row.shot.seconds + row.shot.nanoseconds * 1e-9 for row in rows])
    splits = np.array([row.split for row in rows])
    block = times // length
    for each in np.unique(block):
        assert len(set(splits[block == each])) == 1
    order = np.argsort(times)
    gaps, changes = np.diff(times[order]), splits[order][1:] != splits[order][:-1]
    assert gaps[changes].min() >= guard - 1e-6
    assert changes.sum() > 10  # the splits alternate along the runs


def test_blocks_stay_where_they_are_when_a_run_grows():
    kinds = {"by": "block", "blocks": {"length": 10.0, "guard": 1.0, "cycle": {"train": 2, "test": 1}}}
    short, _ = eligible(make_shots(69, 500, 4.0), config(validation=0, **kinds).select)
    long, _ = eligible(make_shots(69, 900, 4.0), config(validation=0, **kinds).select)
    np.testing.assert_array_equal(long[: len(short)], short)
