"""The report of a data file: what is in it, and that it stands alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from common import bunches, slices
from common.dataset import reading, writing
from common.report import slices as drawn
from prepare import report
from prepare.report.contents import hot_pixels, read
from tests.page import Page, check
from tests.prepare.conftest import XTC1

SECTIONS = {
    "contents",
    "slices",
    "splits",
    "samples",
    "dark",
    "intensity",
    "histograms",
    "records",
    "config",
}


@pytest.fixture
def built(write_config, prepare, tmp_path) -> Path:
    folder = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", folder)
    config = write_config(folder)
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    return tmp_path / "data" / "small.h5"


def test_a_page_beside_the_file_with_every_part(built, prepare):
    result = prepare("report", str(built))
    assert result.exit_code == 0, result.output
    path = built.with_name("small.report.html")
    assert f"{path}: open it in a browser" in result.output
    page = Page(path)
    check(page, SECTIONS)
    assert "30 shots of 3 runs" in page.text
    assert "15 nolasing, 15 lasing; in splits train 20, test 10" in page.text
    assert "48 × 40 pixels" in page.text  # as the camera sees: rows first
    for words in ("1 raw frame", "2 minus dark", "3 2×2 block mean", "4 log(1 + I), as stored"):
        assert sum(words[2:] in alt for alt, _ in page.images) == 2  # of each class
    assert "no camera frame" in page.text and "hot pixels of 7680" in page.text
    assert path.stat().st_size < 5e6


def test_the_first_figure_shows_what_lasing_does_to_slices(write_config, prepare, tmp_path):
    simulated = {"rate": 1.0, "shots": {"dark": 10, "nolasing": 40, "lasing": 40}}
    config = write_config(
        source__kind="simulated",
        camera={"shape": [182, 142]},
        simulate=simulated,
        runs__classes__lasing=[70],
    )
    for command in ("select", "build"):
        assert prepare(command, config).exit_code == 0
    assert prepare("report", str(tmp_path / "data/small.h5")).exit_code == 0
    page = Page(tmp_path / "data/small.report.html")
    check(page, SECTIONS)
    assert "Slices were read in 30 of 30 shots (30 with two bunches)" in page.text
    alt = page.images[0][0]  # the first picture of the page
    spread = [float(words.split()[0]) for words in alt.split("first bunch ")[1:]]
    assert alt.startswith("Slices: nolasing: 15 shots") and "MeV" in alt
    assert spread[1] > 1.05 * spread[0] > 1.0  # lasing slices are wider; without it 1.3 MeV on this screen


def test_what_cannot_be_read_is_counted_by_reason(capsys):
    status = np.array([bunches.FOUND, bunches.NO_BEAM, bunches.OFF_FRAME, bunches.OFF_FRAME], np.uint8)
    nothing = [np.full((4, 2, 24), np.nan)] * 3 + [np.full((4, 2), np.nan)] * 3
    told = drawn.told(slices.Slices(status, np.array([1, 0, 0, 0]), *nothing, np.array([0.02, 0, 0.9, 0])))
    assert told == (
        "Slices were read in 1 of 4 shots (1 with one bunch); no beam in 1, the beam leaves the frame in 2, "
        "over 0.5% of the light is in islands too small to be bunches in 1."
    )


def test_without_the_cameras_files(built, prepare, tmp_path):
    shutil.rmtree(tmp_path / "xtc")
    result = prepare("report", str(built), "--out", str(tmp_path / "page.html"))
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page.html")
    check(page, SECTIONS)
    assert "Only the stored images are shown" in page.text and "no such folder of XTC files" in page.text
    assert not any("raw frame" in alt for alt, _ in page.images)
    refused = prepare("report", str(built), "--out", str(tmp_path / "page.html"))
    assert refused.exit_code == 2 and "--force" in refused.output


def test_signal_against_noise(prepare, tmp_path):
    config = tmp_path / "lines.yaml"
    settings = {"name": "lines", "shape": [20, 16], "train": 8, "test": 4, "output_dir": str(tmp_path)}
    config.write_text(yaml.safe_dump(settings))
    assert prepare("signal-noise", str(config)).exit_code == 0
    result = prepare("report", str(tmp_path / "lines.h5"))
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "lines.report.html")
    check(page, SECTIONS)
    for words in (
        "6 noise, 6 signal",
        "Simulated data: no shot here is of a real machine",
        "simulated shots",
        "There is no dark",
        "no camera took them",
        "no machine records",
    ):
        assert words in page.text


def test_unlabeled_shots(write_config, prepare, tmp_path):
    runs = {"dark": [68], "unlabeled": [70]}
    config = write_config(runs=runs, select={"beam": {"min_charge": 0.1}})
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    result = prepare("report", str(tmp_path / "data" / "small.h5"))
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "data" / "small.report.html")
    check(page, SECTIONS)
    assert "unlabeled; in splits predict" in page.text


def test_names_are_text_and_nothing_else(built, prepare):
    hostile = '<script>alert("1")</script> & $x_{1}$'
    with h5py.File(built, "r+") as file:
        writing.set_text(file, classes=json.dumps([hostile, "<b>b</b>"]), name="<i>name</i>")
        writing.set_text(file, skipped=json.dumps({"69": {"<u>why</u>": 3}}))
    assert prepare("report", str(built)).exit_code == 0
    page = Page(built.with_name("small.report.html"))
    check(page, SECTIONS)
    for words in (hostile, "<i>name</i>", "<u>why</u>"):
        assert words in page.text


def test_levels_and_histograms_are_those_of_the_images(built):
    contents = read(built)
    with reading.open_data(built) as file:
        images = np.concatenate([file[name]["images"][...] for name in contents.splits])
        runs = np.concatenate([file[name]["run"][...] for name in contents.splits])
    np.testing.assert_allclose(contents.intensity, images.mean(axis=(1, 2)), rtol=1e-6)
    for (run, _), counts in contents.histograms.items():
        of_run = images[runs == run]
        inside, _ = np.histogram(of_run, contents.edges)
        assert counts.sum() == of_run.size
        assert np.array_equal(counts[1:-1], inside[1:-1])
    for sample in contents.samples:
        raw, *_, stored = (step.view.picture(step.image) for step in sample.steps)
        assert raw.shape == (96, 80) and stored.shape == (48, 40)
        darker = np.log1p(np.maximum(sample.steps[-2].image, 0))  # the last step, from the one before
        np.testing.assert_allclose(stored, darker, atol=1e-5)


def test_hot_pixels():
    rng = np.random.default_rng(0)
    mean, std = 32 + rng.normal(0, 1.5, (60, 50)), 2 + rng.normal(0, 0.2, (60, 50))
    assert hot_pixels(mean, std).sum() == 0
    mean[3, 4], std[50, 7] = 60, 6
    assert np.argwhere(hot_pixels(mean, std)).tolist() == [[3, 4], [50, 7]]
    assert hot_pixels(np.zeros((4, 4)), np.zeros((4, 4))) is None


def test_files_that_cannot_be_reported(prepare, tmp_path, built):
    missing = prepare("report", str(tmp_path / "none.h5"))
    assert missing.exit_code == 2 and "none.h5: no such data file" in missing.output
    with h5py.File(built, "r+") as file:
        del file["test/crc32"]
    damaged = prepare("report", str(built))
    assert damaged.exit_code == 2 and "test/crc32 is missing" in damaged.output
    assert not report.default_out(built).exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "scipy"])
def test_a_package_that_is_not_installed_is_one_line_and_no_page(built, package):
    """In a process of its own, to which the package is not there."""
    code = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.partition('.')[0] == '{package}':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from prepare.commands import main\n"
        f"main(['report', {str(built)!r}])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "install: pip install matplotlib Jinja2 scipy" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not built.with_suffix(".report.html").exists()
