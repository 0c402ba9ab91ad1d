"""Checksums of rows and datasets, and viewers' attributes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from common.dataset import checksums, reading
from common.shots import RECORD_DTYPE
from tests.common.test_schema import write


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "a.h5")
    return tmp_path / "a.h5"


def row_names(path) -> list:
    with h5py.File(path, "r") as file:
        names = []
        file["train"].visititems(
            lambda name, node: (
                names.append(name) if isinstance(node, h5py.Dataset) and node.ndim == 1 else None
            )
        )
        return [name for name in names if name not in ("row_crc32", "row", "column")]


def test_a_row_is_everything_but_the_pixels(path):
    names = row_names(path)
    assert len(names) == 7 + len(RECORD_DTYPE)
    for name in names:
        with h5py.File(path, "r+") as file:
            before, kept = checksums.row_checksums(file["train"]), file["train"][name][...]
            assert (before == file["train/row_crc32"][...]).all()
            changed = kept.copy()
            changed.view(np.uint8)[changed.itemsize] ^= 1  # one bit of row 1
            file["train"][name][...] = changed
            assert (checksums.row_checksums(file["train"]) != before).tolist() == [False, True, False], name
            file["train"][name][...] = kept


def test_a_row_belongs_to_its_split(path):
    with h5py.File(path, "r+") as file:
        before = checksums.row_checksums(file["train"])
        file.move("train", "validation")
        assert (checksums.row_checksums(file["validation"]) != before).all()


def test_many_rows_are_taken_in_blocks(path, monkeypatch):
    with h5py.File(path, "r") as file:
        whole = checksums.row_checksums(file["train"])
        monkeypatch.setattr(checksums, "_ROWS", 2)
        assert (checksums.row_checksums(file["train"]) == whole).all()


def test_every_dataset_has_its_digest(path):
    with h5py.File(path, "r") as file:
        digests = checksums.object_digests(file)
        datasets = [name for name in digests if isinstance(file[name], h5py.Dataset)]
        assert {"dark/mean", "missing", "train/images", "test/ebeam/ebeamCharge"} < set(datasets)
        for name in datasets:
            assert reading.attributes(file[name])["sha256"] == digests[name]
        assert reading.attributes(file)["content_digest"] == checksums.content_digest(file)


def test_viewers_find_the_images(path):
    """NeXus: from the root by `default` to a group NXdata, whose `signal` names the images."""
    with reading.open_data(path) as file:
        assert file.attrs["NX_class"] == b"NXroot"
        group = file[file.attrs["default"]]
        assert group.attrs["NX_class"] == b"NXdata"
        assert group[group.attrs["signal"]] == file["train/images"]
