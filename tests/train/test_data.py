"""Reading the data file: every image once an epoch, the same order for a seed, in memory or not."""

from __future__ import annotations

import csv
import json
from contextlib import closing

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.dataset import reading
from common.dataset.index import Entry, Index, index_path, write_index
from common.errors import DataError
from tests.page import Page
from tests.train.conftest import SHAPE, write_data
from train.data import dataset as reader
from train.data.dataset import open_data
from train.data.images import empty, widen
from train.data.order import Position, minibatch_rows
from train.model.predictor import tensor


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_every_row_comes_once_an_epoch_and_a_position_is_all_a_resume_needs(n, size, seed, epoch):
    at, rows = Position(epoch, 0), []
    while at.epoch == epoch:
        assert at.batch < 60
        again, _ = minibatch_rows(n, size, seed, Position(*at))
        some, at = minibatch_rows(n, size, seed, at)
        assert np.array_equal(some, again)
        rows += some.tolist()
    assert sorted(rows) == list(range(n))
    assert at == Position(epoch + 1, 0)


def test_epochs_and_seeds_have_their_own_order():
    orders = {
        tuple(minibatch_rows(40, 39, seed, Position(epoch, 0))[0]) for seed in (1, 2) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_full_batch_is_all_rows_in_the_files_order():
    rows, after = minibatch_rows(7, "full", 3, Position(4, 0))
    assert rows.tolist() == list(range(7))
    assert after == Position(5, 0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_images_are_those_of_the_file_in_memory_or_not(data, monkeypatch, share):
    monkeypatch.setattr(reader, "MEMORY_SHARE", share)
    with reading.open_data(data) as file:
        expected = file["test/images"][...][..., None]
        labels = file["test/labels"][...]
    with open_data(data, SHAPE, ["train", "test"]) as opened:
        split = opened.splits["test"]
        assert np.array_equal(split.labels, labels)
        assert np.array_equal(split.images([7, 3, 11]), expected[[7, 3, 11]])
        assert np.array_equal(np.concatenate(list(split.batches(8))), expected)
        assert np.array_equal(split.images(np.arange(30)), expected)


def test_images_are_where_tensorflow_takes_them_without_a_copy(data):
    for cache in ("memory", "stream"):
        with open_data(data, SHAPE, ["train", "test"], cache) as opened:
            train = opened.splits["train"]
            with closing(train.minibatches(7, 1, Position(0, 0))) as batches:
                batch = next(batches).images
                shared = tensor(batch)
                batch[2, 3, 4] = 77
                assert float(shared[2, 3, 4, 0]) == 77


def test_every_float16_is_widened_as_numpy_does_it():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    for stored in (halves, halves.view(np.int16)):
        out = np.empty(stored.shape, np.float32)
        widen(stored, out)
        np.testing.assert_array_equal(out, stored.astype(np.float32))


def test_what_is_elsewhere_in_memory_is_copied():
    for odd in (empty(8 * 480 + 1)[1:].reshape(8, 20, 24, 1), empty(8, 20, 24, 1)[:, 1:]):
        odd[...] = 3
        kept = tensor(odd)
        odd[...] = 0
        assert (kept.numpy() == 3).all()


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_refused(data, label):
    with h5py.File(data, "r+") as file:
        file["train/labels"][3] = label
    wrong = pytest.raises(DataError, match=f"train/labels has a {label}, there are 2 classes")
    with wrong, open_data(data, SHAPE, ["train"]):
        pass


def test_a_folder_is_one_data_set_whose_splits_may_be_in_some_of_its_files(tmp_path):
    """The same images, labels, minibatches as of the list of its files, and a digest of all of them."""
    folder = tmp_path / "set"
    folder.mkdir()
    sizes = [{"train": 12, "test": 4}, {"train": 7}, {"test": 9, "predict": 3}]
    files = [folder / f"set-{n:04d}.h5" for n in range(3)]
    for n, (path, of_file) in enumerate(zip(files, sizes)):
        write_data(path, of_file, seed=n, first=1000 * n)
    entries = [Entry(path.name, sum(of_file.values()), "") for path, of_file in zip(files, sizes)]
    write_index(index_path(folder), Index(entries, "", ""))
    needed = ["train", "test"]
    with open_data(folder, SHAPE, needed, unlabeled=True) as one, open_data(files, SHAPE, needed) as several:
        counts = {name: len(split) for name, split in one.splits.items()}
        assert counts == {"train": 19, "test": 13, "predict": 3}
        assert one.paths == [folder] and one.digest == several.digest
        for name in needed:
            mine, theirs = one.splits[name], several.splits[name]
            assert np.array_equal(mine.labels, theirs.labels)
            rows = np.arange(len(mine))
            assert np.array_equal(mine.images(rows), theirs.images(rows))
    with (
        pytest.raises(DataError, match="none has a split 'validation'"),
        open_data(folder, SHAPE, ["validation"]),
    ):
        pass


# --- where shots come from -------------------------------------------------------------------


@pytest.mark.parametrize(
    "simulated, told", [((True,), "simulated"), ((False,), "real"), ((True, False), "mixed: 70 of 140")]
)
def test_every_result_says_whether_its_shots_are_simulated(write_config, train, tmp_path, simulated, told):
    paths = []
    for n, kind in enumerate(simulated):
        paths.append(
            write_data(tmp_path / f"{n}.h5", {"train": 40, "test": 30}, first=1000 * n, simulated=kind)
        )
    config = write_config(data=[str(path) for path in paths], steps=3, report=True)
    output = train("fit", config).output
    run, word = tmp_path / "runs/small", told.partition(":")[0]
    result = json.loads(train("evaluate", str(run), "--json").output)
    assert result["provenance"].startswith(told) and result["trained_on"].startswith(told)
    assert json.loads((run / "summary.json").read_text())["provenance"].startswith(told)
    with (run / "metrics.csv").open() as file:
        assert {row["provenance"] for row in csv.DictReader(file)} == {word}
    assert f": {told}" in (run / "card.md").read_text()
    train("predict", str(run), str(paths[0]))
    with (run / "predictions_0.csv").open() as file:
        assert {row["simulated"] for row in csv.DictReader(file)} == {str(simulated[0]).lower()}
    kept = json.loads((run / "predictions_0.json").read_text())
    assert kept["provenance"] == ("simulated" if simulated[0] else "real")
    assert kept["trained_on"].startswith(told)
    train("report", str(run), str(run))
    said = {"simulated": "Simulated data: no shot here", "mixed": "Mixed data: 70 of 140 shots sim"}
    for path in (run / "report.html", tmp_path / "runs/comparison.html"):
        top = Page(path).source.partition("<body>")[2].partition("<header>")[0]
        assert ("imulated" in top) is (word != "real")
    if word != "real":
        assert said[word] in output and said[word] in Page(run / "report.html").text
