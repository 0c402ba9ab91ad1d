"""What a build loses and says when frames, sources, disks or signals stand in its way."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from common import manifest
from common.dataset import schema
from common.files import atomic
from prepare.sources.native import XtcSource
from tests.prepare.conftest import digest, whole
from tests.prepare.test_commands import refused


@pytest.fixture
def lose(monkeypatch):
    """Make the frames of some calls come as lost."""
    frames = XtcSource.frames

    def arm(every: int) -> None:
        def failing(self, run, indices):
            for n, taken in enumerate(frames(self, run, indices)):
                lost = run != 68 and every and n % every == 0
                yield taken._replace(frame=None, reason="damaged frame") if lost else taken

        monkeypatch.setattr(XtcSource, "frames", failing)

    return arm


def test_every_shot_is_in_the_file_or_in_the_losses(write_config, prepare, tmp_path, lose):
    config = write_config(max_missing=0.5)
    prepare("select", config)
    lose(5)
    result = prepare("build", config)
    assert result.exit_code == 0
    path = tmp_path / "data" / "small.h5"
    rows = manifest.read(tmp_path / "manifest" / "small.csv")
    with schema.open_data(path) as file:
        losses = schema.losses(file)
        there = {
            tuple(int(file[split][name][i]) for name in rows[0].shot._fields)
            for split in schema.present(file)
            for i in range(len(file[split]["images"]))
        }
        assert file["train/images"].shape[0] == file["train/labels"].shape[0] < 20
        assert np.isfinite(file["statistics/mean"][...]).all()
    assert f"lost: {len(losses)} shots of the manifest: damaged frame" in result.output
    assert {loss.reason for loss in losses} == {"damaged frame"}
    assert there | {tuple(loss.shot) for loss in losses} == {tuple(row.shot) for row in rows}
    assert not there & {tuple(loss.shot) for loss in losses}
    of_split = [row for row in rows if row.split == losses[0].split]
    assert of_split[losses[0].row].shot == losses[0].shot
    lose(0)
    assert prepare("verify", str(path)).exit_code == 0


def test_too_many_losses_are_an_error_and_are_tried_again(ready, prepare, tmp_path, lose):
    expected = whole(ready, prepare, tmp_path)
    lose(2)
    refused(prepare("build", ready), "have no image, 1 may be missing (max_missing)", "damaged frame", "list")
    lose(0)
    assert "images are there already" in prepare("build", ready).output
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
def test_a_source_that_fails_leaves_what_was_made(ready, prepare, tmp_path, folder, stop_after, error, words):
    expected = whole(ready, prepare, tmp_path)
    stop_after(11, error)
    result = prepare("build", ready)
    refused(result, *words, "what was made so far is kept in", "small.h5.parts, build again to go on")
    stop_after(0)
    assert "11 of 30 images are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected


@contextlib.contextmanager
def files_up_to(size: int):
    """A limit on what can be written to one file, which to a program looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "size", [130_000, 150_000, 177_777, 200_000, 231_000, 250_000, 300_000, 350_000, 390_000]
)
def test_a_disk_that_fills_up_in_parts_or_file(ready, prepare, tmp_path, folder, monkeypatch, in_place, size):
    """Limits from within the first images to the end of the finished file of 0.4 MB."""
    expected = whole(ready, prepare, tmp_path)
    before = threading.active_count()
    with contextlib.ExitStack() as until_here:
        if in_place:  # the room that there was at the beginning is taken by others
            checks = iter([lambda *_: until_here.enter_context(files_up_to(size)), *[atomic.check_room] * 9])
            monkeypatch.setattr(atomic, "check_room", lambda *args: next(checks)(*args))
        else:
            until_here.enter_context(files_up_to(size))
        result = prepare("build", ready)
    refused(result, "File too large")
    assert threading.active_count() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    again = prepare("build", ready)
    assert in_place or "images are there already, going on" in again.output
    assert digest(tmp_path) == expected
    assert not folder.exists()


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
def test_a_disk_that_is_full_from_the_start(ready, prepare, tmp_path, folder, size):
    with files_up_to(size):
        refused(prepare("build", ready), "File too large")
    assert not (tmp_path / "data" / "small.h5").exists()
    assert prepare("build", ready).exit_code == 0


def test_room_for_the_file_is_looked_at_first(ready, prepare, tmp_path, monkeypatch, in_place):
    """Before the images are made where it can be, and in any case before HDF5, which may crash."""
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=2_000))
    refused(prepare("build", ready), "MB are needed, 0.0 are free", "is kept in")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["small.h5.parts"]
    monkeypatch.undo()
    assert ("30 of 30 images are there already" in prepare("build", ready).output) != in_place


# --- as processes ------------------------------------------------------------------------------


@contextlib.contextmanager
def running(config: str, folder):
    """A build as a process of its own that waits after some images until it is stopped."""
    code = (
        "import sys, time\n"
        "from prepare.build import parts\n"
        "from prepare.__main__ import main\n"
        "image = parts.Writer.image\n"
        "def slow(self, *args):\n"
        "    image(self, *args)\n"
        "    time.sleep(0.05)\n"
        "parts.Writer.image = slow\n"
        "main(['build', sys.argv[1]], prog_name='prepare')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        part, deadline = folder / "00001.part", time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 400) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_is_stopped_goes_on(ready, prepare, tmp_path, folder, number, code):
    expected = whole(ready, prepare, tmp_path)
    with running(ready, folder) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert errors.count("\n") == 1
        assert f"go on with: python -m prepare build {ready}" in errors
    assert "images are there already, going on" in prepare("build", ready).output
    assert digest(tmp_path) == expected
