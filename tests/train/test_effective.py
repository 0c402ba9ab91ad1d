"""The effective sample size: of independent shots, of shots that go together, and its interval."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.metrics import effective


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
