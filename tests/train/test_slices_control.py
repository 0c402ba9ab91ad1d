"""Slices as a control: what the domain's own reading of the pictures reaches, beside the network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from common import slices, text_table
from common.report.drawing import drawing
from prepare.commands import main
from train.controls.bench import Bench
from train.controls.controls import on_slices
from train.controls.verdict import verdict
from train.data.dataset import open_data
from train.report import yardstick

PREPARE = """
name: small
source: {kind: xtc, dir: xtc}
camera: {shape: [182, 142]}
runs: {dark: [68], classes: {nolasing: [69], lasing: [70, 71]}}
select: {train: 160, test: 60, by: block, blocks: {length: 10, guard: 2, cycle: {train: 2, test: 1}}}
simulate: {rate: 4.0, shots: {dark: 20, nolasing: 400, lasing: 220}}
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A data file of simulated runs, small frames."""
    folder = tmp_path_factory.mktemp("simulated")
    config = {**yaml.safe_load(PREPARE), "manifest_dir": str(folder), "output_dir": str(folder)}
    config["source"]["dir"] = str(folder / "xtc")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    for command in ("simulate", "select", "build"):
        result = CliRunner().invoke(main, [command, str(path)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return folder / "small.h5"


@pytest.fixture(scope="module")
def rows(simulated):
    class Config:
        input, seed = (71, 91), 1

    with open_data(simulated, None, ["train", "test"]) as data:
        return {row.control: row for row in on_slices(Bench(Config, data, lambda: None))}


def test_regressions_on_slices_tell_lasing_and_its_energy(rows):
    assert rows["slices"].value > 0.9
    assert "60 of 60 read" in rows["slices"].what
    energy = rows["slices_energy"]
    assert energy.interval[0] <= energy.value <= energy.interval[1]
    assert energy.value > 0.9
    assert energy.n == 60


def test_a_network_below_the_slices_has_not_earned_its_place(rows):
    worse, better = (
        dataclasses.replace(rows["slices"], control="network", value=value) for value in (0.5, 1.0)
    )
    said = [" ".join(verdict([*rows.values(), network]).lines) for network in (worse, better)]
    assert "the network's 0.50 is below it and has not earned its place" in said[0]
    assert "the network's 1.00 is not below it" in said[1]


def test_the_rows_are_in_the_table(rows):
    lines = text_table.lines([row.cells for row in rows.values()])
    energy = next(line for line in lines if "pulse energy, R²" in line)
    assert "positive" in energy


def test_images_of_no_camera_have_no_slices(simulated):
    with open_data(simulated, None, ["train", "test"]) as data:
        images = data.splits["test"].images([0, 1])[..., 0]
        assert slices.of_images(images, data.view).features.shape == (2, 96)
        assert slices.of_images(images, data.view._replace(camera=False)) is None
        assert slices.of_images(images[:, :7], data.view) is None


def test_shots_that_cannot_be_read_are_counted_out(simulated):
    class Config:
        input, seed = (71, 91), 1

    with open_data(simulated, None, ["train", "test"]) as data:
        bench = Bench(Config, data, lambda: None)
        features = bench.features["slices"].copy()
        features[bench.test[:10]] = np.nan
        bench.features["slices"] = features
        assert "(50 of 60 read)" in on_slices(bench)[0].what


def test_a_training_report_begins_with_the_yardstick(simulated):
    """What is said of a network that is right, and of one that guesses."""
    with open_data(simulated, None, ["train", "test"]) as data:
        found = yardstick.of_data(data)
        labels = data.splits["test"].labels
        with drawing():
            right, guessing = (
                yardstick.section(found, labels, predicted, data.classes, data.view)
                for predicted in (labels, np.zeros_like(labels))
            )
        none = yardstick.of_data(data._replace(view=data.view._replace(camera=False)))
    assert found.score.accuracy > 0.9 and found.score.n == 60
    assert f"classifies {found.score.accuracy:.3f} [" in right[0].text and "of 60 shots (" in right[0].text
    assert "with 1.000 of them, is not below it" in right[0].text
    assert "with 0.500 of them, is below it and has not earned its place" in guessing[0].text
    assert "Slices were read in 60 of 60 shots" in right[1].text
    assert "have no slices" in yardstick.section(none, labels, labels, data.classes, data.view)[0].text
