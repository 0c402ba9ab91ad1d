"""`prepare merge` makes one file of a data set of many, with the same content."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

from common.dataset import image_writer, reading
from prepare.sources import FrameResult
from prepare.sources.native import XtcSource
from tests.command_line import refused
from tests.prepare.conftest import digest


def build(write_config, prepare, monkeypatch=None, **changes: object) -> str:
    """A data set of three files; with `monkeypatch` every 7th measured frame of it is missing."""
    config = write_config(shard=10, max_missing=0.5, **changes)
    assert prepare("select", config).exit_code == 0
    if monkeypatch is not None:
        frames = XtcSource.frames

        def lossy(self, run, indices):
            for n, result in enumerate(frames(self, run, indices)):
                gone = run != 68 and n % 7 == 3
                yield FrameResult(result.index, None, "gone") if gone else result

        monkeypatch.setattr(XtcSource, "frames", lossy)
    assert prepare("build", config).exit_code == 0
    return config


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
def test_the_one_file_has_what_the_files_have(write_config, prepare, monkeypatch, tmp_path, compression):
    image = {"dtype": "float16", "compression": compression}
    build(write_config, prepare, monkeypatch, image=image, runs__unlabeled=[], select__validation=4)
    folder, out = tmp_path / "data" / "small", tmp_path / "one.h5"
    result = prepare("merge", str(folder), str(out))
    assert result.exit_code == 0, result.output
    assert digest(tmp_path)[:16] in result.output
    checked = prepare("verify", str(out))
    assert checked.exit_code == 0, checked.output
    parts = [reading.open_data(path) for path in sorted(folder.glob("*.h5"))]
    with reading.open_data(out) as one:
        assert one.attrs["content_digest"].decode() == digest(tmp_path)
        asked = Counter()
        expected = []
        for part in parts:  # the rows of the missing ones, counted over all files
            expected += [gone._replace(row=gone.row + asked[gone.split]) for gone in reading.missing(part)]
            for split in ("train", "validation", "test"):
                rows = len(part[split]["images"]) if split in part else 0
                asked[split] += rows + sum(gone.split == split for gone in reading.missing(part))
        assert reading.missing(one) == expected and len(expected) > 2
        for name in ("train/images", "train/ebeam/ebeamCharge", "test/labels", "validation/time"):
            column = np.concatenate([part[name] for part in parts if name.partition("/")[0] in part])
            np.testing.assert_array_equal(one[name], column)
        assert one["train/images"].chunks == (1, *one["train/images"].shape[1:])
        assert bool(one["train/images"].id.get_create_plist().get_nfilters()) == (compression != "none")
        train = one["train/images"][...].astype(np.float64)
        np.testing.assert_allclose(one["statistics/mean"], train.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(one["statistics/std"], train.std(axis=0), atol=1e-6)
        np.testing.assert_array_equal(one["train/row"], parts[0]["train/row"])
        assert one["calibration/run"][...].tolist() == [69, 70, 71]
        assert one["train/time"].attrs["units"] == parts[0]["train/time"].attrs["units"]
    for part in parts:
        part.close()


def test_what_is_wrong_is_one_line_and_leaves_no_file(write_config, prepare, monkeypatch, tmp_path):
    build(write_config, prepare)
    folder, out = tmp_path / "data" / "small", tmp_path / "one.h5"
    refused(prepare("merge", str(tmp_path / "none.h5"), str(out)), "none.h5", "no such data file")
    second = folder / "small-0001.h5"
    good = second.read_bytes()
    with reading.open_data(second) as file:
        at = int(reading.image_offsets(file["train/images"])[2])
    second.write_bytes(good[: at + 100] + bytes([good[at + 100] ^ 1]) + good[at + 101 :])
    refused(prepare("merge", str(folder), str(out)), "small-0001.h5: train/images[2]", "prepare repair")
    shutil.copy(folder / "small-0000.h5", second)  # whole, and of this data set, but the wrong one
    refused(
        prepare("merge", str(folder), str(out)), "small-0001.h5: ", "is in ", "as well; ", "prepare repair"
    )
    second.unlink()
    refused(prepare("merge", str(folder), str(out)), "1 of its 3 files are missing", "small-0001.h5")
    second.write_bytes(good)
    (folder / "small.json").rename(tmp_path / "small.json")
    refused(prepare("merge", str(folder), str(out)), "without small.json")
    (tmp_path / "small.json").rename(folder / "small.json")
    append = image_writer.ImageWriter.append

    def full(self, split, image):
        if sum(self._written.values()) == 15:
            raise OSError(28, "No space left on device", str(out))
        return append(self, split, image)

    monkeypatch.setattr(image_writer.ImageWriter, "append", full)
    refused(prepare("merge", str(folder), str(out)), "one.h5: No space left on device")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "manifest", "small.yaml"]
    monkeypatch.undo()
    out.write_text("mine")
    refused(prepare("merge", str(folder), str(out)), "one.h5: exists already", "--force")
    assert out.read_text() == "mine"
    assert prepare("merge", str(folder), str(out), "--force").exit_code == 0
