"""Lock an output, so that only one process writes it; a second one is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Iterator, Union

from common.errors import OutputBusy
from common.files.atomic import make_folder
from common.progress import warn

# What file systems without such locks answer.
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def only_one(path: Union[str, Path], output: Union[str, Path]) -> Iterator[None]:
    """Hold the lock file `path` while working at `output`; raises OutputBusy if another process does.

    The lock is the kernel's (flock), which frees it however its holder ends: a file left behind by
    a dead process blocks nobody. On a file system without locks, goes on with a warning.
    """
    path = Path(path)
    make_folder(path.parent)
    descriptor = _locked(path, output)
    try:
        os.ftruncate(descriptor, 0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {started}".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is still ours
        os.close(descriptor)


def holder(path: Union[str, Path]) -> str:
    """Who holds the lock file `path`: `process N on HOST since TIME`, or '' where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _name_in(descriptor)
    except OSError:
        return ""  # a file system without locks
    finally:
        os.close(descriptor)
    return ""


def _name_in(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"


def _locked(path: Path, output: Union[str, Path]) -> int:
    looks = 3  # `holder` has the lock for some microseconds
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            name = _name_in(descriptor)
            os.close(descriptor)
            looks -= 1
            if looks:
                time.sleep(0.05)
                continue
            raise OutputBusy(
                f"{output}: is being worked on by {name}; wait for it, or choose another `name:`"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            warn(f"{path}: this file system has no locks; see to it that only one process writes {output}")
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its last holder removed it between our open and our lock
