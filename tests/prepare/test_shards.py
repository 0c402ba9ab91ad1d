"""How a data set is divided into files changes nothing in its content."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from common import manifest
from common.dataset import index, reading
from prepare.build.output import Output
from prepare.config import load_config
from tests.prepare.conftest import digest


@pytest.mark.parametrize("size", [1, 7, 29, 30, 31])
def test_any_size_of_the_files_gives_the_same_content(write_config, prepare, tmp_path, expected, size):
    config = write_config(shard=size)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    path = tmp_path / "data" / ("small" if size < 30 else "small.h5")
    files = index.data_files(path)
    assert len(files) == -(-30 // size)
    assert digest(tmp_path) == expected
    assert prepare("verify", str(path)).exit_code == 0


def test_statistics_of_several_files_are_those_of_one(write_config, prepare, tmp_path):
    found = []
    config = write_config()
    prepare("select", config)
    for size, path in ((2000, "small.h5"), (7, "small")):
        assert prepare("build", write_config(shard=size), "--force").exit_code == 0
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(reading.open_data(f)) for f in index.data_files(tmp_path / "data" / path)
            ]
            images = np.concatenate([f["train/images"][...] for f in files if "train" in f]).astype("f8")
            found.append(reading.statistics(files))
            assert found[-1][0] == len(images) == 20
            np.testing.assert_allclose(found[-1][1], images.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(found[-1][2], images.std(axis=0), rtol=1e-6, atol=1e-9)
    for one, several in zip(*found):
        np.testing.assert_allclose(one, several, rtol=1e-9)


def test_shards_are_in_the_order_of_reading(ready):
    config = load_config(ready)
    rows = manifest.read(config.manifest_path)
    shards = Output(config, rows).shards
    assert [row for shard in shards for row in shard.rows] == sorted(rows, key=lambda row: row.shot)


def test_more_files_than_their_numbers_have_digits_for_stay_in_order(
    write_config, prepare, tmp_path, expected, monkeypatch
):
    """As from 10,000 on."""
    monkeypatch.setattr(Output, "_name", lambda self, shard: f"small-{shard.number}.h5")
    config = write_config(shard=2)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    path = tmp_path / "data" / "small"
    assert [file.name for file in index.data_files(path)] == [f"small-{n}.h5" for n in range(15)]
    assert prepare("verify", str(path)).exit_code == 0
    assert digest(tmp_path) == expected
