"""`python -m train controls`: a planted leak is found, and where there is none nothing is cried."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.dataset import layout, reading, writing
from common.dataset.view import View
from common.shots import ID_DTYPE
from tests.command_line import refused
from tests.train.test_ranks import MPIRUN
from train.config import load_config
from train.controls import baselines, beam_free, job, record
from train.controls import bench as bench_module
from train.controls.bench import Bench
from train.controls.choice import Choice, Pool
from train.controls.controls import CONTROLS, folds, simple
from train.controls.outcome import STRICT, Called, Outcome
from train.controls.verdict import verdict
from train.data.dataset import open_data
from train.data.minibatches import Position
from train.metrics import effective

SHAPE = (24, 32)
RUNS = {69: (0, 960), 70: (1, 480), 71: (1, 480)}  # run: label, seconds at a shot a second
CLASSES = ["nolasing", "lasing"]
SETTINGS = {
    "input": list(SHAPE),
    "preprocess": ["standardize"],
    "network": [{"hidden": {"units": 8, "stddev": 0.02}}, "relu", {"output": {"stddev": 0.1}}],
    "optimizer": {"kind": "adam"},
    "learning_rate": {"start": 0.01},
    "minibatch": 32,
    "steps": 60,
}


def pictures(rng: np.random.Generator, n: int, lasing: bool, energy: np.ndarray, background: float):
    """(n, 24, 32): a bunch whose place and height jitter, which lasing smears out in energy, and noise."""
    time, level = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    center = np.array([12.0, 15.0]) + rng.normal(0, 0.5, (n, 2))
    width = 1.5 + (20 * energy if lasing else np.zeros(n))
    away = ((time - center[:, :1, None]) / 2) ** 2 + (
        (level - center[:, 1:, None]) / width[:, None, None]
    ) ** 2
    light = rng.normal(3, 0.3, n)[:, None, None] * np.exp(-away / 2) / (width / 1.5)[:, None, None]
    return (light + background + rng.normal(0, 0.1, (n, *SHAPE))).astype(np.float32)


def write_runs(
    path: Path, leak: float = 0.0, seed: int = 0, blocks: Optional[dict] = None, runs=None, classes=CLASSES
) -> Path:
    """Runs split by blocks of 30 s; `leak`: background of run 69 less that of the others.

    runs: {run: (label, seconds)}. Of a third class the pulse energies are the higher ones.
    """
    rng = np.random.default_rng(seed)
    shots = []
    for run, (label, n) in (runs or RUNS).items():
        seconds = 1000 * 30 * (run - 60) + np.arange(n)
        low = 0.005 if label < 2 else 0.15
        energy = rng.uniform(low, low + 0.095, n) if label else np.full(n, 0.0033)
        images = pictures(rng, n, bool(label), energy, 0.5 + (leak if run == 69 else 0.0))
        for i in np.flatnonzero(seconds % 30 >= 5):
            if i % 2:  # as many of each class
                split = "test" if seconds[i] // 30 % 3 == 0 else "train"
                shots.append((split, label, run, seconds[i], energy[i], images[i]))
    order = rng.permutation(len(shots))
    sizes = {split: sum(shot[0] == split for shot in shots) for split in ("train", "test")}
    with writing.create(path, sizes, SHAPE, SHAPE) as file:
        for split in sizes:
            rows = [shots[k] for k in order if shots[k][0] == split]
            group = file[split]
            for name, column in (("labels", 1), ("run", 2), ("seconds", 3)):
                group[name][...] = [row[column] for row in rows]
            for name in ("f_11_ENRC", "f_12_ENRC"):
                group["gas_detector"][name][...] = [row[4] for row in rows]
            group["ebeam/ebeamCharge"][...] = rng.normal(0.3, 0.004, len(rows))
            group["images"][...] = np.stack([row[5] for row in rows])
            group["crc32"][...] = [reading.image_checksum(row[5]) for row in rows]
        train = file["train/images"][...].astype(np.float64)
        file["statistics/mean"][...], file["statistics/std"][...] = train.mean(axis=0), train.std(axis=0)
        attributes = {name: "{}" for name in layout.ATTRIBUTES}
        attributes["classes"] = json.dumps(classes)
        attributes["config"] = json.dumps({"select": {"blocks": blocks}} if blocks else {})
        writing.finish(file, attributes)
    return path


def ids_of(run: int, seconds: np.ndarray) -> np.ndarray:
    ids = np.zeros(len(seconds), ID_DTYPE)
    ids["run"], ids["seconds"] = run, seconds
    return ids


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


WAYS = {"jobs": ["--jobs", "2"], "ranks": [str(MPIRUN), "-n", "3"]}


@pytest.mark.parametrize("way", WAYS)
def test_other_processes_find_the_same(write_config, train, tmp_path, way):
    write_runs(tmp_path / "data.h5")
    settings = {**SETTINGS, "steps": 5}
    assert train("controls", write_config(name="here", **settings)).exit_code == 0
    words = [sys.executable, "-m", "train", "controls", write_config(name="there", **settings)]
    command = [*words, *WAYS[way]] if way == "jobs" else [*WAYS[way], *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("controls.csv (the table)") == 1
    here, there = (tmp_path / "runs" / name for name in ("here", "there"))
    for name in ("controls.csv", "controls.json"):
        assert (there / name).read_text() == (here / name).read_text()


def test_regressions_and_beam_free_pixels_take_a_sample_of_many_shots(write_config, tmp_path, monkeypatch):
    write_runs(tmp_path / "data.h5")
    monkeypatch.setattr(bench_module, "MOST_SHOTS", 50)
    with open_data(tmp_path / "data.h5", None, ["train", "test"]) as data:
        bench = Bench(load_config(write_config(**SETTINGS)), data, lambda: None)
        rows = {row.control: row for row in simple(bench)}
        assert rows["projection"].n == rows["time"].n == 50 < len(bench.test)
        assert len(bench.features["projection"]) == 100
        assert bench.mask.any() and len(bench.beam_free_intensity) == 100


def test_help_shows_an_example(train):
    assert "python -m train controls configs/" in train("controls", "--help").output


# --- which shots and pixels ------------------------------------------------------------------


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
        np.testing.assert_array_equal(np.concatenate(list(choice.batches(7))), expected)
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


# --- statistics ------------------------------------------------------------------------------


def test_independent_shots_count_as_they_are_and_whole_blocks_as_one_each():
    rng = np.random.default_rng(0)
    labels, block = np.repeat([0, 1], 3000), np.repeat(np.arange(200), 30)
    n, _ = effective.sample_size(rng.random(6000) < 0.7, labels, block)
    assert 4000 < n <= 6000
    n, freedom = effective.sample_size(np.repeat(rng.random(200) < 0.5, 30), labels, block)
    assert 150 < n < 260 and freedom == 198
    n, _ = effective.sample_size(labels == 1, labels, block)  # one class for all: as good as chance
    assert n == 6000


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_effective_numbers_are_between_one_block_and_all_shots(shots):
    correct, block = np.array([s[0] for s in shots]), np.array([s[1] for s in shots])
    n, freedom = effective.sample_size(correct, block % 2, block)
    assert 0 < n <= len(shots) and freedom >= 1
    low, high = effective.interval(correct.mean(), n, freedom)
    assert 0 <= low <= correct.mean() + 1e-9 and correct.mean() - 1e-9 <= high <= 1


def test_the_interval_by_blocks_holds_where_shots_of_a_block_go_together():
    """300 times 16 blocks of 20 shots right or wrong together: the truth is inside as often as is said."""
    rng = np.random.default_rng(1)
    labels, block = np.repeat([0, 1], 160), np.repeat(np.arange(16), 20)
    by_blocks = naive = 0
    for _ in range(300):
        correct = np.repeat(rng.random(16) < 0.5, 20)
        n, freedom = effective.sample_size(correct, labels, block)
        low, high = effective.interval(correct.mean(), n, freedom)
        by_blocks += low <= 0.5 <= high
        low, high = effective.share(correct, None).interval
        naive += low <= 0.5 <= high
    assert by_blocks > 0.92 * 300
    assert naive < 0.6 * 300


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


# --- words -----------------------------------------------------------------------------------


def row(control: str, low: float, value: float, high: float, strict: float = 0.0, **more) -> Outcome:
    return Outcome(control, control, "accuracy", 100, value, 100, (low, high), 0.5, 20, (strict, 1.0), **more)


def test_the_verdict_weighs_what_was_found():
    good, free = row("network", 0.8, 0.9, 0.95, 0.7), row("beam_free", 0.4, 0.5, 0.6)
    assert verdict([good, free]).head.startswith("Leak: not found. ")
    leak = row("beam_free", 0.7, 0.81, 0.9, 0.65)
    found = verdict([good, leak])
    assert found.head.startswith("Leak: found. ")
    assert "beam-free pixels alone reach 0.81 [0.70, 0.90] of 100" in found.reasons[0]
    once = row("ebeam", 0.52, 0.6, 0.7, 0.45)
    assert once.finding == "barely above"
    said = verdict([good, free, once])
    assert said.leak == "not found" and "look again with more shots" in said.reasons[0]
    late = [row("time", 0.7, 0.75, 0.8, 0.65), row("time_common", 0.4, 0.5, 0.6)]
    said = verdict([good, free, *late])
    assert said.leak == "not found" and "runs differ in length" in said.reasons[0]
    assert verdict([good, free, row("time", 0.7, 0.75, 0.8, 0.65)]).leak == "found"
    called = (Called(70, "lasing", 50, 40, (0.67, 0.89)),)
    unseen = row("unseen_70", 0.6, 0.7, 0.8, 0.55, called=called)
    said = verdict([good, free, unseen])
    assert "called lasing: run 70 0.80 [0.67, 0.89] of 50" in said.reasons[0]
    assert "some of the 0.90 is of the runs it saw" in said.reasons[0]
    assert "is of the runs it saw" not in verdict([row("network", 0.6, 0.75, 0.8), free, unseen]).reasons[0]
    gone = verdict([good, free, dataclasses.replace(unseen, interval=(0.4, 0.6))])
    assert gone.reasons[0].endswith("is of the runs it saw")


def test_the_verdict_is_open_where_the_data_cannot_tell():
    good, free = row("network", 0.8, 0.9, 0.95, 0.7), row("beam_free", 0.4, 0.5, 0.6)
    head = "Leak: cannot be decided because "
    lost = verdict([row("network", 0.4, 0.5, 0.6), free])
    assert lost.head.startswith(head + "the network, trained anew for the controls, is at chance (0.50 [0.40")
    one_run = verdict([good, free], ["nolasing", "lasing"])
    assert one_run.head.startswith(head + "nolasing and lasing are a single run each")
    assert verdict([good, free], ["nolasing"]).leak == "not found"  # the other class has several
    few = dataclasses.replace(free, n=400, n_effective=24.0, freedom=6)
    said = verdict([good, few])
    assert said.head.startswith(head + 'there are too few effective shots: 24 in the control "beam_free"')
    needed = effective.needed(0.7, 0.5, 24, 6, STRICT)  # half of what 0.9 is above 0.5
    numbers = [int(number) for number in re.findall(r"about (\d+), of (\d+) shots", said.head)[0]]
    assert needed <= numbers[0] < 1.1 * needed and numbers[1] == pytest.approx(needed * 400 / 24, rel=0.1)
    enough = dataclasses.replace(few, n_effective=needed, freedom=round(6 * needed / 24))
    assert verdict([good, enough]).leak == "not found"
    found = row("beam_free", 0.7, 0.81, 0.9, 0.65)
    assert verdict([good, found], ["nolasing", "lasing"]).leak == "found"  # what is found is found


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
