"""Shared by all commands: the CONFIG argument, --force, and errors printed as one line."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Optional

import click

from common import interrupt, progress
from common.errors import ConfigError, UserError
from common.progress import printable


class _OwnPath(click.Path):
    """A path in which `~` is the home, also where the shell leaves it: `--out=~/x`."""

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Any:
        path = os.path.expanduser(value)
        if path.startswith("~"):
            self.fail(
                f"{value}: there is no such user; a name that begins with ~ is written ./~...", param, ctx
            )
        return super().convert(path, param, ctx)


PATH, FILE, FOLDER = _OwnPath(), _OwnPath(dir_okay=False), _OwnPath(file_okay=False)
config_argument = click.argument("config_path", metavar="CONFIG", type=FILE)
force_option = click.option("--force", is_flag=True, help="Overwrite existing output.")


class Command(click.Command):
    """A command with -q and -v, whose help names commands as they are called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _loudness_options()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:  # found after loading: it knows the key, not the file
            path = ctx.params.get("config_path")
            if path and not re.search(r"\.ya?ml(:\d+)?: ", str(error)):
                error.args = (f"{path}: {error}",)
            raise

    def get_help(self, ctx: click.Context) -> str:
        return progress.as_called(super().get_help(ctx))


json_option = click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")


page_option = click.option("--out", type=FILE, help="Where to write the page.")


def count_option(name: str, default: int, text: str, least: int = 1, most: Optional[int] = None) -> Callable:
    """An option that is a whole number from `least` to `most`."""
    kind = click.IntRange(least, most)
    return click.option(name, default=default, show_default=True, type=kind, help=text)


def print_json(results: dict[str, Any]) -> None:
    """Print `results` as JSON, numbers that JSON does not have as null, and nothing else."""
    progress.echo(json.dumps(_finite(results), indent=1, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _loudness_options() -> list[click.Option]:
    return [
        _loudness("-q", "--quiet", "Results and warnings only, no progress.", progress.QUIET),
        _loudness("-v", "--verbose", "Library messages, and errors with traceback.", progress.VERBOSE),
    ]


def _loudness(short: str, long: str, text: str, level: int) -> click.Option:
    def use(_context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            progress.voice.loudness = level

    return click.Option([short, long], is_flag=True, expose_value=False, help=text, callback=use)


class CommandGroup(click.Group):
    """A click group whose commands print a user's mistake as one line and exit with code 2.

    SIGTERM, SIGHUP and Ctrl-C end in one line, too, and exit codes 143, 129 and 130.
    """

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {})["help_option_names"] = ["-h", "--help"]
        super().__init__(*args, **kwargs)
        self.params += _loudness_options()  # `train -q fit` as well as `train fit -q`

    def make_context(self, info_name: Optional[str], args: list[str], *more: Any, **extra: Any) -> Any:
        progress.voice.loudness = progress.NORMAL
        asked = bool(args)
        try:
            return super().make_context(info_name, args, *more, **extra)
        except (click.UsageError, OSError) as error:  # OSError: the help, to a full disk
            if isinstance(error, OSError):
                error.filename = "standard output"
            elif not asked:  # no command: the help
                raise
            sys.exit(tell(error))

    def get_help(self, ctx: click.Context) -> str:
        return progress.as_called(super().get_help(ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are used, not of the alphabet

    def invoke(self, ctx: click.Context) -> object:
        try:
            with interrupt.handled():
                return super().invoke(ctx)
        except (Exception, interrupt.Interrupted) as error:
            if outcome(error) is None:  # a fault of ours: Python shows where
                raise
            if progress.voice.loudness == progress.VERBOSE:
                traceback.print_exception(type(error), error, error.__traceback__)
            code = tell(error)
            if interrupt.abandoned:
                os._exit(code)
            sys.exit(code)


def child(module: str, *words: str) -> list[str]:
    """The command line of a child process that runs `module` of this software with `words`.

    Not by `-m`, which would run a folder of that name in the working directory. The child saves what it has
    and ends when its standard input is closed: give it a pipe, and it ends with this process.
    """
    root = str(Path(__file__).resolve().parents[1])
    return [sys.executable, "-X", "utf8", "-c", _CHILD, root, module, *words]


_CHILD = """
import os, runpy, sys
sys.path[0] = sys.argv.pop(1)
from common import interrupt
interrupt.end_with_parent(lambda: os.read(0, 1))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def tell(error: BaseException, who: str = "") -> int:
    """Print what `outcome` says, after `who`, or the traceback of a fault of ours; returns the exit code."""
    told = outcome(error)
    if told is None:
        traceback.print_exception(type(error), error, error.__traceback__)
    line, code = told or ("", 1)
    with contextlib.suppress(OSError):  # the terminal was closed, or the reader has ended
        if line:
            click.echo(who + line, err=True)
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def outcome(error: BaseException) -> Optional[tuple[str, int]]:
    """The line that tells the user of `error`, and the exit code; None for a fault of ours: a traceback.

    An attribute `advice` of the error, what is kept and how to go on, ends the line.
    """
    if isinstance(error, interrupt.Interrupted):
        return printable(str(error)), error.exit_code
    if isinstance(error, click.UsageError):
        asked = f"; {error.ctx.command_path} --help says more" if error.ctx else ""
        message = " ".join(error.format_message().split()).rstrip(".")
        return printable(f"error: {message}{asked}"), error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", 1  # `... | head`: the reader has ended, there is nobody to tell
    line = str(error) if isinstance(error, UserError) else of_the_system(error)
    if line is None:
        return None
    advice = getattr(error, "advice", "")
    return printable(f"error: {line}; {advice}" if advice else f"error: {line}"), 2


def of_the_system(error: BaseException) -> Optional[str]:
    """The line for an error of memory, disk or operating system; None for any other."""
    # TensorFlow's own is known by its name: this module must not load TensorFlow.
    if system_errno(error) == errno.ENOMEM or type(error).__name__ == "ResourceExhaustedError":
        lines = str(getattr(error, "message", error)).splitlines()
        what = next((line for line in lines if "OOM" in line), (lines or [""])[0])
        return f"out of memory: {what}; reserve more for the job or ask for less at a time"
    number = system_errno(error)
    if number == errno.EAGAIN:
        return f"no more processes or threads can be started{_ADVICE[errno.EAGAIN]}"
    if number is None:
        return None
    where = getattr(error, "filename", None) or "a file"
    reason, own = os.strerror(number), str(getattr(error, "strerror", ""))  # HDF5's own is long
    return f"{where}: {own if own.startswith(reason) else reason}{_ADVICE.get(number, '')}"


def system_errno(error: BaseException) -> Optional[int]:
    """The operating system's error number in `error`, or in Python's or HDF5's account of it."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, RuntimeError) and str(error).startswith("can't start new thread"):
        return errno.EAGAIN
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
    errno.EAGAIN: "; raise the limit (ulimit -u), or end other programs",
    errno.ENAMETOOLONG: "; choose a shorter `name:`",
}
