"""Throw damaged and made-up files at the readers: each must be read or refused, never crash or hang.

python -m tests.faults.fuzz                                   corpus and some thousand mutations
python -m tests.faults.fuzz --xtc 100000 --hdf5 20000         many
python -m tests.faults.fuzz --guided 600 --corpus DIR         XTC, guided by coverage (needs atheris)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Iterator

from common.errors import UserError
from prepare.shots import USABLE
from prepare.sources.native import XtcSource
from tests.faults import xtc_trees

CORPUS = Path(__file__).with_name("corpus")
CAMERA = "XrayTransportDiagnostic.0:Opal1000.0"
NAMES = ("e815-r0054-s00-c00.xtc", "e815-r0054-s80-c00.xtc")
SECONDS = 20  # for one input; the reader takes milliseconds
MEMORY = 2 << 30  # address space that the process may have besides what it starts with


def read_xtc(folder: Path, raw: bytes) -> str:
    """Read two files made of `raw` to their ends: 'read' or 'refused'; anything else is raised.

    raw: two bytes, the length of the first file, and both files.
    """
    cut = 2 + int.from_bytes(raw[:2], "little")
    for name, part in zip(NAMES, (raw[2:cut], raw[cut:])):
        (folder / name).write_bytes(part)
    with contextlib.redirect_stderr(io.StringIO()):
        source = XtcSource(str(folder), CAMERA)
        try:
            status = source.shots(54)["status"]
            for index in (status == USABLE).nonzero()[0].tolist():
                frame = source.frame(54, index)
                assert frame.ndim == 2 and frame.size
            return "read"
        except UserError:
            return "refused"
        finally:
            source.close()


def packed(first: bytes, second: bytes) -> bytes:
    """Two files as one input."""
    first = first[:0xFFFF]
    return len(first).to_bytes(2, "little") + first + second


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs made from good files, the same for the same seed."""
    rng, good = random.Random(seed), xtc_trees.seeds()
    for _ in range(count):
        pair = rng.choice(good)
        which = rng.choice((0, 1, 2))
        yield packed(
            *(xtc_trees.mutated(p, rng) if which in (n, 2) else xtc_trees.text(p) for n, p in enumerate(pair))
        )


def all_of(inputs: Iterator[bytes], folder: Path) -> Counter:
    """How many inputs were read, how many refused; stops with the input on what should not happen."""
    counts: Counter = Counter()
    for raw in inputs:
        signal.alarm(SECONDS)  # kills the process: whatever hangs is not to be waited for
        try:
            counts[read_xtc(folder, raw)] += 1
        except BaseException:
            Path("xtc_crash").write_bytes(raw)
            print("the input is in xtc_crash", file=sys.stderr)
            raise
    signal.alarm(0)
    return counts


def guided(seconds: int, corpus: Path, folder: Path) -> None:
    """Let atheris look for inputs that reach new code, beginning with `corpus` and the good files."""
    import atheris

    for module in [
        m
        for name, m in sys.modules.items()
        if name.startswith("prepare.formats.xtc1") or name == "prepare.sources.native"
    ]:
        for value in list(vars(module).values()):
            if getattr(value, "__module__", None) == module.__name__:
                for method in vars(value).values() if isinstance(value, type) else ():
                    if callable(method) and hasattr(method, "__code__"):
                        atheris.instrument_func(method)
                if hasattr(value, "__code__"):
                    atheris.instrument_func(value)
    corpus.mkdir(exist_ok=True)
    for n, pair in enumerate(xtc_trees.seeds()):
        (corpus / f"good{n}").write_bytes(packed(*map(xtc_trees.text, pair)))
    arguments = [f"-max_total_time={seconds}", "-max_len=8192", f"-timeout={SECONDS}", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], lambda raw: read_xtc(folder, raw))
    atheris.Fuzz()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--xtc", type=int, default=3000, help="mutations of good XTC files")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--guided", type=int, default=0, metavar="SECONDS")
    options.add_argument("--corpus", type=Path, default=CORPUS)
    given = options.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        if given.guided:
            guided(given.guided, given.corpus, Path(name))
            return
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        start = time.monotonic()
        saved: list[bytes] = [path.read_bytes() for path in sorted(given.corpus.glob("*"))]
        counts = all_of(iter(saved), Path(name))
        print(f"XTC, saved inputs: {sum(counts.values())}: {dict(counts)}")
        counts = all_of(mutations(given.xtc, given.seed), Path(name))
        print(f"XTC, mutations: {sum(counts.values())}: {dict(counts)}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
