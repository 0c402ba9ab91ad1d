"""`prepare` list, select and build as a user calls them: exit code, message, files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from common import manifest
from common.dataset import layout, reading
from prepare.sources.native import XtcSource
from tests.command_line import refused
from tests.prepare.conftest import XTC1
from tests.prepare.test_image import reference


def test_list_shows_the_runs(write_config, prepare):
    result = prepare("list", write_config())
    lines = {line.split()[0]: line.split() for line in result.output.splitlines()}
    assert lines["68"][1:6] == ["dark", "16", "14", "0", "2"]
    assert lines["69"][1:6] == ["nolasing", "40", "39", "0", "1"]
    assert lines["71"][1:6] == ["lasing", "30", "25", "0", "5"]


def test_the_whole_of_prepare(built, tmp_path):
    """Every image in the file is the reference's, computed from psana's own pixel sums of the frames."""
    rows = manifest.read(tmp_path / "manifest" / "small.csv")
    source = XtcSource(str(XTC1 / "experiment"), "xtcav")
    darks = [source.frame(68, i) for i in np.flatnonzero(source.shots(68)["status"] == 0)]
    dark = np.mean(darks, axis=0, dtype=np.float64)
    with reading.open_data(built, ["train", "test"]) as file:
        assert layout.structure_problems(file) == []
        np.testing.assert_allclose(file["dark/mean"], dark, atol=1e-12)
        np.testing.assert_allclose(file["dark/std"], np.std(darks, axis=0, ddof=1), atol=1e-9)
        for split in ("train", "test"):
            of_split = [row for row in rows if row.split == split]
            group = file[split]
            assert len(of_split) == len(group["images"])
            for i, row in enumerate(of_split):
                assert ["nolasing", "lasing"][group["labels"][i]] == row.label
                assert tuple(group[name][i] for name in row.shot._fields) == row.shot
                shots = source.shots(row.shot.run)
                at = np.flatnonzero(
                    (shots["nanoseconds"] == row.shot.nanoseconds) & (shots["fiducial"] == row.shot.fiducial)
                )[0]
                expected = reference(source.frame(row.shot.run, at), dark, (2, 2))
                np.testing.assert_allclose(group["images"][i], expected, atol=1e-6)
                assert group["ebeam/ebeamCharge"][i] == shots["ebeamCharge"][at]
                assert group["gas_detector/f_11_ENRC"][i] == shots["f_11_ENRC"][at]
        train = file["train/images"][...].astype(np.float64)
        np.testing.assert_allclose(file["statistics/mean"], train.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(file["statistics/std"], train.std(axis=0), atol=1e-5)
        assert json.loads(file.attrs["classes"]) == ["nolasing", "lasing"]
        assert file["calibration/run"][...].tolist() == [69, 70, 71]
        assert file["calibration/um_per_pixel"][...].tolist() == [20.0, 20.0, 20.0]
        assert file["calibration/dump_energy"].attrs["units"] == b"GeV"
        assert json.loads(file.attrs["skipped"])["71"] == {"no camera frame": 5}
    source.close()


@pytest.mark.parametrize(
    "image", [{"dtype": "float16"}, {"compression": "bitshuffle-lz4"}, {"transpose": False}]
)
def test_other_images_build_and_verify(write_config, prepare, tmp_path, image):
    config = write_config(image=image)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


def test_select_writes_the_same_rows_twice_and_keeps_them(write_config, prepare, tmp_path):
    config = write_config()
    path = tmp_path / "manifest" / "small.csv"
    prepare("select", config)
    first = path.read_text()
    assert "nothing changed" in prepare("select", config).output
    more = prepare("select", write_config(select__train=30))
    assert "(30 of them were there before)" in more.output
    assert set(first.splitlines()) < set(path.read_text().splitlines())
    assert prepare("select", write_config(), "--force").exit_code == 0
    assert path.read_text() == first


def test_a_run_that_grew_by_a_chunk_changes_nothing_drawn(write_config, prepare, tmp_path):
    folder = tmp_path / "xtc"
    shutil.copytree(XTC1 / "untidy", folder)
    late = folder / "e815-r0055-s80-c03.xtc"
    chunk = late.read_bytes()
    late.unlink()
    other = XTC1 / "experiment"
    for path in other.glob("*r0068*.xtc"):
        shutil.copy(path, folder)
    for path in other.glob("*r0070*.xtc"):
        shutil.copy(path, folder)
    config = write_config(
        folder, runs={"dark": [68], "classes": {"nolasing": [55], "lasing": [70]}},
        select={"train": 10, "test": 6, "beam": {"min_charge": 0.1}},
    )  # fmt: skip
    assert prepare("select", config).exit_code == 0
    path = tmp_path / "manifest" / "small.csv"
    drawn = path.read_text()
    late.write_bytes(chunk)
    assert prepare("select", config).exit_code == 0
    assert path.read_text() == drawn


def test_build_does_not_overwrite_unasked(built, write_config, prepare):
    before = built.read_bytes()
    assert "nothing is left to do" in prepare("build", write_config()).output
    refused(prepare("build", write_config(image__log=False)), "small.h5: exists already", "--force")
    assert built.read_bytes() == before
    assert prepare("build", write_config(image__log=False), "--force").exit_code == 0


def test_a_build_that_fails_leaves_the_finished_file(built, write_config, prepare, tmp_path):
    before = built.read_bytes()
    folder = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", folder)
    stream = folder / "e815-r0070-s80-c00.xtc"
    stream.write_bytes(stream.read_bytes()[:100_000])
    refused(
        prepare("build", write_config(folder), "--force"), "have no image", "no camera frame", "max_missing"
    )
    assert built.read_bytes() == before
    assert sorted(path.name for path in built.parent.iterdir()) == ["small.h5"]


def test_two_builds_have_the_same_content(built, write_config, prepare):
    with h5py.File(built, "r") as file:
        first = file.attrs["content_digest"]
    prepare("build", write_config(), "--force")
    with h5py.File(built, "r") as file:
        assert file.attrs["content_digest"] == first


def test_build_without_a_manifest_says_what_to_do(write_config, prepare):
    refused(prepare("build", write_config()), "small.csv: no such manifest", "prepare select")


def test_a_manifest_without_a_split_that_is_asked_for(write_config, prepare, tmp_path):
    prepare("select", write_config())
    path = tmp_path / "manifest" / "small.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "train," not in line))
    refused(prepare("build", write_config()), "small.csv: has no shot of split train", "prepare select")


def test_manifest_of_other_data(built, write_config, prepare, tmp_path):
    path = tmp_path / "manifest" / "small.csv"
    path.write_text(path.read_text().replace(",1435000000,", ",1435000001,", 1))
    refused(prepare("build", write_config(), "--force"), "1 of its 30 shots are not in the runs")
    assert [path.name for path in built.parent.iterdir()] == ["small.h5"]


def test_manifest_with_a_label_the_config_does_not_give(built, write_config, prepare, tmp_path):
    path = tmp_path / "manifest" / "small.csv"
    path.write_text(path.read_text().replace("nolasing,69", "lasing,69", 1))
    refused(prepare("build", write_config(), "--force"), "run 69", "labeled 'lasing'")


def test_too_few_events(write_config, prepare):
    config = write_config(select__test=600)
    refused(
        prepare("select", config),
        config,
        "select.test: 300 shots of class 'nolasing' are needed, 39 are left",
    )


def test_frames_of_another_shape(write_config, prepare):
    config = write_config(camera__shape=[100, 80])
    prepare("select", config)
    refused(prepare("build", config), "frames are 96 x 80", "camera.shape: [96, 80]")


def test_downsampling_that_does_not_divide(write_config, prepare):
    refused(
        prepare("list", write_config(image__downsample=[5, 2])),
        "image.downsample: 5 does not divide",
        "96 rows",
    )


def test_unbalanced_counts(write_config, prepare):
    refused(prepare("select", write_config(select__train=21)), "select.train: 21 shots cannot be balanced")


def test_a_run_in_two_roles(write_config, prepare):
    refused(prepare("select", write_config(runs__dark=[69])), "run 69 is named twice")


def test_a_run_that_is_not_there(write_config, prepare):
    refused(prepare("select", write_config(runs__classes={"a": [69], "b": [72]})), "no XTC files of run 72")


def test_simulate_needs_its_section(write_config, prepare):
    refused(prepare("simulate", write_config()), "simulate: missing")


# --- as processes --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["simulate", "list", "select", "build", "verify"])
def test_help_shows_examples(prepare, command):
    output = prepare(command, "--help").output
    assert f"python -m prepare {command} " in output


def test_a_missing_config_is_one_line_and_exit_2():
    process = subprocess.run(
        [sys.executable, "-m", "prepare", "build", "configs/prepare/dmeo.yaml"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: configs/prepare/dmeo.yaml: no such config")


def test_results_as_json(built, write_config):
    """Nothing but one object on standard output, whatever is said beside it."""

    def asked(*words: str) -> dict:
        command = [sys.executable, "-m", "prepare", *words, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    listed = asked("list", write_config())
    assert [run["run"] for run in listed["runs"]] == [68, 69, 70, 71]
    assert listed["runs"][0]["shape"] == [96, 80] and listed["problems"] == []
    assert asked("verify", str(built))["good"] is True


@pytest.mark.parametrize("words", [["-h"], ["list", "-h"]])
def test_short_help(prepare, words):
    assert prepare(*words).output.startswith("Usage: ")


def test_a_wrong_word_is_one_line(prepare, write_config):
    for words in (["list"], ["lits", write_config()], ["list", write_config(), "--frames", "x"]):
        result = prepare(*words)
        assert result.exit_code == 2
        assert result.output.count("\n") == 1 and result.output.startswith("error: "), result.output


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"runs__dark": []}, "runs.dark: []: is to have at least 1"),
        ({"runs__dark": 68}, "runs.dark: 68: is to be a list"),
        ({"runs__classes": [69, 70]}, "runs.classes: [69, 70]: is to be a section"),
        ({"select__beam": None}, "select.beam: null: is to be a section of "),
        ({"name": "my data"}, "name: 'my data': is to be made of letters, digits, _ . -"),
        ({"experiment": "amo-1"}, "experiment: 'amo-1': is to be made of letters, digits"),
        ({"image__downsample": 2}, "image.downsample: 2: is to be a list"),
    ],
)
def test_values_of_another_kind_in_plain_words(write_config, prepare, changes, told):
    refused(prepare("list", write_config(**changes)), told)
