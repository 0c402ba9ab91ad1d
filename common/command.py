"""What every command shares: the CONFIG argument, --force, and errors as one line."""

from __future__ import annotations

import errno
import sys

import click

from common import interrupt
from common.errors import UserError

config_argument = click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
force_option = click.option("--force", is_flag=True, help="Replace the output if it exists already.")


class CommandGroup(click.Group):
    """A click group whose commands print a user's mistake as one line and exit with code 2.

    SIGTERM and Ctrl-C end in one line, too, and exit codes 143 and 130.
    """

    def invoke(self, ctx: click.Context) -> object:
        try:
            with interrupt.handled():
                return super().invoke(ctx)
        except interrupt.Interrupted as stop:
            click.echo(str(stop), err=True)
            sys.exit(stop.exit_code)
        except UserError as error:
            _fail(str(error))
        except BrokenPipeError:
            sys.exit(1)  # `... | head`: the reader has gone, nothing to tell anyone
        except MemoryError as error:
            _fail(f"out of memory: {error}; reserve more for the job or ask for less at a time")
        except OSError as error:
            if error.errno is None or error.strerror is None:
                raise  # not from the operating system: a fault of ours, keep the traceback
            _fail(f"{error.filename or 'writing'}: {error.strerror}{_advice(error.errno)}")


def _fail(message: str) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(2)


def _advice(number: int) -> str:
    return {
        errno.ENOSPC: "; free some space or choose another output folder",
        errno.EDQUOT: "; free some space or choose another output folder",
        errno.EACCES: "; check the permissions of the file and its folder",
        errno.EROFS: "; choose another output folder",
    }.get(number, "")
