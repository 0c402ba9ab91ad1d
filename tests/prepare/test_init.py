"""`prepare init DIR`: a first look, and a config that the other commands take as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from prepare.config import load_config
from tests.prepare.conftest import XTC1
from tests.prepare.test_xtc_shots import REAL

REAL2 = REAL.parent / "real_xtc2"


@pytest.fixture
def init(prepare, tmp_path):
    """Run `prepare init` on a copy of `folder` as DIR; gives the result and the config's path."""

    def run(folder: Path, *args: str, below: str = "xtc"):
        directory = shutil.copytree(folder, tmp_path / below)
        out = tmp_path / "mine.yaml"
        return prepare("init", str(directory), "--out", str(out), *args), out

    return run


def test_writes_a_config_that_list_select_and_build_take(init, prepare, tmp_path):
    result, out = init(XTC1 / "experiment", "--name", "mine")
    assert result.exit_code == 0, result.output
    assert "XrayTransportDiagnostic.0:Opal1000.0 (xtcav) 96 x 80, stream 80" in result.output
    assert [line.split()[0] for line in result.output.splitlines()[1:5]] == ["68", "69", "70", "71"]
    config = load_config(str(out))
    assert (config.name, config.camera.shape) == ("mine", (96, 80))
    assert (config.runs.dark, config.runs.unlabeled) == ([68], [69, 70, 71])
    places = f"manifest_dir: {tmp_path}/manifest\noutput_dir: {tmp_path}/data\n"
    out.write_text(out.read_text().replace("min_charge: 0.2", "min_charge: 0.1") + places)
    for command in ("list", "select", "build"):
        done = prepare(command, str(out))
        assert done.exit_code == 0, done.output
    assert (tmp_path / "data" / "mine.h5").exists()


def test_the_camera_of_the_xtcav_is_chosen_and_the_others_named(init):
    result, out = init(XTC1 / "untidy")
    assert "XppEndstation.0:Opal1000.1 (opal_1) 48 x 64, stream 0-1" in result.output
    camera = yaml.safe_load(out.read_text())["camera"]
    assert camera == {"address": "XrayTransportDiagnostic.0:Opal1000.0", "shape": [96, 80]}
    assert "# also there: XppEndstation.0:Opal1000.1 (opal_1) 48 x 64" in out.read_text()


@pytest.mark.parametrize("below, name", [("amo/amo86815/xtc", "amo86815"), ("here", "e815")])
def test_the_experiment_by_the_folder_or_the_files(init, below, name):
    _, out = init(XTC1 / "experiment", below=below)
    config = load_config(str(out))
    assert (config.name, config.experiment) == (name, name)
    assert ("psana needs its name" in out.read_text()) == (name == "e815")


def test_a_real_camera_by_its_address(init, tmp_path):
    (tmp_path / "real").mkdir()
    shutil.copy(REAL / "amo68413-r99-s02-userEbeamDamage.xtc", tmp_path / "real" / "e413-r0099-s02-c00.xtc")
    result, out = init(tmp_path / "real")
    assert "   99 2013-02-03 22:22:42 2 " in result.output
    assert yaml.safe_load(out.read_text())["camera"] == {
        "address": "AmoVMI.0:Opal1000.0",
        "shape": [32, 1024],
    }


@pytest.mark.parametrize("name, shape", [("chunking", [6, 6]), ("mixed_rate", [12, 6])])
def test_lcls2s_cameras_by_their_names(init, name, shape):
    result, out = init(REAL2 / name)
    assert result.exit_code == 0, result.output
    data = yaml.safe_load(out.read_text())
    assert data["camera"] == {"address": "xppcspad", "shape": shape}
    assert (data["experiment"], data["source"]["kind"]) == ("xpptut15", "psana2")
    rows = [line.split()[0] for line in result.output.splitlines()[1:-1]]
    assert rows == ["14"]  # the chunk that is called run 1 is run 14's


def test_what_is_there_is_not_overwritten_unasked(init, prepare, tmp_path):
    _, out = init(XTC1 / "experiment")
    out.write_text("mine")
    result = prepare("init", str(tmp_path / "xtc"), "--out", str(out))
    assert result.exit_code == 2
    assert f"{out}: exists already" in result.output.splitlines()[-1]
    assert out.read_text() == "mine"
    assert prepare("init", str(tmp_path / "xtc"), "--out", str(out), "--force").exit_code == 0


@pytest.mark.parametrize("name", ["a b", "../x", "", ".x"])
def test_a_name_that_no_data_set_can_have_is_refused(prepare, tmp_path, name):
    out = tmp_path / "mine.yaml"
    result = prepare("init", str(XTC1 / "experiment"), "--name", name, "--out", str(out))
    assert result.exit_code == 2
    assert f"error: --name {name!r}: is to be made of letters" in result.output
    assert not out.exists()


def test_a_run_that_cannot_be_read_is_left_out_by_name(prepare, tmp_path):
    folder = shutil.copytree(XTC1 / "experiment", tmp_path / "xtc")
    (folder / "e815-r0069-s80-c00.xtc").write_bytes(b"no XTC file at all" * 9)
    (folder / "e815-r0070-s80-c00.xtc").unlink()
    (folder / "e815-r0070-s80-c00.xtc").symlink_to("gone")
    (folder / "e815-r0071-s80-c00.xtc").rename(folder / "e815-r0072-s80-c01.xtc")
    result = prepare("init", str(folder), "--out", str(tmp_path / "mine.yaml"))
    assert result.exit_code == 0
    for run, said in (
        (69, "is not an XTC file"),
        (70, "is a link to gone"),
        (72, "the first chunk of its run"),
    ):
        (line,) = [
            line for line in result.output.splitlines() if line.startswith(f"warning: run {run} is left out")
        ]
        assert said in line
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["runs"] == {"dark": [68], "unlabeled": []}


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_folder_without_runs_is_one_line(prepare, tmp_path, content):
    directory = tmp_path / "empty"
    if content:
        directory.mkdir()
        (directory / content).write_text("no run")
    result = prepare("init", str(directory), "--out", str(tmp_path / "mine.yaml"))
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("error:")]
    assert str(directory) in line
    assert not (tmp_path / "mine.yaml").exists()


def test_runs_without_a_camera_are_one_line(init):
    result, out = init(REAL2 / "intg_det")
    assert result.exit_code == 2
    assert "no camera in the first shots of any run" in result.output.splitlines()[-1]
    assert not out.exists()
