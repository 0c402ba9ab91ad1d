"""Time and peak memory under load: many shots, many rows, many steps. Not a test: run it by hand.

python -m tests.benchmarks.load --shots 100000 --rows 1000000 --steps 100000
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import manifest
from common.manifest import ROW_DTYPE, Rows
from prepare.formats.xtc1 import writer
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS, source_phy
from prepare.formats.xtc1.format import CONFIGURE, FIDUCIALS, L1_ACCEPT

ROOT = Path(__file__).parents[2]
SHAPE = (48, 40)
PREPARE = """
name: load
source: {{dir: runs}}
camera: {{shape: [48, 40]}}
runs: {{dark: [68], classes: {{nolasing: [69], lasing: [70]}}}}
select: {{train: {train}, test: {test}, beam: {{min_charge: 0.1}}}}
"""
TRAIN = """
name: load
data: data/load.h5
threads: {{intra: 1, inter: 1}}
input: [20, 24]
network: [{{average_pool: {{pool_size: [4, 4], strides: [4, 4]}}}}, {{output: {{}}}}]
minibatch: 4
steps: {steps}
table_every: 20
learning_rate: {{start: 0.0001}}
report: false
"""


def write_run(folder: Path, run: int, shots: int, rng: np.random.Generator) -> None:
    """A run of `shots` at 120 Hz: a DAQ stream with the machine's records, a camera stream with frames."""
    phy = source_phy(XTCAV_ADDRESS)
    start = 1_435_000_000 + 100_000 * run
    frames = rng.integers(20, 60, (64, *SHAPE)).astype("<u2")
    pieces = [writer.frame(phy, image, 12, 32) for image in frames]
    records = [writer.ebeam([0.25] * 20, 0), writer.gas_detector([0.01] * 6)]
    named = f"e815-r{run:04d}-s%02d-c00.xtc"
    with (folder / (named % 0)).open("wb") as daq, (folder / (named % 80)).open("wb") as camera:
        daq.write(writer.datagram((start, 0), 0, CONFIGURE, [writer.aliases([("xtcav", phy)])]))
        camera.write(writer.datagram((start, 0), 0, CONFIGURE))
        for n in range(shots):
            when = (start + n // 120, n % 120 * 8_333_333)
            fiducial = 3 * n % FIDUCIALS
            daq.write(writer.datagram(when, fiducial, L1_ACCEPT, records))
            camera.write(writer.datagram(when, fiducial, L1_ACCEPT, [writer.segment([pieces[n % 64]])]))


def measured(words: list[str], cwd: Path) -> None:
    """Run a command; print its wall and CPU time and its peak memory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=cwd, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    tell(" ".join(words), time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    if status:
        raise SystemExit(errors)


def tell(what: str, wall: float, cpu: float, megabytes: float) -> None:
    print(f"{what:<40} {wall:8.1f} s wall {cpu:8.1f} s CPU {megabytes:8.0f} MB at most", flush=True)


def shots(folder: Path, count: int) -> None:
    """A data set of `count` shots through every command."""
    (folder / "runs").mkdir()
    rng = np.random.default_rng(1)
    for run, n in ((68, 200), (69, count // 2), (70, count // 2)):
        write_run(folder / "runs", run, n, rng)
    (folder / "load.yaml").write_text(PREPARE.format(train=count // 2, test=count // 4))
    for words in (["list"], ["select"], ["build"]):
        measured(["prepare", *words, "load.yaml"], folder)
    measured(["prepare", "verify", "data/load"], folder)


def rows(folder: Path, count: int) -> None:
    """A manifest of `count` rows, written and read in a process of its own."""
    path = folder / "large.csv"
    code = (
        "import sys, time; from tests.benchmarks.load import write_manifest, read_manifest\n"
        f"({{'write': write_manifest, 'read': read_manifest}}[sys.argv[1]])({str(path)!r}, {count})"
    )
    for word in ("write", "read"):
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", code, word], cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        wall = time.monotonic() - start
        tell(f"manifest of {count} rows: {word}", wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def write_manifest(path: str, count: int) -> None:
    number = np.arange(count)
    table = np.zeros(count, ROW_DTYPE)
    table["label"], table["run"], table["seconds"] = number % 2, 70, number // 120
    table["nanoseconds"], table["fiducial"] = number % 120 * 8_333_333, number % FIDUCIALS
    manifest.write(path, Rows(table, ["nolasing", "lasing"]))


def read_manifest(path: str, count: int) -> None:
    assert len(manifest.read(path)) == count


def steps(folder: Path, count: int) -> None:
    """`count` steps of a tiny network: memory and open files, from the first tenth on to the end."""
    (folder / "train.yaml").write_text(TRAIN.format(steps=count))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "fit", "train.yaml"], cwd=folder, env=environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    start, at = time.monotonic(), 0
    for line in process.stdout:
        step = int(line.split()[0]) if line.split()[:1] and line.split()[0].isdigit() else 0
        if step > at:
            at += max(count // 10, 1)
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
            print(
                f"step {step:>7}: {time.monotonic() - start:7.1f} s, {memory:6.0f} MB, {files} open files",
                flush=True,
            )
    process.stdout.close()
    if process.wait():
        raise SystemExit("the run failed")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--shots", type=int, default=0)
    options.add_argument("--rows", type=int, default=0)
    options.add_argument("--steps", type=int, default=0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.rows:
            rows(folder, given.rows)
        if given.shots or given.steps:
            shots(folder, given.shots or 200)
        if given.steps:
            steps(folder, given.steps)


if __name__ == "__main__":
    main()
