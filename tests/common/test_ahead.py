"""Work ahead of who takes the results: in order, and no further ahead than said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from common.parallel import ahead


def test_results_come_in_order_and_calls_are_made_only_so_far_ahead():
    asked = []

    def calls():
        for n in range(50):
            asked.append(n)
            yield (n,)

    with ThreadPoolExecutor(3) as pool:
        results = ahead(pool, lambda n: n * n, calls(), 4)
        assert next(results) == 0
        assert asked == [0, 1, 2, 3, 4]
        assert list(results) == [n * n for n in range(1, 50)]


def test_an_error_is_raised_where_its_result_is_due():
    with ThreadPoolExecutor(2) as pool:
        results = ahead(pool, lambda n: 6 // n, [(3,), (0,), (2,)], 5)
        assert next(results) == 2
        with pytest.raises(ZeroDivisionError):
            next(results)
