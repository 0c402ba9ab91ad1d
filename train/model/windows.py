"""Cutting windows out of images, each at its own place: for centering, shifting and stretching."""

from __future__ import annotations

import tensorflow as tf


def cut(x: tf.Tensor, first_row: tf.Tensor, first_column: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`size` (rows, columns) pixels of each image from its own first row and column; zeros off the image.

    x: (n, h, w, 1); first_row, first_column: (n,) int32, possibly negative. Returns (n, *size, 1).
    """
    rows, rows_inside = _places(first_row, size[0], x.shape[1])
    columns, columns_inside = _places(first_column, size[1], x.shape[2])
    x = tf.gather(x, rows, axis=1, batch_dims=1)  # rows first: whole ones are copied quickly
    x = tf.gather(x, columns, axis=2, batch_dims=1)
    inside = rows_inside[:, :, None] & columns_inside[:, None, :]
    return tf.where(inside[..., None], x, tf.zeros((), x.dtype))


def _places(first: tf.Tensor, size: int, available: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Indices (n, size) into an axis, clipped to it, and which of them are on it."""
    places = first[:, None] + tf.range(size)[None, :]
    return tf.clip_by_value(places, 0, available - 1), (places >= 0) & (places < available)
