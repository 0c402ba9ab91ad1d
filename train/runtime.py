"""Starting TensorFlow: its threads are set before it begins, and its chatter is kept off the screen."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Iterator, NamedTuple

from common.errors import UserError
from train.config import Threads

INTER = 2  # operations side by side; these networks are chains, so more threads only wait


class Runtime(NamedTuple):
    """The threads that TensorFlow was given."""

    intra: int
    inter: int


def start(threads: Threads, seed: int) -> Runtime:
    """Load TensorFlow with these threads and this seed; raises UserError if it is not installed."""
    runtime = Runtime(threads.intra or available_cores(), threads.inter or INTER)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _quiet_stderr():
        try:
            import keras
            import tensorflow as tf
        except ImportError as error:
            raise UserError(
                f"TensorFlow cannot be loaded ({error}); install it: pip install -e '.[train]'"
            ) from None
        with contextlib.suppress(RuntimeError):  # a second start in one process keeps the first's threads
            tf.config.threading.set_intra_op_parallelism_threads(runtime.intra)
            tf.config.threading.set_inter_op_parallelism_threads(runtime.inter)
        tf.config.list_physical_devices()  # it prints when it first looks at the machine
        runtime = Runtime(
            tf.config.threading.get_intra_op_parallelism_threads() or available_cores(),
            tf.config.threading.get_inter_op_parallelism_threads() or INTER,
        )
    keras.utils.set_random_seed(seed)
    return runtime


def available_cores() -> int:
    """Cores this process may use: Slurm's word, else the affinity; never the whole node's number."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back file descriptor 2: TensorFlow's libraries write there before their log level is set."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
