"""Kill, starve and damage the real commands, and count what is lost.

python -m tests.faults                     everything
python -m tests.faults --only build --kills 10 --seed 3
"""

from __future__ import annotations

import argparse
import concurrent.futures
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Callable

from tests.faults.each import each
from tests.faults.full import disk_full
from tests.faults.jobs import Build, BuildFile, BuildJobs, Fit, reference, shared_inputs
from tests.faults.kills import Result, killed_at_every_file, killed_at_files, killed_at_random

# Bytes of disk that a whole job takes, unfinished and finished at once.
NEEDED = {"build": 40 << 20, "fit": 200 << 10}
KINDS = (Build, BuildFile, BuildJobs, Fit)
CHAINS = 5  # the kills of a job are spread over so many folders


def main() -> int:
    # Started by nohup or with `&` it is ignored, and commands would inherit that and never stop by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--kills", type=int, default=25, help="kill -9 at random instants, of each job")
    options.add_argument("--signals", type=int, default=6, help="SIGTERM, and SIGINT, of each job")
    options.add_argument(
        "--at-files", type=int, default=10, help="kill -9 before changes to files, of each job"
    )
    options.add_argument(
        "--only", choices=["build", "fit", "each"], help="one of the jobs, or the other faults"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        results = run(Path(name), given)
    lost = tell(results)
    seconds = time.monotonic() - start
    print(f"{len(results)} tried, {len(results) - lost} recovered, {lost} lost; {seconds:.0f} s")
    return 1 if lost else 0


def run(base: Path, given: argparse.Namespace) -> list[Result]:
    """Everything that was asked for, two processes at a time."""
    shared = shared_inputs(base / "shared")
    kinds = [kind for kind in KINDS if given.only in (None, kind.words[2])]
    good = {kind.name: reference(kind, base, shared) for kind in (kinds or KINDS)}
    tasks: list[Callable[[], list[Result]]] = []
    if given.only in (None, "each"):
        tasks.append(lambda: each(base, shared, good))  # the longest
    for kind in kinds:
        own = good[kind.name]
        kills = [signal.SIGKILL] * given.kills + [signal.SIGTERM, signal.SIGINT] * given.signals
        random.Random(given.seed).shuffle(kills)
        for n in range(CHAINS):
            at = (base / f"{kind.name}{n}", shared, own, 100 * given.seed + n)
            share = kills[n::CHAINS]
            tasks.append(lambda kind=kind, at=at, share=share: killed_at_random(kind, *at, share))
        if kind is BuildJobs:  # the faults below are those of its files, which are the others', too
            continue
        at = (base / f"{kind.name}_at_files", shared, own, given.seed, given.at_files)
        tasks.append(lambda kind=kind, at=at: killed_at_files(kind, *at))
        if kind is not Fit:  # which has three times as many changes, and takes five times as long
            at = (base / f"{kind.name}_every_file", shared, own)
            tasks.append(lambda kind=kind, at=at: killed_at_every_file(kind, *at))
        at = (base / f"{kind.name}_full", shared, own, NEEDED[kind.words[2]])
        tasks.append(lambda kind=kind, at=at: disk_full(kind, *at))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [result for results in pool.map(_told, tasks) for result in results]


def _told(task: Callable[[], list[Result]]) -> list[Result]:
    """The results of `task`, with a line as it ends: the whole takes minutes."""
    results = task()
    lost = sum(bool(result.problem) for result in results)
    jobs = ", ".join(sorted({result.job for result in results}))
    print(f"... {jobs}: {len(results)} tried, {lost} lost", flush=True)
    return results


def tell(results: list[Result]) -> int:
    """Print the counts; returns how many were lost."""
    tried = Counter((result.job, result.what) for result in results)
    lost = Counter((result.job, result.what) for result in results if result.problem)
    for (job, what), n in sorted(tried.items()):
        print(
            f"{job:<14} {what:<38} tried {n:>3}  recovered {n - lost[job, what]:>3}  lost {lost[job, what]}"
        )
    for result in results:
        if result.problem:
            print(f"LOST {result.job}, {result.what}: {result.problem}")
    return sum(lost.values())


if __name__ == "__main__":
    sys.exit(main())
