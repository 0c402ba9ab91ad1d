"""A finished data set that grows: what is believed of its files, and what is looked at."""

from __future__ import annotations

import os
import resource
import shutil

import h5py
import pytest

from common.dataset import writing
from tests.command_line import refused


def more(write_config, prepare) -> str:
    """The config of six shots more than the finished data set of `ready` has, with its manifest."""
    config = write_config(shard=10, select__train=26)
    assert prepare("select", config).exit_code == 0
    return config


def overwrite(path, name: str) -> None:
    """Change the first values of a dataset, as a disk may."""
    with h5py.File(path, "r+") as file:
        file[name][:1] = 0


@pytest.mark.parametrize("name", ["train/images", "train/run", "test/ebeam/ebeamCharge", "statistics/mean"])
def test_rows_and_images_of_finished_files_are_for_verify(write_config, ready, prepare, tmp_path, name):
    """A build that adds to them looks at what they say of themselves."""
    assert prepare("build", ready).exit_code == 0
    path = tmp_path / "data" / "small" / "small-0001.h5"
    overwrite(path, name)
    assert "nothing is left to do" in prepare("build", ready).output
    assert prepare("build", more(write_config, prepare)).exit_code == 0
    assert path.name in prepare("verify", str(path.parent)).output
    result = prepare("repair", write_config(shard=10, select__train=26))
    assert result.exit_code == 0 and f"{path.name}: " in result.output
    assert prepare("verify", str(path.parent)).exit_code == 0


def test_a_dark_that_is_damaged_is_handed_to_no_other_file(write_config, ready, prepare, tmp_path):
    assert prepare("build", ready).exit_code == 0
    path = tmp_path / "data" / "small" / "small-0000.h5"
    overwrite(path, "dark/mean")
    config = more(write_config, prepare)
    refused(prepare("build", config), "small-0000.h5: dark/mean is not what was written", "prepare repair")
    assert prepare("repair", config).exit_code == 0
    assert prepare("verify", str(path.parent)).exit_code == 0


@pytest.mark.parametrize("of", ["cut", "rows", "config", "header"])
def test_what_stands_for_a_finished_file_and_is_none_is_found(write_config, ready, prepare, tmp_path, of):
    """By its header: half a copy, a file of other rows or of another config, an attribute that changed."""
    assert prepare("build", ready).exit_code == 0
    path = tmp_path / "data" / "small" / "small-0001.h5"
    words = {"cut": "is cut short", "rows": "the manifest changed", "config": "the config changed: image.log"}
    if of == "cut":
        os.truncate(path, path.stat().st_size - 100)
    elif of == "rows":
        shutil.copy(path.with_name("small-0000.h5"), path)
    elif of == "config":
        good = path.parent.rename(tmp_path / "good")
        assert prepare("build", write_config(shard=10, image__log=False)).exit_code == 0
        shutil.copy(path, good / path.name)
        shutil.rmtree(path.parent)
        good.rename(path.parent)
        write_config(shard=10)
    else:
        with h5py.File(path, "r+") as file:
            writing.set_text(file, sources="{}")
    before = path.read_bytes()
    for config in (ready, more(write_config, prepare)):
        refused(
            prepare("build", config), path.name, words.get(of, "a root attribute is not what was written")
        )
    assert path.read_bytes() == before


def test_hundreds_of_files_are_not_open_at_a_time(write_config, prepare, tmp_path):
    config = write_config(shard=1)
    assert prepare("select", config).exit_code == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    try:
        for words in (
            ("build", config),
            ("verify", str(tmp_path / "data" / "small")),
            ("merge", str(tmp_path / "data" / "small"), str(tmp_path / "one.h5")),
        ):
            result = prepare(*words)
            assert result.exit_code == 0, result.output
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
