"""Signal against noise: what is in the images, that they repeat, in little memory, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.dataset import layout, reading
from prepare.simulate import signal_noise
from prepare.simulate.signal_noise import SignalNoiseConfig, image, load_config, write

CONFIGS = sorted(Path("configs/prepare").glob("signal_noise_*.yaml"))


@pytest.fixture
def config(tmp_path):
    """A small set, with changes."""

    def make(**changes) -> SignalNoiseConfig:
        values = {"name": "sn", "shape": (30, 20), "train": 40, "test": 10, "validation": 6}
        return SignalNoiseConfig(**{**values, "output_dir": str(tmp_path), **changes})

    return make


@pytest.fixture
def write_config(tmp_path):
    """The same as a file; gives its path."""

    def make(**changes) -> str:
        values = {"name": "sn", "shape": [30, 20], "train": 40, "test": 10, "output_dir": str(tmp_path)}
        path = tmp_path / "sn.yaml"
        path.write_text(yaml.safe_dump({**values, **changes}))
        return str(path)

    return make


def test_the_content_does_not_depend_on_the_threads_that_make_it(config, monkeypatch):
    digests = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(signal_noise, "available_cores", lambda threads=threads: threads)
        digests.add(write(config(), force=True))
    assert len(digests) == 1


def read(path) -> dict:
    with reading.open_data(path) as file:
        return {
            split: (file[split]["images"][...], file[split]["labels"][...]) for split in layout.present(file)
        }


@settings(max_examples=50)
@given(st.integers(10, 40), st.integers(1, 30), st.integers(0, 10**6))
def test_a_signal_image_has_one_vertical_line_of_ten_or_more_pixels(rows, columns, seed):
    config = SignalNoiseConfig(name="a", shape=(rows, columns), train=2, test=2)
    pixels = image(np.random.default_rng(seed), True, config)
    assert (pixels.shape, pixels.dtype) == ((rows, columns), np.float32)
    high = pixels > 2.5
    assert high.any(axis=0).sum() == 1
    line = np.flatnonzero(high.any(axis=1))
    assert len(line) >= 10 and np.array_equal(line, np.arange(line[0], line[-1] + 1))
    assert (image(np.random.default_rng(seed), False, config) < 1).all()


def test_noise_and_signal_have_the_means_and_deviations_of_2016(config):
    made = config(shape=(40, 40))
    rng = np.random.default_rng(0)
    noise = np.stack([image(rng, False, made) for _ in range(50)])
    assert noise.mean() == pytest.approx(0, abs=0.002) and noise.std() == pytest.approx(0.1, rel=0.01)
    lines = np.concatenate([x[x > 2.5] for x in (image(rng, True, made) for _ in range(100))])
    assert lines.mean() == pytest.approx(5, abs=0.02)
    assert lines.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)  # the signal's and the noise under it


def test_lines_have_every_length_and_place(config):
    rng = np.random.default_rng(1)
    high = np.stack([image(rng, True, config()) > 2.5 for _ in range(600)])
    assert set(high.sum(axis=(1, 2))) == set(range(10, 31))
    assert high.any(axis=(0, 1)).all() and high.any(axis=(0, 2)).all()


def test_the_file_is_half_noise_half_signal_and_labeled_so(config):
    write(config())
    splits = read(config().output_path)
    assert {split: len(labels) for split, (_, labels) in splits.items()} == {
        "train": 40,
        "validation": 6,
        "test": 10,
    }
    for images, labels in splits.values():
        assert labels.mean() == 0.5
        assert np.array_equal(images.max(axis=(1, 2)) > 2.5, labels == 1)
    with reading.open_data(config().output_path) as file:
        assert reading.classes(file) == ["noise", "signal"]
        train = file["train/images"][...].astype(np.float64)
        np.testing.assert_allclose(file["statistics/mean"][...], train.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(file["statistics/std"][...], train.std(axis=0), atol=1e-6)


def test_the_same_config_gives_the_same_content_and_another_seed_other_images(config):
    digests, images = [], []
    for seed in (1, 1, 2):
        digests.append(write(config(seed=seed), force=True))
        images += [pixels.tobytes() for split in read(config().output_path).values() for pixels in split[0]]
    assert digests[0] == digests[1] != digests[2]
    assert len(set(images)) == 2 * 56  # no image twice, in no split


def test_more_train_images_keep_the_earlier_ones_and_the_other_splits(config, tmp_path):
    write(config())
    write(config(train=60, output_dir=str(tmp_path / "more")))
    few, more = read(config().output_path), read(tmp_path / "more" / "sn.h5")
    assert np.array_equal(few["train"][0], more["train"][0][:40])
    for split in ("validation", "test"):
        assert np.array_equal(few[split][0], more[split][0])


def test_memory_does_not_grow_with_the_number_of_images(config):
    """400 images of 40 kB are 16 MB; a few of them are held at a time."""
    tracemalloc.start()
    try:
        write(config(shape=(100, 100), train=400, test=2, validation=0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


def test_the_command_and_verify(write_config, prepare, tmp_path):
    path = write_config()
    result = prepare("signal-noise", path)
    assert result.exit_code == 0, result.output
    assert "train: 40 images of 30 x 20, half of them with a signal" in result.output
    assert "MB/s" in result.output
    assert prepare("verify", str(tmp_path / "sn.h5")).exit_code == 0
    before = (tmp_path / "sn.h5").read_bytes()
    refused = prepare("signal-noise", path)
    assert refused.exit_code == 2 and "exists already; give --force" in refused.output
    assert (tmp_path / "sn.h5").read_bytes() == before
    assert prepare("signal-noise", path, "--force").exit_code == 0


def test_a_file_of_large_images_is_read(config, prepare):
    """Readers refuse datasets that claim much more than the file holds: all of it must be written."""
    write(config(shape=(1200, 1100), train=2, test=2, validation=0))
    assert prepare("verify", str(config().output_path)).exit_code == 0


def test_an_interrupted_write_leaves_what_was_there(config, monkeypatch):
    write(config())
    before = config().output_path.read_bytes()
    made = []

    def stop_at_the_fifth(*args):
        made.append(1)
        if len(made) == 5:
            raise KeyboardInterrupt
        return image(*args)

    monkeypatch.setattr("prepare.simulate.signal_noise.image", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        write(config(seed=3), force=True)
    assert config().output_path.read_bytes() == before
    assert [path.name for path in config().output_path.parent.glob("*.h5")] == ["sn.h5"]


def test_a_damaged_image_is_found(config, prepare):
    write(config())
    with h5py.File(config().output_path, "r+") as file:
        file["test/images"][3, 4, 5] += 1
    result = prepare("verify", str(config().output_path))
    assert result.exit_code == 1 and "test" in result.output


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shape": [9, 20]}, "line: 10 pixels do not fit in an image of 9 rows"),
        ({"train": 41}, "train: 41 images cannot be half noise, half signal"),
        ({"train": 0}, "train: 0"),
        ({"signal": 5}, "signal: unknown key; did you mean 'signal_"),
        ({"shape": [30]}, "shape"),
        ({"noise_std": -1}, "noise_std: -1"),
        ({"noise_std": 1e300}, "noise_std: 1e+300"),
        ({"shape": [1 << 20, 1 << 20]}, "shape: an image of 4398.0 GB; HDF5 takes 4.2 at the most"),
    ],
)
def test_mistakes_are_told_by_file_key_and_value(write_config, prepare, changes, message):
    result = prepare("signal-noise", write_config(**changes))
    assert result.exit_code == 2
    assert "sn.yaml" in result.output and message in result.output


@pytest.mark.parametrize("train", [10**12, 1 << 62])
def test_more_images_than_the_disk_has_room_for_are_one_line_at_once(write_config, prepare, train, tmp_path):
    result = prepare("signal-noise", write_config(train=train))
    assert (
        result.exit_code == 2 and "No space left on device" in result.output and "are needed" in result.output
    )
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_2016_study_is_sound(path):
    config = load_config(str(path))
    side = int(path.stem.rpartition("_")[2])
    assert (config.name, config.shape) == (path.stem, (side, side))
    assert (config.noise_std, config.signal_mean, config.signal_std, config.line) == (0.1, 5.0, 0.1, 10)


def test_the_largest_set_is_that_of_2016():
    config = load_config("configs/prepare/signal_noise_1000.yaml")
    assert sum(config.sizes.values()) == 1780
    megabytes = sum(config.sizes.values()) * 4 * 1000 * 1000 / 2**20
    assert megabytes == pytest.approx(6790.16, abs=0.01)  # as in the 2016 study's log
