"""The ROC curve, its area and intervals, against definitions and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.metrics import roc

few = st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.9]), min_size=2, max_size=12)


@given(few, few)
def test_the_area_is_the_chance_that_a_positive_scores_higher(above, below):
    scores = np.array(above + below)
    positive = np.arange(len(scores)) < len(above)
    pairs = [(a > b) + (a == b) / 2 for a in above for b in below]
    value, low, high = roc.area(positive, scores)
    assert value == pytest.approx(np.mean(pairs))
    assert 0 <= low <= value <= high <= 1
    curve = roc.curve(positive, scores)
    steps = np.diff(curve.false_positive)
    middles = (curve.true_positive[1:] + curve.true_positive[:-1]) / 2
    assert (steps * middles).sum() == pytest.approx(value)
    assert curve.false_positive[0] == curve.true_positive[0] == 0
    assert curve.false_positive[-1] == curve.true_positive[-1] == 1


def test_intervals_cover_the_true_area_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        scores = np.append(rng.normal(1.5, 1, 60), rng.normal(0, 1, 60))
        _, low, high = roc.area(np.arange(120) < 60, scores)
        covered.append(low <= 0.8556 <= high)  # Phi(1.5 / sqrt 2)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_delong_variance_is_that_of_the_definition():
    rng = np.random.default_rng(2)
    above, below = rng.normal(1, 1, 30), rng.normal(0, 1, 20)
    v10 = np.array([(a > below).mean() for a in above])
    v01 = np.array([(above > b).mean() for b in below])
    variance = v10.var(ddof=1) / 30 + v01.var(ddof=1) / 20
    value, low, high = roc.area(np.arange(50) < 30, np.append(above, below))
    logit = np.log(np.array([low, high]) / (1 - np.array([low, high])))
    half = 1.959964 * np.sqrt(variance) / (value * (1 - value))
    assert (logit[1] - logit[0]) / 2 == pytest.approx(half, rel=1e-6)


def test_the_band_holds_the_curve_and_repeats():
    rng = np.random.default_rng(3)
    scores = np.append(rng.normal(1, 1, 80), rng.normal(0, 1, 80))
    positive = np.arange(160) < 80
    low, high = roc.band(positive, scores)
    false, hits = roc.curve(positive, scores)
    on_grid = hits[np.searchsorted(false, roc.GRID, "right") - 1]
    assert ((low <= on_grid) & (on_grid <= high)).mean() > 0.95
    assert (high - low).max() > 0.1
    again = roc.band(positive, scores)
    assert np.array_equal(low, again[0]) and np.array_equal(high, again[1])


def test_a_perfect_classifier():
    positive = np.array([True, True, False])
    assert roc.area(positive, np.array([0.9, 0.8, 0.1])) == (1.0, 1.0, 1.0)


def test_shots_that_are_copies_of_each_other_count_once():
    rng = np.random.default_rng(4)
    scores, positive = np.append(rng.normal(1, 1, 40), rng.normal(0, 1, 40)), np.arange(80) < 40
    once = roc.area(positive, scores, np.arange(80))
    copies = np.repeat(np.arange(80), 10)
    assert roc.area(positive[copies], scores[copies], copies) == pytest.approx(once)
    naive = roc.area(positive[copies], scores[copies])
    assert once[2] - once[1] > 2.5 * (naive[2] - naive[1])
    wide, narrow = (
        roc.band(positive[copies], scores[copies], copies),
        roc.band(positive[copies], scores[copies]),
    )
    assert (wide[1] - wide[0]).mean() > 2 * (narrow[1] - narrow[0]).mean()


def test_the_variance_by_blocks_is_that_of_drawing_blocks_again():
    """Blocks that hold both kinds, which a common offset moves together."""
    rng = np.random.default_rng(5)
    block = np.repeat(np.arange(60), 6)
    positive = np.tile([True, False], 180)
    scores = rng.normal(0, 2, 60)[block] + rng.normal(0, 1, 360) + 1.2 * positive
    value, low, high = roc.area(positive, scores, block)
    logits = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(block == k) for k in rng.integers(0, 60, 60)])
        again = roc.area(positive[rows], scores[rows])[0]
        logits.append(np.log(again / (1 - again)))
    half = (np.log(high / (1 - high)) - np.log(low / (1 - low))) / 2
    assert half / 1.98 == pytest.approx(np.std(logits), rel=0.25)
