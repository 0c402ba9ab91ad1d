"""`python -m train predict`: every shot's probability under its key, whatever the file holds."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import softmax

from common.dataset import reading, writing
from common.manifest import SPLITS
from common.report.drawing import drawing
from common.shots import ID_DTYPE, ID_FIELDS
from tests.command_line import refused
from tests.limits import HANGS
from tests.preloaded import Preloaded
from tests.train.conftest import write_data
from tests.train.test_ranks import MPIRUN
from train.data.dataset import open_data
from train.model import saved
from train.model.predictor import Predictor
from train.predict import probability_plot
from train.predict.job import predicted
from train.predict.trust import Trust


@pytest.fixture
def run(data, fitted) -> str:
    """A trained run."""
    return str(fitted(preprocess=["whiten_minibatch"], steps=6))


def rows_of(path: Path) -> list:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ids_in(file: h5py.File, split: str) -> list:
    return list(zip(*(file[split][name][...].tolist() for name in ID_FIELDS)))


def test_every_shot_comes_once_under_its_key_with_its_label_and_probability(data, run, train):
    result = train("predict", run, str(data))
    assert result.exit_code == 0, result.output
    rows = rows_of(Path(run) / "predictions_data.csv")
    assert list(rows[0]) == [
        "split", "label", *ID_FIELDS, "predicted", "probability_nolasing", "probability_lasing", "flag",
        "simulated",
    ]  # fmt: skip
    with h5py.File(data) as file:
        for split in ("train", "test"):
            of_split = [row for row in rows if row["split"] == split]
            assert [tuple(int(row[name]) for name in ID_FIELDS) for row in of_split] == ids_in(file, split)
            labels = [["nolasing", "lasing"].index(row["label"]) for row in of_split]
            assert labels == file[split]["labels"][...].tolist()
    for row in rows:
        p = [float(row["probability_nolasing"]), float(row["probability_lasing"])]
        assert sum(p) == pytest.approx(1, abs=1e-8)
        assert row["predicted"] == ["nolasing", "lasing"][int(np.argmax(p))]


def test_in_chunks_is_as_at_once_is_as_the_saved_model(data, run):
    model = saved.load_model(Path(run))
    answers = []
    with open_data(data, None, ["test"]) as opened:
        split = opened.splits["test"]
        only = opened._replace(splits={"test": split})
        for size in (1, 7, len(split)):
            predictor = Predictor(model)
            predictor._batch = size
            done = []
            answers.append(predicted(predictor, only, Trust(), done.append).probability)
            assert sum(done) == len(split) and max(done) <= size
        logits = np.asarray(model(split.images(range(len(split))), training=False), np.float64)
        answers.append(softmax(logits, axis=1))
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], rtol=0, atol=1e-6)
    assert np.ptp(answers[0][:, 1]) > 1e-3  # it is not one answer for all


def test_the_summary_has_n_interval_and_baseline_and_agrees_with_evaluate(data, run, train):
    output = train("predict", run, str(data)).output
    line = next(line for line in output.splitlines() if line.startswith("test: accuracy"))
    of_evaluate = train("evaluate", run).output
    accuracy = next(line for line in of_evaluate.splitlines() if line.startswith("test ")).split()[2]
    assert f"accuracy {accuracy} [" in line
    assert "of 30 shots (2 effective), always guessing the larger class 0.500" in line
    summary = json.loads((Path(run) / "predictions_data.json").read_text())
    assert [(row["run"], row["split"], row["n"], row["label"]) for row in summary["runs"]] == [
        (69, "test", 15, "nolasing"),
        (69, "train", 20, "nolasing"),
        (70, "test", 15, "lasing"),
        (70, "train", 20, "lasing"),
    ]
    rows = [row for row in rows_of(Path(run) / "predictions_data.csv") if row["run"] == "70"]
    of_test = [row for row in rows if row["split"] == "test"]
    mean = np.mean([float(row["probability_lasing"]) for row in of_test])
    assert summary["runs"][2]["mean_probability_lasing"] == pytest.approx(mean, abs=1e-6)
    assert summary["runs"][2]["called_lasing"] == sum(row["predicted"] == "lasing" for row in of_test)
    low, high = summary["runs"][2]["interval_lasing"]
    assert low <= summary["runs"][2]["called_lasing"] / 15 <= high


WAYS = {"jobs": ["--jobs", "2"], "ranks": [str(MPIRUN), "-n", "3"]}


@pytest.mark.parametrize("way", WAYS)
def test_other_processes_say_the_same(run, train, tmp_path, way):
    """1,300 shots are three chunks; two chunks are not whole batches."""
    path = write_data(tmp_path / "next.h5", {"test": 600, "predict": 1300}, seed=3)
    assert train("predict", run, str(path), "--out", str(tmp_path / "here.csv")).exit_code == 0
    python, words = [sys.executable, "-m", "train"], ["predict", run, str(path), "--out", "there.csv"]
    command = [*python, *words, *WAYS[way]] if way == "jobs" else [*WAYS[way], *python, *words]
    where = {"PYTHONPATH": str(Path(__file__).parents[2]), **os.environ}
    done = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1900 shots, ") == 1
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    here, there = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "there"))
    assert there == here


def test_an_error_of_another_process_is_one_line(run, train, tmp_path):
    path = write_data(tmp_path / "next.h5", {"test": 40, "predict": 600}, seed=3)
    with h5py.File(path, "r+") as file:
        file["predict/images"][590] = 7.0  # not what its checksum says
    process = Preloaded("predict", run, str(path), "--jobs", "2", "-q")
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert "next.h5: predict/images: image 590" in errors
    assert not list(Path(run).glob("*predictions_next*"))


def test_other_processes_evaluate_the_same(data, run, train):
    here = train("evaluate", run, "--json")
    process = Preloaded("evaluate", run, "--json", "--jobs", "2")
    there, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    assert json.loads(there) == json.loads(here.stdout)


def test_hdf5_holds_the_same_as_csv(data, run, train, tmp_path):
    train("predict", run, str(data), "--split", "test")
    out = tmp_path / "p.h5"
    assert train("predict", run, str(data), "--split", "test", "--out", str(out)).exit_code == 0
    rows = rows_of(Path(run) / "predictions_data.csv")
    with h5py.File(out) as file:
        classes = json.loads(file.attrs["classes"])
        assert file.attrs["data_digest"] and file.attrs["model_sha256"]
        assert [[row[name] for name in ID_FIELDS] for row in rows] == [
            [str(value) for value in shot] for shot in zip(*(file[name][...].tolist() for name in ID_FIELDS))
        ]
        assert [row["label"] for row in rows] == [classes[k] for k in file["label"][...]]
        assert [row["split"] for row in rows] == file["split"].asstr()[...].tolist()
        np.testing.assert_allclose(
            [float(row["probability_lasing"]) for row in rows], file["probability"][:, 1], rtol=1e-8
        )


@pytest.mark.parametrize("sizes", [{"predict": 23}, {"train": 4, "test": 4, "predict": 23}])
def test_unlabeled_shots(run, train, tmp_path, sizes):
    path = write_data(tmp_path / "next.h5", sizes, seed=3)
    result = train("predict", run, str(path), "--split", "predict")
    assert result.exit_code == 0, result.output
    rows = rows_of(Path(run) / "predictions_next.csv")
    assert {row["label"] for row in rows} == {""}
    with h5py.File(path) as file:
        assert [tuple(int(row[name]) for name in ID_FIELDS) for row in rows] == ids_in(file, "predict")
    assert "accuracy" not in result.output  # of what nobody knows
    assert "called lasing" in result.output
    out = tmp_path / "next_predictions.h5"
    assert train("predict", run, str(path), "--out", str(out)).exit_code == 0
    with h5py.File(out) as file:
        assert (file["label"][...][-23:] == -1).all() and len(file["label"]) == sum(sizes.values())


def test_fit_and_evaluate_leave_unlabeled_shots_alone(write_config, train, tmp_path):
    write_data(tmp_path / "data.h5", {"train": 40, "test": 30, "predict": 5})
    for result in (train("fit", write_config(steps=1)), train("evaluate", str(tmp_path / "runs/small"))):
        assert result.exit_code == 0, result.output
        assert not any(line.startswith("predict") for line in result.output.splitlines())


def test_the_plot_is_there_and_shows_something(data, run, train):
    train("predict", run, str(data))
    picture = imread(Path(run) / "predictions_data.png")
    assert min(picture.shape[:2]) > 200
    colored = np.ptp(picture[..., :3], axis=2) > 0.2
    assert colored.sum() > 100  # points of two colors on white


def test_existing_predictions_stay_unless_forced(data, run, train):
    train("predict", run, str(data), "--split", "train")
    path = Path(run) / "predictions_data.csv"
    before = path.read_bytes()
    refused(train("predict", run, str(data)), "predictions_data.csv: exists already", "--force")
    assert path.read_bytes() == before
    assert train("predict", run, str(data), "--force").exit_code == 0
    assert path.read_bytes() != before


def test_what_cannot_be_predicted_is_refused_in_one_line(data, run, train, tmp_path):
    other = write_data(tmp_path / "other.h5", {"train": 4, "test": 4}, shape=(10, 12))
    refused(train("predict", run, str(other)), "images are 10 x 12", "trained on 20 x 24")
    refused(train("predict", run, str(data), "--split", "tets"), "no split 'tets'")
    refused(train("predict", run, str(data), "--out", "p.txt"), "p.txt", ".csv or .h5")
    refused(train("predict", run, str(tmp_path / "none.h5")), "none.h5: no such data file")
    refused(train("predict", str(tmp_path), str(data)), "no run here")
    (tmp_path / "cut.h5").write_bytes(data.read_bytes()[:-400])
    refused(train("predict", run, str(tmp_path / "cut.h5")), "cut.h5: is not an HDF5 file, or is cut short")
    with h5py.File(other, "r+") as file:
        writing.set_text(file, classes=json.dumps(["cats", "dogs"]))
    with h5py.File(data, "r+") as file:
        writing.set_text(file, classes=json.dumps(["cats", "dogs"]))
    refused(train("predict", run, str(data)), "classes cats, dogs", "trained on nolasing, lasing")


def test_an_image_that_is_not_a_number_is_named_and_nothing_is_left_behind(data, run, train):
    with h5py.File(data, "r+") as file:
        image = file["test/images"][11]
        image[3, 4] = np.nan
        file["test/images"][11] = image
        file["test/crc32"][11] = reading.image_checksum(image)
        file["test/crc32"][11] = reading.image_checksum(image)
        key = [int(file["test"][name][11]) for name in ID_FIELDS]
    refused(train("predict", run, str(data)), f"test, image 11 (run {key[0]} seconds {key[1]}", "verify")
    assert not list(Path(run).glob("*predictions*"))


def test_a_run_that_is_not_finished(data, run, train):
    (Path(run) / "model.keras").unlink()
    refused(train("predict", run, str(data)), "model.keras: no such model")
    (Path(run) / "summary.json").unlink()
    refused(train("predict", run, str(data)), "summary.json", "--resume")


def test_help_shows_an_example(train):
    assert "python -m train predict runs/" in train("predict", "--help").output


@pytest.mark.parametrize("words", [["predict"], ["evaluate", "--data"]])
def test_images_that_were_made_otherwise_are_refused(write_config, train, tmp_path, words):
    write_data(tmp_path / "data.h5", {"train": 40, "test": 30}, image={"log": True})
    assert train("fit", write_config(steps=2)).exit_code == 0
    run = tmp_path / "runs/small"
    other = write_data(tmp_path / "other.h5", {"train": 8, "test": 8}, image={"log": False})
    command, *option = words
    refused = train(command, str(run), *option, str(other))
    assert refused.exit_code == 2
    assert "other.h5" in refused.output and "`log: False`, not True" in refused.output
    assert not list(Path(run).glob("predictions_*"))


def test_a_page_with_images_is_not_replaced_by_one_without(data, run, train):
    page = Path(run) / "report.html"
    page.write_text("with images")
    data.unlink()
    refused = train("report", str(run))
    assert refused.exit_code == 2 and "--force" in refused.output
    assert page.read_text() == "with images"


def test_no_line_crosses_a_gap():
    time = np.concatenate([np.arange(60.0), 200 + np.arange(40.0)])
    ids = np.zeros(100, ID_DTYPE)
    ids["run"], ids["seconds"] = 70, time
    p = np.linspace(0.1, 0.9, 100)
    assert [len(rows) for rows in probability_plot.stretches(time)] == [60, 40]
    split = np.where(time < 30, SPLITS.index("train"), SPLITS.index("test"))
    shots = probability_plot.Shots(["off", "on"], ids, np.stack([1 - p, p], axis=1), np.ones(100, int), split)
    with drawing():
        axis = probability_plot.figure(shots).axes[0]
    curves = [line for line in axis.lines if not str(line.get_label()).startswith("split")]
    lines = [line for line in curves if line.get_marker() == "None" and len(line.get_xdata()) > 2]
    assert [line.get_xdata().tolist() for line in lines] == [time[:60].tolist(), time[60:].tolist()]
    assert any(np.all(np.asarray(line.get_ydata()) == 0.5) for line in axis.lines)
    assert {"split train", "split test"} <= set(axis.get_legend_handles_labels()[1])
