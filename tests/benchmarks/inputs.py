"""Input: streamed against in memory, our loader against others, memory as the file grows, and writing."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import h5py
import numpy as np

from common.cores import available_cores
from common.dataset import layout, reading, writing
from tests.benchmarks.race import Row, installed, race, ratio
from tests.benchmarks.steps import STUDY, stepper
from tests.benchmarks.steps import ours as step

SHAPE = (284, 363)
IMAGES = 2000  # in each of the files that loaders read
MINIBATCH = 32
DELIVERED = 20  # minibatches a run of a loader
READ_AHEAD = 16  # minibatches: more than any of the loaders may hold


def write_file(path: Path, images: int) -> None:
    """A data file of `images` training images, float32 and unfiltered; the images repeat after 64."""
    pixels = np.random.default_rng(0).random((64, *SHAPE), np.float32)
    sums = [reading.image_checksum(image) for image in pixels]
    with writing.create(path, {"train": images, "test": 64}, SHAPE, SHAPE) as file:
        for split, n in (("train", images), ("test", 64)):
            for i in range(n):
                file[f"{split}/images"].id.write_direct_chunk((i, 0, 0), pixels[i % 64])
            file[f"{split}/labels"][...] = np.arange(n) % 2
            file[f"{split}/fiducial"][...] = np.arange(n)
            file[f"{split}/crc32"][...] = np.resize(sums, n)
        attributes = {name: "{}" for name in layout.ATTRIBUTES}
        writing.finish(file, {**attributes, "classes": json.dumps(["no", "yes"])})


# --- loaders: each gives a function that delivers DELIVERED random minibatches ---------------------


def delivering(batches: Iterator[np.ndarray]) -> Callable[[], float]:
    """Images per second of an endless iterator; one value of each image is looked at.

    What a loader's threads read ahead while others had their turn is taken before the clock starts.
    """

    def deliver() -> float:
        for _ in range(READ_AHEAD):
            next(batches)
        start, n = time.perf_counter(), 0
        for _ in range(DELIVERED):
            images = next(batches)
            n += len(images)
            float(np.asarray(images).reshape(len(images), -1)[:, 0].sum())
        return n / (time.perf_counter() - start)

    return deliver


def random_rows(seed: int = 0) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(IMAGES)
        yield from (order[n : n + MINIBATCH] for n in range(0, IMAGES - MINIBATCH + 1, MINIBATCH))


def ours(path: str) -> Callable[[], float]:
    from train.data.order import Position

    batches = checked(path).minibatches(MINIBATCH, 0, Position(0, 0))
    return delivering(batch.images for batch in batches)


def list_indexing(path: str) -> Callable[[], float]:
    images = h5py.File(path)["train/images"]
    return delivering(images[np.sort(rows)] for rows in random_rows())


def memmap(path: str) -> Callable[[], float]:
    images = np.memmap(path, np.float32, "r", shape=(IMAGES, *SHAPE))
    return delivering(images[rows] for rows in random_rows())


def tfrecord(path: str) -> Callable[[], float]:
    """Shuffled over 256 records, as far as a stream allows, in parallel as TensorFlow finds best."""
    import tensorflow as tf

    def parse(record):
        text = tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature((), tf.string)})["image"]
        return tf.reshape(tf.io.decode_raw(text, tf.float32), SHAPE)

    records = tf.data.TFRecordDataset(path).shuffle(256, seed=0).repeat()
    batches = records.map(parse, tf.data.AUTOTUNE).batch(MINIBATCH).prefetch(4)
    return delivering(batches.as_numpy_iterator())


def arrow(path: str) -> Callable[[], float]:
    import datasets

    datasets.disable_progress_bars()
    images = datasets.load_from_disk(path).with_format("numpy")
    return delivering(images[rows]["image"] for rows in random_rows())


def write_others(source: Path, folder: Path) -> None:
    """The same images as the other loaders want them."""
    import tensorflow as tf

    with h5py.File(source, locking=False) as file:
        images = file["train/images"]
        with (
            open(folder / "images.raw", "wb") as raw,
            tf.io.TFRecordWriter(str(folder / "images.tfr")) as out,
        ):
            for n in range(IMAGES):
                pixels = images[n].tobytes()
                raw.write(pixels)
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels]))
                example = tf.train.Example(features=tf.train.Features(feature={"image": feature}))
                out.write(example.SerializeToString())
    if installed("datasets"):
        _write_arrow(folder)


def _write_arrow(folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    made = datasets.Dataset.from_generator(
        _arrow_rows,
        features=datasets.Features({"image": datasets.Array2D(SHAPE, "float32")}),
        cache_dir=str(folder / "cache"),
        gen_kwargs={"path": str(folder / "images.raw")},
    )
    made.save_to_disk(folder / "arrow", max_shard_size="500MB")


def _arrow_rows(path: str) -> Iterator[dict[str, np.ndarray]]:
    for image in np.memmap(path, np.float32, "r", shape=(IMAGES, *SHAPE)):
        yield {"image": np.asarray(image)}


# --- steps on a stream, memory, writing ------------------------------------------------------------


def stepping(path: str, minibatch: int, streamed: bool, steps: int) -> Callable[[], dict[str, float]]:
    """`steps` training steps: seconds, and seconds of waiting for input."""
    from train.data.order import Position

    runner = stepper(STUDY)
    batches: Iterator[np.ndarray]
    if streamed:
        batches = (b.images for b in checked(path).minibatches(minibatch, 0, Position(0, 0)))
    else:
        held = split_of(path, "memory")
        # As many images, 211 MB, as keep a core's cache from holding what a stream never finds there.
        kept = [held.images(range(n, n + minibatch)) for n in range(0, 512, minibatch)]
        batches = itertools.cycle(kept)
    labels = np.arange(minibatch) % 2

    def run() -> dict[str, float]:
        start, waiting = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            images = next(batches)
            waiting += time.perf_counter() - asked
            runner.step(images, labels[: len(images)], 1e-4)
        return {"seconds": time.perf_counter() - start, "waiting": waiting}

    return run


def peak_memory(path: str) -> Callable[[], float]:
    """MB resident at most, of a process that streams every image of a file once."""
    from train.data.order import Position

    split = split_of(path, "stream")

    def run() -> float:
        with contextlib.closing(split.minibatches(MINIBATCH, 0, Position(0, 0))) as batches:
            for _ in range(len(split) // MINIBATCH):
                next(batches)
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

    return run


def writing_speed(folder: str, images: int) -> Callable[[], float]:
    """MB/s of signal against noise, 1000 x 1000, until the file is safe on disk."""
    from prepare.simulate import signal_noise

    config = signal_noise.SignalNoiseConfig(
        name="bench", shape=(1000, 1000), train=images, test=2, output_dir=folder
    )

    def write() -> float:
        done = signal_noise.write(config, force=True)
        return done.bytes / 1e6 / done.seconds

    return write


def parts(folder: Path, repeat: int, memory_images: int) -> Iterator[Iterator[Row]]:
    """All of it, on files in `folder`."""
    source = folder / "images.h5"
    write_file(source, IMAGES)
    yield _loaders(folder, source, repeat)
    for minibatch, steps in ((8, 12), (32, 4), (128, 1)):
        yield _streamed(source, minibatch, steps, repeat)
    yield _check(source, repeat)
    yield _memory(folder, source, memory_images)
    yield _written(folder, repeat)


def _loaders(folder: Path, source: Path, repeat: int) -> Iterator[Row]:
    write_others(source, folder)
    busy: dict[str, list[float]] = {}
    result = race(
        {
            "ours": (ours, (str(source),)),
            "h5py list indexing": (list_indexing, (str(source),)),
            "TFRecord": (tfrecord, (str(folder / "images.tfr"),)),
            **({"datasets": (arrow, (str(folder / "arrow"),))} if installed("datasets") else {}),
            "np.memmap": (memmap, (str(folder / "images.raw"),)),
        },
        repeat,
        busy=busy,
    )
    speeds = {name: statistics.median(values) for name, values in result.items()}
    for name, aim in (("h5py list indexing", 40), ("TFRecord", 2.5), ("datasets", 1.5), ("np.memmap", 0.5)):
        if name not in speeds:
            continue
        what = f"random minibatches of {MINIBATCH} a second, against {name}"
        note = f"{speeds['ours']:,.0f} against {speeds[name]:,.0f} images/s"
        yield Row(what, ratio(result, "ours", name), aim, False, result, note)
    # One thread of ours, of which most is the kernel's copy out of the page cache; all cores of TensorFlow's.
    what = "processor time of the same, TFRecord against ours"
    yield Row(what, ratio(busy, "TFRecord", "ours"), 4, False, busy)


def _streamed(source: Path, minibatch: int, steps: int, repeat: int) -> Iterator[Row]:
    contestants = {
        name: (stepping, (str(source), minibatch, name == "streamed", steps))
        for name in ("streamed", "in memory")
    }
    result = race(contestants, 2 * repeat)
    seconds = {name: [value["seconds"] for value in values] for name, values in result.items()}
    share = [100 * value["waiting"] / value["seconds"] for value in result["streamed"]]
    what = f"step streamed from HDF5, minibatches of {minibatch}"
    yield Row(f"{what}, against in memory", ratio(seconds, "streamed", "in memory"), 1.03, True, seconds)
    yield Row(f"{what}, waiting, %", statistics.median(share), 1, True, {"share": share})


def _memory(folder: Path, source: Path, images: int) -> Iterator[Row]:
    large = folder / "large.h5"
    write_file(large, images)
    result = {
        name: race({name: (peak_memory, (str(path),))}, 1, 0)[name]
        for name, path in (("small", source), ("large", large))
    }
    large.unlink()
    what = f"resident memory, streaming {images:,} images, against {IMAGES:,}"
    yield Row(what, ratio(result, "large", "small"), 1.1, True, result, f"{result['large'][0]:.0f} MB")


def _written(folder: Path, repeat: int) -> Iterator[Row]:
    result = race({"ours": (writing_speed, (str(folder), 100))}, max(3, repeat // 2), 1)
    figure = statistics.median(result["ours"])
    what = "signal against noise, 1000 x 1000, MB/s written, against the 2016 study's 68"
    yield Row(what, figure / 68, 3, False, result, f"{figure:,.0f} MB/s")


def checked(path: str) -> Any:
    """A train split to stream from, after the first pass, in which checksums are compared."""
    split = split_of(path, "stream")
    for _ in split.batches(64):
        pass
    return split


def checking(path: str) -> Callable[[], float]:
    """Seconds of checksums for 80 images."""
    images = split_of(path, "stream").images(range(80))[..., 0]

    def check() -> float:
        start = time.perf_counter()
        for image in images:
            reading.image_checksum(image)
        return time.perf_counter() - start

    return check


def _check(source: Path, repeat: int) -> Iterator[Row]:
    result = race({"checksums": (checking, (str(source),)), "step": (step, (STUDY, 80))}, repeat)
    what = "checksums of 80 images in their first pass, % of their step's core time"
    figure = 100 * ratio(result, "checksums", "step") / available_cores()
    yield Row(what, figure, 2, True, result)


def split_of(path: str, cache: str) -> Any:
    """The train split of a data file that stays open."""
    from train.data.dataset import open_data

    opened = contextlib.ExitStack()
    data = opened.enter_context(open_data(path, SHAPE, ["train"], cache))
    split = data.splits["train"]
    split.keeps_open = opened  # as long as the split lives
    return split
