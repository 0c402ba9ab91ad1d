"""Augmentation: what each step does, that it is of training alone, and that a resumed run sees the same."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.command_line import refused
from tests.train.conftest import SHAPE, write_data
from tests.train.test_commands import table
from tests.train.test_resume import same
from train.config.images import Augment
from train.data.order import Position
from train.data.prepared import Prepared
from train.model.augment import augment, draws
from train.run import checkpoint

IMAGE = (18, 22)
EVERY = [
    {"shift": [2, 3]},
    {"blur": {"variance": [0, 1.5], "share": 0.7}},
    {"mirror": {"axis": 0}},
    {"stretch": {"by": [0.1, 0.05]}},
    {"noise": {"stddev": 0.2}},
]


def steps(*words) -> list:
    return [Augment.model_validate_json(json.dumps(word)) for word in words]


def images(n: int, seed: int = 0) -> np.ndarray:
    """Spots of light in the middle, dark at the edges, (n, 18, 22, 1)."""
    x = np.zeros((n, *IMAGE, 1), np.float32)
    x[:, 6:12, 6:16, 0] = np.random.default_rng(seed).gamma(1, 50, (n, 6, 10))
    return x


def done(x: np.ndarray, *words, number: int = 1, seed: int = 1) -> np.ndarray:
    parsed = steps(*words)
    return np.asarray(augment(parsed, x, draws(parsed, seed, number, len(x))))


def test_shift_is_by_whole_pixels_up_to_its_bounds_and_reaches_them():
    x = images(1)
    many = np.repeat(x, 400, axis=0)
    expected = {
        (i, j): np.roll(x[0, ..., 0], (i, j), axis=(0, 1)) for i in range(-2, 3) for j in range(-3, 4)
    }
    seen = []
    for image in done(many, {"shift": [2, 3]})[..., 0]:
        seen += [place for place, moved in expected.items() if np.array_equal(moved, image)]
    assert len(seen) == 400
    assert set(seen) == set(expected)


def test_shift_brings_in_zeros():
    ones = np.ones((50, *IMAGE, 1), np.float32)
    moved = done(ones, {"shift": [2, 0]})[..., 0]
    assert {int(image.sum() / IMAGE[1]) for image in moved} == {16, 17, 18}


def test_blur_has_the_variance_it_says_along_its_axis_alone():
    x = np.zeros((600, *IMAGE, 1), np.float32)
    x[:, 9, 11] = 1
    blurred = done(x, {"blur": {"variance": [0, 1.2], "share": 0.7}})[..., 0].astype(np.float64)
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert np.abs(np.delete(blurred, 9, axis=1)).max() == 0
    places = np.arange(IMAGE[1]) - 11
    variance = (blurred[:, 9] * places**2).sum(axis=1)
    kept = variance < 1e-6
    assert 0.25 < kept.mean() < 0.36  # 0.3, and the few with too small a variance to see
    assert variance.max() < 1.21 and variance.max() > 1.1
    assert abs(np.mean(variance[~kept]) - 0.6) < 0.07


def test_mirror_reverses_its_axis_of_half_the_images():
    x = images(300)
    mirrored = done(x, {"mirror": {"axis": 1}})
    which = [np.array_equal(a, b[:, ::-1]) for a, b in zip(mirrored, x)]
    assert all(flag or np.array_equal(a, b) for flag, a, b in zip(which, mirrored, x))
    assert 0.4 < np.mean(which) < 0.6


def test_stretch_scales_the_widths_and_keeps_the_light():
    x = np.zeros((300, 60, 60, 1), np.float32)
    x[..., 0] = np.exp(-np.add.outer(*[((np.arange(60) - 29.5) / 6) ** 2 / 2] * 2))
    stretched = done(x, {"stretch": {"by": [0.2, 0]}})[..., 0].astype(np.float64)
    np.testing.assert_allclose(stretched.sum(axis=(1, 2)), x[0].sum(), rtol=0.01)
    places = np.arange(60) - 29.5
    for axis, spread in ((2, (0.8, 1.2)), (1, (1, 1))):
        profile = stretched.sum(axis=axis)
        width = np.sqrt((profile * places**2).sum(axis=1) / profile.sum(axis=1)) / 6
        assert width.min() == pytest.approx(spread[0], abs=0.02)
        assert width.max() == pytest.approx(spread[1], abs=0.02)


def test_noise_is_normal_and_of_every_image_its_own():
    x = np.zeros((40, 50, 50, 1), np.float32)
    noise = done(x, {"noise": {"stddev": 3}})
    assert noise.std() == pytest.approx(3, rel=0.01) and abs(noise.mean()) < 0.05
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_numbers_are_a_function_of_seed_and_step_alone():
    x = images(16)
    first = done(x, *EVERY, number=7)
    assert np.array_equal(first, done(x, *EVERY, number=7))
    for other in ({"number": 8}, {"seed": 2, "number": 7}):
        assert not np.array_equal(first, done(x, *EVERY, **other))


PREPROCESS = [{"crop": [18, 22]}, "augment", "log"]


def test_a_resumed_run_sees_the_same_images(data, write_config, train, tmp_path):
    """To the same weights bit for bit, also where the network's preprocessing is done image by image."""
    run = tmp_path / "runs" / "small"
    for cache in ("auto", "stream"):
        settings = {"preprocess": PREPROCESS, "augment": EVERY, "table_every": 2, "cache": cache}
        whole = train("fit", write_config(steps=7, **settings), "--force")
        assert whole.exit_code == 0, whole.output
        end = checkpoint.load(run)
        shutil.rmtree(run)
        for steps_ in (2, 5):
            assert train("fit", write_config(steps=steps_, **settings), "--resume").exit_code == 0
        resumed = train("fit", write_config(steps=7, **settings), "--resume")
        assert table(resumed.output) == table(whole.output)
        assert same(checkpoint.load(run), end)


