"""Shared by all commands: the CONFIG argument, --force, and errors printed as one line."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from typing import Optional, Tuple

import click

from common import interrupt
from common.errors import UserError
from common.progress import printable

config_argument = click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
force_option = click.option("--force", is_flag=True, help="Overwrite existing output.")


class CommandGroup(click.Group):
    """A click group whose commands print a user's mistake as one line and exit with code 2.

    SIGTERM and Ctrl-C end in one line, too, and exit codes 143 and 130.
    """

    def invoke(self, ctx: click.Context) -> object:
        try:
            with interrupt.handled():
                return super().invoke(ctx)
        except (Exception, interrupt.Interrupted) as error:
            told = outcome(error)
            if told is None:
                raise
            line, code = told
            if line:
                click.echo(line, err=True)
            sys.exit(code)


def tell(error: BaseException, who: str = "") -> int:
    """Print what `outcome` says, after `who`, or the traceback of a fault of ours; returns the exit code."""
    told = outcome(error)
    if told is None:
        traceback.print_exception(type(error), error, error.__traceback__)
    line, code = told or ("", 1)
    if line:
        click.echo(who + line, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def outcome(error: BaseException) -> Optional[Tuple[str, int]]:
    """The line that tells the user of `error`, and the exit code; None for a fault of ours: a traceback.

    An attribute `advice` of the error, what is kept and how to go on, ends the line.
    """
    if isinstance(error, interrupt.Interrupted):
        return printable(str(error)), error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", 1  # `... | head`: the reader has gone, nothing to tell anyone
    line = str(error) if isinstance(error, UserError) else _of_the_system(error)
    if line is None:
        return None
    advice = getattr(error, "advice", "")
    return printable(f"error: {line}; {advice}" if advice else f"error: {line}"), 2


def _of_the_system(error: BaseException) -> Optional[str]:
    """The line for what memory, disk and operating system refuse; None for anything else."""
    # TensorFlow's own is known by its name: this module must not load TensorFlow.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        what = str(getattr(error, "message", error)).partition("\n")[0]
        return f"out of memory: {what}; reserve more for the job or ask for less at a time"
    number = _system_errno(error)
    if number is None:
        return None
    where = getattr(error, "filename", None) or "a file"
    reason, own = os.strerror(number), str(getattr(error, "strerror", ""))  # HDF5's own is long
    return f"{where}: {own if own.startswith(reason) else reason}{_ADVICE.get(number, '')}"


def _system_errno(error: BaseException) -> Optional[int]:
    """The operating system's error number in `error`, or in HDF5's account of it."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        return error.errno
    if isinstance(error, (OSError, RuntimeError)):  # h5py: "... (file write failed: ..., errno = 28, ..."
        found = re.search(r"\berrno = (\d+)", str(error))
        return int(found[1]) if found and int(found[1]) else None
    return None


_SPACE = "; free some space or choose another output folder, then start again"
_GONE = "; was it moved, or its file system unmounted? start again when it is back"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: "; check the permissions of the file and its folder",
    errno.EPERM: "; check the permissions of the file and its folder",
    errno.EROFS: "; choose another output folder",
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.ENODEV: _GONE,
    errno.EIO: "; the disk or its server fails: ask whoever runs it, then start again",
    errno.ETIMEDOUT: "; the disk or its server fails: ask whoever runs it, then start again",
    errno.EMFILE: "; too many files are open: raise the limit (ulimit -n)",
    errno.ENAMETOOLONG: "; choose a shorter `name:`",
}
