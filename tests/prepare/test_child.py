"""A source in a process of its own: it is like the source itself, and its death is one line."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from array import array

import numpy as np
import pytest

from common import interrupt
from common.errors import ConfigError, DataError
from prepare.sources.child import ChildSource
from tests.limits import HANGS
from tests.prepare import child_sources
from tests.prepare.conftest import make_shots


@pytest.fixture
def start():
    """Start a source of child_sources in a process; it is closed at the end."""
    started = []

    def start_source(make=child_sources.Counting, *arguments) -> ChildSource:
        started.append(ChildSource(make, arguments, "the reader", "/there", "do something else"))
        return started[-1]

    yield start_source
    for source in started:
        source.close()


def pid_of(source: ChildSource) -> int:
    return source.files(1)[0][1]


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition) -> None:
    until = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def values(results) -> list:
    return [None if result.frame is None else int(result.frame[0, 0]) for result in results]


def test_gives_what_the_source_gives(start, capfd):
    source = start()
    assert source.runs() == (1, 2)
    assert source.shots(1).tobytes() == make_shots(1, 20).tobytes()
    results = list(source.frames(1, [0, 3, 7]))
    assert [(r.index, r.reason) for r in results] == [(0, ""), (3, "why not"), (7, "")]
    assert results[1].frame is None
    assert results[2].frame.dtype == np.uint16
    assert np.array_equal(results[2].frame, np.full((4, 3), 107))
    assert not results[2].frame.flags.writeable
    assert pid_of(source) != os.getpid()
    assert capfd.readouterr() == ("", "")  # the source's chatter is not ours


def test_frames_larger_than_a_pipe_are_whole(start):
    source = start(child_sources.Counting, "", (726, 568))
    for n, frame in zip(range(4, 20), source.good_frames(2, range(4, 20))):
        assert np.array_equal(frame, np.full((726, 568), 200 + n))


def test_requests_may_be_mixed(start):
    """A stream of frames that another request came in between goes on where it was."""
    source = start()
    first, second = source.frames(1, range(20)), source.frames(2, range(20))
    assert values([next(first), next(first)]) == [100, 101]
    assert values([next(second)]) == [200]
    assert source.shots(2)["run"][0] == 2
    assert values([next(first), next(first), next(first)]) == [102, None, 104]
    assert values(second) == [201, 202, None, *range(204, 220)]
    assert values(first) == list(range(105, 120))


@pytest.mark.parametrize(
    "trouble, kind, line",
    [
        ("error", DataError, "^what a user can mend$"),
        ("config", ConfigError, "^what a user can mend$"),
        ("system", FileNotFoundError, "No such file or directory: 'somewhere'"),
        (
            "bug",
            DataError,
            r"^run 2: the reader failed: ValueError: FileOpenException \[in function x\]; do something else$",
        ),
    ],
)
def test_what_the_source_raises_is_raised_here_and_it_goes_on(start, trouble, kind, line):
    source = start(child_sources.Counting, trouble)
    with pytest.raises(kind, match=line):
        source.shots(2)
    assert values(source.frames(2, [1])) == [201]
    with pytest.raises(kind, match=line):
        list(source.frames(2, [4, 5, 6]))
    abandoned = source.frames(2, [4, 5])
    next(abandoned)
    assert values(source.frames(1, [1])) == [101]  # its error concerns nobody any more


def test_a_fault_of_ours_in_the_process_can_be_found(start):
    with pytest.raises(DataError) as raised:
        start(child_sources.Counting, "bug").shots(2)
    assert "in _go_wrong" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    "trouble, line",
    [
        (
            "abort",
            "^run 2: the process of the reader was ended by SIGABRT, last words: '.fatal:XtcInput. what "
            "psana says before it dies'; do something else$",
        ),
        (
            "SIGSEGV",
            "^run 2: the process of the reader was ended by SIGSEGV, last words: 'chatter on .*'; do",
        ),
        ("SIGKILL", r"was ended by SIGKILL from outside \(too little memory\?\), last words"),
        ("exit", r"the process of the reader ended by itself \(exit code 3\)"),
    ],
)
def test_death_is_one_line_in_any_request(start, trouble, line):
    with pytest.raises(DataError, match=line):
        start(child_sources.Counting, trouble).shots(2)
    with pytest.raises(DataError, match=line):
        list(start(child_sources.Counting, trouble).frames(2, range(20)))


def test_death_between_two_requests_is_noticed_by_the_next(start):
    source = start()
    os.kill(pid_of(source), signal.SIGKILL)
    with pytest.raises(DataError, match="run 1: the process of the reader was ended by SIGKILL"):
        source.shots(1)


def test_refusing_or_dying_at_the_start(start):
    with pytest.raises(DataError, match="^not to be had here$"):
        start(child_sources.refuse)
    with pytest.raises(DataError, match="^/there: the process of the reader was ended by SIGABRT"):
        start(child_sources.die)


def test_warnings_are_shown_here(start, capsys):
    start(child_sources.Counting, "warn").shots(2)
    assert capsys.readouterr().err == "warning: what a user should know\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_left_to_the_parent(start, number):
    """A batch system sends them to all processes of a job."""
    source = start()
    os.kill(pid_of(source), number)
    assert values(source.frames(1, [1])) == [101]


def test_its_own_messages_do_not_grow_without_end(start):
    source = start(child_sources.noisy)
    assert os.fstat(source._log).st_size < 1 << 20
    assert values(source.frames(1, [1])) == [101]


def test_closing_ends_the_process_whatever_it_does(start, monkeypatch, tmp_path):
    source = start()
    pid = pid_of(source)
    next(source.frames(1, range(20)))
    source.close()
    source.close()
    assert not is_running(pid)


def test_a_signal_ends_the_wait_for_a_source_that_hangs(start, monkeypatch, tmp_path):
    monkeypatch.setenv("HANGS", str(tmp_path / "hangs"))
    source = start(child_sources.Counting, "hang")
    pid = pid_of(source)

    def press_ctrl_c() -> None:
        wait_for((tmp_path / "hangs").exists)
        os.kill(os.getpid(), signal.SIGINT)

    with interrupt.handled():
        threading.Thread(target=press_ctrl_c).start()
        with pytest.raises(interrupt.Interrupted):
            source.shots(2)
    source.close()
    assert not is_running(pid)


def test_a_signal_ends_the_wait_for_the_rest_of_a_frame(start):
    source = start(child_sources.Counting, "", (2000, 3000))
    frames, pid = source.frames(1, range(3)), pid_of(source)
    next(frames)

    def waits() -> bool:
        return array("i", fcntl.ioctl(source._answers.fileno(), termios.FIONREAD, bytes(4)))[0] > 10_000

    wait_for(waits)
    os.kill(pid, signal.SIGSTOP)  # within the next frame, of which the pipe takes a part
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    with interrupt.handled(), pytest.raises(interrupt.Interrupted):
        timer.start()
        for _ in range(2):
            next(frames)
    timer.join()
    os.kill(pid, signal.SIGCONT)
    source.close()
    assert not is_running(pid)


def test_no_process_to_be_had_is_one_line(start, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DataError, match=r"^/there: no process for the reader can be started \(Resource temp"):
        start()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("trouble", ["", "hang"])
def test_ends_with_its_parent_even_if_that_is_killed(tmp_path, trouble):
    code = (
        "import time\n"
        "from prepare.sources.child import ChildSource\n"
        "from tests.prepare import child_sources\n"
        f"source = ChildSource(child_sources.Counting, ({trouble!r},), 'the reader', '', '')\n"
        "print(source.files(1)[0][1], flush=True)\n"
        "source.shots(2)\n"
        "time.sleep(600)\n"
    )
    hangs = tmp_path / "hangs"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HANGS": str(hangs)},
    )
    pid = int(parent.stdout.readline())
    if trouble:
        wait_for(hangs.exists)
    assert is_running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(pid))
