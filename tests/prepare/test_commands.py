"""The prepare commands as a user calls them: exit code, message, files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from common import manifest
from common.dataset import layout, reading, writing
from prepare.sources.native import XtcSource
from tests.prepare.conftest import XTC1
from tests.prepare.test_image import reference


@pytest.fixture
def built(write_config, prepare, tmp_path) -> Path:
    config = write_config()
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    return tmp_path / "data" / "small.h5"


def refused(result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.output
    for word in words:
        assert word in errors[0]


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


# --- verify: one thing damaged in a good file ------------------------------------------------


def damage(path: Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def test_verify_passes_a_good_file(built, prepare):
    result = prepare("verify", str(built))
    assert result.exit_code == 0
    assert "20 images computed again" in result.output


def test_verify_without_the_camera_files(write_config, prepare, tmp_path):
    folder = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", folder)
    prepare("select", write_config(folder))
    prepare("build", write_config(folder))
    shutil.rmtree(folder)
    result = prepare("verify", str(tmp_path / "data" / "small.h5"))
    assert result.exit_code == 0
    assert "no image compared" in result.output


def flip_pixel(file):
    file["test/images"][3, 5, 7] += 1e-3


def swap_images(file):
    images = file["train/images"]
    images[0], images[1] = images[1], images[0]


def zero_row(file):
    file["train/images"][4] = 0


def swap_with_checksums(file):
    """Two images and their checksums change places, the keys do not."""
    swap_images(file)
    sums = file["train/crc32"][...]
    sums[[0, 1]] = sums[[1, 0]]
    file["train/crc32"][...] = sums


def swap_rows(file):
    """Two whole rows change places, with every checksum of theirs: the order is the manifest's."""
    swap_images(file)

    def swap(_, node):
        if isinstance(node, h5py.Dataset) and node.ndim == 1:
            values = node[...]
            values[[0, 1]] = values[[1, 0]]
            node[...] = values

    file["train"].visititems(swap)


def consistent_forgery(file):
    """Image and checksum changed together: only the digest and the camera's files can tell."""
    changed = file["train/images"][0] + 1
    file["train/images"][0] = changed
    file["train/crc32"][0] = reading.image_checksum(changed)


@pytest.mark.parametrize(
    "change, words",
    [
        (flip_pixel, "test/images[3] (run"),
        (swap_images, "train/images[1] (run"),
        (zero_row, "train/images[4] (run"),
        (consistent_forgery, "train row 0 (run"),
        (consistent_forgery, "train/crc32 is not what was written"),
        (swap_with_checksums, "train row 1 (run"),
        (swap_rows, "train/fiducial is not what was written"),
        (swap_rows, "not those of the manifest"),
        (lambda file: file["dark/std"].__setitem__((0, 0), 9.0), "dark/std is not what was written"),
        (lambda file: writing.set_text(file["test/ebeam/ebeamCharge"], units="C"), "ebeamCharge is not"),
        (lambda file: writing.set_text(file, classes='["a", "b"]'), "an attribute was changed"),
        (lambda file: file["test/gas_detector/f_11_ENRC"].__setitem__(2, 1.0), "test row 2 (run"),
        (
            lambda file: file["train/labels"].__setitem__(0, 1 - file["train/labels"][0]),
            "not those of the manifest",
        ),
        (lambda file: writing.set_text(file, created="2001"), "a root attribute is not what was written"),
        (lambda file: file["train/labels"].__setitem__(0, 7), "train/labels[0] is 7"),
        (lambda file: file["test/fiducial"].__setitem__(0, 5), "test/fiducial is not what was written"),
        (lambda file: file.__delitem__("test/crc32"), "test/crc32 is missing"),
        (lambda file: file.attrs.__delitem__("config"), "attribute config is missing"),
    ],
)
def test_verify_names_what_is_wrong(built, prepare, change, words):
    damage(built, change)
    result = prepare("verify", str(built))
    assert result.exit_code == 1, result.output
    assert any(line.startswith("problem: ") and words in line for line in result.output.splitlines())


def test_verify_lists_every_problem(built, prepare):
    damage(built, flip_pixel)
    damage(built, zero_row)
    problems = [line for line in prepare("verify", str(built)).output.splitlines() if "problem:" in line]
    assert any("test/images[3]" in line for line in problems)
    assert any("train/images[4]" in line for line in problems)


