"""Data sets of several files: what names them, what is refused, what other software sees."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from common.dataset.index import Entry, Index, data_files, index_path, write_index
from common.errors import DataError
from tests.common.test_schema import write


@pytest.fixture
def folder(tmp_path):
    """A data set of two files."""
    path = tmp_path / "data" / "set"
    path.mkdir(parents=True)
    names = ["set-0000.h5", "set-0001.h5"]
    entries = [Entry(name, 5, write(path / name, value)) for value, name in enumerate(names, 1)]
    write_index(index_path(path), Index(entries, "x", "y"))
    return path


def test_a_folder_stands_for_its_files_in_order(folder, tmp_path):
    files = [folder / "set-0000.h5", folder / "set-0001.h5"]
    assert data_files(folder) == data_files([str(folder)]) == files
    alone = tmp_path / "data" / "alone.h5"
    write(alone)
    assert data_files([folder, alone, alone.with_suffix("")]) == [*files, alone, alone]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: index_path(folder).unlink(), "did not finish"),
        (lambda folder: (folder / "set-0001.h5").unlink(), "1 of its 2 files are missing, first set-0001.h5"),
        (lambda folder: index_path(folder).write_text("{"), "set.json"),
        (lambda folder: index_path(folder).write_text("[]"), "is not the index of a data set"),
        (
            lambda folder: index_path(folder).write_text(
                index_path(folder).read_text().replace("set-0001.h5", "../other.h5")
            ),
            "is not the index of a data set",
        ),
        (
            lambda folder: index_path(folder).write_text(
                index_path(folder).read_text().replace('"format_version": 4', '"format_version": 5')
            ),
            "is of format version 5",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_name(folder, damage, words):
    damage(folder)
    with pytest.raises(DataError, match=str(folder)) as caught:
        data_files(folder)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# --- what other software sees ----------------------------------------------------------------------


def test_every_dimension_has_its_scale(folder):
    path = data_files(folder)[0]
    with h5py.File(path, "r") as file:
        images = file["train/images"]
        assert [images.dims[n][0].name for n in range(3)] == ["/train/time", "/train/row", "/train/column"]
        assert file["train/ebeam/ebeamCharge"].dims[0][0].name == "/train/time"
        assert file["train/time"].attrs["units"] == b"nanoseconds since 1970-01-01"


def test_xarray_names_dimensions_and_reads_times(folder):
    xarray = pytest.importorskip("xarray")
    path = data_files(folder)[0]
    with h5py.File(path, "r+") as file:
        file["train/time"][...] = 1_435_000_000 * 10**9 + np.arange(3) * 8_333_333
        images = file["train/images"][...]
    with xarray.open_dataset(path, group="train", engine="h5netcdf") as train:
        assert train["images"].dims == ("time", "row", "column")
        assert train["labels"].dims == ("time",)
        assert str(train["time"].values[1]).startswith("2015-06-22T19:06:40.008")
        assert (train["images"].values == images).all()
    with xarray.open_dataset(path, group="train/ebeam", engine="h5netcdf") as ebeam:
        assert ebeam["ebeamCharge"].dims == ("time",) and ebeam["ebeamCharge"].units == "nC"
