"""Every other fault of the README's table, once: what is seen, what is kept."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

from common.dataset.index import data_files
from tests.faults.full import small_disk
from tests.faults.jobs import Build, BuildFile, Ended, Fit, Job, end, wrong
from tests.faults.kills import Result

Good = dict[str, dict[str, Any]]


def each(folder: Path, shared: Path, good: Good) -> list[Result]:
    """Try every fault; returns a Result each."""
    results = []
    for number, (what, job, fault) in enumerate(FAULTS):
        subject = job(folder / f"each{number}", shared)
        problem = fault(subject)
        if problem == NOT_HERE:
            print(f"not possible on this machine: {subject.name}, {what}", flush=True)
            continue
        results.append(Result(subject.name, what, problem or _goes_on(subject, good)))
        shutil.rmtree(subject.folder, ignore_errors=True)
    return results


NOT_HERE = "not here"


def _goes_on(job: Job, good: Good) -> Optional[str]:
    ended = job.run(again=True)
    return (
        f"then exit {ended.code}: {ended.err[-300:]}" if ended.code else wrong(job, good[job.name]["digest"])
    )


def refused(ended: Ended, *words: str) -> Optional[str]:
    """None if the command ended with 2 and one line that has `words`."""
    clear = ended.code == 2 and ended.one_line and all(word in ended.err for word in words)
    return None if clear else f"exit {ended.code}: {ended.err[-300:] or ended.out[-300:]}"


def read_only(job: Job) -> Optional[str]:
    place = job.folder / ("data" if isinstance(job, Build) else "runs")
    with small_disk(place, 1 << 26) as disk:
        if disk is None or subprocess.run(["mount", "-o", "remount,ro", str(disk)]).returncode:
            return NOT_HERE
        return refused(job.run(), "Read-only file system")


def no_permission(job: Job) -> Optional[str]:
    if os.getuid() == 0:
        return NOT_HERE  # root may do everything; `injected` has the error
    job.folder.chmod(0o500)
    try:
        return refused(job.run(), "Permission denied")
    finally:
        job.folder.chmod(0o700)


def injected(error: str, calls: str, when: int, *words: str) -> Callable[[Job], Optional[str]]:
    """The system answers with `error` to one of `calls`, from the `when`-th on, as strace can make it."""

    def fault(job: Job) -> Optional[str]:
        if not shutil.which("strace"):
            return NOT_HERE
        words_before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
        inject = ["-e", f"inject={calls}:error={error}:when={when}+"]
        start = time.monotonic()
        return refused(end(job.start(prefix=[*words_before, *inject]), start), *words)

    return fault


def two_at_once(job: Job) -> Optional[str]:
    first = job.start(loading=False)
    start = time.monotonic()
    while not job.locks() and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    try:
        problem = refused(job.run(again=True), "is being worked on by process")
    finally:
        first.send_signal(signal.SIGCONT)
        first.terminate()
        end(first, start)
    return problem


def no_memory(job: Job) -> Optional[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (150 << 20, resource.RLIM_INFINITY))

    ended = job.run(preexec_fn=limit)
    # Libraries that cannot even be loaded may end the process themselves; nothing may be left then.
    return None if ended.code and not job.finished() else "was enough"


def runs_vanish(job: Build) -> Optional[str]:
    link, empty = job.folder / "runs", job.folder / "without"
    empty.mkdir()
    for path in (job.shared / "runs").iterdir():
        if "r0070" not in path.name:
            (empty / path.name).symlink_to(path)
    link.unlink()
    link.symlink_to(empty)
    problem = refused(job.run(), "no XTC files of run 70")
    link.unlink()
    link.symlink_to(job.shared / "runs")
    return problem


def data_shrinks(job: Fit) -> Optional[str]:
    copy = job.folder / "copy.h5"
    shutil.copy(job.data, copy)
    config = job.folder / "train.yaml"
    before = config.read_text()
    config.write_text(before.replace(str(job.data), str(copy)))
    start = time.monotonic()
    process = job.start(loading=False)
    while not list(job.folder.rglob("metrics.csv")) and process.poll() is None:
        time.sleep(0.01)
    os.truncate(copy, copy.stat().st_size // 2)
    ended = end(process, start)
    shutil.copy(job.data, copy)
    return refused(ended, "copy.h5") if ended.code else None  # it had read everything already


def killed_with(job: Job, kept: Callable[[], list[Path]]) -> list[Path]:
    """Kill a job (-9) when it has made the files `kept`, which are returned."""
    start = time.monotonic()
    process = job.start(loading=False)
    while not kept() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    end(process, start)
    return kept()


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


def damaged_state(job: Fit) -> Optional[str]:
    """A byte flipped in the newest checkpoint: it is noticed, and the one before it taken."""
    kept = killed_with(job, lambda: sorted(job.folder.rglob("step-*.npz"))[1:])
    for newest in kept[-1:]:
        flip(newest)
    return None


def damaged_file(job: Build) -> Optional[str]:
    """A file of an unfinished build cut short: it is noticed, and made again."""
    for path in killed_with(job, lambda: sorted(job.folder.rglob("job-*.h5"))[:1]):
        os.truncate(path, path.stat().st_size // 2)
    return None


def repaired(job: Build) -> Optional[str]:
    """A byte flipped in a finished file, another file gone: found, and made again with the same content."""
    if (ended := job.run()).code:
        return f"exit {ended.code}: {ended.err[-300:]}"
    first, second, *_ = data_files(job.output)
    good = job.digest()
    flip(first)
    second.unlink()
    for command, code in (("verify", 1), ("repair", 0), ("verify", 0)):
        what = "prepare.yaml" if command == "repair" else str(job.output)
        job.command = lambda _, words=(command, what): [sys.executable, "-m", "prepare", *words]
        ended = job.run()
        del job.command
        if ended.code != code:
            return f"{command}: exit {ended.code}: {(ended.err or ended.out)[-300:]}"
    return None if job.digest() == good else "another content"


def lock_of_the_dead(job: Job) -> Optional[str]:
    start = time.monotonic()
    process = job.start(loading=False)
    while not job.locks() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    end(process, start)
    return None


def settings_changed(job: Build) -> Optional[str]:
    killed_with(job, lambda: list(job.folder.rglob("job-*.h5")))
    config = job.folder / "prepare.yaml"
    before = config.read_text()
    config.write_text(before.replace("image: {", "image: {log: false, "))
    problem = None if job.finished() else refused(job.run(again=True), "image")
    config.write_text(before)
    return problem


FAULTS = [
    ("read-only folder", Build, read_only),
    ("read-only folder", Fit, read_only),
    ("permission denied", Build, no_permission),
    ("permission denied (injected)", Build, injected("EACCES", "mkdir", 1, "Permission denied")),
    ("quota exceeded (injected)", Build, injected("EDQUOT", "write,pwrite64", 20, "quota exceeded")),
    ("quota exceeded (injected)", BuildFile, injected("EDQUOT", "write,pwrite64", 99, "quota exceeded")),
    ("the disk fails (injected)", Build, injected("EIO", "fsync", 1, "Input/output error")),
    ("the disk fails (injected)", BuildFile, injected("EIO", "fsync", 1, "Input/output error")),
    ("the disk fails (injected)", Fit, injected("EIO", "fsync", 3, "Input/output error")),
    ("the mount goes stale (injected)", Build, injected("ESTALE", "pread64", 300, "Stale file handle")),
    ("the runs vanish", Build, runs_vanish),
    ("the data file shrinks", Fit, data_shrinks),
    ("two at once", Build, two_at_once),
    ("two at once", Fit, two_at_once),
    ("a lock of the dead", Build, lock_of_the_dead),
    ("a lock of the dead", Fit, lock_of_the_dead),
    ("kept state damaged", Build, damaged_file),
    ("finished files damaged", Build, repaired),
    ("kept state damaged", Fit, damaged_state),
    ("settings changed in between", Build, settings_changed),
    ("out of memory", Build, no_memory),
    ("out of memory", Fit, no_memory),
]
