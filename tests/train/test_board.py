"""What a run writes for TensorBoard, read back from its files."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest
import tensorflow as tf


def events(run: Path) -> dict:
    """{tag: [(step, value)]} of a run's event files; the graph under ''."""
    found = defaultdict(list)
    for path in sorted((run / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if event.graph_def:
                found[""].append((event.step, event.graph_def))
            for value in event.summary.value:
                found[value.tag].append((event.step, tf.make_ndarray(value.tensor)))
    return found


def test_the_tables_numbers_images_and_the_graph(data, write_config, train, tmp_path):
    result = train("fit", write_config(tensorboard=True))
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "small"
    found = events(run)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    for tag, column in (
        ("accuracy/test", "test_accuracy"),
        ("loss/with regularization", "loss"),
        ("gradient/norm", "gradient_norm"),
        ("ones/called, train", "train_ones"),
        ("learning rate", "learning_rate"),
    ):
        assert [(step, pytest.approx(float(value), rel=1e-6)) for step, value in found[tag]] == [
            (int(row["step"]), float(row[column])) for row in rows
        ]
    (_, kernels), *_ = found["first convolution"]
    assert len(kernels) == 2 + 3  # width, height and a PNG of each of 3 channels
    (_, image), *_ = found["mean image/lasing"]
    assert image[:2].tolist() == [b"24", b"20"]
    ((_, graph),) = found[""]
    assert b"Conv2D" in graph


def test_going_on_writes_no_step_twice(data, write_config, train, tmp_path):
    run = tmp_path / "runs" / "small"
    train("fit", write_config(tensorboard=True, steps=6))
    train("fit", write_config(tensorboard=True, steps=11), "--resume")
    assert [step for step, _ in events(run)["accuracy/test"]] == [1, 6, 11]
    train("fit", write_config(steps=1), "--force")
    assert not (run / "tensorboard").exists()
