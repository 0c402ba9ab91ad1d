"""The dark's mean and standard deviation, and what is rejected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import DataError
from prepare.image.dark import average


def pedestal_frames(n: int = 40) -> list:
    rng = np.random.default_rng(3)
    pattern = rng.uniform(30, 40, (12, 10))
    return [np.round(pattern + rng.normal(0, 2, pattern.shape)).astype(np.uint16) for _ in range(n)]


@given(hnp.arrays(np.uint16, st.tuples(st.integers(2, 9), st.just(4), st.just(5))))
def test_without_rejection_it_is_numpys_mean_and_std(frames):
    dark = average(lambda: iter(frames), reject_frames=1e9, reject_pixels=1e9)
    np.testing.assert_allclose(dark.mean, frames.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(dark.std, frames.std(axis=0, ddof=1, dtype=np.float64), rtol=1e-9, atol=1e-9)
    assert (dark.frames, dark.rejected_frames, dark.rejected_pixels) == (len(frames), 0, 0)


def test_the_order_of_the_frames_does_not_matter():
    frames = pedestal_frames()
    forward = average(lambda: iter(frames), 5, 6)
    backward = average(lambda: reversed(frames), 5, 6)
    assert np.array_equal(forward.mean, backward.mean)
    assert np.array_equal(forward.std, backward.std)


def test_a_frame_with_beam_is_rejected():
    frames = pedestal_frames()
    clean = average(lambda: iter(frames), 5, 6)
    with_beam = [*frames, frames[0] + np.uint16(50)]
    dark = average(lambda: iter(with_beam), 5, 6)
    assert (dark.frames, dark.rejected_frames) == (40, 1)
    assert np.array_equal(dark.mean, clean.mean)


def test_a_cosmic_ray_is_rejected():
    frames = pedestal_frames(100)
    clean = average(lambda: iter(frames[1:]), 5, 6)
    frames[0] = frames[0].copy()
    frames[0][3, 4] = 4000
    dark = average(lambda: iter(frames), reject_frames=1e9, reject_pixels=6)
    assert dark.rejected_pixels == 1
    assert dark.mean[3, 4] == clean.mean[3, 4]
    assert dark.std[3, 4] == clean.std[3, 4]


def test_a_slow_drift_is_no_outlier():
    frames = [np.full((4, 4), 32 + (i > 30), np.uint16) for i in range(40)]
    frames = [frame + np.uint16(i % 2) for i, frame in enumerate(frames)]
    assert average(lambda: iter(frames), 5, 6).rejected_frames == 0


def test_too_few_frames():
    with pytest.raises(DataError, match="needs 2 or more"):
        average(lambda: iter(pedestal_frames(1)), 5, 6)
    with pytest.raises(DataError, match="needs 2 or more"):
        average(lambda: iter([]), 5, 6)
