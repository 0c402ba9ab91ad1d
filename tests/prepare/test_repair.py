"""`prepare repair` makes damaged and missing files of a data set again, with the content that they had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.dataset import index, reading
from tests.command_line import refused
from tests.prepare.conftest import digest


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def image_at(path: Path) -> int:
    with reading.open_data(path) as file:
        return int(reading.image_offsets(file["train/images"])[0])


@pytest.mark.parametrize("shard", [10, 2000])
@pytest.mark.parametrize("damage", ["pixel", "cut", "gone"])
def test_repair_makes_what_is_damaged_again(write_config, prepare, tmp_path, shard, damage):
    config = write_config(shard=shard)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    expected = digest(tmp_path)
    data = tmp_path / "data" / ("small" if shard == 10 else "small.h5")
    files = index.data_files(data)
    path = files[len(files) // 2]
    before = {file: file.stat().st_mtime_ns for file in files}
    if damage == "pixel":
        flip(path, image_at(path) + 5)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    assert prepare("verify", str(data)).exit_code == 1
    if damage == "cut":
        refused(prepare("build", config), path.name, "prepare repair")
    result = prepare("repair", config)
    assert result.exit_code == 0, result.output
    assert digest(tmp_path) == expected
    assert prepare("verify", str(data)).exit_code == 0
    assert [file for file in files if file.stat().st_mtime_ns != before[file]] == [path]
    assert "nothing is left to do" in prepare("repair", config).output


def test_repair_makes_no_other_content(write_config, prepare, tmp_path):
    """As when the runs are not what they were."""
    config = write_config(shard=10)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    data = tmp_path / "data" / "small"
    path = index.data_files(data)[1]
    flip(path, image_at(path) + 5)
    damaged = path.read_bytes()
    listed = index.read_index(index.index_path(data))
    entries = [entry._replace(content_digest="0" * 64) for entry in listed.files]
    index.write_index(index.index_path(data), listed._replace(files=entries))
    refused(prepare("repair", config), "content digest", "--force")
    assert path.read_bytes() == damaged
