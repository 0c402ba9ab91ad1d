"""Running a model's layers in an order that does less, with the same result.

Adding a bias and relu leave the order of numbers as it is, after rounding, too. So the maximum of a
window may be taken first, and bias and relu, and their gradients, are left with the pixels that a
max_pool keeps: a ninth for strides of 3. Results are the same bit for bit. So are gradients, but for
two maxima of a window that the bias makes equal: the larger one gets it then, not the first one.

Batch normalization is one operation in training, where Keras makes it of eight that each go over all
pixels: a sixth of the time, forward and backward, and with it a third of the recommended network's step.
Equal to rounding. The model that is saved has its layers as the config lists them.
"""

from __future__ import annotations

from typing import Union

import keras
import tensorflow as tf

from train.model.convolution import Convolution

CONVNET = "convnet"  # the name of the part of a model that `run` runs


def outputs(model: keras.Model, images: tf.Tensor) -> Union[tf.Tensor, dict[str, tf.Tensor]]:
    """What `model(images, training=False)` gives; model: as `network.build` makes it, or its part `fixed`."""
    *before, last = model.layers[1:]
    if last.name != CONVNET:
        return model(images, training=False)
    for part in before:
        images = part(images, training=False)
    return run(last, images, training=False)


def run(convnet: keras.Model, x: tf.Tensor, training: bool) -> Union[tf.Tensor, dict[str, tf.Tensor]]:
    """What `convnet(x, training=training)` gives; convnet: layers, one after the other.

    Where its outputs are a dict, each is made by one layer from what those before have left.
    """
    several = isinstance(convnet.output, dict)
    heads = {name: y._keras_history.operation for name, y in convnet.output.items()} if several else {}
    # the first layer stands for the images
    layers = [layer for layer in convnet.layers[1:] if layer not in heads.values()]
    while layers:
        layer, *rest = layers
        if _may_wait(layers):
            relu, pool, *rest = rest
            x = relu(layer.with_bias(pool(layer.without_bias(x))))
        elif training and _may_be_one(layer, x):
            x = _normalized(layer, x)
        else:
            x = layer(x, training=training)
        layers = rest
    return {name: head(x, training=training) for name, head in heads.items()} if several else x


def _may_wait(layers: list[keras.layers.Layer]) -> bool:
    """Whether a convolution comes first, then relu and a max_pool."""
    if len(layers) < 3:
        return False
    convolution, relu, pool = layers[:3]
    return (
        isinstance(convolution, Convolution)
        and isinstance(relu, keras.layers.Activation)
        and relu.activation is keras.activations.relu
        and isinstance(pool, keras.layers.MaxPooling2D)
    )


def _may_be_one(layer: keras.layers.Layer, x: tf.Tensor) -> bool:
    """Whether the layer is batch normalization of float32 maps, (n, h, w, channels), by their own moments.

    Ranks give the layer moments of their own (`fit.moments`). cuDNN takes no smaller epsilon.
    """
    return (
        isinstance(layer, keras.layers.BatchNormalization)
        and len(x.shape) == 4
        and layer.compute_dtype == x.dtype.name == "float32"
        and "_moments" not in vars(layer)
        and layer.epsilon >= 1.001e-5
    )


def _normalized(layer: keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    """What `layer(x, training=True)` gives; its moving averages move as they do there."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    moments = (layer.moving_mean, mean), (layer.moving_variance, variance * (count - 1) / count)
    for moving, value in moments:
        moving.assign(moving * layer.momentum + value * (1 - layer.momentum))
    return y
