"""Simulated shots without files, and the same shots with lasing switched."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import yaml

from common.manifest import Row
from common.shots import ShotId
from prepare.config import load_config
from prepare.shots import SHOT_DTYPE, USABLE
from prepare.simulate.counterfactual import switched
from prepare.simulate.run import simulate
from prepare.sources import open_source
from tests.prepare.simulated import config

SETTINGS = {
    "name": "small",
    "camera": {"shape": [96, 80]},
    "runs": {"dark": [68], "classes": {"nolasing": [69], "lasing": [70, 71]}},
    "select": {"train": 20, "test": 16, "by": "event"},
    "simulate": {
        "rate": 1.0,
        "shots": {"dark": 12, "nolasing": 60, "lasing": 40},
        "vary": {"beam": {"slice_spread": [0.8, 1.3]}, "camera": {"stripes": [0, 2]}},
    },
}


@pytest.fixture
def write(tmp_path):
    """Write the config, with changes of whole sections; gives its path."""

    def write(**changes: object) -> str:
        places = {"manifest_dir": str(tmp_path / "manifest"), "output_dir": str(tmp_path / "data")}
        source = {"kind": "xtc", "dir": str(tmp_path / "xtc")}
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**SETTINGS, "source": source, **places, **changes}, sort_keys=False))
        return str(path)

    return write


def good(prepare, *words: str) -> str:
    result = prepare(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(prepare, *words: str) -> str:
    result = prepare(*words)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    return result.output


# --- simulated shots without files ------------------------------------------------------------


def test_without_files_there_are_the_shots_that_the_files_hold(tmp_path):
    files = config(tmp_path, missing=0.1, damaged=0.1, clock_skew=3)
    simulate(files)
    none = files.model_copy(
        update={"source": files.source.model_copy(update={"kind": "simulated", "dir": None})}
    )
    with open_source(files) as a, open_source(none) as b:
        assert a.runs() == b.runs()
        for run in a.runs():
            there, made = a.shots(run), b.shots(run)
            for name in SHOT_DTYPE.names:
                assert np.array_equal(there[name], made[name], equal_nan=there[name].dtype.kind == "f"), name
            some = [0, 3, 7, 11]
            for of_file, of_none in zip(a.frames(run, some), b.frames(run, some)):
                assert of_file.reason == of_none.reason
                assert (of_file.frame is None) == (of_none.frame is None)
                assert of_file.frame is None or np.array_equal(of_file.frame, of_none.frame)
            assert (made["status"] == USABLE).any()


def test_a_data_set_needs_no_files(prepare, write, tmp_path):
    path = write()
    for command in ("simulate", "select", "build"):
        good(prepare, command, path)
    other = write(name="other", source={"kind": "simulated"})
    for command in ("list", "select", "build"):
        good(prepare, command, other)
    good(prepare, "verify", str(tmp_path / "data/other.h5"))
    with h5py.File(tmp_path / "data/small.h5") as a, h5py.File(tmp_path / "data/other.h5") as b:
        for name in ("train/images", "test/images", "test/seconds", "dark/mean"):
            assert np.array_equal(a[name], b[name]), name


def test_simulated_shots_need_a_simulation(prepare, write):
    assert "simulate: missing" in refused(prepare, "list", write(source={"kind": "simulated"}, simulate=None))


# --- lasing switched ---------------------------------------------------------------------------


def test_nothing_but_lasing_is_another(prepare, write, tmp_path):
    path = write()
    for command in ("simulate", "select", "build"):
        good(prepare, command, path)
    before = sorted((tmp_path / "xtc").iterdir())
    said = good(prepare, "counterfactual", path)
    assert "test: 16 shots (8 lasing, 8 nolasing)" in said
    assert sorted((tmp_path / "xtc").iterdir()) == before  # no camera files are written
    good(prepare, "verify", str(tmp_path / "data/small.counterfactual.h5"))
    with (
        h5py.File(tmp_path / "data/small.h5") as a,
        h5py.File(tmp_path / "data/small.counterfactual.h5") as b,
    ):
        assert "train" not in b and a.attrs["classes"] == b.attrs["classes"]
        for name in (
            "run",
            "seconds",
            "nanoseconds",
            "fiducial",
            "ebeam/ebeamCharge",
            "ebeam/ebeamXTCAVPhase",
        ):
            assert np.array_equal(a["test"][name], b["test"][name]), name
        assert np.array_equal(a["dark/mean"], b["dark/mean"])
        label = a["test/labels"][...]
        assert np.array_equal(1 - label, b["test/labels"][...])
        gas = [file["test/gas_detector/f_11_ENRC"][...] for file in (a, b)]
        assert (gas[0][label == 0] < 0.009).all() and (gas[1][label == 1] < 0.009).all()
        assert gas[1][label == 0].mean() > 0.015
        images = [np.expm1(file["test/images"][...]) for file in (a, b)]
        # The light is as much; where it was is the machine's, how far down in energy is the lasing's.
        assert np.allclose(images[0].sum(axis=(1, 2)), images[1].sum(axis=(1, 2)), rtol=0.02)
        time = [each.sum(axis=2) / each.sum(axis=(1, 2))[:, None] for each in images]
        assert np.abs(time[0] - time[1]).max() < 0.01
        assert np.abs(images[0] - images[1]).max(axis=(1, 2)).min() > 15


def test_switched_twice_is_the_data_set_itself(prepare, write, tmp_path):
    path = write(source={"kind": "simulated"})
    for command in ("select", "build"):
        good(prepare, command, path)
    settings = load_config(path)
    shots = [Row("test", "lasing", ShotId(70, 1, 2, 3))]
    once, rows = switched(settings, shots, path)
    twice, again = switched(once, rows, path)
    assert rows[0].label == "nolasing" and again == shots
    assert once.simulate.switched and not twice.simulate.switched
    assert twice.runs == settings.runs
    with open_source(settings) as a, open_source(once) as b, open_source(twice) as c:
        for run in (69, 70, 71):  # runs of a class have its length, also in the other class
            assert len(a.shots(run)) == len(b.shots(run)) == len(c.shots(run))
        usable = np.flatnonzero(a.shots(70)["status"] == USABLE)[:3].tolist()
        frames = [list(source.good_frames(70, usable)) for source in (a, b, c)]
        assert not np.array_equal(frames[0], frames[1])
        assert np.array_equal(frames[0], frames[2])


def test_a_finished_counterfactual_is_not_replaced_unasked(prepare, write, tmp_path):
    path = write(source={"kind": "simulated"})
    for command in ("select", "counterfactual"):
        good(prepare, command, path)
    assert "nothing is left to do" in good(prepare, "counterfactual", path)
    other = write(source={"kind": "simulated"}, image={"log": False})
    assert "small.counterfactual.h5" in refused(prepare, "counterfactual", other)
    good(prepare, "counterfactual", other, "--force")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"simulate": None}, "simulate: missing; only simulated shots"),
        ({"simulate": {**SETTINGS["simulate"], "lasing": []}}, "simulate.lasing: 0 of 2 classes lase"),
    ],
)
def test_what_cannot_be_switched_is_refused(prepare, write, tmp_path, changes, message):
    good(prepare, "select", write(source={"kind": "simulated"}))
    said = refused(prepare, "counterfactual", write(**changes))
    assert message in said and "small.yaml" in said


# --- test shots alone --------------------------------------------------------------------------


def test_a_data_set_may_be_for_testing_alone(prepare, write, tmp_path):
    path = write(source={"kind": "simulated"}, select={"test": 40})
    for command in ("select", "build"):
        good(prepare, command, path)
    with h5py.File(tmp_path / "data/small.h5") as file:
        assert len(file["test/images"]) == 40
        assert "train" not in file and "statistics" not in file


@pytest.mark.parametrize(
    "sizes, split", [({}, "test"), ({"train": 10}, "test"), ({"validation": 4, "test": 4}, "train")]
)
def test_other_data_sets_have_shots_to_train_and_to_test(prepare, write, sizes, split):
    assert f"select.{split}: say how many shots" in refused(prepare, "list", write(select=sizes))
