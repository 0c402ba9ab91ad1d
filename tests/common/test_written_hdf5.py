"""HDF5 files on disks that fail: an OSError at any moment, never a crash, never a file that is not whole."""

from __future__ import annotations

import errno
import io
import os

import numpy as np
import pytest

from common.dataset import image_writer, layout, reading, writing
from common.files import hdf5
from tests.limits import files_up_to

ATTRIBUTES = {**dict.fromkeys(layout.ATTRIBUTES, "x"), "classes": '["nolasing", "lasing"]'}
SPLITS, SHAPE = {"train": 12, "test": 5}, (20, 30)


def write(path, compression: str) -> str:
    """A whole data file, image by image, with one image fewer than was thought."""
    rng = np.random.default_rng(0)
    with image_writer.ImageWriter(path, SPLITS, SHAPE, "float32", compression) as writer:
        for split, n in SPLITS.items():
            sums = [writer.append(split, rng.random(SHAPE, "f4")) for _ in range(n - (split == "test"))]
        file = writer.tables(SHAPE)
        file["test/crc32"][...] = sums
        return writing.finish(file, ATTRIBUTES)


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
def test_a_file_that_cannot_grow_wherever_it_ends(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(image_writer.atomic, "check_room", lambda *_: None)  # others took the room since
    expected = write(tmp_path / "good.h5", compression)
    size = (tmp_path / "good.h5").stat().st_size
    for limit in (0, 1, *range(300, size, 2500), size - 1):
        with files_up_to(limit), pytest.raises(OSError) as caught:
            write(tmp_path / "x.h5", compression)
        assert caught.value.errno == errno.EFBIG, limit
    assert write(tmp_path / "x.h5", compression) == expected
    with reading.open_data(tmp_path / "x.h5") as file:
        assert len(file["test/images"]) == 4 and layout.structure_problems(file) == []


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
@pytest.mark.parametrize(
    "what, number", [("write", errno.EDQUOT), ("truncate", errno.EIO), ("readinto", errno.ESTALE)]
)
def test_every_call_may_be_the_first_that_fails(tmp_path, monkeypatch, compression, what, number):
    """And all after it fail, too; what HDF5 makes of it, and the memory it takes, stay with us."""
    calls = 0

    class Failing(io.FileIO):  # between ours and the system's: see the order of the bases below
        pass

    def call(self, argument=None):
        nonlocal calls
        calls += 1
        if calls > good:
            raise OSError(number, os.strerror(number))
        return getattr(io.FileIO, what)(self, argument)

    setattr(Failing, what, call)
    monkeypatch.setattr(hdf5, "_Disk", type("_Disk", (hdf5._Disk, Failing), {}))
    good = 10**9
    expected, needed = write(tmp_path / "x.h5", compression), calls
    for good in range(0, needed, max(1, needed // 30)):
        calls = 0
        with pytest.raises(OSError) as caught:
            write(tmp_path / "x.h5", compression)
        assert caught.value.errno == number, good
    good, calls = needed, 0
    assert write(tmp_path / "x.h5", compression) == expected


def test_memory_after_a_failure_is_that_of_one_image(tmp_path):
    with (
        files_up_to(100_000),
        pytest.raises(OSError),
        image_writer.ImageWriter(
            tmp_path / "x.h5", {"test": 1000}, (200, 300), "float32", "bitshuffle-lz4"
        ) as one,
    ):
        for _ in range(1000):
            one.append("test", np.random.default_rng(0).random((200, 300), "f4"))
    assert sum(len(data) for _, data in one._file._disk._late) < 2 << 20


def test_hdf5_finds_what_it_wrote_after_a_failure(tmp_path):
    """So that nothing in it can go astray before we are back."""
    image = np.random.default_rng(0).random((50, 60))
    with pytest.raises(OSError), hdf5.NewFile(tmp_path / "x.h5", rdcc_nbytes=0) as file:
        dataset = file.create_dataset("x", (9, 50, 60), chunks=(1, 50, 60))
        with files_up_to(30_000):
            for row in range(9):
                dataset[row] = image + row
        found = dataset[...]
    assert (found == np.stack([(image + row).astype("f4") for row in range(9)])).all()
