"""From the config's list of layers to a Keras model."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple

import keras
import tensorflow as tf

from common.errors import ConfigError
from train.config import ACTIVATIONS, Layer, Regularize, TrainConfig, Weights
from train.model import preprocess
from train.model.convolution import Convolution
from train.model.pooling import AveragePool
from train.model.shapes import LayerShape, layer_shapes


@keras.saving.register_keras_serializable("xtcav_lasing")
class LocalResponseNormalization(keras.layers.Layer):
    """x / (bias + alpha * sum of x^2 over 2 radius + 1 channels)^beta."""

    def __init__(self, radius: int, bias: float, alpha: float, beta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, x):
        return tf.nn.local_response_normalization(x, self.radius, self.bias, self.alpha, self.beta)

    def get_config(self) -> Dict[str, Any]:
        own = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}


def of_config(config: TrainConfig, classes: int, batches: Optional[preprocess.Batches] = None) -> keras.Model:
    """The config's model; its preprocessing is adapted to `batches` of the train split, if they are given."""
    before = preprocess.build(config.preprocess, config.input, batches)
    return build(
        config.network, config.input, classes, config.seed, before, config.regularize, config.compute
    )


def build(
    network: Sequence[Layer],
    image: Tuple[int, int],
    classes: int,
    seed: int,
    before: Optional[keras.Model] = None,
    regularize: Optional[Regularize] = None,
    compute: str = "float32",
) -> keras.Model:
    """The model: images (n, rows, columns, 1) float32 -> logits (n, classes).

    It has two parts, `preprocess` (which is `before`) and `convnet`, so that the first can be done
    to a whole minibatch and the second to parts of it. Weights are drawn from `seed`, each layer
    from a seed of its own. With compute "bfloat16" the layers compute in it; weights and logits are
    float32. Raises ConfigError for a name in `regularize.layers` that is no layer.
    """
    shapes = layer_shapes(network, image, classes)
    _check_names(regularize, shapes)
    policy = keras.DTypePolicy("mixed_bfloat16" if compute == "bfloat16" else "float32")
    inputs = keras.Input((*image, 1), name="pixels")
    x, flat = inputs, False
    for n, (layer, shape) in enumerate(zip(network, shapes)):
        if not (shape.in_convnet or flat):
            x, flat = keras.layers.Flatten(name="flatten", dtype=policy)(x), True
        x = _layer(layer, shape, seed + n, regularize, policy)(x)
    convnet = keras.Model(inputs, x, name="convnet")
    if before is None:
        before = preprocess.build([], image)
    images = keras.Input((*image, 1), name="image")
    return keras.Model(images, convnet(before(images)), name="model")


def _layer(
    layer: Layer, shape: LayerShape, seed: int, regularize: Optional[Regularize], policy: keras.DTypePolicy
) -> keras.layers.Layer:
    kind, settings = layer.kind, layer.settings
    exact = kind in ("output", "local_response_normalization")  # the latter has no bfloat16 kernel on a CPU
    named = {"name": shape.name, "dtype": "float32" if exact else policy}
    if kind == "convolution":
        weights = _weights(settings, shape.name, seed, regularize)
        return Convolution(
            settings.filters, settings.kernel_size, settings.strides, settings.padding, **named, **weights
        )
    if kind in ("hidden", "output"):
        return keras.layers.Dense(
            shape.output[0], **named, **_weights(settings, shape.name, seed, regularize)
        )
    if kind in ACTIVATIONS:
        return keras.layers.Activation(kind, **named)
    if kind == "batch_normalization":
        return keras.layers.BatchNormalization(momentum=settings.momentum, epsilon=settings.epsilon, **named)
    if kind == "local_response_normalization":
        return LocalResponseNormalization(**settings.model_dump(), **named)
    if kind == "dropout":
        return keras.layers.Dropout(settings.rate, seed=seed, **named)
    pool = AveragePool if kind == "average_pool" else keras.layers.MaxPooling2D
    return pool(settings.pool_size, settings.strides, settings.padding, **named)


def _weights(settings: Weights, name: str, seed: int, regularize: Optional[Regularize]) -> Dict[str, Any]:
    """Keras' arguments for how the weights of a layer start and what is added to the loss for them."""
    kind = {
        "truncated_normal": keras.initializers.TruncatedNormal,
        "normal": keras.initializers.RandomNormal,
    }[settings.init]
    listed = regularize is not None and name in regularize.layers
    l1 = settings.l1 + (regularize.l1 if listed else 0.0)
    l2 = settings.l2 + (regularize.l2 if listed else 0.0)
    return {
        "kernel_initializer": kind(stddev=settings.stddev, seed=seed),
        "kernel_regularizer": keras.regularizers.L1L2(l1, l2) if l1 or l2 else None,
        "use_bias": settings.bias is not None,
        "bias_initializer": keras.initializers.Constant(settings.bias or 0.0),
    }


def _check_names(regularize: Optional[Regularize], shapes: Sequence[LayerShape]) -> None:
    with_weights = [shape.name for shape in shapes if shape.kind in ("convolution", "hidden", "output")]
    for name in regularize.layers if regularize else ():
        if name not in with_weights:
            raise ConfigError(
                f"regularize.layers: '{name}' is no layer with weights; there are {', '.join(with_weights)}"
            )
