"""The convolution against the stock layer: outputs, gradients, odd sizes, saving."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from train.model.convolution import Convolution, convolve, kernel_gradient
from train.model.costs import Axis, Plan, Ways, outputs_of, padding_of


@settings(max_examples=40)
@given(
    st.tuples(st.integers(3, 19), st.integers(3, 19)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from(["same", "valid"]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_the_kernel_gradient_by_phases_is_the_stock_gradient(size, window, strides, padding, channels, r):
    if padding == "valid" and (window[0] > size[0] or window[1] > size[1]):
        return
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((2, *size, channels)), tf.float32)
    kernel = tf.Variable(rng.standard_normal((*window, channels, 4)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        y = tf.nn.conv2d(x, kernel, strides, padding.upper())
        loss = tf.reduce_sum(tf.sin(y))
    expected, dy = tape.gradient(loss, [kernel, y])
    pads = tuple(padding_of(*axis, padding) for axis in zip(size, window, strides))
    got = kernel_gradient(x, dy, window, strides, pads, r)
    np.testing.assert_allclose(
        got, expected, rtol=1e-4, atol=1e-4 * float(tf.reduce_max(tf.abs(expected)) + 1e-9)
    )


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
WAYS = Ways("spectra", "spectra", "spectra", 0, None)


def plan_of(size, window, strides, padding, channels, tiles):
    """The plan that `ways_of` would choose among, cut into these tiles."""
    axes = zip(size, window, strides, tiles)
    rows, columns = (
        Axis(s, w, t, padding_of(s, w, t, padding)[0], outputs_of(s, w, t, padding), tiles)
        for s, w, t, tiles in axes
    )
    return Plan(rows, columns, *channels)


def passes(convolution, x, kernel):
    """Output, gradient by the kernel and by the input of the sum of the sines of the output."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = convolution(x, kernel)
        loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float64)))
    return [y, *tape.gradient(loss, [kernel, x])]


def assert_close(got, expected, share):
    """Equal to a share of the largest value."""
    for ours, exact in zip(got, expected):
        assert ours.shape == exact.shape
        exact = np.asarray(tf.cast(exact, tf.float64))
        atol = share * max(np.abs(exact).max(), 1e-9)
        np.testing.assert_allclose(np.asarray(tf.cast(ours, tf.float64)), exact, rtol=0, atol=atol)


@settings(max_examples=60)
@given(
    SIZES,
    st.tuples(st.integers(1, 44), st.integers(1, 44)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from(["same", "valid"]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 3),
)
def test_spectra_are_the_stock_convolution(size, window, strides, padding, channels, tiles, n):
    if padding == "valid" and (window[0] > size[0] or window[1] > size[1]):
        return
    tiles = [min(t, outputs_of(*axis, padding)) for t, *axis in zip(tiles, size, window, strides)]
    rng = np.random.default_rng(0)
    x = tf.constant(1 + rng.standard_normal((n, *size, channels[0])))
    kernel = tf.constant(rng.standard_normal((*window, *channels)) / np.prod(window) ** 0.5)
    expected = passes(lambda x, k: tf.nn.conv2d(x, k, strides, padding.upper()), x, kernel)
    ways = WAYS._replace(plan=plan_of(size, window, strides, padding, channels, tiles))
    single = tf.cast(x, tf.float32), tf.cast(kernel, tf.float32)
    assert_close(passes(lambda x, k: convolve(x, k, strides, padding, ways), *single), expected, 1e-5)


def test_more_images_than_are_done_at_a_time_and_none():
    plan = plan_of((24, 17), (5, 4), (2, 1), "same", (2, 3), (3, 4))
    n = 2 * plan.strips + 1
    assert n * plan.rows.tiles > 2 * plan.strips
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((n, 24, 17, 2)))
    kernel = tf.constant(rng.standard_normal((5, 4, 2, 3)))
    expected = passes(lambda x, k: tf.nn.conv2d(x, k, (2, 1), "SAME"), x, kernel)
    graph = tf.function(lambda x, k: convolve(x, k, (2, 1), "same", WAYS._replace(plan=plan)))
    single = tf.cast(x, tf.float32), tf.cast(kernel, tf.float32)
    assert_close(passes(graph, *single), expected, 1e-5)
    assert graph(single[0][:0], single[1]).shape == (0, 12, 17, 3)


@pytest.mark.parametrize("passes_by_spectra", list(itertools.product([0, 1], repeat=3)))
def test_each_pass_may_go_its_own_way(passes_by_spectra):
    names = [["direct", "spectra"][chosen] for chosen in passes_by_spectra]
    plan = plan_of((30, 33), (9, 8), (2, 2), "valid", (2, 4), (2, 2))
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((3, 30, 33, 2)))
    kernel = tf.constant(rng.standard_normal((9, 8, 2, 4)))
    expected = passes(lambda x, k: tf.nn.conv2d(x, k, 2, "VALID"), x, kernel)
    single = tf.cast(x, tf.float32), tf.cast(kernel, tf.float32)
    ways = Ways(*names, 1, plan)
    assert_close(passes(lambda x, k: convolve(x, k, (2, 2), "valid", ways), *single), expected, 1e-5)


