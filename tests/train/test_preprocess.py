"""Preprocessing against its definitions in numpy, and one answer for an image, alone or among others."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from common.dataset import schema
from tests.train.conftest import SHAPE, write_data
from train.model import preprocess

WORDS = [
    "log", "subtract_mean", "scale_01", "scale_11", "whiten_minibatch", "standardize", "image_contrast",
]  # fmt: skip


@pytest.fixture
def train_split():
    """40 images of counts, some of them negative, (40, 6, 5, 1)."""
    rng = np.random.default_rng(3)
    return (rng.gamma(0.5, 40, (40, 6, 5, 1)) - 5).astype(np.float32)


def model(words, images) -> keras.Model:
    """The preprocessing by `words`, its numbers taken from `images`, read 16 at a time."""
    return preprocess.build(words, images.shape[1:3], lambda: iter(np.split(images, [16, 32])))


def by_definition(word: str, x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """At prediction. x, train: float64 images."""
    if word == "log":
        return np.log(1 + np.maximum(0, x))
    if word == "subtract_mean":
        return x - train.mean()
    if word == "scale_01":
        return (x - train.min()) / (train.max() - train.min())
    if word == "scale_11":
        return 2 * (x - train.min()) / (train.max() - train.min()) - 1
    if word in ("whiten_minibatch", "standardize"):
        return (x - train.mean(axis=0)) / train.std(axis=0)
    return (x - x.mean(axis=(1, 2, 3), keepdims=True)) / x.std(axis=(1, 2, 3), keepdims=True)


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_what_its_definition_says(word, train_split):
    new = train_split[:7] * np.float32(1.5) + 1
    expected = by_definition(word, new.astype(np.float64), train_split.astype(np.float64))
    np.testing.assert_allclose(model([word], train_split)(new), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("word, least, greatest", [("scale_01", 0, 1), ("scale_11", -1, 1)])
def test_the_train_split_fills_the_range(word, least, greatest, train_split):
    scaled = np.asarray(model([word], train_split)(train_split))
    assert (scaled.min(), scaled.max()) == (pytest.approx(least, abs=1e-6), pytest.approx(greatest, abs=1e-6))


def test_numbers_are_taken_after_the_words_before(train_split):
    done = np.asarray(model(["log", "standardize", "scale_11"], train_split)(train_split))
    wide = np.log(1 + np.maximum(0, train_split.astype(np.float64)))
    expected = by_definition("scale_11", *[by_definition("standardize", wide, wide)] * 2)
    np.testing.assert_allclose(done, expected, atol=1e-5)


def test_whitening_at_training_is_over_the_minibatch(train_split):
    """The 2016 study's ApproxWhiten: every pixel of the minibatch gets mean 0 and standard deviation 1."""
    minibatch = train_split[5:20]
    white = np.asarray(model(["whiten_minibatch"], train_split)(minibatch, training=True))
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(white.std(axis=0), 1, atol=1e-4)
    wide = minibatch.astype(np.float64)
    np.testing.assert_allclose(white, (wide - wide.mean(axis=0)) / wide.std(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("word", ["whiten_minibatch", "standardize", "image_contrast", "scale_01"])
@pytest.mark.parametrize("training", [True, False])
def test_what_does_not_vary_gives_zero_not_infinity(word, training):
    images = np.full((8, 4, 4, 1), 7, np.float32)
    done = np.asarray(model([word], np.tile(images, (5, 1, 1, 1)))(images, training=training))
    np.testing.assert_allclose(done, 0, atol=1e-4)


def test_large_counts_keep_their_small_variance():
    """Sums of squares in float32 would lose a deviation of 1 on a pedestal of 10,000."""
    rng = np.random.default_rng(0)
    images = (10_000 + rng.standard_normal((48, 4, 4, 1))).astype(np.float32)
    done = np.asarray(preprocess.build(["standardize"], (4, 4), lambda: iter([images]))(images))
    np.testing.assert_allclose(done.std(axis=0), 1, rtol=1e-3)


def test_a_saved_whitened_model_has_one_answer_for_an_image(write_config, train, tmp_path):
    """Alone, in a batch of 64, and as `evaluate` sees it: alike to 1e-6."""
    write_data(tmp_path / "data.h5", {"train": 64, "test": 64})
    network = [
        {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
        "batch_normalization", "relu", {"dropout": {"rate": 0.3}}, {"output": {"stddev": 0.1}},
    ]  # fmt: skip
    config = write_config(preprocess=["log", "whiten_minibatch"], network=network, steps=9)
    assert train("fit", config).exit_code == 0
    saved = keras.saving.load_model(tmp_path / "runs/small/model.keras", compile=False)
    with schema.open_data(tmp_path / "data.h5") as file:
        images = file["test/images"][...][..., None]
        stored = file["train/images"][...].astype(np.float64)
    batch = np.asarray(saved(images))
    assert batch.shape == (64, 2) and np.abs(batch).max() > 0.01
    alone = np.concatenate([np.asarray(saved(images[i : i + 1])) for i in range(64)])
    np.testing.assert_allclose(alone, batch, atol=1e-6)
    among_others = np.asarray(saved(np.concatenate([images[:1], 100 * images[1:]])))
    np.testing.assert_allclose(among_others[0], batch[0], atol=1e-6)
    # what it whitens with is the train split's, after the logarithm
    layer = saved.get_layer("preprocess").get_layer("whiten_minibatch_2")
    mean = np.log1p(stored).mean(axis=0)
    np.testing.assert_allclose(layer.offset.numpy()[..., 0], mean, atol=1e-6)
    assert mean.shape == SHAPE
