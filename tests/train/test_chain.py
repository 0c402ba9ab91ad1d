"""Running layers in another order against running them as the model has them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.ranks import Ranks
from train.fit.moments import share_moments
from train.model import chain
from train.model.convolution import Convolution


def network(compute="float32", pool=None, **convolution):
    policy = keras.DTypePolicy("mixed_bfloat16" if compute == "bfloat16" else "float32")
    inputs = keras.Input((34, 37, 1), name="pixels")
    x = Convolution(5, (9, 8), (2, 2), "same", bias_initializer="normal", dtype=policy, **convolution)(inputs)
    x = keras.layers.Activation("relu", dtype=policy)(x)
    x = (pool or keras.layers.MaxPooling2D)((4, 4), (3, 3), "same", dtype=policy)(x)
    x = keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten(dtype=policy)(x))
    return keras.Model(inputs, x, name=chain.CONVNET)


def both(model, images):
    """Outputs and gradients by images and weights, of the model and of its chain."""
    found = []
    for run in (lambda x: model(x, training=True), lambda x: chain.run(model, x, training=True)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            y = run(images)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        found.append([y, *tape.gradient(loss, [images, *[v.value for v in model.trainable_variables]])])
    return found


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pool", [keras.layers.MaxPooling2D, keras.layers.AveragePooling2D])
def test_a_chain_is_its_model(compute, bias, pool):
    keras.utils.set_random_seed(0)
    model = network(compute, pool, use_bias=bias)
    images = tf.random.stateless_normal((4, 34, 37, 1), (0, 0))
    (y, *gradients), (chained, *theirs) = both(model, images)
    assert np.array_equal(y, chained)
    for ours, expected in zip(theirs, gradients):
        scale = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(
            ours, expected, rtol=0, atol=(1e-5 if compute == "float32" else 0.02) * scale
        )


def test_bias_and_relu_wait_for_the_maximum():
    """Counted in the graph: what relu works on is what the pool keeps."""
    model = network()
    graph = tf.function(lambda x: chain.run(model, x, training=True))
    made = graph.get_concrete_function(tf.TensorSpec((None, 34, 37, 1))).graph
    relus = [op for op in made.get_operations() if op.type == "Relu"]
    assert [op.inputs[0].shape[1:] for op in relus] == [(6, 7, 5)]
    average = network(pool=keras.layers.AveragePooling2D)
    made = tf.function(lambda x: chain.run(average, x, training=True))
    made = made.get_concrete_function(tf.TensorSpec((None, 34, 37, 1))).graph
    relus = [op for op in made.get_operations() if op.type == "Relu"]
    assert [op.inputs[0].shape[1:] for op in relus] == [(17, 19, 5)]


def test_other_activations_and_a_convolution_at_the_end_do_not_wait():
    for last in ("silu", "relu"):  # silu does not keep the order of numbers
        inputs = keras.Input((20, 20, 1))
        x = Convolution(3, (5, 5), (2, 2), "same")(inputs)
        x = keras.layers.Activation(last)(x)
        x = keras.layers.MaxPooling2D((2, 2))(x) if last == "silu" else Convolution(2, (3, 3))(x)
        model = keras.Model(inputs, x, name=chain.CONVNET)
        images = tf.random.stateless_normal((2, 20, 20, 1), (0, 0))
        (y, *_), (chained, *_) = both(model, images)
        assert np.array_equal(y, chained)


def test_several_outputs_are_each_made_by_its_layer():
    inputs = keras.Input((12, 10, 1))
    x = Convolution(4, (3, 3), padding="same")(inputs)
    x = keras.layers.MaxPooling2D((2, 2))(keras.layers.Activation("relu")(x))
    x = keras.layers.Flatten()(x)
    heads = {"logits": keras.layers.Dense(2)(x), "pulse_energy": keras.layers.Dense(1)(x)}
    model = keras.Model(inputs, heads, name=chain.CONVNET)
    images = np.random.default_rng(0).standard_normal((5, 12, 10, 1)).astype(np.float32)
    expected, found = model(images), chain.run(model, images, training=False)
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name])


@pytest.mark.parametrize("epsilon", [1e-3, 1e-7])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_batch_normalization_is_its_layers_also_in_its_moving_averages(compute, epsilon):
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy("mixed_bfloat16" if compute == "bfloat16" else "float32")
    inputs = keras.Input((6, 5, 3), name="pixels")
    layer = keras.layers.BatchNormalization(momentum=0.7, epsilon=epsilon, dtype=policy)
    x = keras.layers.Activation("relu", dtype=policy)(layer(inputs))
    x = keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten(dtype=policy)(x))
    model = keras.Model(inputs, x, name=chain.CONVNET)
    layer.gamma.assign([0.5, 2.0, 1.5])
    layer.beta.assign([0.1, -0.2, 0.3])
    images = 3 * tf.random.stateless_normal((7, 6, 5, 3), (0, 0)) + 2
    before, found = [v.numpy() for v in model.variables], []
    for run in (lambda x: model(x, training=True), lambda x: chain.run(model, x, training=True)):
        for variable, value in zip(model.variables, before):
            variable.assign(value)
        with tf.GradientTape() as tape:
            tape.watch(images)
            y = run(images)
            loss = tf.reduce_sum(tf.sin(y))
        gradients = tape.gradient(loss, [images, *[v.value for v in model.trainable_variables]])
        found.append([y, *gradients, layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    assert np.abs(found[0][-2]).min() > 0.1, "they have moved"
    for expected, ours in zip(*found):
        scale = float(tf.reduce_max(tf.abs(expected)))
        tolerance = (1e-5 if compute == "float32" else 0.02) * scale
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)


def test_batch_normalization_in_training_is_one_operation():
    """Counted in the graph; not where ranks give it moments of their own, nor in prediction."""

    def operations(training):
        graph = tf.function(lambda x: chain.run(model, x, training=training))
        made = graph.get_concrete_function(tf.TensorSpec((None, 6, 5, 3))).graph
        return [op.type for op in made.get_operations()].count("FusedBatchNormV3")

    inputs = keras.Input((6, 5, 3), name="pixels")
    layer = keras.layers.BatchNormalization()
    model = keras.Model(inputs, layer(inputs), name=chain.CONVNET)
    assert (operations(training=True), operations(training=False)) == (1, 0)
    share_moments(model, Ranks())
    assert operations(training=True) == 0
