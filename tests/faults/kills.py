"""Jobs that are killed again and again and go on each time, to be compared at the end."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from tests.faults.jobs import Job, end, wrong

NAMES = {signal.SIGKILL: "kill -9", signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}
LOADING = 0.2  # of the signals
CLEAN = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Result(NamedTuple):
    """One thing that was tried: which job, what was done to it, and what went wrong if something did."""

    job: str
    what: str
    problem: Optional[str]


def killed_at_random(
    kind: type, folder: Path, shared: Path, good: dict[str, Any], seed: int, kills: list[int]
):
    """Disturb a job by each of the signals `kills`, at instants over its whole life; returns Results.

    Four of five come while it works, one while it loads, which takes most of the time of a job so small.

    A job that ends before its signal comes is compared and begun afresh; so is the last one.
    """
    rng, job, results, pending = random.Random(seed), kind(folder, shared), [], []
    again = False
    for number in kills:
        while True:
            loads = rng.random() < LOADING
            delay = rng.uniform(0, good["loads"]) if loads else rng.uniform(good["begins"], good["seconds"])
            ended = _signaled(job, again, number, delay, loads)
            if ended.code != 0 and not _complete(job, ended):
                break
            results += _judge(job, pending, good)  # it was faster than the signal
            again, pending = False, []
        pending.append((NAMES[number], f"seed {seed}, {delay:.2f} s", _bad_end(ended, number)))
        again = True
    return results + _finish(job, pending, good)


def killed_at_files(kind: type, folder: Path, shared: Path, good: dict[str, Any], seed: int, kills: int):
    """The same, each time just before a change to a file (at_event.py), 1 to 12 changes on."""
    rng, job, results, pending = random.Random(seed), kind(folder, shared), [], []
    again = False
    while kills:
        n = rng.randint(1, 12)
        ended = _killed_at_file(job, again, n)
        if ended.code == 0 or _complete(job, ended):
            results += _judge(job, pending, good)
            again, pending = False, []
            continue
        pending.append(("kill -9 before a change to a file", f"seed {seed}, {n}", _not_killed(ended)))
        again = True
        kills -= 1
    return results + _finish(job, pending, good)


def killed_at_every_file(kind: type, folder: Path, shared: Path, good: dict[str, Any]) -> list[Result]:
    """Kill a job (-9) before its first change to a file, another before its second, up to its last."""
    job, results = kind(folder, shared), []
    n = 1
    while (ended := _killed_at_file(job, False, n)).code != 0:
        pending = [("kill -9 before every change to a file", f"change {n}", _not_killed(ended))]
        results += _finish(job, pending, good)
        n += 1
    return results + _judge(job, [], good)


def _killed_at_file(job: Job, again: bool, n: int):
    """The end of the job's command under at_event.py, that kills it before its n-th change."""
    words = job.command(again)[2:]
    job.command = lambda _: [sys.executable, str(Path(__file__).with_name("at_event.py")), str(n), *words]
    try:
        return job.run()
    finally:
        del job.command


def _not_killed(ended) -> Optional[str]:
    return None if ended.code == -signal.SIGKILL else f"exit {ended.code}: {ended.err[-300:]}"


def _signaled(job: Job, again: bool, number: int, delay: float, loads: bool):
    start = time.monotonic()
    process = job.start(again, loading=loads)
    timer = threading.Timer(delay, process.send_signal, [number])
    timer.start()
    ended = end(process, start)
    timer.cancel()
    timer.join()
    return ended


def _bad_end(ended, number: int) -> Optional[str]:
    """What a signal ended in, if not in what it should."""
    allowed = {-number}  # before the command has begun, Python's own answer
    if number in CLEAN:
        allowed.add(CLEAN[number])
    if number == signal.SIGINT and "KeyboardInterrupt" in ended.err and "common/start.py" not in ended.err:
        return None  # while Python itself starts
    if ended.code in allowed and (ended.code < 0 or ended.one_line):
        return None
    return f"exit {ended.code}: {ended.err[-300:]}"


def _finish(job: Job, pending: list, good: dict[str, Any]) -> list[Result]:
    """Let the job go on to its end, undisturbed, and compare."""
    return _judge(job, pending, good, finish(job))


def finish(job: Job) -> Optional[str]:
    """Let a job go on to its end; what is wrong if it does not come to it."""
    ended = job.run(again=True)
    return f"exit {ended.code}: {ended.err[-300:]}" if ended.code and not _complete(job, ended) else None


def _complete(job: Job, ended) -> bool:
    """Whether `fit` was killed when its result was in its place already: it then says so."""
    return ended.code == 2 and job.finished() and "exists already" in ended.err


def _judge(job: Job, pending: list, good: dict[str, Any], problem: Optional[str] = None) -> list[Result]:
    problem = problem or wrong(job, good["digest"])
    results = [
        Result(job.name, what, own or (problem and f"{problem} ({when})")) for what, when, own in pending
    ]
    if problem and not pending:
        results.append(Result(job.name, "undisturbed", problem))
    job.reset()
    return results
