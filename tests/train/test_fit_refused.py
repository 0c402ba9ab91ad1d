"""What `python -m train fit` refuses, in one line, and what it leaves as it is."""

from __future__ import annotations

import importlib.util

import h5py
import pytest

from tests.command_line import refused
from tests.train.conftest import write_data


def test_stopping_by_the_test_split_is_refused(data, write_config, train):
    refused(
        train("fit", write_config(stop_when={"split": "test", "accuracy": 0.9})), "stop_when.split", "'test'"
    )


def test_a_finished_run_is_not_overwritten_unasked(data, write_config, fitted, train, tmp_path):
    fitted(steps=1)
    before = (tmp_path / "runs/small/model.keras").read_bytes()
    refused(train("fit", write_config(steps=2)), "exists already", "--resume", "--force")
    assert (tmp_path / "runs/small/model.keras").read_bytes() == before


def test_resuming_with_another_network_is_refused(data, write_config, train):
    train("fit", write_config(steps=1))
    refused(train("fit", write_config(minibatch=8), "--resume"), "another `minibatch:`")


def test_resuming_on_other_data_is_refused(data, write_config, train):
    train("fit", write_config(steps=1))
    write_data(data, {"train": 40, "test": 30}, seed=9)
    refused(train("fit", write_config(), "--resume"), "data.h5: is not the file", "digests differ")


def test_missing_data(write_config, train):
    refused(train("fit", write_config()), "data.h5: no such data file", "make prepare")


def test_truncated_data(data, write_config, train):
    data.write_bytes(data.read_bytes()[:-500])
    refused(train("fit", write_config()), "data.h5", "cut short")


def test_images_of_another_shape(data, write_config, train):
    refused(
        train("fit", write_config(input=[20, 20])), "images are 20 x 24, the config says 20 x 20", "[20, 24]"
    )


def test_a_split_that_is_not_there(tmp_path, write_config, train):
    write_data(tmp_path / "data.h5", {"train": 10})
    refused(train("fit", write_config()), "no split 'test'; it has train (10)")


def test_a_newer_version(data, write_config, train):
    with h5py.File(data, "r+") as file:
        file.attrs["format_version"] = 99
    refused(train("fit", write_config()), "format version 99, this software reads 4; update the software")


def test_a_dataset_that_is_missing(data, write_config, train):
    with h5py.File(data, "r+") as file:
        del file["test/labels"]
    refused(train("fit", write_config()), "test/labels is missing", "prepare verify")


def test_a_loss_that_is_not_a_number(data, write_config, train):
    refused(
        train("fit", write_config(learning_rate={"start": 1e30}, steps=50)),
        "the loss is",
        "lower learning_rate",
    )


def test_fit_a_second_time_is_success(data, write_config, train, tmp_path):
    assert train("fit", write_config()).exit_code == 0
    model = (tmp_path / "runs/small/model.keras").stat().st_mtime_ns
    for words in ((), ("--resume",)):
        again = train("fit", write_config(threads={"intra": 2}), *words)
        assert again.exit_code == 0, again.output
        assert "is complete, nothing is left to do" in again.output
    assert (tmp_path / "runs/small/model.keras").stat().st_mtime_ns == model
    refused(train("fit", write_config(seed=2)), "exists already", "--force")
    write_data(data, {"train": 40, "test": 30}, seed=5)
    refused(train("fit", write_config()), "exists already", "--force")


def test_what_a_kill_at_the_end_left_undone_is_done_the_second_time(data, write_config, train, tmp_path):
    assert train("fit", write_config()).exit_code == 0
    run = tmp_path / "runs/small"
    card = (run / "card.md").read_bytes()
    (run / "card.md").unlink()
    (run / "partial.card.md").write_text("half")
    (run / "lock").write_text("process 1 on a machine since then")  # of nobody: no process holds it
    assert train("fit", write_config(report=True)).exit_code == 0
    assert (run / "card.md").read_bytes() == card
    assert "</html>" in (run / "report.html").read_text()
    assert not [path.name for path in run.iterdir() if path.name.startswith(("lock", "partial."))]


def test_a_missing_tensorboard_leaves_nothing(data, write_config, train, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name)
    )
    refused(train("fit", write_config(tensorboard=True)), "pip install tensorboard")
    assert not (tmp_path / "runs").exists()


VALID = {"pool_size": [9, 9], "strides": [1, 1], "padding": "valid"}


@pytest.mark.parametrize("command", ["describe", "fit", "controls"])
@pytest.mark.parametrize(
    "changes, key",
    [
        ({"preprocess": [{"center": {"threshold": 3, "size": [96, 112]}}]}, "preprocess[0]: center"),
        ({"network": [{"mean": {"axis": 1}}, {"max_pool": VALID}, "output"]}, "network[1]: max_pool"),
        ({"regularize": {"layers": ["hidden_7"], "l1": 0.1}}, "regularize.layers: 'hidden_7'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_images_names_the_file_and_the_key(
    data, write_config, train, command, changes, key
):
    path = write_config(**changes)
    refused(train(command, path), f"error: {path}: {key}")
