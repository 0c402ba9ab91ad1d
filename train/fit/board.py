"""TensorBoard files: the table's numbers during training; kernels, mean images and graph at the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Iterable

import keras
import numpy as np
import tensorflow as tf

from common.stats import evenly
from train.data.dataset import Data
from train.data.minibatches import mean_image
from train.model.saliency import first_kernel
from train.run import folder

MEAN_SHOTS = 200  # of each class
MOST_KERNELS = 64
TAGS = {
    "m1s": "ones/in the minibatch",
    "cross_entropy": "loss/without regularization",
    "loss": "loss/with regularization",
    "gradient_norm": "gradient/norm",
    "gradient_cosine": "gradient/cosine to the last",
    "learning_rate": "learning rate",
}

_NO_QUANTITIES = ("step", "provenance", "_largest")


class Board:
    """The event files in runs/NAME/tensorboard/.

    They are written anew from the table when a run starts or goes on, so that no step comes twice.
    """

    def __init__(self, run_dir: Path, rows: Iterable[dict[str, Any]]) -> None:
        shutil.rmtree(run_dir / folder.BOARD, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(run_dir / folder.BOARD))
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row of the table."""
        with self._writer.as_default(step=int(row["step"])):
            for name, value in row.items():
                if name == "watch":
                    if value:
                        tf.summary.text("watch", str(value))
                elif not name.endswith(_NO_QUANTITIES):
                    tf.summary.scalar(_tag(name), float(value))
        self._writer.flush()

    def finish(self, model: keras.Model, data: Data, step: int) -> None:
        """Write the first kernels and the classes' mean images, as the camera saw them, and the graph."""
        kernel = first_kernel(model).mean(axis=2)
        train = data.splits["train"]
        rows = [np.flatnonzero(train.labels == label) for label in range(len(data.classes))]
        means = np.array([mean_image(train, evenly(of, MEAN_SHOTS)) for of in rows if len(of)])
        names = [name for name, of_class in zip(data.classes, rows) if len(of_class)]
        call = tf.function(lambda image: model(image, training=False))
        graph = call.get_concrete_function(tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)).graph
        with self._writer.as_default(step=step):
            if kernel.size:
                pictures = [data.view.picture(kernel[..., n]) for n in range(kernel.shape[2])]
                reach = float(np.abs(kernel).max()) or 1.0
                tf.summary.image(
                    "first convolution", _pictures(pictures, -reach, reach), max_outputs=MOST_KERNELS
                )
            for name, image in zip(names, means):
                picture = _pictures([data.view.picture(image)], means.min(), means.max())
                tf.summary.image(f"mean image/{name}", picture)
            tf.summary.graph(graph)
        self._writer.close()


def _tag(name: str) -> str:
    """The name of a column of the table on the board: accuracies of all splits are one group."""
    split, _, what = name.rpartition("_")
    if what == "accuracy":
        return f"accuracy/{split}"
    return f"ones/called, {split}" if what == "ones" else TAGS.get(name, name.replace("_", " "))


def _pictures(images: list, low: float, high: float) -> np.ndarray:
    """(n, h, w, 1) in [0, 1] from images between `low` and `high`."""
    return ((np.array(images)[..., None] - low) / max(high - low, 1e-12)).astype(np.float32)
