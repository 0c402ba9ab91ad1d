"""How fast a data set is built through psana 2, and whether 140 images cost the same from any run.

    python tests/benchmarks/psana_build.py [--folder DIR] [--frames 1500] [--events 500 2000 8000]

Needs psana 2 (`make test-psana` makes an environment that has it: .venv-psana/bin/python). Writes
simulated runs of 726 x 568 pixels under DIR, up to 14 GB at a time, and removes them. All ways are
timed in turns, in one process, on one rank; the medians are printed with their spread. Frames
repeat after 50, which changes no timing: nothing here compresses.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Callable, NamedTuple

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from common import manifest, parallel
from common.config import dump
from prepare.build.run import build
from prepare.config import PrepareConfig
from prepare.select import select
from prepare.simulate import shots as simulated_shots
from prepare.simulate.run import simulate as write_runs
from prepare.sources import open_source
from prepare.sources.psana import import_psana
from prepare.sources.psana2_calls import open_run

psana = import_psana("psana2")
OURS, ITS_OWN = os.environ["PS_BD_CHUNKSIZE"], str(1 << 24)  # bytes that psana reads at a time
DARK, CLASSES = 68, {"nolasing": [69], "lasing": [70]}


def config_of(folder: Path, kind: str, events: int, images: int, jobs: int = 1) -> PrepareConfig:
    """Two labeled runs of `events` events each, of which `images` are drawn, six of seven for training.

    Each of `jobs` processes has a file to make.
    """
    test = images // 7 // 2 * 2
    return PrepareConfig(
        name=f"{kind}{events}",
        source={"kind": kind, "dir": str(folder)},
        runs={"dark": [DARK], "classes": CLASSES},
        select={"train": images - test, "test": test},
        output_dir=str(folder),
        manifest_dir=str(folder),
        shard=-(-images // jobs),
        simulate={
            "shots": {"dark": 60, "nolasing": events, "lasing": events},
            "missing": 0.0,
            "damaged": 0.0,
        },
    )


def simulate_runs(folder: Path, events: int, forms: tuple) -> None:
    frames: dict[int, np.ndarray] = {}
    frame = simulated_shots.frame

    def repeated(rng, state, i: int, *rest) -> np.ndarray:
        if i % 50 not in frames:
            frames[i % 50] = frame(rng, state, i, *rest)
        return frames[i % 50]

    simulated_shots.frame = repeated
    try:
        for form in forms:
            write_runs(config_of(folder, "xtc", events, 14), form=form)
    finally:
        simulated_shots.frame = frame


# --- the ways --------------------------------------------------------------------------------


def bare_loop(folder: Path) -> int:
    """psana alone: every frame is read, nothing is done with it."""
    os.environ["PS_BD_CHUNKSIZE"] = ITS_OWN
    n = 0
    for run in itertools.chain(*CLASSES.values()):
        psana_run = open_run(psana, "amo86815", str(folder), run)
        camera = psana_run.Detector("xtcav")
        for event in psana_run.events():
            n += camera.raw.raw(event) is not None
    return n


def plain_script(folder: Path) -> int:
    """What one writes in an afternoon: psana loop, float64 arithmetic, h5py append."""
    os.environ["PS_BD_CHUNKSIZE"] = ITS_OWN
    psana_run = open_run(psana, "amo86815", str(folder), DARK)
    camera = psana_run.Detector("xtcav")
    dark = np.mean([camera.raw.raw(event).astype(float) for event in psana_run.events()], axis=0)
    n = 0
    with h5py.File(folder / "plain.h5", "w") as file:
        # h5py's own choice of chunks would make it several times slower still.
        shape = (284, 363)
        images = file.create_dataset("images", (0, *shape), "f4", maxshape=(None, *shape), chunks=(1, *shape))
        labels = file.create_dataset("labels", (0,), "i1", maxshape=(None,))
        for label, runs in enumerate(CLASSES.values()):
            for run in runs:
                psana_run = open_run(psana, "amo86815", str(folder), run)
                camera = psana_run.Detector("xtcav")
                for event in psana_run.events():
                    image = camera.raw.raw(event).astype(float) - dark
                    image = image.reshape(363, 2, 284, 2).mean(axis=(1, 3)).T
                    for dataset, value in ((images, np.log1p(np.maximum(image, 0))), (labels, label)):
                        dataset.resize(n + 1, axis=0)
                        dataset[n] = value
                    n += 1
    return n


def prepare_build(folder: Path, kind: str, events: int, images: int, rows: list, jobs: int = 1) -> int:
    """`prepare build`, everything included: opening the runs, the dark, the checksums, the flush to disk."""
    os.environ["PS_BD_CHUNKSIZE"] = OURS
    with parallel.executor(jobs) as workers:
        built = build(config_of(folder, kind, events, images, jobs), rows, workers=workers)
    return sum(sum(of_class.values()) for of_class in built.counts.values())


def drawn(folder: Path, kind: str, events: int, images: int) -> list:
    config = config_of(folder, kind, events, images)
    with open_source(config) as source:
        return select(source, config).rows


# --- timing ----------------------------------------------------------------------------------


class Times(NamedTuple):
    """Seconds an image: by the clock, and of processor time, which a busy machine disturbs less."""

    clock: list[float]
    processor: list[float]


def in_turns(folder: Path, ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, Times]:
    """Each way once before and `repeats` times in turns after."""
    times = {name: Times([], []) for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            for made in folder.glob("*.h5"):  # to replace a file takes time, too
                made.unlink()
            for made in folder.glob("*/*.json"):
                shutil.rmtree(made.parent)
            os.sync()  # nor does one way pay for what another has left to be written
            clock, before = time.perf_counter(), processor_time()
            n = way()
            if turn:
                times[name].clock.append((time.perf_counter() - clock) / n)
                times[name].processor.append((processor_time() - before) / n)
    return times


def processor_time() -> float:
    """Seconds, of this process and its children, and of psana's, which are those of another one."""
    total = sum(os.times()[:4])
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def rates(folder: Path, frames: int, repeats: int) -> None:
    events = frames // 2 + 40  # a few shots have no beam and are not drawn
    simulate_runs(folder, events, ("xtc", "xtc2"))
    images = frames // 14 * 14
    rows = drawn(folder, "psana2", events, images)

    def of(kind: str, jobs: int = 1) -> int:
        return prepare_build(folder, kind, events, images, rows, jobs)

    times = in_turns(
        folder,
        {
            "bare psana loop": lambda: bare_loop(folder),
            "prepare build, psana": lambda: of("psana2"),
            "prepare build, psana, --jobs 2": lambda: of("psana2", 2),
            "prepare build, native reader": lambda: of("xtc"),
            "prepare build, native, --jobs 2": lambda: of("xtc", 2),
            "plain script": lambda: plain_script(folder),
        },
        repeats,
    )
    for name, (clock, processor) in times.items():
        print(f"{name:<32} {1 / median(clock):7.0f} images/s ({1 / max(clock):.0f} to {1 / min(clock):.0f}), "
              f"{1e3 * median(processor):.2f} ms of processor time an image")  # fmt: skip
    for what in Times._fields:
        median_of = {name: median(getattr(each, what)) for name, each in times.items()}
        for way in (name for name in times if name.startswith("prepare build, psana")):
            longer = median_of[way] / median_of["bare psana loop"]
            shorter = median_of["plain script"] / median_of[way]
            print(f"{what}: {way} takes {longer:.1f} x as long as the bare loop, ", end="")
            print(f"the plain script {shorter:.1f} x as long as it")


