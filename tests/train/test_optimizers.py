"""Optimizers against their formulas, step by step with rates that change; learning rates over the steps."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from train.config import LearningRate, Optimizer
from train.model import optimizers

START = np.array([1.0, -2.0])
STEPS = [(0.1, [1.0, 2.0]), (0.1, [0.5, -1.0]), (0.01, [3.0, 1.0]), (0.02, [-1.0, 0.5])]


def sgd(w, steps):
    for rate, g in steps:
        w = w - rate * g
        yield w


def momentum(w, steps, nesterov=False):
    """tf.train.MomentumOptimizer: the rate is outside of the accumulator."""
    m = np.zeros(2)
    for rate, g in steps:
        m = 0.4 * m + g
        w = w - rate * (g + 0.4 * m if nesterov else m)
        yield w


def adam(w, steps, decay=0.0, b1=0.8, b2=0.95, epsilon=1e-3):
    """Kingma, Ba 2015, its section 2 as in algorithm 1's last lines; decay as Loshchilov, Hutter 2019."""
    m, v = np.zeros(2), np.zeros(2)
    for t, (rate, g) in enumerate(steps, 1):
        w = w - rate * decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - rate * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + epsilon)
        yield w


ADAM = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}


@pytest.mark.parametrize(
    "settings, formula",
    [
        ({"kind": "sgd"}, sgd),
        ({"kind": "momentum", "momentum": 0.4}, momentum),
        ({"kind": "momentum", "momentum": 0.4, "nesterov": True}, lambda w, s: momentum(w, s, nesterov=True)),
        ({"kind": "adam", **ADAM}, adam),
        ({"kind": "adamw", "weight_decay": 0.03, **ADAM}, lambda w, s: adam(w, s, decay=0.03)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adamw"],
)
def test_each_optimizer_does_what_its_formula_says(settings, formula):
    w = keras.Variable(START.astype("f4"))
    optimizer = optimizers.build(Optimizer(**settings), STEPS[0][0])
    for (rate, gradient), expected in zip(STEPS, formula(START, [(r, np.array(g)) for r, g in STEPS])):
        optimizer.learning_rate.assign(rate)
        optimizer.apply([tf.constant(gradient)], [w])
        np.testing.assert_allclose(w.numpy(), expected, rtol=2e-6)


# --- learning rates --------------------------------------------------------------------------


def test_the_seeds_learning_rates():
    rate = LearningRate(start=0.01, decay=0.96, steps=10, staircase=True)
    assert [round(rate.at(step), 4) for step in (1, 6, 10, 11, 20, 21, 31)] == [
        0.01, 0.01, 0.01, 0.0096, 0.0096, 0.0092, 0.0088,
    ]  # fmt: skip


def test_exponential_decay_without_stairs():
    smooth = LearningRate(start=0.01, decay=0.5, steps=10, staircase=False)
    assert smooth.at(6) == pytest.approx(0.01 * 0.5**0.5)


def test_constant():
    rate = LearningRate(kind="constant", start=0.03, decay=0.5)
    assert {rate.at(step) for step in (1, 50, 10_000)} == {0.03}


def test_cosine_goes_from_start_to_minimum_and_stays():
    rate = LearningRate(kind="cosine", start=0.1, minimum=0.02, steps=100)
    assert rate.at(1) == pytest.approx(0.1)
    assert rate.at(51) == pytest.approx(0.06)  # half way
    assert rate.at(26) == pytest.approx(0.02 + 0.08 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate.at(101) == rate.at(5000) == pytest.approx(0.02)


def test_drops_with_a_minimum():
    """The ancestors' schedule: halved every so many steps, never under a floor."""
    rate = LearningRate(start=0.1, decay=0.5, steps=20, minimum=0.02)
    assert [rate.at(step) for step in (1, 20, 21, 41, 61, 1000)] == [0.1, 0.1, 0.05, 0.025, 0.02, 0.02]


@given(
    st.sampled_from(["exponential", "cosine"]), st.floats(1e-5, 1), st.floats(0.1, 1), st.integers(1, 50),
    st.booleans(),
)  # fmt: skip
def test_rates_never_rise_and_never_fall_under_the_minimum(kind, start, decay, steps, staircase):
    minimum = start / 10
    rate = LearningRate(
        kind=kind, start=start, decay=decay, steps=steps, staircase=staircase, minimum=minimum
    )
    rates = [rate.at(step) for step in range(1, 120)]
    assert rates[0] == pytest.approx(start)
    assert all(a >= b - 1e-12 for a, b in zip(rates, rates[1:]))
    assert min(rates) >= minimum - 1e-12


def test_the_rate_warms_up_in_equal_parts_and_then_the_schedule_begins():
    rate = LearningRate(kind="cosine", start=0.4, warmup=4, steps=10, minimum=0.1)
    plain = LearningRate(kind="cosine", start=0.4, steps=10, minimum=0.1)
    assert [rate.at(step) for step in range(1, 5)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [rate.at(4 + step) for step in range(1, 13)] == [plain.at(step) for step in range(1, 13)]
