"""What a build keeps and says when frames, sources, disks or signals stand in its way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from common import manifest
from common.dataset import layout, reading
from common.dataset.index import data_files
from common.files import atomic
from common.shots import ID_DTYPE, shot_id
from prepare.sources.native import XtcSource
from tests.command_line import refused
from tests.limits import HANGS, files_up_to
from tests.prepare.conftest import SLOWED, digest, whole


@pytest.fixture
def lose(monkeypatch):
    """Make the frames of every n-th shot of a call missing."""
    frames = XtcSource.frames

    def arm(every: int) -> None:
        def failing(self, run, indices):
            for n, result in enumerate(frames(self, run, indices)):
                missing = run != 68 and every and n % every == 0
                yield result._replace(frame=None, reason="damaged frame") if missing else result

        monkeypatch.setattr(XtcSource, "frames", failing)

    return arm


@pytest.mark.parametrize("storage", [{}, {"image__compression": "bitshuffle-lz4"}, {"shard": 10}])
def test_every_shot_is_in_a_file_or_missing(write_config, prepare, tmp_path, lose, storage):
    config = write_config(max_missing=0.5, **storage)
    prepare("select", config)
    lose(5)
    result = prepare("build", config)
    assert result.exit_code == 0
    path = tmp_path / "data" / ("small" if "shard" in storage else "small.h5")
    rows = manifest.read(tmp_path / "manifest" / "small.csv")
    missing, there = [], set()
    for name in data_files(path):
        with reading.open_data(name) as file:
            missing += [one.shot for one in reading.missing(file)]
            assert {one.reason for one in reading.missing(file)} == {"damaged frame"}
            for split in layout.present(file):
                assert len(file[split]["images"]) == len(file[split]["labels"])
                there |= {shot_id(row) for row in ids(file[split])}
            if "train" in file:
                images = file["train/images"][...].astype("f8")
                np.testing.assert_allclose(file["statistics/mean"][...], images.mean(axis=0), atol=1e-12)
                np.testing.assert_allclose(file["statistics/std"][...], images.std(axis=0), atol=1e-6)
    assert f"missing: {len(missing)} shots of the manifest: damaged frame" in result.output
    assert there | set(missing) == {row.shot for row in rows}
    assert not there & set(missing) and len(missing) >= 6
    lose(0)
    result = prepare("verify", str(path))
    assert result.exit_code == 0 and f"{len(missing)} of the manifest are missing" in result.output


def ids(group):
    columns = np.zeros(len(group["images"]), ID_DTYPE)
    for name in ID_DTYPE.names:
        columns[name] = group[name][...]
    return columns


def test_too_many_missing_are_an_error_and_are_tried_again(write_config, ready, prepare, tmp_path, lose):
    """Also those of files that are complete."""
    expected = whole(ready, prepare, tmp_path)
    lose(10)
    refused(prepare("build", ready), "have no image, 1 may be missing (max_missing)", "damaged frame", "list")
    lose(0)
    assert prepare("build", ready).exit_code == 0
    assert digest(tmp_path) == expected


# --- disks and sources ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(5, "Input/output error", "r69.xtc"), ("r69.xtc", "Input/output error", "start again")),
        (OSError(116, "Stale file handle", "r69.xtc"), ("r69.xtc", "Stale file handle")),
        (MemoryError("cannot allocate 3 GiB"), ("out of memory", "3 GiB")),
    ],
)
def test_a_source_that_fails_leaves_what_was_made(ready, prepare, tmp_path, stop_after, error, words):
    expected = whole(ready, prepare, tmp_path)
    stop_after(11, error)
    result = prepare("build", ready)
    refused(result, *words, "what was made so far is kept in", "small.building, build again to go on")
    stop_after(0)
    assert "1 of 3 files are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
@pytest.mark.parametrize("size", [5, 50, 90, 97, 99])
def test_a_disk_that_fills_up(write_config, prepare, tmp_path, monkeypatch, compression, size):
    """Limits from within the first images to the last bytes of the finished file, in percent of it."""
    config = write_config(image__compression=compression)
    prepare("select", config)
    assert prepare("build", config).exit_code == 0
    limit, expected = (tmp_path / "data" / "small.h5").stat().st_size * size // 100, digest(tmp_path)
    shutil.rmtree(tmp_path / "data")
    before = threading.active_count()
    with contextlib.ExitStack() as until_here, monkeypatch.context() as patch:
        if compression == "none":  # the room that there was at the beginning is taken by others
            check = atomic.check_room

            def then_gone(*of):
                check(*of)
                until_here.enter_context(files_up_to(limit))

            patch.setattr(atomic, "check_room", then_gone)
        else:
            until_here.enter_context(files_up_to(limit))
        result = prepare("build", config)
    refused(result, "File too large")
    assert threading.active_count() == before
    assert not list((tmp_path / "data").iterdir())
    assert prepare("build", config).exit_code == 0
    assert digest(tmp_path) == expected


def test_a_disk_that_fills_up_after_some_files(ready, prepare, tmp_path, building, monkeypatch):
    expected = whole(ready, prepare, tmp_path)
    usage = shutil.disk_usage

    def filling(path):
        return usage(path)._replace(free=10**9 if len(list(building.glob("small-*"))) < 2 else 2_000)

    monkeypatch.setattr(shutil, "disk_usage", filling)
    refused(prepare("build", ready), "small-0002.h5: No space left on device", "is kept in")
    monkeypatch.undo()
    assert "2 of 3 files are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
def test_no_more_room_is_asked_for_than_a_file_may_need(
    write_config, prepare, tmp_path, monkeypatch, compression
):
    config = write_config(image__compression=compression)
    prepare("select", config)
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=4_000_000))
    assert prepare("build", config).exit_code == 0
    assert (tmp_path / "data" / "small.h5").stat().st_size > 200_000


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
def test_a_disk_that_is_full_from_the_start(write_config, prepare, tmp_path, size):
    config = write_config()
    prepare("select", config)
    with files_up_to(size):
        refused(prepare("build", config), "File too large")
    assert not list((tmp_path / "data").iterdir())
    assert prepare("build", config).exit_code == 0


def test_room_for_a_file_is_looked_at_first(ready, prepare, tmp_path, monkeypatch):
    """Before its images are made."""
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=2_000))
    refused(prepare("build", ready), "MB are needed, 0.0 are free")
    assert not list((tmp_path / "data").iterdir())
    monkeypatch.undo()
    assert prepare("build", ready).exit_code == 0


# --- as processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_is_stopped_goes_on(ready, prepare, tmp_path, number, code):
    expected = whole(ready, prepare, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, ready],
        env={**os.environ, "PAUSE": "0.05"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + HANGS
    while not (tmp_path / "0001.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert errors.count("\n") == 1
        assert f"continue with: python -m prepare build {ready}" in errors
    assert "1 of 3 files are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected
