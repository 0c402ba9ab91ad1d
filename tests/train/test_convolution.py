"""The convolution against the stock layer: outputs, gradients, odd sizes, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from train.model.convolution import Convolution, kernel_gradient, padding_of
from train.model.shapes import phases_for


@settings(max_examples=40, deadline=None)
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


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("window, strides", [((16, 16), (2, 2)), ((32, 25), (2, 3)), ((17, 40), (3, 2))])
def test_the_layer_swaps_with_conv2d(padding, window, strides):
    rng = np.random.default_rng(1)
    x = tf.constant(rng.standard_normal((3, 61, 70, 2)), tf.float32)
    ours = Convolution(5, window, strides, padding)
    stock = keras.layers.Conv2D(5, window, strides, padding)
    ours.build(x.shape), stock.build(x.shape)
    assert ours.phases > 0
    assert [w.shape for w in ours.weights] == [w.shape for w in stock.weights]
    stock.set_weights(ours.get_weights())
    results = []
    for layer in (ours, stock):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_mean(tf.square(y))
        results.append([y, *tape.gradient(loss, [x, *[w.value for w in layer.trainable_weights]])])
    for got, expected in zip(*results):
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6 * scale)


def test_it_saves_and_loads_as_part_of_a_model(tmp_path):
    inputs = keras.Input((40, 40, 1))
    model = keras.Model(inputs, Convolution(3, (16, 16), (2, 2), "same")(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).standard_normal((2, 40, 40, 1)).astype("f4")
    assert isinstance(loaded.layers[1], Convolution)
    assert np.array_equal(model(x), loaded(x))


def test_small_kernels_keep_the_stock_gradient():
    assert phases_for((12, 12), (4, 4)) == 0
    assert phases_for((16, 16), (1, 1)) == 0
    assert phases_for((16, 16), (2, 2)) == 1
    assert phases_for((32, 32), (2, 2)) == 2
