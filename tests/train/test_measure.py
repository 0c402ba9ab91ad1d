"""The numbers a result is judged by."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.metrics import measure


def test_the_z_score_of_the_2016_study():
    assert measure.Score(80, 51, 0.5).z == pytest.approx((51 - 40) / math.sqrt(20))
    assert measure.Score(100, 64, 0.5).z * math.sqrt(0.8) == pytest.approx(
        2.504396, abs=1e-5
    )  # acc .64 on 80


@given(st.integers(1, 60), st.data())
def test_the_binomial_tail_is_exact(n, data):
    k = data.draw(st.integers(0, n))
    exact = sum(Fraction(math.comb(n, i), 2**n) for i in range(k, n + 1))
    assert measure.Score(n, k, 0.5).p_value == pytest.approx(float(exact), rel=1e-9)


def test_far_tails_do_not_vanish():
    assert measure.Score(1000, 900, 0.5).p_value == pytest.approx(6.7e-162, rel=0.05)
    assert measure.Score(5, 5, 1.0).p_value == 1.0


def test_wilson_against_a_published_value():
    low, high = measure.wilson(15, 148)  # Newcombe 1998, table I: 0.0624 to 0.1605
    assert (low, high) == (pytest.approx(0.0624, abs=1e-4), pytest.approx(0.1605, abs=1e-4))


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share(n, data):
    k = data.draw(st.integers(0, n))
    low, high = measure.wilson(k, n)
    assert 0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1


def test_score_and_confusion():
    labels, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 0])
    score = measure.score(labels, predicted)
    assert (score.n, score.correct, score.chance, score.accuracy) == (5, 3, 0.6, 0.6)
    assert measure.confusion(labels, predicted, 2).tolist() == [[2, 1], [1, 1]]


def test_energy_bands_are_thirds_of_the_lasing_shots():
    labels = np.array([1] * 9 + [0] * 5 + [1])
    energy = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, np.nan], float)
    predicted = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1])
    bands, unknown = measure.energy_bands(energy, labels, predicted, lasing=1)
    assert unknown == 1
    assert [tuple(band) for band in bands] == [
        ("weak", 1, 3, 3, 1),
        ("medium", 4, 6, 3, 2),
        ("strong", 7, 9, 3, 3),
    ]
