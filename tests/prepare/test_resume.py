"""An interrupted build goes on, ends in the same content, and mixes nothing."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from common.dataset import index, writing
from common.files import atomic
from common.files.lock import only_one
from prepare.build import run as build_module
from tests.command_line import refused
from tests.prepare.conftest import XTC1, Stop, digest


def stop(prepare, config: str, *options: str) -> None:
    with pytest.raises(Stop):
        prepare("build", config, *options)


@pytest.mark.parametrize("at", [[1], [13], [29], [15, 15]])
def test_an_interrupted_build_goes_on_and_ends_the_same(
    ready, prepare, tmp_path, building, stop_after, expected, at
):
    for n in at:
        stop_after(n)
        stop(prepare, ready)
        assert not (tmp_path / "data" / "small").exists()
        assert building.exists() == (n > 10)
    stop_after(0)
    result = prepare("build", ready)
    files = sum(n // 10 for n in at)
    assert (
        not files or f"{files} of 3 files are there already, with {10 * files} of 30 shots" in result.output
    )
    assert digest(tmp_path) == expected
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["small"]
    assert prepare("verify", str(tmp_path / "data" / "small")).exit_code == 0


def test_the_dark_is_not_averaged_again(ready, prepare, stop_after, monkeypatch):
    stop_after(12)
    stop(prepare, ready)
    stop_after(0)
    monkeypatch.setattr(build_module, "average_dark", lambda *_: pytest.fail("the dark was averaged again"))
    result = prepare("build", ready)
    assert result.exit_code == 0 and " frames averaged, " in result.output


@pytest.mark.parametrize("damage", ["cut", "header", "other"])
def test_what_is_damaged_is_made_again(ready, prepare, tmp_path, building, stop_after, expected, damage):
    stop_after(20)
    stop(prepare, ready)
    path = building / "small-0001.h5"
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 100)
    elif damage == "header":
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"ebeamCharge")] ^= 1
        path.write_bytes(raw)
    else:
        path.write_bytes(b"something else")
    stop_after(0)
    result = prepare("build", ready)
    assert "1 of 3 files are there already" in result.output
    assert "small-0001.h5" in result.output and "it is made again" in result.output
    assert digest(tmp_path) == expected
    assert prepare("verify", str(tmp_path / "data" / "small")).exit_code == 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image__transpose": False}, "image.transpose was true, is false"),
        ({"dark__max_frames": 3}, "dark.max_frames was 400, is 3"),
        ({"runs__classes": {"lasing": [70, 71], "nolasing": [69]}}, "runs.classes was"),
    ],
)
def test_a_config_that_changed_is_not_mixed_in(
    write_config, ready, prepare, building, stop_after, changes, words
):
    stop_after(12)
    stop(prepare, ready)
    stop_after(0)
    kept = {path.name: path.read_bytes() for path in building.iterdir()}
    changed = write_config(shard=10, **changes)
    refused(prepare("build", changed), "small.building", words, "--force")
    assert {path.name: path.read_bytes() for path in building.iterdir()} == kept
    assert prepare("build", changed, "--force").exit_code == 0
    assert not building.exists()


@pytest.mark.parametrize("finished", [True, False])
def test_rows_that_were_added_add_files(
    write_config, ready, prepare, tmp_path, building, stop_after, finished
):
    """And change none but the last that has rows."""
    if finished:
        assert prepare("build", ready).exit_code == 0
    else:
        stop_after(25)
        stop(prepare, ready)
        stop_after(0)
    where = tmp_path / "data" / "small" if finished else building
    before = {path.name: path.stat().st_ino for path in where.glob("*.h5")}
    more = write_config(shard=10, select__train=26)
    prepare("select", more)
    result = prepare("build", more)
    assert result.exit_code == 0, result.output
    files = index.data_files(tmp_path / "data" / "small")
    assert [path.name for path in files] == [f"small-000{n}.h5" for n in range(4)]
    assert {path.name: path.stat().st_ino for path in files if path.name in before} == before
    added = digest(tmp_path)
    assert prepare("verify", str(tmp_path / "data" / "small")).exit_code == 0
    assert prepare("build", more, "--force").exit_code == 0
    assert digest(tmp_path) == added
    even_more = write_config(shard=10, select__train=28)
    prepare("select", even_more)
    result = prepare("build", even_more)
    assert "small-0003.h5: the manifest has more shots now; it is made again with them" in result.output
    assert "3 of 4 files are there already" in result.output


def test_a_file_grows_with_its_manifest_until_it_is_a_folder(write_config, prepare, tmp_path):
    """And is removed when the folder has what it had."""
    config = write_config(shard=35)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    for train, path in ((24, "small.h5"), (28, "small")):
        more = write_config(shard=35, select__train=train)
        prepare("select", more)
        result = prepare("build", more)
        assert result.exit_code == 0, result.output
        assert [path.name for path in (tmp_path / "data").iterdir()] == [path]
    anew = digest(tmp_path)
    assert prepare("build", more, "--force").exit_code == 0
    assert digest(tmp_path) == anew


def test_a_manifest_that_changed_is_not_mixed_in(write_config, ready, prepare, stop_after):
    stop_after(12)
    stop(prepare, ready)
    stop_after(0)
    other = write_config(shard=10, select__train=18)
    prepare("select", other, "--force")
    refused(prepare("build", other), "small.building", "the manifest changed")


def test_source_files_that_changed(write_config, prepare, tmp_path, stop_after):
    """A file that is new changes no image; one that is gone or of another size, or of the dark, may."""
    source = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", source)
    config = write_config(source, shard=10)
    prepare("select", config)
    stop_after(12)
    stop(prepare, config)
    stop_after(0)
    dark, measured = source / "e815-r0068-s00-c00.xtc", source / "e815-r0069-s00-c00.xtc"
    for path in (dark, measured):
        whole_file = path.read_bytes()
        path.write_bytes(whole_file + bytes(4))
        refused(prepare("build", config), path.name, f"was {len(whole_file)} bytes")
        path.write_bytes(whole_file)
    new = source / "e815-r0068-s02-c00.xtc"
    shutil.copy(dark, new)
    refused(prepare("build", config), new.name, "was not there")
    new.unlink()
    shutil.copy(measured, source / "e815-r0069-s02-c00.xtc")
    assert "1 of 3 files are there already" in prepare("build", config).output


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_read_that_fails_names_the_source_file(ready, prepare, monkeypatch, number):
    pread, reads = os.pread, [0]

    def failing(descriptor, size, offset):
        reads[0] += size > 10_000 and size < 16_384  # frames, not headers
        if reads[0] > 45:
            raise OSError(number, os.strerror(number))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    refused(prepare("build", ready), "s80-c00.xtc: " + os.strerror(number), "is kept in")


def test_settings_that_change_no_image_may_change(write_config, ready, prepare, stop_after):
    stop_after(12)
    stop(prepare, ready)
    stop_after(0)
    result = prepare("build", write_config(shard=10, max_missing=0.5))
    assert "1 of 3 files are there already" in result.output


@pytest.mark.parametrize("shard", [10, 2000])
def test_a_finished_data_set_needs_nothing(write_config, prepare, tmp_path, shard):
    """Not even its runs."""
    source = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", source)
    config = write_config(source, shard=shard)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    made = digest(tmp_path)
    shutil.rmtree(source)
    result = prepare("build", config)
    assert result.exit_code == 0 and "is complete, nothing is left to do" in result.output
    assert digest(tmp_path) == made


@pytest.mark.parametrize("shard", [10, 2000])
def test_nothing_finished_is_replaced_unasked(write_config, prepare, tmp_path, shard):
    config = write_config(shard=shard)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    made = digest(tmp_path)
    changed = write_config(shard=shard, image__log=False)
    refused(
        prepare("build", changed), "exists already, and the config changed: image.log was true", "--force"
    )
    assert digest(tmp_path) == made
    assert prepare("build", changed, "--force").exit_code == 0
    assert digest(tmp_path) != made


def test_a_replacement_that_was_interrupted_goes_on_without_force(
    write_config, ready, prepare, tmp_path, building, stop_after
):
    assert prepare("build", ready).exit_code == 0
    before = digest(tmp_path)
    changed = write_config(shard=10, image__log=False)
    stop_after(12)
    stop(prepare, changed, "--force")
    assert digest(tmp_path) == before
    stop_after(0)
    assert "1 of 3 files are there already" in prepare("build", changed).output
    assert digest(tmp_path) != before and not building.exists()
    assert "nothing is left to do" in prepare("build", changed).output


def test_what_an_interrupted_build_left_replaces_no_other_data(
    write_config, ready, prepare, tmp_path, building, stop_after
):
    assert prepare("build", ready).exit_code == 0
    changed = write_config(shard=10, image__log=False)
    stop_after(12)
    stop(prepare, changed, "--force")
    left = building.rename(tmp_path / "left")
    stop_after(0)
    assert prepare("build", write_config(shard=10, image__transpose=False), "--force").exit_code == 0
    left.rename(building)
    other = digest(tmp_path)
    refused(prepare("build", write_config(shard=10, image__log=False)), "exists already")
    assert digest(tmp_path) == other


def test_force_starts_anew(ready, prepare, stop_after):
    stop_after(12)
    stop(prepare, ready)
    stop_after(0)
    assert "already" not in prepare("build", ready, "--force").output


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("module, step", [(writing, "finish"), (atomic, "put"), (index, "write_index")])
def test_a_build_that_was_killed_at_a_step_goes_on(
    write_config, ready, prepare, tmp_path, monkeypatch, expected, module, step, replaces
):
    """Where it makes a data set, and where it replaces one."""
    if replaces:
        assert prepare("build", write_config(shard=10, image__log=False)).exit_code == 0
        ready = write_config(shard=10)
    options = ["--force"] if replaces else []
    change, calls = getattr(module, step), [0]

    def stop_at_the_second(*args, **kwargs):
        calls[0] += 1
        if calls[0] == (1 if step == "write_index" else 3 if replaces else 2):
            raise Stop
        return change(*args, **kwargs)

    for where in (module, build_module, __import__("prepare.build.output").build.output):
        if hasattr(where, step):
            monkeypatch.setattr(where, step, stop_at_the_second)
    stop(prepare, ready, *options)
    monkeypatch.undo()
    result = prepare("build", ready)
    assert result.exit_code == 0, result.output
    assert digest(tmp_path) == expected
    assert prepare("verify", str(tmp_path / "data" / "small")).exit_code == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["small"]


def test_a_folder_that_a_build_did_not_finish_is_no_data_set(ready, prepare, tmp_path, building, stop_after):
    stop_after(12)
    stop(prepare, ready)
    for path in (building, tmp_path / "data" / "small"):
        assert "problem" in prepare("verify", str(path)).output


def test_a_second_build_is_refused_by_name(ready, prepare, tmp_path):
    with only_one(tmp_path / "data" / ".small.lock", "small"):
        refused(prepare("build", ready), "small: is being worked on", f"process {os.getpid()}")
    assert prepare("build", ready).exit_code == 0