def few_images(folder: Path, events: int, repeats: int) -> float:
    """Seconds to build 140 images from two runs of `events` events each, after `select` has listed them.

    By `build` in this process, and by the command, from its start to its end.
    """
    simulate_runs(folder, events, ("xtc2",))
    rows = drawn(folder, "psana2", events, 140)
    config = folder / "few.yaml"
    config.write_text(dump(config_of(folder, "psana2", events, 140)))
    manifest.write(config_of(folder, "psana2", events, 140).manifest_path, rows)

    def command() -> int:
        words = [sys.executable, "-m", "prepare", "-q", "build", str(config)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
        return 140

    ways = {"": lambda: prepare_build(folder, "psana2", events, 140, rows), "the command, ": command}
    times = in_turns(folder, ways, repeats)
    for name, (clock, processor) in times.items():
        print(f"{name}140 images from runs of {events:>5} events: {140 * median(clock):.2f} s "
              f"({140 * min(clock):.2f} to {140 * max(clock):.2f}), {140 * median(processor):.2f} s of "
              "processor time", flush=True)  # fmt: skip
    return median(times[""].clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", default=None, help="for the runs; default: a temporary one")
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--events", type=int, nargs="*", default=[500, 2000, 8000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")

    def in_a_folder(work: Callable[[Path], object]):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            return work(folder)
        finally:
            shutil.rmtree(folder)

    if options.frames:
        in_a_folder(lambda folder: rates(folder, options.frames, options.repeats))
    times = [in_a_folder(lambda folder, n=n: few_images(folder, n, options.repeats)) for n in options.events]
    if times:
        print(f"the slowest of them takes {max(times) / min(times):.2f} x the fastest")


if __name__ == "__main__":
    main()
