"""Starting TensorFlow: its threads are set before it begins, and its own messages are not shown."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import sys
import time
from typing import Iterator, NamedTuple, Optional

from common import interrupt, limits, progress
from common.cores import available_cores
from common.errors import UserError
from common.plotting import load_matplotlib
from common.progress import announce, warn
from common.ranks import Ranks
from train.config import Threads
from train.fit import environment

THREADS = 30  # besides those named; all of TensorFlow, Keras and OpenBLAS had 16 with 8 + 1
ADDRESS_SPACE = 5 << 29  # bytes; a small network trains under `ulimit -v` of 2.4 GB, of 2.2 GB it aborts
INTER = 2  # operations side by side; these networks are chains, so more threads only wait


class Runtime(NamedTuple):
    """The threads that TensorFlow was given."""

    intra: int
    inter: int


def start(threads: Threads, seed: int, ranks: Optional[Ranks] = None) -> Runtime:
    """Load TensorFlow with these threads and this seed, without settings from a user's home or environment.

    Processes that share a machine share its cores, and take a GPU each, by their number there.
    Raises UserError if it is not installed or the machine's limits keep it from starting.
    """
    place = (ranks or Ranks()).place
    runtime = Runtime(threads.intra or place.cores, threads.inter or INTER)
    _tell_of_environment()
    limits.check(THREADS + (os.cpu_count() or 1) + runtime.intra + runtime.inter, ADDRESS_SPACE)
    if "tensorflow" not in sys.modules:
        announce("loading TensorFlow ...")
    with contextlib.suppress(ImportError):  # not installed: reports will say so
        load_matplotlib()
    with _quiet_stderr():
        interrupt.in_thread(_load)
        import keras
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # a second start in one process keeps the first's threads
            tf.config.threading.set_intra_op_parallelism_threads(runtime.intra)
            tf.config.threading.set_inter_op_parallelism_threads(runtime.inter)
        gpus = tf.config.list_physical_devices("GPU")  # it prints when it first looks at the machine
        if place.size > 1 and gpus:
            tf.config.set_visible_devices(gpus[place.number % len(gpus)], "GPU")
        runtime = Runtime(
            tf.config.threading.get_intra_op_parallelism_threads() or available_cores(),
            tf.config.threading.get_inter_op_parallelism_threads() or INTER,
        )
    # Keras' own defaults, also where another program in this process has set it otherwise.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    if keras.config.backend() != "tensorflow":
        raise UserError("Keras runs on another backend than TensorFlow; start in a process of its own")
    keras.utils.set_random_seed(seed)
    return runtime


def _tell_of_environment() -> None:
    """Warn once of variables that were set and are not used."""
    names = os.environ.pop(environment.NOTED, "")
    if names:
        warn(f"not used, because a result depends on the config alone: {names}")


def _load() -> None:
    try:
        importlib.import_module("keras")
        importlib.import_module("tensorflow")
    except ImportError as error:
        raise UserError(
            f"TensorFlow cannot be loaded ({error}); install it: pip install -e '.[train]'"
        ) from None


def check_tensorboard() -> None:
    """Raise UserError if the package that `tensorboard: true` needs is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard: true needs the package tensorboard; install: pip install tensorboard")


def check_compute(compute: str) -> None:
    """Raise UserError if `compute` is bfloat16 and this processor is slower in it than in float32."""
    if compute == "bfloat16" and (ratio := bfloat16_ratio()) > 1:
        raise UserError(
            f"compute: bfloat16 takes {ratio:.1f} times as long as float32 on this processor, which has no "
            "native support for it; leave `compute:` out"
        )


def bfloat16_ratio() -> float:
    """Time of a matrix product and a convolution in bfloat16 over that in float32; the quickest of 5 each."""
    import tensorflow as tf

    best = {}
    for kind in [tf.float32, tf.bfloat16] * 5:
        matrix, image = tf.ones((512, 512), kind), tf.ones((4, 128, 128, 1), kind)
        kernel = tf.ones((16, 16, 1, 16), kind)
        start = time.perf_counter()
        for _ in range(3):
            tf.reduce_sum(tf.matmul(matrix, matrix)).numpy()
            tf.reduce_sum(tf.nn.conv2d(image, kernel, 2, "SAME")).numpy()
        best[kind] = min(best.get(kind, math.inf), time.perf_counter() - start)
    return best[tf.bfloat16] / best[tf.float32]


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Discard file descriptor 2, where TensorFlow's libraries write before a log level is set."""
    if progress.voice.loudness == progress.VERBOSE:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
