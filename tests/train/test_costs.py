"""The rule for how convolutions are computed: what it counts, what it chooses, what it leaves alone."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from train.model import spectra
from train.model.costs import (
    Axis,
    Plan,
    direct_costs,
    least_operations,
    outputs_of,
    padding_of,
    spectral_costs,
    ways_of,
)


@given(
    st.integers(1, 60), st.integers(1, 70), st.integers(1, 5), st.sampled_from(["same", "valid"]), st.data()
)
def test_tiles_cover_every_output_and_the_taps_are_counted(size, window, stride, padding, data):
    if padding == "valid" and window > size:
        return
    before, outputs = padding_of(size, window, stride, padding)[0], outputs_of(size, window, stride, padding)
    axis = Axis(size, window, stride, before, outputs, data.draw(st.integers(1, outputs)))
    assert axis.tiles * axis.kept >= outputs and axis.length * stride >= window
    firsts = before * -1 + stride * np.arange(outputs)[:, None]
    places = firsts + np.arange(window)
    assert axis.inside() == np.sum((places >= 0) & (places < size))


def operations_of(n, plan, kernel_too):
    """Operations of the matrix products that n images go through, and numbers in spectra."""
    count, product = [0], tf.matmul

    def counted(a, b, **kinds):
        result = product(a, b, **kinds)
        a_rows, b_columns = a.shape[-1 if kinds.get("transpose_a") else -2], result.shape[-1]
        count[0] += 2 * np.prod(result.shape[:-2]) * a_rows * b_columns * np.prod(a.shape[-2:]) // a_rows
        return result

    x = tf.zeros([n, plan.rows.size, plan.columns.size, plan.inputs])
    kernel = tf.zeros([plan.rows.window, plan.columns.window, plan.inputs, plan.outputs])
    with mock.patch.object(spectra.tf, "matmul", counted):
        y, seen = spectra.forward(x, kernel, plan)
        forward, count[0] = count[0], 0
        spectra.gradients(y, seen, plan, kernel if kernel_too else None)
    return forward, count[0]


@pytest.mark.parametrize("channels", [(1, 4), (3, 2)])
def test_the_operations_are_those_that_are_done(channels):
    rows, columns = Axis(30, 8, 2, 3, 15, 3), Axis(24, 7, 3, 2, 8, 2)
    plan = Plan(rows, columns, *channels)
    one, two = (operations_of(n, plan, True) for n in (1, 2))
    costs = spectral_costs(plan, word=0)
    assert two[0] - one[0] == costs.forward
    assert two[1] - one[1] == costs.kernel + costs.input
    without, more = (operations_of(n, plan, False) for n in (1, 2))
    assert more[1] - without[1] == costs.kernel


def test_direct_operations_are_those_of_the_taps_in_the_image():
    plan = Plan(Axis(10, 3, 1, 1, 10), Axis(7, 1, 1, 0, 7), 2, 5)
    forward, kernel, by_input = direct_costs(plan, 0)
    assert forward == 2 * 2 * 5 * (3 * 10 - 2) * 7
    assert kernel > forward and by_input > 0


@pytest.mark.parametrize(
    "image, window, strides, channels, expected",
    [
        ((200, 200), (32, 32), (2, 2), (1, 16), ["spectra", "spectra", "direct"]),
        ((34, 34), (32, 32), (2, 2), (16, 16), ["spectra"] * 3),
        ((1000, 1000), (32, 32), (2, 2), (1, 16), ["spectra", "spectra", "direct"]),
        ((167, 167), (32, 32), (2, 2), (16, 16), ["spectra"] * 3),
        ((284, 363), (16, 16), (2, 2), (1, 16), ["direct", "phases", "direct"]),
        ((284, 363), (8, 8), (1, 1), (1, 8), ["direct"] * 3),
        ((100, 100), (12, 12), (4, 4), (1, 20), ["direct"] * 3),
        ((29, 37), (6, 6), (1, 1), (8, 8), ["direct"] * 3),
        ((13, 13), (8, 8), (2, 2), (20, 16), ["direct"] * 3),
        ((2, 3), (8, 8), (2, 2), (20, 16), ["direct"] * 3),
    ],
)
def test_what_is_chosen_for_the_layers_that_were_measured(image, window, strides, channels, expected):
    ways = ways_of(image, window, strides, "same", channels)
    assert list(ways[:3]) == expected
    assert (ways.plan is None) == ("spectra" not in expected)
    for word in dict.fromkeys(expected):
        assert word in str(ways)
    assert ways == ways_of(image, window, strides, "same", channels)


def test_the_least_operations_are_those_of_the_cheaper_way():
    small = (29, 37), (6, 6), (1, 1), "same", (8, 8)
    direct = 2 * 8 * 8 * (29 * 6 - 9) * (37 * 6 - 9)  # the window reaches 2 and 3 pixels over the edges
    assert least_operations(*small)[0][0] <= direct
    assert least_operations((9, 9), (1, 1), (1, 1), "same", (3, 5)) == [(2 * 3 * 5 * 81, "direct")] * 3
    large = (34, 34), (32, 32), (2, 2), "same", (16, 16)
    spectra = spectral_costs(ways_of(*large).plan, word=0)
    least = least_operations(*large)
    assert [way for _, way in least] == ["spectra"] * 3
    for (operations, _), chosen in zip(least, (spectra.forward, spectra.kernel, spectra.input)):
        assert operations <= chosen


def test_bfloat16_makes_direct_passes_cheaper():
    first = (200, 200), (32, 32), (2, 2), "same", (1, 16)
    assert ways_of(*first).forward == "spectra"
    assert ways_of(*first, "bfloat16").forward == "direct"
    second = (34, 34), (32, 32), (2, 2), "same", (16, 16)
    assert ways_of(*second, "bfloat16").kernel == "spectra"


def test_a_large_image_with_a_small_kernel_is_not_cut_in_every_way():
    with mock.patch("train.model.costs.spectral_costs", side_effect=spectral_costs) as counted:
        ways_of((726, 568), (1, 1), (1, 1), "same", (1, 16))
    assert counted.call_count < 5_000
