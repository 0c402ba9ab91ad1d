"""Calibration: temperature, calibration error, the energy's interval, thresholds, by their definitions."""

from __future__ import annotations

import csv
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from tests.train.conftest import SHAPE, write_data
from train.data.dataset import open_data
from train.data.order import Position
from train.data.validation import with_validation
from train.metrics import calibration, effective
from train.metrics.measure import EnergyBand, Score
from train.metrics.scores import SplitScore


def drawn(n: int, seed: int = 0):
    """Logits (n, 2) that are right in probability, and labels drawn with those probabilities."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2.5, n)
    return np.stack([np.zeros(n), odds], axis=1), (rng.random(n) < expit(odds)).astype(int)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_finds_by_how_much_logits_are_too_large(factor):
    logits, labels = drawn(20_000)
    assert calibration.temperature(factor * logits, labels) == pytest.approx(factor, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_of_many_shots_no_other_temperature_is_better(seed, factor):
    logits, labels = drawn(5000, seed)
    best = calibration.temperature(factor * logits, labels)
    least = calibration.cross_entropy(factor * logits / best, labels)
    for other in (0.8 * best, 1.25 * best, 1.0):
        assert least <= calibration.cross_entropy(factor * logits / other, labels) + 1e-4


@pytest.mark.parametrize("n", [10, 40, 200])
def test_a_few_shots_that_are_all_correct_do_not_make_the_network_certain(n):
    """Of margins of 5, which mean 0.7 % of errors, none in 200 is no reason to be surer than 0.05 %."""
    logits = np.array([[5.0, 0.0], [0.0, 5.0]] * (n // 2))
    assert 5 / np.log(1 / 0.0005 - 1) < calibration.temperature(logits, np.array([0, 1] * (n // 2))) < 1


def test_calibration_error_is_that_of_a_known_lie():
    """Of shots called with 0.9, 0.7 are correct."""
    probabilities = np.tile([0.1, 0.9], (1000, 1))
    labels = (np.arange(1000) % 10 < 7).astype(int)
    bins = calibration.reliability(probabilities, labels)
    (only,) = bins
    assert (only.confidence, only.share.n, only.share.k) == (pytest.approx(0.9), 1000, 700)
    assert calibration.calibration_error(bins) == pytest.approx(0.2)


def test_right_probabilities_have_a_small_calibration_error_and_wrong_ones_a_large_one():
    logits, labels = drawn(20_000)
    errors = [
        calibration.calibration_error(calibration.reliability(softmax(f * logits, axis=1), labels))
        for f in (1, 4)
    ]
    assert errors[0] < 0.01 and errors[1] > 0.1


def test_bins_hold_every_shot_once():
    logits, labels = drawn(501)
    bins = calibration.reliability(softmax(logits, axis=1), labels)
    assert sum(each.share.n for each in bins) == 501
    assert sum(each.share.k for each in bins) == (logits.argmax(axis=1) == labels).sum()


def estimates(n: int, seed: int):
    rng = np.random.default_rng(seed)
    energy = rng.gamma(2, 0.02, n)
    return energy + rng.normal(0, np.hypot(0.001, 0.1 * energy)), energy


def test_the_interval_holds_nine_shots_of_ten():
    error = calibration.energy_error(*estimates(400, 1))
    estimate, energy = estimates(20_000, 2)
    score = calibration.energy_score(estimate, energy, error)
    assert 0.86 < score.covered < 0.95
    weak = energy < np.quantile(energy, 0.3)
    assert calibration.energy_score(estimate[weak], energy[weak], error).covered > 0.8
    assert error.half_width(np.array([0.1]))[0] > 1.5 * error.half_width(np.array([0.001]))[0]


def test_energy_score_is_by_its_formulas_and_leaves_out_what_is_unknown():
    estimate, energy = np.array([1.0, 2.5, 2.0, 9.0]), np.array([1.0, 2.0, 3.0, np.nan])
    score = calibration.energy_score(estimate, energy)
    assert score.n == 3
    assert score.r2 == pytest.approx(1 - (0.25 + 1) / 2)
    assert score.spearman == pytest.approx(0.5)
    assert score.rms == pytest.approx(np.sqrt(1.25 / 3))
    assert score.covered is None


def test_thresholds_count_what_is_found_and_what_it_costs():
    probability = np.array([0.05, 0.2, 0.95, 0.4, 0.92, 0.999])
    lasing = np.array([False, False, False, True, True, True])
    found = {each.threshold: each for each in calibration.thresholds(probability, lasing)}
    assert found[0.9] == (0.9, 2, 3, 1, 3)
    assert found[0.1] == (0.1, 3, 3, 2, 3)


def test_half_recognized_is_where_the_share_crosses_a_half():
    energy = np.linspace(0.001, 0.1, 1000)
    hit = np.random.default_rng(0).random(1000) < expit((energy - 0.03) / 0.004)
    assert calibration.half_recognized(energy, hit) == pytest.approx(0.03, abs=0.004)
    assert calibration.half_recognized(energy, np.ones(1000, bool)) is None


# --- in a run ----------------------------------------------------------------------------------------


@pytest.fixture
def long_data(tmp_path):
    """120 train shots a second apart: 4 blocks of 30 s of each class."""
    return write_data(tmp_path / "data.h5", {"train": 240, "test": 60})


def test_from_what_energy_on_shots_are_recognized_is_said_also_where_all_are():
    bands = {"lasing": [EnergyBand("", low, 1, effective.plain(2, 1)) for low in (0.02, 0.006)]}
    for by_energy, half, said in (
        (bands, {"lasing": 0.012}, ["half of the lasing shots are recognized at 0.0120 mJ"]),
        (bands, {}, ["more than half of the lasing shots are recognized at every energy, from 0.0060 mJ on"]),
        ({}, {}, []),
    ):
        score = Score(effective.plain(4, 3), 0.5)
        of = SplitScore(score, [], by_energy, 0, 0.1, 0.01, [], {}, half, None)
        assert list(of.recognized()) == said


def test_validation_is_whole_blocks_of_train_of_every_class(long_data):
    with open_data(long_data, SHAPE, ["train"]) as data:
        whole, parts = data.splits["train"], with_validation(data, 0.25).splits
        again = with_validation(data, 0.25).splits
        train, validation = parts["train"], parts["validation"]
        assert list(parts) == ["train", "validation", "test"]
        assert np.array_equal(train.ids, again["train"].ids)
        assert len(train) + len(validation) == len(whole)
        block = data.blocks.apart(np.concatenate([train.ids, validation.ids]))
        assert not set(block[: len(train)]) & set(block[len(train) :])
        assert set(validation.labels) == {0, 1}
        rows = {tuple(shot): i for i, shot in enumerate(whole.ids.tolist())}
        for batch, _ in zip(train.minibatches(16, 1, Position(0, 0)), range(20)):
            assert batch.images.shape[1:] == (*SHAPE, 1)
        for part in parts["train"], validation:
            where = [rows[tuple(shot)] for shot in part.ids.tolist()]
            assert np.array_equal(part.labels, whole.labels[where])
            assert np.array_equal(part.images(range(len(part))), whole.images(where))
            assert np.array_equal(
                np.concatenate([batch.copy() for batch in part.batches(7)]), whole.images(where)
            )


def test_data_that_have_a_validation_split_keep_theirs(tmp_path):
    path = write_data(tmp_path / "data.h5", {"train": 240, "validation": 20, "test": 60})
    with open_data(path, SHAPE, ["train"]) as data:
        assert with_validation(data, 0.25) is data


SETTINGS = {"validation_share": 0.25, "steps": 25, "target": "pulse_energy", "preprocess": ["log"]}


def test_the_kept_model_is_calibrated_and_tells_the_energy_in_mj(long_data, write_config, train, tmp_path):
    assert train("fit", write_config(**SETTINGS)).exit_code == 0
    run = tmp_path / "runs/small"
    summary = json.loads((run / "summary.json").read_text())
    saved = keras.saving.load_model(run / "model.keras", compile=False)
    with open_data(long_data, SHAPE, ["train"]) as data:
        parts = with_validation(data, 0.25).splits
        validation = parts["validation"]
        found = saved(validation.images(range(len(validation))))
    temperature = summary["calibration"]["temperature"]
    raw = temperature * np.asarray(found["logits"])  # as they were before the model was calibrated
    assert calibration.temperature(raw, validation.labels) == pytest.approx(temperature, rel=0.01)
    assert abs(temperature - 1) > 0.03  # else nothing would be shown
    estimate = np.asarray(found["pulse_energy"])[:, 0]
    known = np.isfinite(validation.energy)
    error = calibration.energy_error(estimate[known], validation.energy[known])
    assert summary["calibration"]["pulse_energy"] == pytest.approx(error._asdict(), rel=1e-3)
    assert abs(estimate).max() < 0.5  # mJ


def test_predict_gives_probability_energy_with_interval_and_flag(long_data, write_config, train, tmp_path):
    train("fit", write_config(**SETTINGS))
    run = tmp_path / "runs/small"
    result = train("predict", str(run), str(long_data), "--split", "test")
    assert result.exit_code == 0, result.output
    with (run / "predictions_data.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for row in rows:
        low, best, high = (float(row[f"pulse_energy{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= max(best, 0) <= high
        assert "flag" in row
    out = tmp_path / "p.h5"
    assert train("predict", str(run), str(long_data), "--split", "test", "--out", str(out)).exit_code == 0
    import h5py

    with h5py.File(out) as file:
        np.testing.assert_allclose(
            file["pulse_energy"][:, 0], [float(r["pulse_energy"]) for r in rows], atol=1e-5
        )
        assert [flag.decode() for flag in file["flag"][...]] == [row["flag"] for row in rows]


@pytest.mark.parametrize("settings, lasing", [({"energy_floor": 5.0}, 0), ({"lasing_weight": 1e4}, 1)])
def test_what_shots_count_decides_what_they_are_called(
    long_data, write_config, train, tmp_path, settings, lasing
):
    """With a floor above every shot only the first class is left; with a large weight the others prevail."""
    train("fit", write_config(steps=40, learning_rate={"start": 0.1}, preprocess=["log"], **settings))
    summary = json.loads((tmp_path / "runs/small/summary.json").read_text())
    assert all(row[1 - lasing] == 0 for row in summary["splits"]["test"]["confusion"])


def test_shots_unlike_those_trained_on_are_flagged_with_the_reason(long_data, write_config, train, tmp_path):
    train("fit", write_config(**SETTINGS))
    run = tmp_path / "runs/small"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["flags"]["test"]["flagged"] <= 0.1 * summary["flags"]["test"]["n"]

    other = write_data(tmp_path / "other.h5", {"test": 40}, signal=6.0, seed=3)
    result = train("predict", str(run), str(other))
    with (run / "predictions_other.csv").open() as file:
        flags = [(row["label"], row["flag"]) for row in csv.DictReader(file)]
    assert all(flag for label, flag in flags if label == "lasing")  # ten times as bright a patch
    assert "brightest pixel high" in {flag for _, flag in flags}
    assert "are unlike those trained on" in result.output
    assert "do not rely on its probabilities" in " ".join(result.output.split())


def test_a_damaged_reference_is_one_line(long_data, write_config, train, tmp_path):
    train("fit", write_config(**SETTINGS))
    path = tmp_path / "runs/small/reference.npz"
    path.write_bytes(path.read_bytes()[:-100])
    result = train("predict", str(path.parent), str(long_data))
    assert result.exit_code == 2
    assert "reference.npz: is damaged" in result.output


def test_the_card_says_what_was_measured_and_when_not_to_use_it(long_data, write_config, train, tmp_path):
    config = write_config(**SETTINGS)
    result = train("fit", config)
    run = tmp_path / "runs/small"
    assert f"{run}/card.md: the model's card" in result.output
    card, summary = (run / "card.md").read_text(), json.loads((run / "summary.json").read_text())
    test = summary["splits"]["test"]
    assert f"| test | 60 | {test['n_effective']:.0f} | {test['accuracy']:.3f} | " in card
    assert f"{test['calibration_error']:.3f}" in card
    assert f"temperature {summary['calibration']['temperature']:.2f}" in card
    assert f"R² {test['pulse_energy']['r2']:.3f}" in card
    assert "Not run yet." in card and "`python -m train controls" in card
    assert "When not to use it" in card and "flags" in card
    assert "it was not calibrated" not in card


def test_the_card_of_a_network_that_learned_nothing_says_so(data, write_config, train, tmp_path):
    train("fit", write_config(steps=1, network=[{"output": {"stddev": 0}}]))
    card = (tmp_path / "runs/small/card.md").read_text()
    assert "not told apart from always guessing" in card
    assert "it was not calibrated" in card


def test_the_report_shows_reliability_thresholds_and_energy(long_data, write_config, train, tmp_path):
    assert train("fit", write_config(report=True, **SETTINGS)).exit_code == 0
    page = (tmp_path / "runs/small/report.html").read_text()
    assert "How far the probabilities can be relied on" in page
    for words in ("Reliability diagram", "What a threshold finds and what it costs", "Spearman", "flagged"):
        assert words in page
