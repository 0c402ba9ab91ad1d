"""Signals: noted, raised at safe points, told once; a second one, and a parent's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import click
import pytest
from click.testing import CliRunner

from common import interrupt
from common.cli import CommandGroup
from common.progress import bar
from tests.limits import HANGS

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("number, code", CODES)
def test_a_command_stops_with_a_line_on_how_to_go_on(number, code):
    @click.group(cls=CommandGroup)
    def main():
        pass

    @main.command()
    def work():
        with interrupt.advising("go on with: work --again"):
            for _ in bar(range(10), "working", "step"):
                os.kill(os.getpid(), number)
            click.echo("not reached")

    before = signal.getsignal(number)
    result = CliRunner().invoke(main, ["work"])
    assert result.exit_code == code
    assert "go on with: work --again" in result.output
    assert "not reached" not in result.output
    assert signal.getsignal(number) is before


def test_a_signal_is_raised_at_a_safe_point_only_and_told_once():
    with interrupt.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))  # compiled code: no exception comes out of nowhere
        with pytest.raises(interrupt.Interrupted) as stop:
            interrupt.check()
        interrupt.check()  # what is saved on the way out is not interrupted again
    assert stop.value.exit_code == 143
    assert "SIGTERM" in str(stop.value)


def test_one_signal_sent_twice_at_a_time_is_one():
    """To the process and to its group, as `timeout` and batch systems do."""
    with interrupt.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(interrupt.Interrupted):
            interrupt.check()


@pytest.mark.parametrize("wait", [lambda: time.sleep(60), threading.Event().wait])
def test_a_wait_ends_at_once(wait):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    start = time.monotonic()
    with interrupt.handled(), pytest.raises(interrupt.Interrupted), interrupt.waiting():
        timer.start()
        wait()
    assert time.monotonic() - start < 50
    timer.join()


def test_what_the_caller_ignores_stays_ignored():
    """`nohup` and `command &` in a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.handled():
            os.kill(os.getpid(), signal.SIGHUP)
            interrupt.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_thread_leaves_it_to_the_main_thread():
    raised = []

    def worker():
        try:
            interrupt.check()
        except BaseException as error:
            raised.append(error)

    with interrupt.handled(), pytest.raises(interrupt.Interrupted):
        os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
        interrupt.check()
    assert raised == []


def test_what_a_thread_raises_is_raised_here():
    def fail():
        raise ValueError("no such library")

    with pytest.raises(ValueError, match="no such library"):
        interrupt.in_thread(fail)


BUSY = """
import time
from common import interrupt
with interrupt.handled():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)  # no safe point
"""


def test_a_second_signal_ends_the_process_where_it_stands():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(interrupt.AGAIN + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=HANGS)
    assert process.returncode == 143
    assert told == b"stopped at once by a second SIGTERM\n"


CHILD = """
import os, sys
from common import interrupt
interrupt.end_with_parent(lambda: os.read(0, 1))
with interrupt.handled(), interrupt.waiting():
    try:
        print("ready", flush=True)
        __import__("time").sleep(60)
    except interrupt.Interrupted:
        open(sys.argv[1], "w").write("saved")
"""
PARENT = f"""
import subprocess, sys, time
command = [sys.executable, "-c", {CHILD!r}, sys.argv[1]]
child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
time.sleep(60)
"""


def test_a_child_saves_and_ends_when_its_parent_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "saved")], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    process.kill()
    process.wait()
    assert process.stdout.read() == b""  # closed by the child's end
    process.stdout.close()
    assert (tmp_path / "saved").read_text() == "saved"
