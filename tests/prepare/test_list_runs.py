"""`prepare list`: what is wrong with a run of the config is an error, with any other run a warning."""

from __future__ import annotations

import shutil

import pytest

from tests.prepare.conftest import XTC1

CAMERA_FILE = "e815-r{run:04d}-s80-c00.xtc"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(XTC1 / "experiment", tmp_path / "xtc")


def rows(output: str) -> dict:
    """{run: what} of the table."""
    table = [line.split() for line in output.splitlines()]
    return {int(row[0]): row[1] for row in table if row and row[0].isdigit()}


def test_all_runs_are_listed(write_config, prepare, folder):
    result = prepare("list", write_config(folder))
    assert result.exit_code == 0
    assert rows(result.output) == {68: "dark", 69: "nolasing", 70: "lasing", 71: "lasing"}


def test_a_camera_without_one_frame_is_an_error_that_says_how_to_find_others(write_config, prepare, folder):
    camera = {"address": "XppEndstation.0:Opal2000.3", "shape": [96, 80]}
    result = prepare("list", write_config(folder, camera=camera))
    assert result.exit_code == 2
    last = result.output.splitlines()[-1]
    assert last.startswith("error: run 68, 69, 70, 71: not one frame of camera XppEndstation.0:Opal2000.3")
    assert f"`python -m prepare init {folder}` tells" in last


@pytest.mark.parametrize(
    "runs, missing",
    [
        ({"dark": [67], "classes": {"nolasing": [69], "lasing": [70]}}, [67]),
        ({"dark": [68, 12], "classes": {"nolasing": [69], "lasing": [70]}}, [12]),
        ({"dark": [68], "classes": {"nolasing": [69], "lasing": [70, 72]}}, [72]),
        ({"dark": [68], "unlabeled": [73]}, [73]),
        ({"dark": [1], "classes": {"nolasing": [2], "lasing": [70]}}, [1, 2]),
    ],
)
def test_a_run_of_the_config_that_is_not_there_is_named(write_config, prepare, folder, runs, missing):
    select = {"train": 0, "test": 0, "predict": 4} if "unlabeled" in runs else {"train": 4, "test": 4}
    result = prepare("list", write_config(folder, runs=runs, select=select))
    assert result.exit_code == 2
    assert set(rows(result.output)) == {68, 69, 70, 71}
    *before, last = result.output.splitlines()
    for run in missing:
        (line,) = [
            line for line in (*before, last) if f"no XTC files of run {run}; runs there: 68, 69" in line
        ]
        assert line.startswith("error: " if line is last else "warning: ")
    assert last.startswith("error: ")


def test_an_empty_folder_is_an_error(write_config, prepare, tmp_path):
    (tmp_path / "empty").mkdir()
    result = prepare("list", write_config(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "no XTC files of run 71; runs there: none" in result.output.splitlines()[-1]


def dead_link(path):
    path.unlink()
    path.symlink_to("gone")


def second_experiment(path):
    shutil.copy(path, path.with_name(path.name.replace("e815", "e816")))


def rubbish(path):
    path.write_bytes(b"no XTC file at all, whatever its name says" * 9)


def a_folder(path):
    path.unlink()
    path.mkdir()


TROUBLE = {
    dead_link: "is a link to gone, which is not there",
    second_experiment: "run {run} of more than one experiment: e815, e816",
    rubbish: "is not an XTC file",
    a_folder: "is a folder",
}


@pytest.mark.parametrize("spoil", TROUBLE)
@pytest.mark.parametrize("run", [70, 90])
def test_a_run_that_cannot_be_read_ends_nothing_for_the_others(write_config, prepare, folder, spoil, run):
    if run == 90:  # nobody asked for it
        for path in folder.glob("*-r0070-*"):
            shutil.copy(path, path.with_name(path.name.replace("0070", "0090")))
    spoil(folder / CAMERA_FILE.format(run=run))
    result = prepare("list", write_config(folder))
    said = TROUBLE[spoil].format(run=run)
    if run == 90:
        assert result.exit_code == 0
        (line,) = [line for line in result.output.splitlines() if said in line]
        assert line.startswith("warning: ")
        assert line.endswith("(the config does not name run 90)")
        assert set(rows(result.output)) == {68, 69, 70, 71}
    else:
        assert result.exit_code == 2
        assert said in result.output.splitlines()[-1]
        assert set(rows(result.output)) == {68, 69, 71}
    for command in ("select", "build"):
        done = prepare(command, write_config(folder))
        assert done.exit_code == (2 if run == 70 else 0), done.output


def test_another_shape_than_the_configs_is_named_and_listed(write_config, prepare, folder):
    result = prepare("list", write_config(folder, camera__shape=[80, 96]))
    assert result.exit_code == 2
    assert [line.endswith("  96 x 80") for line in result.output.splitlines()].count(True) == 4
    assert result.output.splitlines()[-1].startswith("error: run 71: frames are 96 x 80 pixels, camera.shape")


def test_of_a_camera_that_a_run_lacks_the_others_are_listed(write_config, prepare, folder):
    for path in (XTC1 / "camera_in_daq_stream").glob("*.xtc"):
        shutil.copy(path, folder)
    result = prepare("list", write_config(folder, camera__address="nobody"))
    assert result.exit_code == 2
    assert "no camera 'nobody'; the aliases of this run are" in result.output.splitlines()[-1]
