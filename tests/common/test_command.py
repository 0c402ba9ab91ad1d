"""Faults of the machine end a command in one line that names the file and what to do."""

from __future__ import annotations

import errno
import os

import click
import pytest
from click.testing import CliRunner

from common.cli import CommandGroup
from common.files import atomic
from common.progress import announce


def run(fault):
    @click.group(cls=CommandGroup)
    def main():
        pass

    @main.command()
    def work():
        fault()

    return CliRunner().invoke(main, ["work"])


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "free some space"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "another output folder"),
        (errno.ESTALE, "unmounted"),
        (errno.ENOENT, "unmounted"),
        (errno.EIO, "start again"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_an_error_of_the_system_names_file_and_advice(number, advice):
    def fault():
        raise OSError(number, os.strerror(number), "data/x.h5")

    result = run(fault)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: data/x.h5: {os.strerror(number)}; ")
    assert advice in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["--nonsense"], ["--nonsense", "work"], ["wrk"], ["work", "--nonsense"], ["work"]]
)
def test_words_that_are_no_option_or_command_are_one_line(words):
    @click.group(cls=CommandGroup)
    def main():
        pass

    choice = click.option("--kind", required=True, type=click.Choice(["a", "b"]))  # click lists them in lines
    main.command("work")(choice(lambda kind: None))
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("error: ") and "--help says more" in line
    assert "work" in CliRunner().invoke(main, []).output  # no word at all: the help


@pytest.mark.parametrize("words", [["-q", "work"], ["work", "-q"], ["work"]])
def test_quiet_may_stand_before_and_after_the_command(words):
    @click.group(cls=CommandGroup)
    def main():
        pass

    main.command("work")(lambda: announce("on the way"))
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert ("on the way" in result.output) == ("-q" not in words)


def test_a_shell_completes_commands_and_options():
    @click.group(cls=CommandGroup)
    def main():
        pass

    main.command("work")(lambda: None)
    for typed, number, told in (("xtcav-x w", 1, "plain,work"), ("xtcav-x work --qui", 2, "plain,--quiet")):
        asked = {"_XTCAV_X_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(number)}
        result = CliRunner().invoke(main, env=asked, prog_name="xtcav-x")
        assert result.output.splitlines() == [told]


def test_the_number_in_the_text_of_hdf5():
    def fault():
        raise OSError(
            "Can't write data (file write failed: ..., errno = 28, error message = 'No space left')"
        )

    assert "No space left on device; free some space" in run(fault).output


def test_a_write_that_fails_names_the_file_that_was_to_be(tmp_path):
    def fault():
        with atomic.replacing(tmp_path / "out.csv") as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    assert f"error: {tmp_path / 'out.csv'}: No space left" in run(fault).output
    assert list(tmp_path.iterdir()) == []


def test_a_name_cannot_steer_the_terminal():
    def fault():
        raise FileNotFoundError(errno.ENOENT, "gone", "a\x1b[2Jb")

    assert "error: a\\x1b[2Jb: " in run(fault).output


def test_a_fault_of_ours_keeps_its_traceback():
    def fault():
        raise OSError("not from the system")

    assert isinstance(run(fault).exception, OSError)
