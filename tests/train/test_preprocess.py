"""Preprocessing against its definitions in numpy, and one answer for an image, alone or among others."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from common.dataset import reading
from tests.train.conftest import SHAPE, write_data
from train.config.images import Preprocess
from train.model import preprocess

WORDS = [
    "log", "subtract_mean", "scale_01", "scale_11", "whiten_minibatch", "standardize", "image_contrast",
]  # fmt: skip


@pytest.fixture
def train_split():
    """40 images of counts, some of them negative, (40, 6, 5, 1)."""
    rng = np.random.default_rng(3)
    return (rng.gamma(0.5, 40, (40, 6, 5, 1)) - 5).astype(np.float32)


def steps(words) -> list:
    """Steps as a config gives them: bare words, or a word with its settings."""
    return [Preprocess.model_validate_json(json.dumps(word)) for word in words]


def model(words, images) -> keras.Model:
    """The preprocessing by `words`, its numbers taken from `images`, read 16 at a time."""
    return preprocess.build(steps(words), images.shape[1:3], lambda: iter(np.split(images, [16, 32])))


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
    done = np.asarray(preprocess.build(steps(["standardize"]), (4, 4), lambda: iter([images]))(images))
    np.testing.assert_allclose(done.std(axis=0), 1, rtol=1e-3)


def test_counts_are_those_of_the_logarithm(train_split):
    counts = np.maximum(train_split, 0)
    done = model(["counts"], train_split)(np.log1p(counts))
    np.testing.assert_allclose(done, counts, rtol=1e-5, atol=1e-5)


def test_bin_is_the_mean_of_blocks_and_leaves_out_what_does_not_fill_one(train_split):
    done = np.asarray(model([{"bin": [2, 3]}], train_split)(train_split))
    blocks = train_split[:, :6, :3, 0].reshape(40, 3, 2, 1, 3).mean(axis=(2, 4), dtype=np.float64)
    np.testing.assert_allclose(done[..., 0], blocks, rtol=1e-5, atol=1e-5)


def test_crop_keeps_the_middle(train_split):
    done = np.asarray(model([{"crop": [3, 3]}], train_split)(train_split))
    assert np.array_equal(done, train_split[:, 1:4, 1:4])


def test_scale_subtracts_and_divides(train_split):
    done = model([{"scale": {"subtract": 3, "divide": 4}}], train_split)(train_split)
    np.testing.assert_allclose(done, (train_split - 3) / 4, rtol=1e-5, atol=1e-5)


def test_more_pixels_than_there_are_is_an_error_that_says_how_many(data, write_config, train):
    config = write_config(preprocess=[{"bin": [2, 2]}, {"crop": [11, 4]}])
    result = train("fit", config)
    assert result.exit_code == 2
    assert "preprocess[1]: crop: 11 x 4 pixels of an image that has 10 x 12 here" in result.output


# --- centering -----------------------------------------------------------------------------------

BEAM = np.exp(-np.add.outer(((np.arange(24) - 11.5) / 6) ** 4, ((np.arange(32) - 15.5) / 7) ** 4))
SCREEN = (72, 96)


def screen(row: int, column: int, counts: float = 300.0) -> np.ndarray:
    """A beam of 24 x 32 pixels, its first at (row, column), on a screen of noise; (72, 96)."""
    image = np.random.default_rng(row).gamma(0.5, 1, SCREEN)
    image[row : row + 24, column : column + 32] += counts * BEAM
    return image


def centered(*images: np.ndarray, size=(40, 48)) -> np.ndarray:
    layer = preprocess.build(steps([{"center": {"threshold": 8, "size": list(size)}}]), SCREEN)
    return np.asarray(layer(np.array(images, np.float32)[..., None]))[..., 0]


@pytest.mark.parametrize("row, column", [(20, 30), (4, 12), (44, 60), (45, 3)])
def test_the_beam_comes_to_the_middle_wherever_it_is(row, column):
    image = screen(row, column)
    done = centered(image)[0]
    top, left = row + 12 - 20, column + 16 - 24  # of the window, with the beam in its middle
    framed = np.pad(image, 50)
    errors = {
        (i, j): np.abs(framed[50 + top + i :, 50 + left + j :][:40, :48] * (done != 0) - done).max()
        for i in (-1, 0, 1) for j in (-1, 0, 1)
    }  # fmt: skip
    assert min(errors.values()) < 1e-3  # moved by whole pixels, within one of the true center
    beam = done > 8
    assert abs(beam.any(axis=1).nonzero()[0].mean() - 19.5) <= 1.5
    assert abs(beam.any(axis=0).nonzero()[0].mean() - 23.5) <= 1.5


def _brighter_half(image):
    image[:, 48:] += 10


def _higher(image):
    image += 25


def _edge_line(image):
    image[:, 90:92] += 400


def _stripes(image):
    image += np.random.default_rng(1).choice([0, 15], p=[0.85, 0.15], size=(72, 1))


def _saturated(image):
    np.minimum(image, 150, out=image)


def _slope(image):
    image += np.linspace(0, 20, 96)


@pytest.mark.parametrize("spoil", [_brighter_half, _higher, _edge_line, _stripes, _saturated, _slope])
def test_what_a_real_screen_shows_besides_the_beam_does_not_move_it(spoil):
    good = screen(16, 22)
    bad = good.copy()
    spoil(bad)
    place = np.zeros(SCREEN)
    place[28, 38] = 1e6  # a mark in the middle of the beam: where it is found, the beam was put
    marks = [np.argwhere(image > 1e5)[0] for image in centered(good + place, bad + place)]
    assert np.abs(marks[0] - marks[1]).max() <= 1


def test_a_beam_that_leaves_the_screen_is_centered_by_what_is_left_of_it():
    image = np.random.default_rng(0).gamma(0.5, 1, SCREEN)
    image[:12, 30:62] += 300 * BEAM[12:]
    done = centered(image)[0]
    assert (done[:14] == 0).all()  # off the screen
    assert done.sum() > 0.98 * image[:20, 22:70].sum()  # all of the beam is there
    assert done[:, 20:28].sum() > 0.4 * done.sum()  # in the middle


def test_without_a_beam_the_middle_is_kept():
    image = np.random.default_rng(0).gamma(0.5, 1, SCREEN)
    np.testing.assert_allclose(centered(image)[0], image[16:56, 24:72], rtol=1e-6)


def test_an_image_is_centered_alike_alone_and_among_others():
    images = [screen(20, 30), screen(4, 12), screen(44, 60)]
    together = centered(*images)
    for image, expected in zip(images, together):
        assert np.array_equal(centered(image)[0], expected)


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
    with reading.open_data(tmp_path / "data.h5") as file:
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
