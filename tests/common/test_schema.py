"""The HDF5 format: what a finished file is, and how anything else is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from common.dataset import checksums, layout, reading, writing
from common.errors import DataError

ATTRIBUTES = {name: "x" for name in layout.ATTRIBUTES}
ATTRIBUTES["classes"] = '["nolasing", "lasing"]'


def write(path, value: float = 1.0, finish: bool = True, **storage) -> str:
    with writing.create(path, {"train": 3, "test": 2}, (4, 6), (8, 12), **storage) as file:
        for split in ("train", "test"):
            for i in range(len(file[split]["labels"])):
                image = np.full((4, 6), value + i, file[split]["images"].dtype)
                file[split]["images"][i] = image
                file[split]["crc32"][i] = reading.image_checksum(image)
        return writing.finish(file, ATTRIBUTES) if finish else ""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def refusal(path, splits=()) -> str:
    with pytest.raises(DataError) as caught:
        reading.open_data(path, splits)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_image_is_one_chunk_and_unfiltered(path):
    write(path)
    with reading.open_data(path, ["train", "test"]) as file:
        images = file["train/images"]
        assert (images.shape, images.dtype, images.chunks) == ((3, 4, 6), np.float32, (1, 4, 6))
        assert images.id.get_create_plist().get_nfilters() == 0
        assert layout.structure_problems(file) == []
        assert reading.attributes(file["train/ebeam/ebeamCharge"])["units"] == "nC"
        assert np.isnan(file["train/gas_detector/f_11_ENRC"][...]).all()


@pytest.mark.parametrize("storage", [{"dtype": "float16"}, {"compression": "bitshuffle-lz4"}])
def test_other_storage_reads_back(path, storage):
    write(path, **storage)
    with reading.open_data(path) as file:
        assert (file["train/images"][2] == 3).all()
        assert file["train/images"].id.get_create_plist().get_nfilters() == ("compression" in storage)


def test_the_digest_is_of_the_content(path, tmp_path):
    first = write(path)
    assert write(tmp_path / "same.h5") == first
    assert write(tmp_path / "other.h5", value=2.0) != first


def test_the_digest_ignores_when_and_with_what(path, tmp_path):
    first = write(path)
    with h5py.File(path, "r+") as file:
        writing.set_text(file, created="later", software="newer")
        assert checksums.content_digest(file) == first
        file["train/labels"][0] = 1
        assert checksums.content_digest(file) != first


def test_missing(path):
    assert "make prepare" in refusal(path)


def test_a_folder(path):
    path.mkdir()
    assert "is a folder" in refusal(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated(path, share):
    write(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    assert "cut short" in refusal(path)


def test_not_hdf5(path):
    path.write_text("hello")
    assert "not an HDF5 file" in refusal(path)


def test_empty(path):
    path.write_bytes(b"")
    assert "not an HDF5 file" in refusal(path)


def test_somebody_elses_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert "not one that `prepare build` wrote" in refusal(path)


def test_unfinished(path):
    write(path, finish=False)
    assert "did not finish" in refusal(path)


@pytest.mark.parametrize("version, advice", [(3, "build it again"), (5, "update the software")])
def test_another_version_is_named(path, version, advice):
    write(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = version
    said = refusal(path)
    assert f"is of format version {version}, this software reads 4" in said and advice in said


def test_missing_split(path):
    write(path)
    assert "no split 'validation'; it has train (3), test (2)" in refusal(path, ["train", "validation"])


@pytest.mark.parametrize(
    "name",
    [
        "train/labels",
        "test/fiducial",
        "train/ebeam/ebeamCharge",
        "dark/mean",
        "statistics/std",
        "train/images",
    ],
)
def test_structure_problems_name_what_is_missing(path, name):
    write(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        assert any(name in problem for problem in layout.structure_problems(file))
