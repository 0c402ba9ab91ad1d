"""`train compare`: networks side by side on held-out shots, with lasing switched, and on other data."""

from __future__ import annotations

import json

import h5py
import pytest

from tests.train.conftest import write_data

SIZES = {"train": 40, "test": 30}


@pytest.fixture
def two_runs(data, write_config, train, tmp_path):
    """Two finished runs, of which one has learned nothing."""
    for name, steps in (("learned", 40), ("not", 1)):
        assert train("fit", write_config(name=name, steps=steps)).exit_code == 0
    return tmp_path / "runs" / "learned", tmp_path / "runs" / "not"


def compare(train, *arguments):
    result = train("compare", *map(str, arguments), "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["rows"]


def test_held_out_switched_and_other_shots_side_by_side(two_runs, data, train, tmp_path):
    write_data(tmp_path / "data.counterfactual.h5", {"test": 20}, seed=3)
    other = write_data(tmp_path / "other.h5", {"test": 10}, signal=0.0, seed=4)
    rows = compare(train, *two_runs, "--data", other, "--data", data)
    assert [(row["shots"], row["network"], row["n"]) for row in rows] == [
        ("held-out", "learned", len(h5py.File(data)["test/labels"])),
        ("held-out", "not", len(h5py.File(data)["test/labels"])),
        ("lasing switched", "learned", 20),
        ("lasing switched", "not", 20),
        ("other", "learned", 10),
        ("other", "not", 10),
    ]
    for row in rows:
        known = row["not_flagged"]["n"]
        assert known + row["flagged"] == row["n"]
        evaluated = train(
            "evaluate", str(two_runs[row["network"] == "not"]), "--data", row["data"][0], "--json"
        )
        assert json.loads(evaluated.stdout)["splits"]["test"]["correct"] == row["correct"]
    lines = train("compare", *map(str, two_runs), "--data", str(other)).output.splitlines()
    assert sum("the same shots, lasing switched" in line for line in lines) == 1
    assert sum("other.h5, runs 69 to 70" in line for line in lines) == 1


def test_data_that_changed_since_and_data_without_test_shots_are_refused(two_runs, data, train, tmp_path):
    none = write_data(tmp_path / "none.h5", {"train": 10})
    result = train("compare", str(two_runs[0]), "--data", str(none))
    assert result.exit_code == 2 and "test" in result.output and str(none) in result.output
    write_data(data, SIZES, seed=9)
    result = train("compare", *map(str, two_runs))
    assert result.exit_code == 2 and str(data) in result.output
