"""Reading ahead: what a naive reader gives, in every kind of file; and nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from contextlib import closing

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.dataset import reading
from common.errors import DataError
from tests.train.conftest import SHAPE, write_data
from train.data import dataset as reader
from train.data.dataset import open_data
from train.data.order import Position, announced, minibatch_rows
from train.data.readahead import ReadAhead

KINDS = [
    {},
    {"dtype": "float16"},
    {"compression": "bitshuffle-lz4"},
    {"dtype": "float16", "compression": "bitshuffle-lz4"},
]


def opened(path, cache="stream", **more):
    return open_data(path, SHAPE, ["train", "test"], cache, **more)


def naive(paths, split):
    """All images of a split, the plain way."""
    parts = []
    for path in paths:
        with h5py.File(path, locking=False) as file:
            parts.append(file[f"{split}/images"][...].astype("f4"))
    return np.concatenate(parts)[..., None]


def left_behind():
    """Threads of ours, and open data files of this process."""
    threads = [thread.name for thread in threading.enumerate() if thread.name == "read ahead"]
    files = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            files.append(os.readlink(f"/proc/self/fd/{fd}"))
    return threads, [name for name in files if ".h5" in name]


@pytest.fixture(autouse=True, scope="module")
def little_to_look_at():
    """What other tests left, TensorFlow's graphs above all, is not looked through again by each of these."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    gc.collect()
    assert left_behind() == ([], [])


@pytest.mark.parametrize("cache", ["stream", "memory"])
@pytest.mark.parametrize("stored", KINDS)
@pytest.mark.parametrize("size", [1, 16, 40, "full"])
def test_minibatches_are_those_of_a_naive_reader(tmp_path, stored, cache, size):
    path = write_data(tmp_path / "a.h5", {"train": 40, "test": 10}, **stored)
    images, at = naive([path], "train"), Position(0, 0)
    with h5py.File(path) as file:
        labels = file["train/labels"][...]
    with opened(path, cache) as data, closing(data.splits["train"].minibatches(size, 3, at)) as batches:
        for _ in range(9):  # more than an epoch, and more batches than buffers
            rows, at = minibatch_rows(40, size, 3, at)
            batch = next(batches)
            assert np.array_equal(batch.images, images[rows]) and batch.position == at
            assert np.array_equal(batch.labels, labels[rows])


@pytest.mark.parametrize("stored", KINDS)
def test_only_plain_files_are_read_past_hdf5(tmp_path, stored):
    path = write_data(tmp_path / "a.h5", {"train": 4, "test": 2}, **stored)
    with h5py.File(path) as file:
        offsets = reading.image_offsets(file["train/images"])
        assert (offsets is None) == ("compression" in stored)
        raw = path.read_bytes()
        for n in range(4) if offsets is not None else ():
            pixels = file["train/images"][n]
            assert raw[offsets[n] :][: pixels.nbytes] == pixels.tobytes()


@pytest.mark.parametrize("stored", KINDS)
def test_the_kernel_is_told_of_every_image_where_the_file_has_it(tmp_path, stored, monkeypatch):
    paths = [
        write_data(tmp_path / f"{n}.h5", {"train": 9, "test": 2}, first=100 * n, **stored) for n in (1, 2)
    ]
    told, names = set(), {}
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, at, size, _: told.add((names[fd], at, size)))
    with open_data(paths, SHAPE, ["train"], "stream") as data:
        split = data.splits["train"]
        names = {file._file.fileno(): path for file, path in zip(split._files, paths)}
        with closing(split.minibatches(5, 1, Position(0, 0))) as batches:
            next(batches)
    for path in paths:
        with h5py.File(path) as file:
            images = file["train/images"].id
            chunks = [images.get_chunk_info(n) for n in range(images.get_num_chunks())]
        assert {(path, chunk.byte_offset, chunk.size) for chunk in chunks} <= told


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 30))
def test_minibatches_are_told_once_each_and_no_further_ahead_than_asked(sizes, most):
    starts = np.cumsum([0, *sizes])
    plan = [(np.arange(a, b), np.arange(a, b), None) for a, b in zip(starts, starts[1:])]
    told = []
    given_back = announced(iter(plan), lambda rows: told.append(rows.tolist()), most)
    for item, (a, b) in zip(given_back, zip(starts, starts[1:])):
        assert item[0].tolist() == list(range(a, b))
        known = [row for rows in told for row in rows]
        assert set(range(a, min(b, a + most))) <= set(known) <= set(range(a + most + max(sizes)))
    assert next(given_back, None) is None
    known = [row for rows in told for row in rows]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("chunks", [None, (2, *SHAPE), (1, 10, 24)])
