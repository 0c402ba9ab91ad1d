"""Statistics that several modules take in the same way, against numpy's of everything at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.stats import Moments, evenly, robust_std


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_moments_of_batches_are_those_of_all_at_once(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(3, 2, (n, 4, 3)).astype(np.float32) for n in sizes]
    moments, everything = Moments(), np.concatenate(batches).astype(np.float64)
    for batch in batches:
        moments.add(batch)
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments.std, everything.std(axis=0), rtol=1e-6, atol=1e-7)


def test_the_robust_spread_is_the_standard_deviation_and_outliers_do_not_change_it():
    values = np.random.default_rng(0).normal(5, 2, 100_001)
    assert abs(robust_std(values) - 2) < 0.02
    values[:1000] = 1e9
    assert abs(robust_std(values) - 2) < 0.05


@given(st.integers(0, 300), st.integers(1, 60))
def test_even_samples_reach_from_the_first_to_the_last(n, most):
    rows = np.arange(1000, 1000 + n)
    chosen = evenly(rows, most)
    assert len(chosen) == min(n, most) == len(set(chosen.tolist()))
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (rows[0], rows[-1])
        assert np.ptp(np.diff(chosen)) <= 1  # no gap is wider than another by more than one
