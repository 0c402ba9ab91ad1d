"""Layers by the words of the config: what they compute, that they are saved, what they add to the loss."""

from __future__ import annotations

import csv
import shutil

import keras
import numpy as np
import pytest

from train.config import ACTIVATIONS, Layer, TrainConfig
from train.config.images import Preprocess
from train.fit import step
from train.model import network, saved
from train.model.optimizers import build as build_optimizer
from train.model.preprocess import build as build_preprocess
from train.run.checkpoint import load

EVERYTHING = [
    {"convolution": {"kernel_size": [3, 3], "filters": 6, "strides": [2, 1], "stddev": 0.3, "bias": 0.1}},
    {"local_response_normalization": {"radius": 2, "bias": 1.5, "alpha": 0.4, "beta": 0.75}},
    "relu",
    {"max_pool": {"pool_size": [3, 3], "strides": [2, 2], "padding": "valid"}},
    {
        "convolution": {
            "kernel_size": [2, 2],
            "filters": 4,
            "padding": "valid",
            "bias": None,
            "init": "normal",
        }
    },
    "batch_normalization",
    "leaky_relu",
    {"average_pool": {"pool_size": [2, 2], "strides": [1, 1]}},
    {"dropout": {"rate": 0.5}},
    {"hidden": {"units": 5, "stddev": 0.3, "l1": 0.01}},
    "tanh",
    {"output": {"stddev": 0.5}},
]
IMAGE = (12, 10)


def built(layers, seed=1, **settings) -> keras.Model:
    parsed = [Layer.model_validate(layer) for layer in layers]
    return network.build(parsed, IMAGE, 3, seed, **settings)


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *IMAGE, 1)).astype(np.float32)


def test_local_response_normalization_by_its_formula():
    layer = network.LocalResponseNormalization(radius=2, bias=1.5, alpha=0.4, beta=0.75)
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 7)).astype(np.float32)
    expected = np.empty_like(x)
    for c in range(7):
        near = x[..., max(0, c - 2) : c + 3]
        expected[..., c] = x[..., c] / (1.5 + 0.4 * (near**2).sum(axis=-1)) ** 0.75
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_dropout_is_of_training_alone_and_keeps_the_mean():
    model = built([{"dropout": {"rate": 0.4}}, {"output": {"stddev": 0}}]).get_layer("convnet")
    layer, ones = model.get_layer("dropout_1"), np.ones((200, *IMAGE, 1), np.float32)
    assert np.array_equal(layer(ones, training=False), ones)
    dropped = np.asarray(layer(ones, training=True))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.6)}
    assert (dropped == 0).mean() == pytest.approx(0.4, abs=0.02)


def test_batch_normalization_predicts_by_its_moving_averages():
    model = built([{"batch_normalization": {"momentum": 0.5, "epsilon": 0.01}}, {"output": {"stddev": 0.1}}])
    layer = model.get_layer("convnet").get_layer("batch_normalization_1")
    x = 3 * images(50) + 2
    trained = np.asarray(layer(x, training=True))
    expected = (x - x.mean()) / np.sqrt(x.var() + 0.01)
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)
    predicted = np.asarray(layer(x, training=False))
    mean, variance = 0.5 * x.mean(), 0.5 + 0.5 * x.var()
    np.testing.assert_allclose(predicted, (x - mean) / np.sqrt(variance + 0.01), rtol=1e-4, atol=1e-5)


