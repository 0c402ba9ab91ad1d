"""What flags a shot: numbers of its picture, class against energy, and the other shots of its run."""

from __future__ import annotations

import numpy as np
import pytest

from common.manifest import SPLITS
from common.shots import ID_DTYPE
from train.model.novelty import (
    DISAGREES,
    NUMBERS,
    RUN,
    Reference,
    many,
    one_for_each_class,
    reference,
    with_runs,
)
from train.predict.predictions import Predictions

P = 40


def shots(rng, n: int, label: int) -> np.ndarray:
    """Features of shots of a class: numbers that vary by 1, and what the last layer sees."""
    return np.concatenate([rng.normal(0, 1, (n, len(NUMBERS))), rng.normal(label, 1, (n, P))], axis=1)


@pytest.fixture(scope="module")
def known() -> Reference:
    rng = np.random.default_rng(0)
    features = np.concatenate([shots(rng, 1500, 0), shots(rng, 1500, 1)])
    labels = np.repeat([0, 1], 1500)
    return reference(
        features, labels, shots(rng, 300, 0), np.zeros(300, int), rng.normal(0.0033, 0.0005, 1800)
    )


def test_few_of_such_shots_are_flagged_and_those_far_off_are(known):
    new = shots(np.random.default_rng(1), 4000, 1)
    energy = np.random.default_rng(2).normal(0.0033, 0.0005, 4000)
    flagged = np.mean([bool(reason) for reason in known.reasons(new, np.zeros(4000, int), energy)])
    assert 0.002 < flagged < 0.02
    new[:, NUMBERS.index("spread of slices")] += 12
    assert set(known.reasons(new, np.ones(4000, int), energy)) == {"spread of slices high"}


def test_a_class_that_is_wide_hides_no_shot_beside_a_narrow_one():
    """Lasing shots are of many energies; a shot beside all those without lasing is of neither class."""
    rng = np.random.default_rng(0)
    narrow, wide = shots(rng, 1500, 0), shots(rng, 1500, 60)
    wide[:, len(NUMBERS) :] += rng.uniform(-8, 8, (1500, 1))
    nothing = narrow[:0], np.zeros(0, int)
    known = reference(np.concatenate([narrow, wide]), np.repeat([0, 1], 1500), *nothing)
    beside = np.zeros((3, len(NUMBERS) + P))
    beside[1, len(NUMBERS) :], beside[2, len(NUMBERS) :] = 4, 66
    assert [bool(reason) for reason in known.reasons(beside, np.zeros(3, int), None)] == [False, True, False]


def test_what_earlier_versions_kept_of_all_classes_together_still_serves(known):
    together = known._replace(inverse=known.inverse[0], spread=known.spread[0], limit=np.array(9.0))
    new = shots(np.random.default_rng(1), 50, 1)
    reduced = known.reduced(new)
    served = one_for_each_class(together)
    expected = [(r - m) @ together.inverse @ (r - m) for r in reduced for m in known.means]
    np.testing.assert_allclose(served.distances(reduced).ravel(), np.sqrt(expected) / 9.0)
    assert one_for_each_class(known).limit.tolist() == known.limit.tolist()


def test_a_shot_called_of_the_first_class_with_a_lasing_shots_energy(known):
    usual = np.zeros((4, len(NUMBERS) + P))
    energy = np.array([0.0033, 0.02, 0.02, np.nan])
    assert known.reasons(usual, np.array([0, 0, 1, 0]), energy) == ["", DISAGREES, "", ""]
    assert known.reasons(usual, np.zeros(4, int), None) == [""] * 4
    none = np.zeros(0, int)
    without = reference(shots(np.random.default_rng(3), 500, 0), np.zeros(500, int), usual[:0], none)
    assert without.energy_limit == np.inf and without.reasons(usual, np.zeros(4, int), energy) == [""] * 4


def test_all_shots_of_a_run_are_flagged_where_many_are():
    run = np.repeat([70, 71, 72], [20, 20, 4])
    reasons = [""] * 44
    reasons[0] = reasons[5] = "a"  # a tenth of run 70
    reasons[20:23] = ["b"] * 3  # more of run 71
    reasons[40] = reasons[41] = "c"  # half of run 72, which is too few to say
    found = with_runs(reasons, run)
    assert found[:20] == reasons[:20] and found[40:] == reasons[40:]
    assert found[20:40] == ["b"] * 3 + [RUN] * 17
    assert with_runs([], np.array([], int)) == []
    assert [many(3, 29), many(3, 30), many(2, 2), many(0, 0)] == [True, False, False, False]


def test_a_run_is_flagged_by_all_its_shots_split_by_split():
    ids = np.zeros(11, ID_DTYPE)
    ids["run"] = [70] * 9 + [71, 70]
    split = np.array([SPLITS.index("train")] * 4 + [SPLITS.index("test")] * 7, np.uint8)
    none = np.zeros(11, "i1")
    found = Predictions(
        ["off", "on"], split, ids, none, none == 1, np.zeros((11, 2)), None, none.astype(np.uint8), [""]
    )
    found.set_flags(slice(0, 6), ["", "", "", "", "a", "b"])  # as they come, some at a time
    found.set_flags(slice(6, 11), ["", "", "a", "", ""])
    found.flag_runs()
    flags = [found.reasons[code] for code in found.flag]
    assert flags == [""] * 4 + ["a", "b", RUN, RUN, "a", "", RUN]