def test_the_gradients_are_those_of_finite_differences():
    ways = WAYS._replace(plan=plan_of((9, 11), (4, 5), (2, 3), "same", (2, 2), (2, 1)))
    rng = np.random.default_rng(0)
    at = [rng.standard_normal((2, 9, 11, 2)), rng.standard_normal((4, 5, 2, 2))]

    def loss(x, kernel):
        y = convolve(tf.constant(x, tf.float32), tf.constant(kernel, tf.float32), (2, 3), "same", ways)
        return float(np.square(y.numpy().astype(np.float64)).sum())

    x, kernel = (tf.constant(value, tf.float32) for value in at)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = convolve(x, kernel, (2, 3), "same", ways)
        total = tf.reduce_sum(tf.square(y))
    for n, gradient in enumerate(tape.gradient(total, [x, kernel])):
        direction = rng.standard_normal(at[n].shape)
        ends = [[*at] for _ in range(2)]
        for end, step in zip(ends, (1e-2, -1e-2)):
            end[n] = at[n] + step * direction
        slope = (loss(*ends[0]) - loss(*ends[1])) / 2e-2
        np.testing.assert_allclose(np.sum(direction * gradient.numpy()), slope, rtol=1e-4)


def test_in_bfloat16_the_spectra_are_in_float32():
    ways = WAYS._replace(plan=plan_of((40, 40), (16, 16), (2, 2), "same", (3, 4), (2, 2)))
    rng = np.random.default_rng(0)
    x = tf.cast(rng.standard_normal((4, 40, 40, 3)), tf.bfloat16)
    kernel = tf.cast(rng.standard_normal((16, 16, 3, 4)), tf.bfloat16)
    y = convolve(x, kernel, (2, 2), "same", ways)
    exact = tf.nn.conv2d(tf.cast(x, tf.float32), tf.cast(kernel, tf.float32), 2, "SAME")
    assert y.dtype == tf.bfloat16
    rounded_once = np.asarray(y == tf.cast(exact, tf.bfloat16))  # to 8 bits, at the end
    assert rounded_once.mean() > 0.99
    got = passes(lambda x, k: convolve(x, k, (2, 2), "same", ways), x, kernel)
    assert [g.dtype for g in got] == [tf.bfloat16] * 3


@pytest.mark.parametrize(
    "window, strides, padding, channels, by_kernel",
    [
        ((16, 16), (2, 2), "same", 1, "phases"),
        ((32, 25), (2, 3), "valid", 1, "phases"),
        ((17, 40), (3, 2), "same", 2, "phases"),
        ((24, 24), (4, 4), "valid", 12, "phases"),
        ((12, 12), (1, 1), "valid", 8, "spectra"),
        ((90, 71), (4, 3), "same", 6, "spectra"),  # larger than the image
        ((70, 75), (2, 2), "same", 3, "spectra"),
    ],
)
@pytest.mark.parametrize("compute, share", [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_the_layer_swaps_with_conv2d(window, strides, padding, channels, by_kernel, compute, share):
    rng = np.random.default_rng(1)
    x = tf.constant(rng.standard_normal((3, 61, 70, channels)), tf.float32)
    ours = Convolution(5, window, strides, padding, dtype=compute)
    stock = keras.layers.Conv2D(5, window, strides, padding, dtype=compute)
    ours.build(x.shape), stock.build(x.shape)
    assert ours.ways.kernel == by_kernel or compute != "float32"
    assert [w.shape for w in ours.weights] == [w.shape for w in stock.weights]
    stock.set_weights(ours.get_weights())
    results = []
    for layer in (ours, stock):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_mean(tf.square(tf.cast(y, tf.float32)))
        results.append([y, *tape.gradient(loss, [x, *[w.value for w in layer.trainable_weights]])])
    assert [value.dtype for value in results[0]] == [value.dtype for value in results[1]]
    assert_close(*results, share)


def test_it_saves_and_loads_as_part_of_a_model(tmp_path):
    inputs = keras.Input((40, 40, 1))
    model = keras.Model(inputs, Convolution(3, (16, 16), (2, 2), "same")(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).standard_normal((2, 40, 40, 1)).astype("f4")
    assert isinstance(loaded.layers[1], Convolution)
    assert np.array_equal(model(x), loaded(x))


def test_a_saved_layer_is_the_stock_layer_by_its_config_and_weights(tmp_path):
    inputs = keras.Input((34, 34, 16))
    layer = Convolution(16, (32, 32), (2, 2), "same")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras").layers[1]
    assert loaded.ways == layer.ways and layer.ways.forward == "spectra"
    stock = keras.layers.Conv2D.from_config(loaded.get_config())
    stock.build((None, 34, 34, 16))
    stock.set_weights(loaded.get_weights())
    x = np.random.default_rng(0).standard_normal((2, 34, 34, 16)).astype("f4")
    assert_close([model(x)], [stock(x)], 1e-5)