def test_files_of_other_software_are_read_too(tmp_path, chunks):
    path = write_data(tmp_path / "a.h5", {"train": 6, "test": 2})
    with h5py.File(path, "r+") as file:
        images = file["train/images"][...]
        del file["train/images"]
        file.create_dataset("train/images", data=images, chunks=chunks)
    with opened(path) as data:
        assert np.array_equal(data.splits["train"].images([5, 0, 3]), images[[5, 0, 3]][..., None])


def test_minibatches_go_on_from_a_position(data):
    with opened(data) as files:
        train, at = files.splits["train"], Position(0, 0)
        with closing(train.minibatches(16, 1, at)) as batches:
            first = [next(batches).images.copy() for _ in range(7)]
        for _ in range(5):
            _, at = minibatch_rows(40, 16, 1, at)
        with closing(train.minibatches(16, 1, at)) as batches:
            assert np.array_equal(next(batches).images, first[5])
            assert np.array_equal(next(batches).images, first[6])


def test_every_image_comes_once_in_evaluation(tmp_path):
    paths = [
        write_data(tmp_path / f"{n}.h5", {"train": 9, "test": 25}, seed=n, first=100 * n) for n in range(2)
    ]
    expected = naive(paths, "test")
    for cache in ("stream", "memory"):
        with opened(paths, cache) as data:
            batches = [batch.copy() for batch in data.splits["test"].batches(8)]
            assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 8, 2]
            assert np.array_equal(np.concatenate(batches), expected)


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("stored", KINDS)
def test_a_file_that_is_cut_short_meanwhile(tmp_path, stored):
    path = write_data(tmp_path / "a.h5", {"train": 400, "test": 10}, **stored)
    with opened(path) as data, closing(data.splits["train"].minibatches(8, 1, Position(0, 0))) as batches:
        next(batches)
        os.truncate(path, 4096)
        with pytest.raises(DataError, match="a.h5: train/images") as caught:
            for _ in range(60):
                next(batches)
    assert "prepare verify" in str(caught.value) or "cut short" in str(caught.value)


@pytest.mark.parametrize("stored", KINDS)
def test_a_file_that_vanishes(tmp_path, stored):
    path = write_data(tmp_path / "a.h5", {"train": 40, "test": 10}, **stored)
    with opened(path) as data, closing(data.splits["train"].minibatches(8, 1, Position(0, 0))) as batches:
        next(batches)
        path.unlink()
        with pytest.raises(DataError, match="a.h5: train/images.* removed or replaced"):
            for _ in range(6):
                next(batches)
        assert left_behind()[0] == []


def test_a_loader_that_is_forgotten_half_way(data):
    with opened(data) as files:
        batches = files.splits["train"].minibatches(8, 1, Position(0, 0))
        next(batches)
        del batches
        gc.collect()
        assert left_behind()[0] == []
        evaluation = files.splits["test"].batches(4)
        next(evaluation)
        del evaluation
        gc.collect()
        assert left_behind()[0] == []


def test_data_that_are_closed_end_their_readers(data):
    with opened(data) as files:
        batches = files.splits["train"].minibatches(8, 1, Position(0, 0))
        next(batches)
    assert left_behind() == ([], [])
    with pytest.raises(DataError, match="stopped"):
        next(batches)


