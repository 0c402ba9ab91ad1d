"""The image maths against a plain float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prepare.config import ImageConfig
from prepare.image import transform
from prepare.image.pipeline import Pipeline


def image_of(frame, dark, **steps):
    """What a build stores of `frame`."""
    return Pipeline(ImageConfig(**steps), dark)(frame)


def reference(frame, dark, blocks, transpose=True, log=True):
    """The 2016 study's recipe, step by step in float64."""
    r, c = blocks
    rows, columns = frame.shape
    subtracted = frame.astype(np.float64) - dark
    binned = subtracted.reshape(rows // r, r, columns // c, c).mean(axis=(1, 3))
    if transpose:
        binned = binned.T
    return np.log(1 + np.maximum(0, binned)) if log else binned


@st.composite
def cases(draw):
    blocks = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = tuple(k * draw(st.integers(1, 6)) for k in blocks)
    frame = draw(hnp.arrays(draw(st.sampled_from([np.uint8, np.uint16])), shape))
    seed = draw(st.integers(0, 1000))
    return frame, np.random.default_rng(seed).uniform(0, 200, shape), blocks


@given(cases())
def test_a_stored_image_equals_the_reference(case):
    frame, dark, blocks = case
    result = image_of(frame, dark, downsample=blocks)
    expected = reference(frame, dark, blocks)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-6, rtol=0)


def test_full_size_frame_equals_the_reference():
    rng = np.random.default_rng(1)
    frame = rng.integers(20, 4096, (726, 568)).astype(np.uint16)
    dark = rng.uniform(30, 60, frame.shape)
    result = image_of(frame, dark)
    assert result.shape == (284, 363)
    np.testing.assert_allclose(result, reference(frame, dark, (2, 2)), atol=1e-6, rtol=0)


@given(cases(), st.booleans(), st.booleans())
def test_every_step_can_be_left_out(case, transpose, log):
    frame, dark, blocks = case
    result = image_of(frame, dark, downsample=blocks, transpose=transpose, log=log)
    np.testing.assert_allclose(result, reference(frame, dark, blocks, transpose, log), atol=2e-3, rtol=1e-6)


def test_without_dark():
    frame = np.full((4, 4), 10, np.uint16)
    dark = np.full(frame.shape, 3.0)
    np.testing.assert_allclose(image_of(frame, dark, subtract_dark=False), np.log(11), rtol=1e-6)
    np.testing.assert_allclose(image_of(frame, None), np.log(11), rtol=1e-6)


def test_below_the_dark_is_zero():
    frame = np.zeros((4, 4), np.uint16)
    assert (image_of(frame, np.full((4, 4), 32.0)) == 0).all()


def test_sums_do_not_overflow():
    frame = np.full((64, 64), 65535, np.uint16)
    assert (transform.block_mean(frame, (64, 64)) == 65535).all()


def test_blocks_that_do_not_divide():
    with pytest.raises(ValueError, match="do not divide"):
        transform.block_mean(np.zeros((5, 4), np.uint16), (2, 2))


def test_float16_is_stored_as_asked():
    assert image_of(np.ones((2, 2), np.uint16), None, dtype="float16").dtype == np.float16
