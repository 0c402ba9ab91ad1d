"""Disks that fill up at ten different moments: a tmpfs where mounting is allowed, else a limit on files."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from pathlib import Path
from typing import Any, Iterator, Optional

from tests.faults.jobs import Job, wrong
from tests.faults.kills import Result, finish

WORDS = ("No space left on device", "File too large")
LEVELS = 10


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Optional[Path]]:
    """A file system of `size` bytes at `folder`; None where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disk_full(kind: type, folder: Path, shared: Path, good: dict[str, Any], needed: int) -> list[Result]:
    """Run a job at LEVELS amounts of free space up to `needed` bytes, then with enough of it; compare.

    Each time it must stop with one line, leave nothing under the final name, and go on the next time.
    """
    results = []
    with small_disk(folder / "disk", 3 * needed) as disk:
        job: Job = kind((disk or folder) / "job", shared)
        filler = job.folder.parent / "filler"
        begun = False
        for level in range(LEVELS):
            if job.finished():
                break  # with less than was thought
            room = needed * level // LEVELS
            if disk:
                filler.unlink(missing_ok=True)
                _fill(filler, disk, room)
                ended = job.run(again=begun)
            else:
                ended = job.run(again=begun, preexec_fn=lambda room=room: _limit(room))
            results.append(Result(job.name, "disk full", _unclear(job, ended)))
            begun = True
        filler.unlink(missing_ok=True)
        problem = finish(job) or wrong(job, good["digest"])
        return [r._replace(problem=r.problem or problem) for r in results]


def _unclear(job: Job, ended) -> Optional[str]:
    if ended.code == 0:
        return None  # there was enough for what was still to do; the end is compared
    line = (ended.err.strip().splitlines() or [""])[-1]
    if ended.code != 2 or "Traceback" in ended.err or not any(word in ended.err for word in WORDS):
        return f"exit {ended.code}: {ended.err[-300:]}"
    return "a result, though the disk was full" if job.finished() else None if line else "no word"


def _fill(path: Path, disk: Path, room: int) -> None:
    """Write a file that leaves `room` bytes."""
    status = subprocess.run(["df", "-B1", "--output=avail", str(disk)], capture_output=True, text=True)
    free = int(status.stdout.split()[-1])
    with path.open("wb") as file:
        for _ in range(max(free - room, 0) // 4096):
            file.write(bytes(4096))


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 1), resource.RLIM_INFINITY))