def test_augmentation_changes_training(data, write_config, train, tmp_path):
    ends = []
    for settings in ({"preprocess": PREPROCESS, "augment": EVERY}, {"preprocess": ["log"]}):
        train("fit", write_config(steps=3, **settings), "--force")
        ends.append(checkpoint.load(tmp_path / "runs" / "small"))
    assert not same(*ends)


def test_prediction_and_evaluation_do_without_it(data, write_config, train, tmp_path):
    """With a shift that leaves nothing of an image, training could not tell anything and prediction can."""
    assert train("fit", write_config(preprocess=PREPROCESS, augment=EVERY, steps=8)).exit_code == 0
    run = tmp_path / "runs" / "small"
    told = json.loads((run / "summary.json").read_text())["splits"]["test"]["correct"]
    result = train("predict", str(run), str(data), "--split", "test")
    assert f"{told / 30:.3f}" in result.output
    again = train("predict", str(run), str(data), "--split", "test", "--force")
    assert [line for line in again.output.splitlines() if "accuracy" in line] == [
        line for line in result.output.splitlines() if "accuracy" in line
    ]


def test_a_microbatch_gives_the_same_images_as_the_whole(data, write_config, train, tmp_path):
    tables = [
        table(train("fit", write_config(
            preprocess=PREPROCESS, augment=EVERY, table_every=1, steps=5, microbatch=size
        ), "--force").output)
        for size in (None, 5)
    ]  # fmt: skip
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"augment": [{"shift": [1, 1]}]}, "augment: its steps need one `- augment` in preprocess"),
        ({"preprocess": ["augment"]}, "preprocess: has the word augment, but there are no steps"),
        ({"preprocess": ["augment"], "augment": [{"shfit": [1, 1]}]}, "did you mean 'shift'?"),
        ({"preprocess": ["augment"], "augment": [{"shift": [-1, 1]}]}, "augment[0].shift[0]: -1"),
        (
            {"preprocess": ["augment"], "augment": [{"blur": {"variance": [0, 1], "share": 1.5}}]},
            "share: 1.5",
        ),
    ],
)
def test_mistakes_are_one_line(data, write_config, train, settings, told):
    refused(train("fit", write_config(**settings)), told)


def test_describe_tells_what_is_done_to_an_image(write_config, train):
    output = train("describe", write_config(preprocess=PREPROCESS, augment=EVERY)).output
    for line in ("crop: [18, 22]", "18 x 22", "shift: [2, 3]", "blur: variance [0.0, 1.5], share 0.7", "log"):
        assert line in output
    assert "in training only" in output


def test_prepared_images_are_the_same_kept_and_made_each_time(tmp_path, write_config):
    from train.data.dataset import open_data

    write_data(tmp_path / "data.h5", {"train": 40, "test": 30})
    with open_data(tmp_path / "data.h5", SHAPE, ["train"]) as opened:
        train = opened.splits["train"]
        kept, made = (
            Prepared(train, lambda x: 2 * x[:, 1:11, 3:9], (10, 6), stream) for stream in (False, True)
        )
        for samples in (kept, made):
            assert len(samples) == 40 and samples.image == (10, 6)
            batches = samples.minibatches(16, 3, Position(0, 0))
            for expected, batch in zip(train.minibatches(16, 3, Position(0, 0)), batches):
                assert np.array_equal(batch.images, 2 * expected.images[:, 1:11, 3:9])
                assert np.array_equal(batch.labels, expected.labels)
                assert batch.position == expected.position
                if batch.position.epoch == 2:
                    break
            every = np.concatenate([batch.copy() for batch in samples.batches(7)])
            assert np.array_equal(every, samples.images(range(40)))