def test_no_more_is_read_than_there_are_buffers():
    asked = []

    def read(rows, out):
        asked.extend(rows)

    with ReadAhead(read, (([n], None) for n in range(1000)), 1, (2, 2)) as batches:
        next(batches)
        time.sleep(0.1)
        assert 2 <= len(asked) <= 4


def test_an_image_that_was_changed_is_named_when_it_is_first_read(tmp_path):
    path = write_data(tmp_path / "a.h5", {"train": 8, "test": 4})
    with h5py.File(path, "r+") as file:
        file["train/images"][5, 3, 3] += 1
    with opened(path) as data, pytest.raises(DataError) as caught:
        data.splits["train"].images(range(8))
    for words in ("a.h5: train/images: image 5", "run 70 5.000000000 fiducial 0", "crc32"):
        assert words in str(caught.value)
    with opened(path, check=False) as data:
        assert data.splits["train"].images([5]).shape == (1, *SHAPE, 1)


# --- several files -------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    def write(**second):
        settings = {"first": 100, "seed": 1, **second}
        sizes = settings.pop("sizes", {"train": 5, "test": 3})
        a = write_data(tmp_path / "a.h5", {"train": 4, "test": 2}, image={"log": True, "dtype": "float32"})
        return [a, write_data(tmp_path / "b.h5", sizes, **settings)]

    return write


LIKE = {"image": {"log": True, "dtype": "float16"}, "dtype": "float16"}


def test_several_files_are_one_data_set(two):
    paths = two(**LIKE)
    with opened(paths) as data, opened(paths[::-1]) as other, opened(paths[0]) as one:
        train = data.splits["train"]
        assert len(train) == 9 and len(data.splits["test"]) == 5
        assert np.array_equal(train.images([8, 0, 4, 3]), naive(paths, "train")[[8, 0, 4, 3]])
        assert train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
        assert train.ids["seconds"].tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 104]
        assert len({data.digest, other.digest, one.digest}) == 3


def test_a_split_may_be_in_one_of_the_files(two):
    with opened(two(sizes={"train": 6}, **LIKE)) as data:
        assert len(data.splits["train"]) == 10 and len(data.splits["test"]) == 2


@pytest.mark.parametrize(
    "second, words",
    [
        ({**LIKE, "classes": ("lasing", "nolasing")}, ["b.h5: its classes are lasing, nolasing", "a.h5"]),
        ({"image": {"log": False}}, ["b.h5", "another `image:`", "a.h5"]),
        ({**LIKE, "first": 2}, ["b.h5: the shot of run 69 2.000000000 fiducial 0 is in", "a.h5"]),
        ({**LIKE, "shape": (10, 12)}, ["b.h5: images are 10 x 12, the config says 20 x 24"]),
    ],
)
def test_a_file_that_does_not_belong_is_named(two, second, words):
    with pytest.raises(DataError) as caught, opened(two(**second)):
        pass
    for word in words:
        assert word in str(caught.value)


def test_a_file_of_the_set_that_is_missing_is_named(two, tmp_path):
    with pytest.raises(DataError, match="c.h5: no such data file"), opened([*two(**LIKE), tmp_path / "c.h5"]):
        pass


def test_a_split_that_none_of_the_files_has(two):
    words = "a.h5, .*b.h5: none has a split 'validation'"
    with pytest.raises(DataError, match=words), open_data(two(**LIKE), SHAPE, ["validation"]):
        pass


def test_what_fits_is_kept_in_memory(data, monkeypatch):
    for share, kept in ((0.5, True), (0.0, False)):
        monkeypatch.setattr(reader, "MEMORY_SHARE", share)
        with opened(data, "auto") as files:
            before = files.reading
            files.splits["train"].images([1, 2])
            assert (files.reading == before) == kept