def test_batch_normalization_has_caught_up_after_60_minibatches():
    """By default: runs are of 100 steps and more, and after them a network must not predict at chance."""
    model = built(["batch_normalization", {"output": {"stddev": 0.1}}])
    layer = model.get_layer("convnet").get_layer("batch_normalization_1")
    x = 3 * images(50) + 2
    for _ in range(60):
        trained = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(np.asarray(layer(x, training=False)), trained, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activations_by_their_formulas(word):
    x = np.linspace(-3, 3, 50).astype(np.float32)
    formula = {
        "relu": np.maximum(x, 0),
        "leaky_relu": np.where(x > 0, x, 0.2 * x),
        "elu": np.where(x > 0, x, np.expm1(x)),
        "softplus": np.log1p(np.exp(x)),
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
    }[word]
    layer = built([word, "output"]).get_layer("convnet").get_layer(f"{word}_1")
    np.testing.assert_allclose(layer(x), formula, rtol=1e-5, atol=1e-6)


def test_a_model_of_every_layer_is_saved_and_loaded(data, write_config, train, tmp_path):
    words = ["log", "whiten_minibatch", "scale_11", "image_contrast"]
    assert train("fit", write_config(network=EVERYTHING, preprocess=words, steps=3)).exit_code == 0
    run = tmp_path / "runs" / "small"
    ours = saved.load_model(run)
    kerass = keras.saving.load_model(run / "model.keras", compile=False)
    x = np.random.default_rng(0).random((4, 20, 24, 1), dtype=np.float32)
    assert np.array_equal(ours(x), kerass(x))
    moved = ours.get_layer("convnet").get_layer("batch_normalization_1").moving_mean.numpy()
    assert np.abs(moved).max() > 0


def test_weights_depend_on_the_random_seed_and_each_layer_has_its_own():
    layers = [{"hidden": {"units": 120}}, {"hidden": {"units": 120}}, "output"]
    first, again, other = built(layers, seed=4), built(layers, seed=4), built(layers, seed=9)
    for a, b in zip(first.get_weights(), again.get_weights()):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0][:120], first.get_weights()[2][:120])


# --- the loss --------------------------------------------------------------------------------


def test_regularization_is_apart_from_the_cross_entropy(data, write_config, train, tmp_path):
    """As in 2016: loss = cross entropy + sum of L1 and L2, of layers by themselves and of a list."""
    layers = [
        {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1, "l2": 0.05}},
        "relu", {"hidden": {"units": 4, "stddev": 0.1, "bias": 0.5}}, {"output": {"stddev": 0.1, "l1": 0.02}},
    ]  # fmt: skip
    listed = {"layers": ["convolution_1", "hidden_1"], "l1": 0.005, "l2": 0.001}
    config = write_config(network=layers, regularize=listed, steps=1)
    assert train("fit", config).exit_code == 0
    row = next(csv.DictReader((tmp_path / "runs/small/metrics.csv").read_text().splitlines()))
    parsed = [Layer.model_validate(layer) for layer in layers]
    start = network.build(parsed, (20, 24), 2, seed=1)
    kernel, _, hidden, _, output, _ = (w.numpy().astype(np.float64) for w in start.trainable_variables)
    expected = 0.05 * (kernel**2).sum() + 0.02 * np.abs(output).sum()
    expected += sum(0.005 * np.abs(w).sum() + 0.001 * (w**2).sum() for w in (kernel, hidden))
    assert expected > 0.1
    assert float(row["loss"]) - float(row["cross_entropy"]) == pytest.approx(expected, rel=1e-5)


def test_without_regularization_the_loss_is_the_cross_entropy(data, write_config, train, tmp_path):
    train("fit", write_config(steps=1))
    row = next(csv.DictReader((tmp_path / "runs/small/metrics.csv").read_text().splitlines()))
    assert row["loss"] == row["cross_entropy"]


def test_a_list_of_layers_to_regularize_names_layers_that_are_there(data, write_config, train):
    result = train("fit", write_config(regularize={"layers": ["convolution_2"], "l1": 0.1}))
    assert result.exit_code == 2
    assert (
        "regularize.layers: 'convolution_2' is no layer with weights; there are convolution_1"
        in result.output
    )


# --- steps -----------------------------------------------------------------------------------


def stepper(microbatch=None, layers=None, **settings) -> step.Stepper:
    layers = layers or [
        {"convolution": {"kernel_size": [3, 3], "filters": 4, "stddev": 0.3}}, "relu",
        {"hidden": {"units": 5, "stddev": 0.2, "l1": 0.01}}, "relu", {"output": {"stddev": 0.5, "l2": 0.1}},
    ]  # fmt: skip
    before = build_preprocess([Preprocess(whiten_minibatch={})], IMAGE, lambda: iter([images(20)]))
    config = TrainConfig.model_validate_json(
        '{"name": "a", "data": "a", "steps": 1, "network": ["output"], "optimizer": {"kind": "momentum"}}'
    )
    optimizer = build_optimizer(config.optimizer, 0.1)
    return step.Stepper(built(layers, before=before), optimizer, microbatch, **settings)