def content(path: Path) -> list:
    """Everything that can be read from the file."""
    with h5py.File(path, "r") as file:
        nodes = [("/", file)]
        file.visititems(lambda name, node: nodes.append((name, node)))
        return [
            (name, sorted((key, str(value)) for key, value in node.attrs.items()))
            + ((node[...].tobytes(),) if isinstance(node, h5py.Dataset) else ())
            for name, node in nodes
        ]


def test_verify_finds_any_flipped_bit(built, prepare):
    """Where it finds none, the bit is in bytes that HDF5 does not use: nothing that is read differs."""
    raw, whole = built.read_bytes(), content(built)
    rng = np.random.default_rng(1)
    found = 0
    for at, bit in zip(rng.integers(len(raw), size=60).tolist(), rng.integers(8, size=60).tolist()):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << bit
        built.write_bytes(flipped)
        if prepare("verify", str(built), "--sample", "0").exit_code == 1:
            found += 1
        else:
            assert content(built) == whole, at
    assert found > 50


def test_verify_a_file_that_was_copied_in_part(built, prepare):
    """Some tools give a file its size first: the rest is zeros."""
    raw = built.read_bytes()
    for share in (0.3, 0.6, 0.95):
        cut = int(len(raw) * share)
        built.write_bytes(raw[:cut] + bytes(len(raw) - cut))
        result = prepare("verify", str(built))
        assert result.exit_code == 1
        assert "problem: " in result.output


def test_verify_a_truncated_file(built, prepare):
    built.write_bytes(built.read_bytes()[:-1000])
    result = prepare("verify", str(built))
    assert result.exit_code == 1
    assert "cut short" in result.output


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


# --- data sets of other splits than train and test ------------------------------------------


def variant(base: str, tmp_path, text: str) -> str:
    path = tmp_path / "variant.yaml"
    path.write_text(f"base: {Path(base).name}\nname: next\n{text}")
    return str(path)


def test_other_classes_replace_those_of_the_base(write_config, prepare, tmp_path):
    config = variant(write_config(), tmp_path, "runs: {classes: {off: [69], on: [70]}}\n")
    listed = prepare("list", config).output
    assert "runs: dark (68), 0 off (69), 1 on (70)" in listed
    assert "shots: train 20, test 10, by event" in listed
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    with h5py.File(tmp_path / "data" / "next.h5") as file:
        assert json.loads(file.attrs["classes"]) == ["off", "on"]
        assert sorted(set(file["train/run"][...])) == [69, 70]


def test_a_new_run_for_a_test_alone(write_config, prepare, tmp_path):
    config = variant(write_config(), tmp_path, "select: {train: 0, test: 12}\n")
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "test: 12 shots (6 lasing, 6 nolasing)" in result.output, result.output
    path = tmp_path / "data" / "next.h5"
    with h5py.File(path) as file:
        assert "train" not in file and "statistics" not in file
    assert prepare("verify", str(path)).exit_code == 0
    assert prepare("report", str(path)).exit_code == 0


def test_a_new_run_of_one_class(write_config, prepare, tmp_path):
    """The other class keeps its place, so that the labels are those a model knows."""
    text = "runs: {classes: {nolasing: [], lasing: [70]}}\nselect: {train: 0, test: 7}\n"
    config = variant(write_config(), tmp_path, text)
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "test: 7 shots (7 lasing)" in result.output, result.output
    path = tmp_path / "data" / "next.h5"
    with h5py.File(path) as file:
        assert set(file["test/labels"][...]) == {1}
    assert prepare("verify", str(path)).exit_code == 0
    assert prepare("report", str(path)).exit_code == 0


def test_unlabeled_runs_alone_from_a_labeled_base(write_config, prepare, tmp_path):
    runs = "runs: {classes: {}, unlabeled: [70]}\n"
    refused(
        prepare("select", variant(write_config(), tmp_path, runs)),
        "runs.classes is empty",
        "select: {train: 0, test: 0}",
    )
    config = variant(write_config(), tmp_path, runs + "select: {train: 0, test: 0, predict: 9}\n")
    assert prepare("select", config).exit_code == 0
    result = prepare("build", config)
    assert "predict: 9 shots" in result.output, result.output
    assert prepare("verify", str(tmp_path / "data" / "next.h5")).exit_code == 0


def test_a_manifest_without_a_split_that_is_asked_for(write_config, prepare, tmp_path):
    prepare("select", write_config())
    path = tmp_path / "manifest" / "small.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "train," not in line))
    refused(prepare("build", write_config()), "small.csv: has no shot of split train", "prepare select")


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
