"""Damage small good HDF5 files and read them as `train` and `verify` do, in a process of its own.

What counts: the content is as it was, or the file is refused, or `verify` finds the damage. Bad are
content that changed unnoticed, any other exception, a crash of the HDF5 library, and a hang.

    python -m tests.faults.fuzz_hdf5 --count 20000 --seed 3
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import h5py

from common.dataset import reading
from common.errors import UserError
from prepare.verify import verify
from tests.common.test_untrusted import DIRTY
from tests.faults.jobs import ROOT
from train.data.dataset import open_data

CONFIG = """
name: small
source: {dir: runs}
camera: {shape: [24, 32]}
runs: {dark: [68], classes: {nolasing: [69], lasing: [70]}}
select: {train: 6, test: 4}
image: {compression: COMPRESSION}
simulate: {rate: 4.0, shots: {dark: 4, nolasing: 12, lasing: 12}}
"""
BATCH = 200  # files that one process reads
SECONDS = 60  # for one file
SHAPE = (16, 12)


def good_files(folder: Path) -> list:
    """Two small files, one of them compressed, whose runs have gone."""
    paths = []
    for compression in ("none", "bitshuffle-lz4"):
        place = folder / compression
        place.mkdir()
        (place / "small.yaml").write_text(CONFIG.replace("COMPRESSION", compression))
        for word in ("simulate", "select", "build"):
            subprocess.run(
                [sys.executable, "-m", "prepare", word, "small.yaml"], cwd=place, check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        shutil.rmtree(place / "runs")
        paths.append(place / "data" / "small.h5")
    return paths


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with one to eight bytes changed, most of them where HDF5 keeps its structure, or cut."""
    copy = bytearray(raw)
    marks = [
        at for mark in (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"\x89HDF") for at in _all(raw, mark)
    ]
    for _ in range(rng.randint(1, 8)):
        at = rng.choice(marks) + rng.randrange(300) if rng.random() < 0.7 else rng.randrange(len(raw))
        at = min(at, len(copy) - 1)
        copy[at] = rng.choice((copy[at] ^ 1 << rng.randrange(8), 0, 0xFF, rng.randrange(256)))
    if rng.random() < 0.05:
        del copy[rng.randrange(len(copy)) :]
    return bytes(copy)


def content(path: Path) -> str:
    """A digest of everything that can be read from the file."""
    sha = hashlib.sha256()
    with reading.open_data(path, ["train", "test"]) as file, reading.damage_named(path):
        names = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in sorted(names):
            sha.update(f"{name} {file[name].dtype} {file[name].shape}".encode())
            sha.update(file[name][...].tobytes())
        for name in sorted(set(file.attrs) - {"created", "software"}):
            sha.update(f"{name}={file.attrs[name]}".encode())
    return sha.hexdigest()


def outcome(path: Path, good: str) -> str:
    """What comes of reading one file."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        problems = verify(path).problems
        try:
            with open_data(path, SHAPE, ["train", "test"], "memory") as data:
                for split in data.splits.values():
                    for _ in split.batches(3):
                        pass
        except UserError:
            pass  # `train` refuses it; what verify says of it counts below
        try:
            same = content(path) == good
        except UserError:
            return "refused"
    return "as it was" if same else "found by verify" if problems else "NOT NOTICED"


def work(paths: list, seed: int, start: int, stop: int, place: Path) -> None:
    """Read the damaged files number `start` to `stop`; a line for each on standard output."""
    raws = [Path(path).read_bytes() for path in paths]
    digests = [content(Path(path)) for path in paths]
    for number in range(start, stop):
        rng = random.Random(seed * 1_000_003 + number)
        which = rng.randrange(len(raws))
        path = place / "damaged.h5"
        path.write_bytes(damaged(raws[which], rng))
        print(number, end=" ", flush=True)
        signal.alarm(SECONDS)
        print(outcome(path, digests[which]), flush=True)
        signal.alarm(0)


def run(count: int, seed: int) -> Counter:
    """Outcomes of `count` damaged files; a process that dies is begun again after the file it died of."""
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        paths = good_files(Path(name))
        number = 0
        while number < count:
            stop = min(number + BATCH, count)
            words = [sys.executable, "-m", "tests.faults.fuzz_hdf5", "--seed", str(seed), "--work"]
            process = subprocess.run(
                [*words, f"{number},{stop},{name}", *map(str, paths)],
                capture_output=True, text=True, env={**os.environ, **DIRTY},
            )  # fmt: skip
            for line in process.stdout.splitlines():
                at, _, what = line.partition(" ")
                number = int(at) + 1
                what = what or f"process ended with {process.returncode}"
                counts[what] += 1
                if what not in ("as it was", "refused", "found by verify"):
                    last = (process.stderr.strip().splitlines() or [""])[-1]
                    print(f"file {at} of seed {seed}: {what} {last}", file=sys.stderr)
            if not process.stdout:
                raise SystemExit(process.stderr)
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--count", type=int, default=600)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", help=argparse.SUPPRESS)
    options.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.work:
        start, stop, place = given.work.split(",")
        work(given.paths, given.seed, int(start), int(stop), Path(place))
        return
    counts = run(given.count, given.seed)
    print(f"HDF5, damaged files: {sum(counts.values())}: {dict(counts)}")
    sys.exit(1 if set(counts) - {"as it was", "refused", "found by verify"} else 0)


def _all(raw: bytes, mark: bytes) -> list:
    found, at = [], raw.find(mark)
    while at >= 0:
        found.append(at)
        at = raw.find(mark, at + 1)
    return found


if __name__ == "__main__":
    main()
