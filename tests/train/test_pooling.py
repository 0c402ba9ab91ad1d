"""Average pooling against the stock layer: outputs and gradients, odd sizes, saving."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from train.model.pooling import AveragePool

PAIRS = st.tuples(st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=60)
@given(st.tuples(st.integers(7, 25), st.integers(7, 25)), PAIRS, PAIRS, st.sampled_from(["same", "valid"]))
def test_it_is_the_stock_layer(size, window, strides, padding):
    x = tf.constant(np.random.default_rng(0).standard_normal((3, *size, 2)), tf.float32)
    results = []
    for kind in (AveragePool, keras.layers.AveragePooling2D):
        layer = kind(window, strides, padding)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(y))
        results.append((y, tape.gradient(loss, x)))
    (ours, gradient), (stock, expected) = results
    assert np.array_equal(ours, stock)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_it_saves_and_loads_as_part_of_a_model(tmp_path):
    inputs = keras.Input((20, 24, 1))
    model = keras.Model(inputs, AveragePool((12, 12), (10, 10), "same")(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).standard_normal((2, 20, 24, 1)).astype("f4")
    assert isinstance(loaded.layers[1], AveragePool) and loaded.layers[1].by_products
    assert np.array_equal(model(x), loaded(x))
