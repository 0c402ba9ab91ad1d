"""A source in a process of its own: it is like the source itself, and its death is one line."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import interrupt
from common.errors import ConfigError, DataError
from prepare.children.memory import Reader, Writer
from prepare.children.starter import Child, Starter, shared_memory
from prepare.sources.child import ChildSource
from tests.limits import HANGS
from tests.prepare import child_sources
from tests.prepare.conftest import make_shots

STARTER = Starter()


@pytest.fixture
def start():
    """Start a source of child_sources in a process; it is closed at the end."""
    started = []

    def start_source(make=child_sources.Counting, *arguments) -> ChildSource:
        started.append(ChildSource(STARTER, make, arguments, "the reader", "/there", "do something else"))
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
    assert os.fstat(source._child.log).st_size < 1 << 20
    assert values(source.frames(1, [1])) == [101]


def test_closing_ends_the_process_whatever_it_does(start):
    source = start()
    pid = pid_of(source)
    next(source.frames(1, range(20)))
    source.close()
    source.close()
    assert not is_running(pid)


def test_a_signal_ends_the_wait_for_a_source_that_hangs(start, tmp_path):
    hangs = tmp_path / "hangs"
    source = start(child_sources.Counting, "hang", (4, 3), hangs)
    pid = pid_of(source)

    def press_ctrl_c() -> None:
        wait_for(hangs.exists)
        os.kill(os.getpid(), signal.SIGINT)

    with interrupt.handled():
        threading.Thread(target=press_ctrl_c).start()
        with pytest.raises(interrupt.Interrupted):
            source.shots(2)
    source.close()
    assert not is_running(pid)


def test_a_signal_ends_the_wait_for_a_frame(start):
    source = start()
    frames, pid = source.frames(1, range(20)), pid_of(source)
    next(frames)
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    with interrupt.handled(), pytest.raises(interrupt.Interrupted):
        timer.start()
        list(frames)
    timer.join()
    source.close()
    assert not is_running(pid)


# --- memory of frames ----------------------------------------------------------------------------


def test_frames_may_be_kept(start):
    source = start()
    kept = [result.frame for result in source.frames(1, [*range(3), *range(4, 20)])]
    again = [result.frame for result in source.frames(2, [*range(3), *range(4, 20)])]
    for run, frames in ((1, kept), (2, again)):
        assert [int(frame[0, 0]) for frame in frames] == [100 * run + n for n in (*range(3), *range(4, 20))]
        assert not any(frame.flags.writeable for frame in frames)


@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=40), kept=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_frames_of_any_sizes_come_whole_while_some_are_kept(sizes, kept):
    """Of size 0 there is none. What the two sides do by turns is done here by one process."""
    fd = shared_memory()
    writer, reader, held = Writer(fd), Reader(fd), collections.deque(maxlen=kept)
    for n, size in enumerate(sizes):
        frame = np.full((1, size), n, "<u2")
        held.append((n, reader.get(writer.put(frame)))) if size else None
        writer.free += reader.freed()
        assert writer.free, "the writer would wait for ever"
        assert all((frame == of).all() for of, frame in held)
    os.close(fd)


# --- the process that starts them ----------------------------------------------------------------


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def test_what_is_loaded_is_loaded_once_for_all_sources(tmp_path):
    """Also for those of a copy of this process, as --jobs makes them."""
    starter = Starter("tests.prepare.child_sources:note", str(tmp_path / "loaded"))
    sources = [
        ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")
        for _ in range(2)
    ]
    reading, writing = os.pipe()
    copy = os.fork()
    if not copy:
        mine = ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")
        os.write(writing, str(parent_of(pid_of(mine))).encode())
        mine.close()
        os._exit(0)
    os.waitpid(copy, 0)
    parents = {int(os.read(reading, 20)), *(parent_of(pid_of(source)) for source in sources)}
    assert parents == {int(line) for line in (tmp_path / "loaded").read_text().splitlines()}
    assert len(parents) == 1
    for fd in (reading, writing):
        os.close(fd)
    sources[0].close()
    assert values(sources[1].frames(1, [1])) == [101]
    sources[1].close()
    starter.end()
    assert not any(map(is_running, parents))


@pytest.mark.parametrize("copied", [False, True])
def test_the_starting_process_may_be_killed(copied):
    starter = Starter()
    source = ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")
    pid = pid_of(source)
    killed = parent_of(pid)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not is_running(pid))
    if copied:  # of a copy it is not a child, which sees only that it is gone
        starter._owner = 0
    how = "has ended" if copied else r"was ended by SIGKILL from outside \(too little memory\?\)"
    with pytest.raises(DataError, match=f"^run 1: the process of the reader {how}"):
        source.shots(1)
    starter._owner = os.getpid()
    assert values(source.frames(1, [1])) == [101]
    assert parent_of(source.files(2)[0][1]) != killed  # not what it remembers
    source.close()
    starter.end()


@pytest.mark.parametrize("used", [False, True])
def test_it_ends_when_it_is_not_wanted_any_more(used):
    starter = Starter()
    starter.begin()
    pid = starter._process.pid
    if used:
        Child(starter).close()
    starter.end()
    wait_for(lambda: not is_running(pid))


def test_both_processes_may_be_stopped(start):
    source = start()
    pid = pid_of(source)
    for stopped in (pid, parent_of(pid)):
        os.kill(stopped, signal.SIGSTOP)
    source.close()
    assert not is_running(pid)


def test_a_library_that_dies_when_it_is_loaded_is_one_line():
    starter = Starter("tests.prepare.child_sources:die")
    with pytest.raises(DataError, match="^/there: the process of the reader was ended by SIGABRT"):
        ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")


def refused(starter: Starter) -> None:
    before = os.listdir("/proc/self/fd")
    line = r"^/there: no process for the reader can be started \(Resource temporarily unavailable\)"
    with pytest.raises(DataError, match=line):
        ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")
    starter.end()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_no_process_to_be_had_is_one_line(monkeypatch):
    refused(Starter("tests.prepare.child_sources:no_forks"))

    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    refused(Starter())


def test_another_user_gets_no_process(start, monkeypatch):
    """Names of sockets are seen by all users of a machine."""
    starter = Starter("tests.prepare.child_sources:as_another_user")
    with pytest.raises(DataError, match="the process of the reader has ended"):
        ChildSource(starter, child_sources.Counting, (), "the reader", "/there", "do something else")
    starter.end()


@pytest.mark.parametrize("trouble", ["", "hang"])
def test_ends_with_its_parent_even_if_that_is_killed(tmp_path, trouble):
    hangs = tmp_path / "hangs"
    code = (
        "import time\n"
        "from prepare.children.starter import Starter\n"
        "from prepare.sources.child import ChildSource\n"
        "from tests.prepare import child_sources\n"
        f"arguments = ({trouble!r}, (4, 3), {str(hangs)!r})\n"
        "source = ChildSource(Starter(), child_sources.Counting, arguments, 'the reader', '', '')\n"
        "print(source.files(1)[0][1], flush=True)\n"
        "source.shots(2)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    starter = parent_of(pid)
    if trouble:
        wait_for(hangs.exists)
    assert is_running(pid) and is_running(starter)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(pid) and not is_running(starter))
