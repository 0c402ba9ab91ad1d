"""Run a command in this process, as a user calls it, and look at how it ended."""

from __future__ import annotations

import click
from click.testing import CliRunner, Result


def run(main: click.Command, *args: str) -> Result:
    """Run the command `main ARGS`; the result has exit_code and output."""
    result = CliRunner().invoke(main, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is never what a user should see
    return result


def refused(result: Result, *words: str) -> None:
    """Assert that a command ended with one line for the user that has all of `words`."""
    assert result.exit_code == 2, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.output
    for word in words:
        assert word in errors[0]
