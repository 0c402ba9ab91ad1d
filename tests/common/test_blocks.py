"""Blocks of time: as long as the data file says."""

from __future__ import annotations

import json

import numpy as np

from common.blocks import Blocks
from common.shots import ID_DTYPE, time_in_run


def ids_of(run: int, seconds: np.ndarray) -> np.ndarray:
    ids = np.zeros(len(seconds), ID_DTYPE)
    ids["run"], ids["seconds"] = run, seconds
    return ids


def with_blocks(**blocks: float) -> dict:
    return {"config": json.dumps({"select": {"blocks": blocks}})}


def test_blocks_of_time_and_time_within_the_run():
    seconds = np.array([89, 90, 94, 95, 119, 120])
    ids, blocks = np.concatenate([ids_of(70, seconds), ids_of(71, seconds + 3000)]), Blocks(30, 5)
    np.testing.assert_array_equal(blocks.apart(ids), [0, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 5])
    assert len(set(blocks.apart(ids_of(0, np.zeros(5))))) == 5  # of no run: nothing makes them alike
    np.testing.assert_array_equal(blocks.in_guard(ids[:6]), [False, True, True, False, False, True])
    np.testing.assert_array_equal(time_in_run(ids), [0, 1, 5, 6, 30, 31] * 2)


def test_lengths_that_are_no_whole_seconds():
    ids = ids_of(70, np.array([0, 1, 2, 3, 4]))
    ids["nanoseconds"] = 400_000_000
    np.testing.assert_array_equal(Blocks(2.4, 0.5).number(ids), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(Blocks(2.4, 0.5).in_guard(ids), [True, False, True, False, False])


def test_the_data_files_say_how_long_a_block_is():
    assert Blocks.of([with_blocks(length=12.5, guard=2.0)]) == (12.5, 2.0)
    assert Blocks.of([with_blocks(length=12.5, guard=2.0), with_blocks(length=60, guard=1)]) == (60, 2)
    assert Blocks.of([{"config": "{}"}]) == Blocks() == (30, 5)
