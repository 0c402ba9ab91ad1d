"""What a build costs as it grows, with full frames: many shards, and a tenth more of them.

    python -m tests.benchmarks.shards data/xtc/demo --shots 10000 100000   # 6 minutes

The runs of the folder are linked under as many run numbers as it takes, so that the disk holds each frame
once; a shot of another run is another shot. The images of a finished file are given back to the disk while
the next ones are made (a hole in the file; its tables stay), so that 10^5 of them, 41 GB, need no room.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import yaml

from common.dataset import reading
from common.errors import DataError
from prepare.formats.files import FileName, files_by_run
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.shots import USABLE
from prepare.sources.native import XtcSource
from tests.benchmarks.load import measured

DARK, NO_LASING, LASING = 68, 69, (70, 71)  # of the folder


def link(source: Path, folder: Path, shots: int) -> dict[str, list[int]]:
    """Link the runs of `source` into `folder` until each class has `shots` shots; returns their numbers."""
    found = files_by_run(source)
    folder.mkdir(parents=True)
    sizes = {run: _shots(source, run) for run in (NO_LASING, *LASING)}
    classes: dict[str, list[int]] = {}
    for first, (label, runs) in zip((1000, 2000), (("nolasing", (NO_LASING,)), ("lasing", LASING))):
        numbers = classes.setdefault(label, [])
        while sum(sizes[runs[n % len(runs)]] for n in range(len(numbers))) < shots:
            numbers.append(first + len(numbers))
            _link(found[runs[(len(numbers) - 1) % len(runs)]], folder, numbers[-1])
    _link(found[DARK], folder, DARK)
    return classes


def _link(files: dict[FileName, Path], folder: Path, run: int) -> None:
    for name, path in files.items():
        os.link(path, folder / str(name._replace(run=run)))


def _shots(source: Path, run: int) -> int:
    with XtcSource(str(source), XTCAV_ADDRESS) as opened:
        shots = opened.shots(run)
        return int(((shots["ebeamCharge"] >= 0.1) & (shots["status"] == USABLE)).sum())


def write_config(folder: Path, classes: dict[str, list[int]], train: int, test: int) -> None:
    """The config of a data set `big`."""
    config = {
        "name": "big",
        "source": {"kind": "xtc", "dir": "xtc"},
        "runs": {"dark": [DARK], "classes": classes},
        "select": {"train": train, "test": test, "beam": {"min_charge": 0.1}},
    }
    (folder / "big.yaml").write_text(yaml.safe_dump(config))


def give_back(folder: Path, ended: threading.Event) -> None:
    """Free the images of each file in `folder` as it is finished, until `ended`.

    The last file may be renamed meanwhile, and keeps them.
    """
    done: set[Path] = set()
    while not ended.wait(0.5):
        for path in set(folder.glob("big-*.h5")) - done:
            done.add(path)
            with (
                contextlib.suppress(DataError, subprocess.CalledProcessError),
                reading.open_data(path) as file,
            ):
                for split in (name for name in ("train", "test") if name in file):
                    images = file[split]["images"]
                    first = int(np.min(reading.image_offsets(images)))
                    size = images.size * images.dtype.itemsize
                    subprocess.run(["fallocate", "-p", "-o", str(first), "-l", str(size), path], check=True)


def build(folder: Path) -> None:
    """Draw and build the data set in `folder`, and give its images back meanwhile."""
    measured(["prepare", "select", "big.yaml"], folder)
    ended = threading.Event()
    watch = threading.Thread(target=give_back, args=(folder / "data" / "big.building", ended))
    watch.start()
    try:
        measured(["prepare", "build", "big.yaml"], folder)
    finally:
        ended.set()
        watch.join()


def main() -> None:
    """Parse, build, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="a folder of the runs of configs/prepare/demo.yaml")
    parser.add_argument("--shots", type=int, nargs="+", default=[10_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/shards"))
    given = parser.parse_args()
    for shots in given.shots:
        folder = given.folder / str(shots)
        print(f"{shots} images, then a tenth more, then nothing, in {folder}", flush=True)
        classes = link(given.runs, folder / "xtc", shots * 11 // 20)
        test = shots // 10
        write_config(folder, classes, shots - test, test)
        build(folder)
        write_config(folder, classes, shots, test)
        build(folder)
        build(folder)


if __name__ == "__main__":
    main()
