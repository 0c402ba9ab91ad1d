"""The Makefile: names with anything in them, and the same command a second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.conftest import small_config, write_data

ROOT = Path(__file__).parents[1]
CONFIG = """
name: small
source: {kind: xtc, dir: xtc}
camera: {address: xtcav, shape: [96, 80]}
runs: {dark: [68], classes: {nolasing: [69], lasing: [70, 71]}}
select: {train: 20, test: 10, beam: {min_charge: 0.1}}
"""


@pytest.fixture
def make(tmp_path):
    """Run `make WORDS` by this project's Makefile, in a folder that has an environment."""
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    (tmp_path / "setup.cfg").touch()
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for mark in ("made", "prepare.done", "train.done"):
        (environment / mark).touch()

    def run(*words: str) -> subprocess.CompletedProcess:
        command = ["make", "-f", str(ROOT / "Makefile"), *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    "name", ["my small.yaml", "it's.yaml", 'a "b" & c; d*.yaml', "lässt.yaml", "-x.yaml"]
)
def test_any_name_of_a_config(make, tmp_path, name):
    folder = tmp_path / "my configs"
    folder.mkdir()
    (folder / name).write_text(CONFIG)
    shutil.copytree(ROOT / "tests" / "data" / "xtc1" / "experiment", tmp_path / "xtc")
    done = make("prepare", f"CONFIG=my configs/{name}", "JOBS=2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "small.h5").exists()


def test_prepare_a_second_time_is_success_without_the_cameras_files(make, tmp_path):
    (tmp_path / "a.yaml").write_text(CONFIG)
    shutil.copytree(ROOT / "tests" / "data" / "xtc1" / "experiment", tmp_path / "xtc")
    assert make("prepare", "CONFIG=a.yaml").returncode == 0
    made = (tmp_path / "data" / "small.h5").stat()
    forced = make("prepare", "CONFIG=a.yaml", "FORCE=1")
    assert forced.returncode == 0 and (tmp_path / "data" / "small.h5").stat().st_mtime_ns > made.st_mtime_ns
    shutil.rmtree(tmp_path / "xtc")
    again = make("prepare", "CONFIG=a.yaml")
    assert again.returncode == 0, again.stderr
    assert "small.h5: is complete" in again.stdout
    (tmp_path / "a.yaml").write_text(CONFIG.replace("train: 20", "train: 30"))
    more = make("prepare", "CONFIG=a.yaml")  # what is there does not fit any more
    assert more.returncode == 2
    assert "no such folder" in more.stderr


def test_train_a_second_time_is_success_also_without_its_data(make, tmp_path):
    write_data(tmp_path / "data.h5", {"train": 40, "test": 30})
    config = Path(small_config(tmp_path, steps=1))
    assert make("train", f"CONFIG={config}").returncode == 0
    (tmp_path / "data.h5").rename(tmp_path / "away.h5")
    again = make("train", f"CONFIG={config}")
    assert again.returncode == 0, again.stderr
    assert "small: is complete" in again.stdout and "data.h5: is not there any more" in again.stderr
    config.write_text(config.read_text().replace("steps: 1\n", "steps: 2\n"))
    more = make("train", f"CONFIG={config}")  # what is there does not fit any more
    assert more.returncode == 2
    assert "small: exists already" in more.stderr
    (tmp_path / "away.h5").rename(tmp_path / "data.h5")
    resumed = make("train", f"CONFIG={config}", "RESUME=1")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 1" in resumed.stdout + resumed.stderr


def test_without_a_network_pip_is_given_a_folder_of_wheels(tmp_path):
    """The environment is this test's own: nothing is installed, and nothing is asked of a network."""
    (tmp_path / "setup.cfg").write_text(
        "[metadata]\nname = none\n[options]\ninstall_requires = no-such-thing\n"
    )
    (tmp_path / "setup.py").write_text("import setuptools; setuptools.setup()")
    (tmp_path / "a.yaml").touch()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PIP_"))}
    clean |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    command = ["make", "-f", str(ROOT / "Makefile"), "train", "CONFIG=a.yaml", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 2
    last = [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1]
    assert "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make" in last


def test_a_config_that_is_not_there_or_not_given(make, tmp_path):
    for words, told in (
        ((), "say which: make train CONFIG="),
        (("CONFIG=a b.yaml",), "a b.yaml: no such config"),
    ):
        done = make("train", *words)
        assert done.returncode == 2
        assert f"error: {told}" in done.stderr
