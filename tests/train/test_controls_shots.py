"""Which shots and pixels the controls train and test on, and what the baselines read in them."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from common.dataset.view import View
from tests.train.runs import SETTINGS, SHAPE, write_runs
from train.config import load_config
from train.controls import baselines, beam_free
from train.controls import bench as bench_module
from train.controls.bench import Bench
from train.controls.choice import Choice, Pool
from train.controls.controls import folds, simple
from train.data.dataset import open_data
from train.data.order import Position


def test_regressions_and_beam_free_pixels_take_a_sample_of_many_shots(write_config, tmp_path, monkeypatch):
    write_runs(tmp_path / "data.h5")
    monkeypatch.setattr(bench_module, "MOST_SHOTS", 50)
    with open_data(tmp_path / "data.h5", None, ["train", "test"]) as data:
        bench = Bench(load_config(write_config(**SETTINGS)), data, lambda: None)
        rows = {row.control: row for row in simple(bench)}
        assert rows["projection"].n == rows["time"].n == 50 < len(bench.test)
        assert len(bench.features["projection"]) == 100
        assert bench.mask.any() and len(bench.beam_free_intensity) == 100


def test_folds_leave_out_a_run_and_blocks_of_the_only_run(write_config, tmp_path):
    write_runs(tmp_path / "data.h5")
    with open_data(tmp_path / "data.h5", None, ["train", "test"]) as data:
        bench = Bench(None, data, lambda: None)
        found = folds(bench)
        ids, labels = bench.pool.ids, bench.pool.labels
    assert [fold.unseen for fold in found] == [[70], [71]]
    for fold in found:
        assert not set(fold.train) & set(fold.test)
        assert not np.isin(ids["run"][fold.train], fold.unseen).any()
        assert set(ids["run"][fold.test][labels[fold.test] == 1]) == set(fold.unseen)
        mine = [ids["seconds"][rows][ids["run"][rows] == 69] for rows in (fold.train, fold.test)]
        assert not set(mine[0] // 30) & set(mine[1] // 30)
        gap = np.abs(mine[0][:, None].astype(int) - mine[1][None, :].astype(int)).min()
        assert gap >= 5
    assert set(found[0].test) | set(found[1].test) == set(found[0].train) | set(found[1].train)


def test_a_choice_gives_the_pools_images_masked_and_in_the_order_of_training(tmp_path):
    write_runs(tmp_path / "data.h5")
    with open_data(tmp_path / "data.h5", None, ["train", "test"], "stream") as data:
        pool = Pool(data)
        splits = [data.splits[name] for name in ("train", "test")]
        every = np.concatenate([split.images(range(len(split))) for split in splits])
        rows = np.random.default_rng(0).permutation(len(pool))[:50]
        mask = np.random.default_rng(1).random(SHAPE) < 0.5
        choice = Choice(pool, rows, mask=mask)
        expected = every[rows] * mask[..., None]
        np.testing.assert_array_equal(choice.images(range(50)), expected)
        batches = [batch.copy() for batch in choice.batches(7)]
        np.testing.assert_array_equal(np.concatenate(batches), expected)
        as_split = Choice(pool, np.arange(len(data.splits["train"])))
        with (
            closing(as_split.minibatches(16, 3, Position(0, 0))) as ours,
            closing(data.splits["train"].minibatches(16, 3, Position(0, 0))) as theirs,
        ):
            for _ in range(3):
                for our, their in zip(next(ours), next(theirs)):
                    np.testing.assert_array_equal(our, their)


@pytest.mark.parametrize("leak", [0.0, 0.1, 2.0])
def test_beam_free_pixels_keep_clear_of_faint_light_and_take_any_background(leak):
    rng = np.random.default_rng(5)
    of_runs, shape = [], (80, 96)
    for run in range(3):
        images = rng.normal(0, 1, (400, *shape)) + leak * run
        faint = rng.exponential(0.15, (400, 1, 1))  # a seventh of the noise of one pixel
        images[:, 30:50, 20:60] += faint
        of_runs.append(beam_free.sums(iter([images[..., None].astype(np.float32)]), shape))
    mask = beam_free.mask(tuple(of_runs), shape)
    assert not mask[30:50, 20:60].any()
    assert not mask[24:30, 20:60].any()  # nor what is beside it
    assert mask.mean() > 0.4


def test_a_picture_full_of_light_has_no_beam_free_pixels():
    rng = np.random.default_rng(6)
    images = rng.normal(0, 1, (300, 80, 96)) + rng.normal(5, 1, (300, 1, 1))
    sums = beam_free.sums(iter([images[..., None].astype(np.float32)]), (80, 96))
    assert not beam_free.mask((sums,), (80, 96)).any()


@pytest.mark.parametrize("length, guard", [(30.0, 5.0), (12.0, 3.0)])
def test_controls_take_the_blocks_of_time_of_the_data_file(tmp_path, write_config, length, guard):
    path, config = write_runs(tmp_path / "data.h5", blocks={"length": length, "guard": guard}), SETTINGS
    with open_data(path, SHAPE, ["train", "test"]) as data:
        bench = Bench(load_config(write_config(**config)), data, lambda: None)
        ids = bench.pool.ids
        pairs = {(shot["run"], shot["seconds"] // length) for shot in ids}
        assert len(np.unique(bench.block)) == len(pairs)
        of_cut_run = ids[np.isin(ids["run"], [69])]
        used = np.concatenate([np.concatenate([fold.train, fold.test]) for fold in folds(bench)])
        assert len(of_cut_run) and (ids[used][ids[used]["run"] == 69]["seconds"] % length >= guard).all()


def test_moments_of_a_known_spot():
    time, level = np.meshgrid(np.arange(60), np.arange(80), indexing="ij")
    spot = 100 * np.exp(-(((time - 20) / 3) ** 2 + ((level - 50) / 6) ** 2) / 2)
    view = View(log=False)
    found = baselines.moments(spot[None], view)[0]
    np.testing.assert_allclose(found[[0, 2]], [20, 50], atol=1e-6)
    assert 2.2 < found[1] < 3 and 4.4 < found[3] < 6  # cut off at a twentieth of the peak
    logged = View(log=True)
    np.testing.assert_allclose(baselines.moments(np.log1p(spot)[None], logged)[0], found, rtol=1e-6)
