"""A finished data set that grows: what is believed of its files, and what is looked at."""

from __future__ import annotations

import json
import os
import resource
import shutil

import h5py
import pytest

from common import manifest
from common.dataset import reading, writing
from common.manifest import Row
from common.shots import shot_id
from prepare.shots import USABLE
from prepare.sources.native import XtcSource
from tests.command_line import refused
from tests.prepare.conftest import XTC1


def more(write_config, prepare) -> str:
    """The config of six shots more than the finished data set of `ready` has, with its manifest."""
    config = write_config(shard=10, select__train=26)
    assert prepare("select", config).exit_code == 0
    return config


def test_runs_without_new_rows_are_not_listed_again(write_config, prepare, tmp_path, monkeypatch):
    """Except where what is left out of them may have changed."""
    two = {"nolasing": [69], "lasing": [70]}
    first = write_config(shard=10, runs__classes=two)
    assert prepare("select", first).exit_code == 0
    assert prepare("build", first).exit_code == 0
    rows = list(manifest.read(tmp_path / "manifest" / "small.csv"))
    shots = XtcSource(str(XTC1 / "experiment"), "xtcav").shots(71)
    new = [shot_id(row) for row in shots[shots["status"] == USABLE][:8]]
    manifest.write(
        tmp_path / "manifest" / "small.csv", [*rows, *(Row("train", "lasing", shot) for shot in new)]
    )
    index, listed = XtcSource._index, []
    monkeypatch.setattr(XtcSource, "_index", lambda self, run: listed.append(run) or index(self, run))
    second = write_config(shard=10)
    result = prepare("build", second)
    assert result.exit_code == 0, result.output
    assert set(listed) == {71}
    assert all(f"run {run}: left out " in result.output for run in (69, 70, 71))
    with reading.open_data(tmp_path / "data" / "small" / "small-0003.h5") as file:
        grown = json.loads(reading.attributes(file)["skipped"])
    shutil.rmtree(tmp_path / "data")
    assert prepare("build", second).exit_code == 0
    with reading.open_data(tmp_path / "data" / "small" / "small-0003.h5") as file:
        assert json.loads(reading.attributes(file)["skipped"]) == grown
    (tmp_path / "data" / "small" / "small-0003.h5").unlink()
    listed.clear()
    assert prepare("repair", write_config(shard=10, select__beam__min_charge=0.2)).exit_code == 0
    assert set(listed) == {69, 70, 71}


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
