"""Where in the image a decision comes from."""

from __future__ import annotations

from typing import Iterable

import keras
import numpy as np
import tensorflow as tf


def contributions(
    model: keras.Model, batches: Iterable[np.ndarray], reference: np.ndarray, label: int
) -> tuple[np.ndarray, int]:
    """What each pixel adds to the decision for class `label`, averaged over shots; and how many shots.

    The decision is d = logit of the class - mean of the other logits. A pixel's contribution is
    (x - reference) times the gradient of d by it, at x: to first order what the pixel's departure
    from the `reference` image, (h, w), changes in d. batches: (n, h, w, 1) float32 images.
    Returns (h, w) float64.
    """
    classes = model.output_shape[-1]
    weights = np.full(classes, -1 / (classes - 1), np.float32)
    weights[label] = 1

    # A graph, because it leaves out the gradients by the kernels, which the layers offer, too.
    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)])
    def slopes(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            decision = tf.reduce_sum(model(images, training=False) * weights)
        return tape.gradient(decision, images)

    total, count = np.zeros(reference.shape), 0
    for batch in batches:
        slope = slopes(batch).numpy()[..., 0]
        total += ((batch[..., 0] - reference) * slope).sum(axis=0, dtype=np.float64)
        count += len(batch)
    return total / max(count, 1), count


def first_kernel(model: keras.Model) -> np.ndarray:
    """The kernel of the first convolution, (rows, columns, channels in, channels); empty if there is none."""
    for layer in model.get_layer("convnet").layers:
        if isinstance(layer, keras.layers.Conv2D):
            return np.asarray(layer.kernel)
    return np.zeros((0, 0, 0, 0))
