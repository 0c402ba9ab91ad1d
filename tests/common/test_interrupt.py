"""SIGTERM and Ctrl-C: raised at once, or at the end of what is held together."""

from __future__ import annotations

import os
import signal

import click
import pytest
from click.testing import CliRunner

from common import interrupt
from common.cli import CommandGroup


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_stops_with_a_line_on_how_to_go_on(number, code):
    @click.group(cls=CommandGroup)
    def main():
        pass

    @main.command()
    def work():
        with interrupt.advising("go on with: work --again"):
            os.kill(os.getpid(), number)
            click.echo("not reached")

    before = signal.getsignal(number)
    result = CliRunner().invoke(main, ["work"])
    assert result.exit_code == code
    assert "go on with: work --again" in result.output
    assert "not reached" not in result.output
    assert signal.getsignal(number) is before


def test_a_signal_waits_for_the_end_of_what_is_held():
    done = []
    with interrupt.handled(), pytest.raises(interrupt.Interrupted) as stop, interrupt.held():
        with interrupt.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    assert stop.value.exit_code == 143
    assert "SIGTERM" in str(stop.value)


def test_a_signal_is_told_once():
    with interrupt.handled():
        with pytest.raises(interrupt.Interrupted), interrupt.held():
            os.kill(os.getpid(), signal.SIGINT)
        with interrupt.held():
            pass  # nothing waits any more


def test_what_compiled_code_makes_of_a_signal_is_told_as_the_signal():
    with interrupt.handled(), pytest.raises(interrupt.Interrupted) as stop, interrupt.advising("again"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except interrupt.Interrupted:
            raise IndexError("only integers are valid indices") from None  # as numpy does
    assert (stop.value.exit_code, stop.value.advice) == (143, "again")
