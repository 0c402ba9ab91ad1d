"""Write files atomically: they appear under their final name only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Iterator, Union

from common.errors import OutputExists, UserError

# What file systems answer that have fsync for files only (CIFS, FUSE), and folders that may be written
# to but not read. The rename is done all the same.
_NO_FOLDER_SYNC = {
    errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY, errno.EBADF, errno.EISDIR,
    errno.EACCES, errno.EPERM,
}  # fmt: skip

PARTIAL_PREFIX = "partial."  # in front, because some writers insist on the ending of a name


def refuse_existing(path: Union[str, Path], force: bool) -> None:
    """Raise OutputExists if `path` is there and `force` is not set."""
    if not force and os.path.lexists(path):
        there = (
            "exists already" if Path(path).exists() else f"is a link to {os.readlink(path)}, which is gone"
        )
        raise OutputExists(f"{path}: {there}; give --force to replace it")


def make_folder(path: Union[str, Path]) -> None:
    """Make the folder `path` and those around it; raises UserError if something else stands there."""
    path = Path(path)
    for there in (path, *path.parents):
        if os.path.lexists(there):
            if there.is_dir():
                break
            what = "a file"
            if there.is_symlink():
                what = f"a link to {os.readlink(there)}, which is " + (
                    "a file" if there.exists() else "not there"
                )
            raise UserError(f"{there}: is {what}, where a folder is to be; choose another output folder")
    path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Yield a name beside `path` to write to; flush it to disk and rename it on success.

    When the body raises (or is interrupted) the partial file is removed and whatever stood
    under `path` before is untouched. A partial file left by a killed process is overwritten.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        yield partial
        put(partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write that fails does not know its file's name
        with contextlib.suppress(OSError):  # a folder that has gone takes the partial file with it
            partial.unlink()
        raise


@contextlib.contextmanager
def replacing_folder(path: Union[str, Path]) -> Iterator[Path]:
    """As `replacing`, of a folder, which the body makes; one that was there is removed on success."""
    path = Path(path)
    make_folder(path.parent)
    partial, before = (path.with_name(PARTIAL_PREFIX + end + path.name) for end in ("", "replaced."))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        for there in (*partial.rglob("*"), partial):
            sync_folder(there) if there.is_dir() else _fsync(there)
        if path.exists():
            os.replace(path, before)
        os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        if before.exists() and not path.exists():
            os.replace(before, path)
        for left in (partial, before):
            shutil.rmtree(left, ignore_errors=True)


def put(partial: Path, path: Path) -> None:
    """Flush the complete file `partial` to disk and give it the name `path`, on the same file system."""
    _fsync(partial)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring what was renamed in a folder to the disk, so that it survives a crash of the node."""
    try:
        _fsync(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def check_room(path: Union[str, Path], size: int) -> None:
    """Raise OSError, as writing would, if the file `path` cannot be written, or grow, to `size` bytes.

    To say so before hours of work. Quotas do not show here.
    """
    path = Path(path)
    there = path.stat().st_blocks * 512 if path.exists() else 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and size > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    free = shutil.disk_usage(path.parent).free
    if size - there > free:
        room = f"{(size - there) / 1e6:.1f} MB are needed, {free / 1e6:.1f} are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {room}", str(path))


def write_text(path: Union[str, Path], text: str) -> None:
    """Write `text` to `path` as UTF-8, complete or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Union[str, Path], data: bytes) -> None:
    """Write `data` to `path`, complete or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
