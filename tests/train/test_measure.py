"""The numbers a result is judged by."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.metrics import effective, measure


def of(n: int, k: int, chance: float) -> measure.Score:
    """A score of shots without times."""
    return measure.Score(effective.plain(n, k), chance)


def test_the_z_score_of_the_2016_study():
    assert of(80, 51, 0.5).z == pytest.approx((51 - 40) / math.sqrt(20))
    assert of(100, 64, 0.5).z * math.sqrt(0.8) == pytest.approx(2.504396, abs=1e-5)  # acc .64 on 80


@given(st.integers(1, 60), st.data())
def test_the_binomial_tail_is_exact(n, data):
    k = data.draw(st.integers(0, n))
    exact = sum(Fraction(math.comb(n, i), 2**n) for i in range(k, n + 1))
    assert of(n, k, 0.5).p_value == pytest.approx(float(exact), rel=1e-9)


def test_far_tails_do_not_vanish():
    assert of(1000, 900, 0.5).p_value == pytest.approx(6.7e-162, rel=0.05)
    assert of(5, 5, 1.0).p_value == 1.0


def test_wilson_against_a_published_value():
    low, high = effective.plain(148, 15).interval  # Newcombe 1998, table I: 0.0624 to 0.1605
    assert (low, high) == (pytest.approx(0.0624, abs=1e-4), pytest.approx(0.1605, abs=1e-4))


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share(n, data):
    k = data.draw(st.integers(0, n))
    low, high = effective.plain(n, k).interval
    assert 0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1


def test_score_and_confusion():
    labels, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 0])
    score = measure.score(labels, predicted, None)
    assert (score.n, score.correct, score.chance, score.accuracy) == (5, 3, 0.6, 0.6)
    assert measure.confusion(labels, predicted, 2).tolist() == [[2, 1], [1, 1]]


def test_energy_bands_are_thirds_of_the_lasing_shots():
    energy = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, np.nan])
    hit = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1], bool)
    bands = measure.energy_bands(energy, hit, None)
    assert [(band.name, band.low, band.high, band.share.n, band.share.k) for band in bands] == [
        ("weak", 1, 3, 3, 1),
        ("medium", 4, 6, 3, 2),
        ("strong", 7, 9, 3, 3),
    ]


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 4), st.integers(2, 12), st.integers(1, 9), st.integers(0, 10**6))
def test_z_p_interval_and_words_are_one_statement(classes, blocks, shots, seed):
    """Of any number of classes, whatever goes right or wrong together: one test, told in four ways."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), blocks * shots)
    block = np.repeat(np.arange(classes * blocks), shots)
    right = np.repeat(rng.random(classes * blocks), shots) < rng.random(len(labels))
    score = measure.score(labels, np.where(right, labels, (labels + 1) % classes), block)
    assert score.chance == pytest.approx(1 / classes)
    above = score.finding == "above chance"
    assert above == (score.interval[0] > score.chance) == (score.compared == "better than")
    if abs(score.p_value - 0.025) > 1e-6:
        assert above == (score.p_value < 0.025)
    assert (score.z > 0) == (score.accuracy > score.chance)
    assert score.p_value < 0.5 if score.z > 1e-9 else score.p_value >= 0.5 - 1e-6
    assert measure.Score.from_json(json.loads(json.dumps(score.to_json()))) == score


def test_the_number_of_shots_that_is_needed_is_enough_and_no_more():
    needed = effective.needed(0.7, 0.5, 24, 10, 0.998)
    for n, shown in ((needed, True), (needed - 1, False)):
        assert (effective.interval(0.7, n, 10 * n / 24, 0.998)[0] > 0.5) is shown
    assert effective.needed(0.5, 0.5, 24, 10, 0.998) == math.inf


def test_one_module_makes_intervals():
    """Whoever else calculated one could contradict what is printed beside it."""
    folder = Path(effective.__file__).parents[1]
    makers = {
        path.name
        for path in folder.rglob("*.py")
        if re.search(r"wilson\(|binom|norm\.ppf|t\.ppf|1\.96|1\.645", path.read_text(encoding="utf-8"))
    }
    assert makers == {"effective.py"}
