"""Files appear under their final name only when complete."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from common.errors import OutputExists, UserError
from common.files import atomic, lock


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic.replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic.replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "a"
    for text in ("new", "newer"):
        with atomic.replacing_folder(path) as partial:
            (partial / "b").mkdir(parents=True)
            (partial / "b" / text).write_text(text)
        assert [there.name for there in (path / "b").iterdir()] == [text]
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_folder_that_was_there(tmp_path, error, monkeypatch):
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), atomic.replacing_folder(path) as partial:
        partial.mkdir()
        raise error
    real = os.replace

    def failing(source, target):
        if (source, target) == (partial, path):
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(error), atomic.replacing_folder(path) as partial:
        partial.mkdir()
    assert list(tmp_path.iterdir()) == [path] and (path / "old").exists()


def test_refuse_existing(tmp_path):
    path = tmp_path / "a.txt"
    atomic.refuse_existing(path, force=False)
    path.write_text("x")
    atomic.refuse_existing(path, force=True)
    with pytest.raises(OutputExists, match="--force"):
        atomic.refuse_existing(path, force=False)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_flush_folders_stops_nothing(tmp_path, monkeypatch, number):
    real = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    atomic.write_text(tmp_path / "a" / "x.csv", "whole")
    assert (tmp_path / "a" / "x.csv").read_text() == "whole"


def test_a_disk_that_fails_under_a_folder_is_told(tmp_path, monkeypatch):
    def failing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.write_text(tmp_path / "x.csv", "whole")


def dead_link(path):
    path.symlink_to("/gone/away")


def live_link_to_a_file(path):
    path.with_name("there").write_text("")
    path.symlink_to("there")


@pytest.mark.parametrize("below", ["", "runs", "runs/deep"])
@pytest.mark.parametrize(
    "make, told",
    [
        (dead_link, "is a link to /gone/away, which is not there"),
        (live_link_to_a_file, "is a link to there, which is a file"),
        (lambda path: path.write_text("mine"), "is a file"),
    ],
)
def test_what_stands_where_a_folder_is_to_be(tmp_path, make, told, below):
    make(tmp_path / "data")
    for write in (
        lambda: atomic.write_text(tmp_path / "data" / below / "x.csv", ""),
        lambda: lock.only_one(tmp_path / "data" / below / "lock", "x").__enter__(),
    ):
        with pytest.raises(UserError) as caught:
            write()
        assert str(caught.value).startswith(f"{tmp_path / 'data'}: {told}, where a folder is to be")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["data"], ["data", "there"])


def test_a_link_to_a_folder_is_a_folder(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    atomic.write_text(tmp_path / "data" / "x.csv", "whole")
    assert (tmp_path / "disk" / "x.csv").read_text() == "whole"


def test_a_dead_link_is_not_replaced_unasked(tmp_path):
    dead_link(tmp_path / "x.h5")
    with pytest.raises(OutputExists, match="is a link to /gone/away, which is gone; give --force"):
        atomic.refuse_existing(tmp_path / "x.h5", force=False)
    atomic.refuse_existing(tmp_path / "x.h5", force=True)
