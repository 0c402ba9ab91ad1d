"""Unlabeled runs: drawn, built and verified like the others, without labels."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from common import manifest
from common.dataset import layout, reading
from tests.command_line import refused

RUNS = {"dark": [68], "classes": {"nolasing": [69], "lasing": [70]}, "unlabeled": [71]}


@pytest.fixture
def data(write_config, prepare, tmp_path):
    """Select and build with changes to the config; gives the manifest's rows and the open file."""
    opened = []

    def make(*args: str, **changes):
        config = write_config(**changes)
        assert prepare("select", config, *args).exit_code == 0
        result = prepare("build", config, "--force")
        assert result.exit_code == 0, result.output
        path = tmp_path / "data" / "small.h5"
        opened.append(reading.open_data(path))
        return manifest.read(tmp_path / "manifest" / "small.csv"), opened[-1]

    yield make
    for file in opened:
        file.close()


def test_all_usable_shots_of_the_run_in_order_of_time(data, prepare, tmp_path):
    rows, file = data(runs=RUNS, select={"train": 20, "test": 10, "beam": {"min_charge": 0.1}})
    predict = [row for row in rows if row.split == "predict"]
    assert [row.label for row in predict] == [""] * 25
    assert predict == sorted(predict, key=lambda row: row.shot)
    assert layout.present(file) == ("train", "test", "predict")
    assert "labels" not in file["predict"]
    assert len(file["predict/images"]) == 25
    assert file["predict/nanoseconds"][...].tolist() == [row.shot.nanoseconds for row in predict]
    assert np.isfinite(file["predict/ebeam/ebeamCharge"][...]).all()
    assert layout.structure_problems(file) == []
    file.close()
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


def test_some_of_them_and_more_later_keeps_the_first(data):
    beam = {"min_charge": 0.1}
    few, _ = data(runs=RUNS, select={"train": 20, "test": 10, "predict": 5, "beam": beam})
    more, _ = data(runs=RUNS, select={"train": 20, "test": 10, "predict": 12, "beam": beam})
    assert len(more) == 42
    assert set(few) < set(more)


def test_only_unlabeled_runs(data, prepare, tmp_path):
    runs = {"dark": [68], "unlabeled": [70, 71]}
    rows, file = data(runs=runs, select={"beam": {"min_charge": 0.1}})
    assert {row.split for row in rows} == {"predict"}
    assert layout.present(file) == ("predict",)
    assert "statistics" not in file
    assert reading.classes(file) == []
    file.close()
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


@pytest.mark.parametrize(
    "runs, select, words",
    [
        ({"dark": [68]}, {}, "runs: classes: 0 given"),
        ({"dark": [68], "classes": {"a": [69]}, "unlabeled": [70]}, {}, "runs: classes: 1 given"),
        ({"dark": [68], "unlabeled": [68]}, {}, "run 68 is named twice"),
        ({"dark": [68], "unlabeled": [69]}, {"train": 2}, "select.train: runs.classes is empty"),
        ({"dark": [68], "classes": {"a": [69], "dark": [70]}}, {"train": 2, "test": 2}, "class 'dark'"),
        ({"dark": [68], "classes": {"a": [69], "b": [70]}}, {}, "select.test: say how many shots"),
        ({"dark": [68], "classes": {"a": [69], "b": []}}, {"train": 2, "test": 2}, "class 'b' has no run"),
        ({"dark": [68], "classes": {"a": [], "b": []}}, {"test": 2}, "class 'a' has no run"),
        (
            {"dark": [68], "classes": {"a": [69], "b": [70]}},
            {"train": 2, "test": 2, "predict": 3},
            "runs.unlabeled is empty",
        ),
        ({"dark": [68], "unlabeled": [69]}, {"predict": 300}, "select.predict: 300 shots without label"),
    ],
)
def test_mistakes_in_the_config(write_config, prepare, runs, select, words):
    refused(prepare("select", write_config(runs=runs, select=select)), words)


def test_a_run_that_the_config_does_not_call_unlabeled(data, write_config, prepare, tmp_path):
    data(runs=RUNS, select={"train": 20, "test": 10, "predict": 5, "beam": {"min_charge": 0.1}})
    path = tmp_path / "manifest" / "small.csv"
    path.write_text(path.read_text().replace("predict,,71", "predict,,70", 1))
    config = write_config(runs=RUNS, select={"train": 20, "test": 10, "predict": 5})
    refused(prepare("build", config, "--force"), "run 70", "unlabeled")


def test_a_damaged_table_of_missing_shots_is_found(data, prepare, tmp_path):
    data(runs=RUNS, select={"train": 20, "test": 10, "beam": {"min_charge": 0.1}})[1].close()
    path = tmp_path / "data" / "small.h5"
    with h5py.File(path, "r+") as file:
        del file["missing"]
    assert "missing is missing" in prepare("verify", str(path)).output
