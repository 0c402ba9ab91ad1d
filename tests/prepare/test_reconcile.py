"""What was asked for against what came, whatever came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from prepare.sources.reconcile import reconcile

FRAME = np.zeros((2, 3), np.uint16)


@given(st.sets(st.integers(0, 30), min_size=1), st.lists(st.tuples(st.integers(0, 30), st.booleans())))
def test_every_shot_wanted_is_answered_once_or_the_build_ends(wanted, came):
    asked = [(10 + key, (key,)) for key in sorted(wanted)]
    given_frames = [((key,), FRAME if good else None) for key, good in came]
    try:
        results = list(reconcile("run 1", asked, given_frames, "hint"))
    except DataError:
        keys = [key for key, _ in came]
        good = [key for key, good in came if good]
        in_order = keys == sorted(set(keys)) and set(keys) <= wanted
        assert not (in_order and good and keys[-1] == max(wanted))
        return
    assert [t.index for t in results] == [index for index, _ in asked]
    assert all((t.frame is None) == bool(t.reason) for t in results)
    assert {t.index - 10 for t in results if t.frame is not None} == {key for key, good in came if good}


def test_a_shot_passed_over_is_lost_with_a_reason():
    results = list(reconcile("run 1", [(0, (5,)), (1, (6,)), (2, (7,))], [((5,), FRAME), ((7,), FRAME)], ""))
    assert [t.reason for t in results] == ["", "psana did not give this shot", ""]


@pytest.mark.parametrize(
    "came, message",
    [
        ([((5,), FRAME)], "run 1: ended after 1 of 3 shots; is a file cut off"),
        ([], "run 1: ended after 0 of 3 shots"),
        (
            [((k,), FRAME) for k in (5, 6, 7, 8)],
            "gave shot .8,., which was not asked",
        ),
        ([((4,), FRAME)], "gave shot .4,., which was not asked for: its filter did not apply"),
        (
            [((5,), None), ((6,), None), ((7,), None)],
            "run 1: no frame in any of 3 shots; look there",
        ),
    ],
)
def test_what_ends_the_build(came, message):
    with pytest.raises(DataError, match=message):
        list(reconcile("run 1", [(0, (5,)), (1, (6,)), (2, (7,))], came, "look there"))


def test_a_single_shot_without_frame_is_lost_not_an_error():
    (results,) = reconcile("run 1", [(3, (5,))], [((5,), None)], "")
    assert (results.index, results.frame, results.reason) == (3, None, "psana gave the shot without a frame")
