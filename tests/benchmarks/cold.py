"""Random minibatches of images that are not in the page cache, against reading the files from end to end.

    python -m tests.benchmarks.cold data/NAME --images 3000

Before every turn the kernel is told to forget the files. Prints, for the same images (those of NAME, again
and again) stored as float32, as float16 and with bitshuffle-LZ4, bytes an image, and for minibatches of 8, 32
and 128: images a second of a network that takes no time, its bytes a second against those of a sequential
read in the same turn, processor time an image; and how much of a step is waiting where the disk allows it,
with a network that needs 0.7 of the bytes that a sequential read gives. Medians of the turns, in each of
which all take part, of an epoch after its first third; of waiting, of the turns after which the disk still
gave what the network had needed.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from common.dataset import layout, reading, writing
from common.dataset.index import data_files
from common.text_table import lines
from train.data.dataset import open_data
from train.data.order import Position

KINDS = [("float32", "none"), ("float16", "none"), ("float32", "bitshuffle-lz4")]
SIZES = (8, 32, 128)
ALLOWED = 0.7  # of the bytes of a sequential read: what a network may take that the disk can feed


def copy(source: Path, path: Path, n: int, dtype: str, compression: str) -> None:
    """A data file of `n` training images, those of `source` as often as it takes, stored as said."""
    with open_data(source, None, ["train"], "stream") as data:
        split = data.splits["train"]
        sizes, shape = {"train": n, "test": 1}, split.image
        with writing.create(path, sizes, shape, shape, dtype, compression) as file:
            rows = np.arange(n) % len(split)
            for i, images in enumerate(split.batches(1, rows)):
                pixels = images[0, ..., 0].astype(file["train/images"].dtype)
                file["train/images"][i], file["train/crc32"][i] = pixels, reading.image_checksum(pixels)
            for name in ("run", "seconds", "nanoseconds", "fiducial"):
                file["train"][name][...] = split.ids[name][rows]
            attributes = {name: "{}" for name in layout.ATTRIBUTES}
            writing.finish(file, {**attributes, "classes": '["nolasing", "lasing"]'})


def forget(path: Path) -> None:
    """Have nothing of the file in the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def sequential(path: Path) -> float:
    """Bytes a second of reading the file from end to end."""
    forget(path)
    start, size = time.perf_counter(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(8 << 20):
            size += len(block)
    return size / (time.perf_counter() - start)


def minibatches(path: Path, size: int, step: float) -> tuple[float, float, float]:
    """Images a second, processor seconds an image, and the share of waiting, after a third of an epoch.

    step: seconds that the network takes for an image.
    """
    forget(path)
    with open_data(path, None, ["train"], "stream") as data:
        split, waited, done, before = data.splits["train"], 0.0, 0, None
        with closing(split.minibatches(size, 1, Position(0, 0))) as batches:
            while done < len(split):
                asked = time.perf_counter()
                if before is None and done >= len(split) / 3:
                    before, waited, start, cpu = done, 0.0, asked, time.process_time()
                done += len(next(batches).images)
                waited += time.perf_counter() - asked
                time.sleep(step * size)
        seconds = time.perf_counter() - start
        done -= before
        return done / seconds, (time.process_time() - cpu) / done, waited / seconds


def main() -> None:
    """Parse, copy, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple, list] = {}
    with tempfile.TemporaryDirectory(dir=data_files(given.data)[0].parent) as place:
        paths = {kind: Path(place) / f"{'-'.join(kind)}.h5" for kind in KINDS}
        for (dtype, how), path in paths.items():
            copy(given.data, path, given.images, dtype, how)
        stored = {kind: path.stat().st_size / given.images for kind, path in paths.items()}
        for _ in range(given.turns):
            for kind, path in paths.items():
                for size in SIZES:
                    disk = sequential(path)
                    rate, cpu, _ = minibatches(path, size, 0.0)
                    *_, waiting = minibatches(path, size, stored[kind] / (ALLOWED * disk))
                    waiting = waiting if sequential(path) > ALLOWED * disk else math.nan
                    row = (disk, rate, rate * stored[kind] / disk, cpu, waiting)
                    found.setdefault((kind, size), []).append(row)
    rows = []
    for (kind, size), turns in found.items():
        *columns, waited = zip(*turns)
        disk, rate, share, cpu = map(statistics.median, columns)
        steady = [waiting for waiting in waited if not math.isnan(waiting)]
        rows.append(
            {
                "stored": ", ".join(kind),
                "kB an image": f"{stored[kind] / 1e3:.0f}",
                "minibatch": size,
                "sequential MB/s": f"{disk / 1e6:.0f}",
                "images/s": f"{rate:.0f}",
                "of sequential": f"{share:.2f}",
                "CPU ms an image": f"{cpu * 1e3:.2f}",
                f"waiting at {ALLOWED}": f"{statistics.median(steady):.1%}" if steady else "-",
            }
        )
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()