@pytest.mark.parametrize("size", [1, 5, 8, 16, 40])
def test_the_gradient_of_microbatches_is_that_of_the_whole_minibatch(size):
    """16 images: in parts that fit, that do not, and in one; whitened over all 16 in each case."""
    whole, parts = stepper(), stepper(size)
    for n in range(3):
        x, labels = images(16, n), np.arange(16) % 3
        expected, got = whole.step(x, labels, 0.1), parts.step(x, labels, 0.1)
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)
        a, b = whole.gradient.numpy(), parts.gradient.numpy()
        np.testing.assert_allclose(b, a, atol=1e-6 * np.linalg.norm(a))
    for a, b in zip(whole.state()[0], parts.state()[0]):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_gradient_of_the_first_kernel_is_shown_by_itself():
    one = stepper()
    result = one.step(images(16), np.arange(16) % 3, 0.1)
    gradient = one.gradient.numpy()
    assert result.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert result.first_gradient_norm == pytest.approx(np.linalg.norm(gradient[: 3 * 3 * 4]), rel=1e-5)


def test_batch_normalization_in_microbatches_is_refused(write_config, train):
    result = train(
        "describe", write_config(microbatch=4, network=["batch_normalization", "relu", {"output": {}}])
    )
    assert result.exit_code == 2 and "microbatch: not with batch_normalization" in result.output


def test_a_long_gradient_is_shortened_to_clip_norm_and_shown_as_it_was():
    free, clipped = stepper(), stepper(clip_norm=0.01)
    x, labels = images(16), np.arange(16) % 3
    start = [v.numpy() for v in free.model.trainable_variables]
    norms = [one.step(x, labels, 0.1).gradient_norm for one in (free, clipped)]
    assert norms[0] == norms[1] > 0.1
    moved = [
        np.sqrt(sum(((v.numpy() - a) ** 2).sum() for v, a in zip(one.model.trainable_variables, start)))
        for one in (free, clipped)
    ]
    assert moved[0] == pytest.approx(0.1 * norms[0], rel=1e-4)
    assert moved[1] == pytest.approx(0.1 * 0.01, rel=1e-3)
    loose = stepper(clip_norm=1e6)
    loose.step(x, labels, 0.1)
    for a, b in zip(free.state()[0], loose.state()[0]):
        assert np.array_equal(a, b)


def test_resuming_is_exact_with_dropout_and_batch_normalization_too(data, write_config, train, tmp_path):
    layers = [
        {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
        "batch_normalization", "relu", {"dropout": {"rate": 0.3}}, {"output": {"stddev": 0.1}},
    ]  # fmt: skip
    settings = {"network": layers, "preprocess": ["whiten_minibatch"]}
    train("fit", write_config(**settings))
    whole = load(tmp_path / "runs" / "small")
    shutil.rmtree(tmp_path / "runs")
    train("fit", write_config(steps=4, **settings))
    assert train("fit", write_config(**settings), "--resume").exit_code == 0
    again = load(tmp_path / "runs" / "small")
    for a, b in zip([*whole.model, whole.gradient], [*again.model, again.gradient]):
        assert np.array_equal(a, b)


def test_mean_is_over_one_axis_which_stays():
    model = built([{"mean": {"axis": 1}}, {"output": {"stddev": 0.1}}]).get_layer("convnet")
    x = images(4)
    np.testing.assert_allclose(
        model.get_layer("mean_1")(x), x.mean(axis=2, keepdims=True), rtol=1e-5, atol=1e-6
    )
    assert model.get_layer("output").kernel.shape == (IMAGE[0], 3)


def test_he_normal_has_the_stddev_of_its_inputs():
    """sqrt(2 / inputs); what is cut off is made up for by a wider normal."""
    layers = [
        {"convolution": {"kernel_size": [3, 3], "filters": 50, "init": "he_normal"}},
        {"convolution": {"kernel_size": [3, 3], "filters": 60, "init": "he_normal"}},
        "output",
    ]
    for layer, inputs in zip(built(layers).get_layer("convnet").layers[1:3], (9, 9 * 50)):
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / inputs), rel=0.1)
        assert np.abs(kernel).max() <= 2.3 * np.sqrt(2 / inputs)
