"""From the config's list of layers to a Keras model."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import keras
import tensorflow as tf

from train.config import ACTIVATIONS, Layer, Regularize, TrainConfig, Weights
from train.model import preprocess
from train.model.chain import CONVNET
from train.model.convolution import Convolution
from train.model.novelty import PictureNumbers
from train.model.pooling import AveragePool
from train.model.shapes import LayerShape, check_regularized, layer_shapes, network_input

# Outputs of a network that tells the pulse energy, too, and of one `with_features`.
LOGITS, ENERGY, FEATURES = "logits", "pulse_energy", "features"
ENERGY_UNIT = 0.02  # mJ: what the network calls 1; smaller, and the energy has a larger share of the loss
FIXED = "fixed"  # the name of the part that training does once for every image


@keras.saving.register_keras_serializable("xtcav_lasing")
class LocalResponseNormalization(keras.layers.Layer):
    """x / (bias + alpha * sum of x^2 over 2 radius + 1 channels)^beta."""

    def __init__(self, radius: int, bias: float, alpha: float, beta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, x):
        return tf.nn.local_response_normalization(x, self.radius, self.bias, self.alpha, self.beta)

    def get_config(self) -> dict[str, Any]:
        own = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("xtcav_lasing")
class MeanOfAxis(keras.layers.Layer):
    """The mean over axis 0 or 1 of each image, which stays, of length 1."""

    def __init__(self, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x):
        return keras.ops.mean(x, axis=self.axis + 1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


def of_config(config: TrainConfig, classes: int, batches: Optional[preprocess.Batches] = None) -> keras.Model:
    """The config's model; its preprocessing is adapted to `batches` of the train split, if they are given."""
    size = network_input(config)
    fixed_steps, steps = preprocess.parts(config.preprocess)
    image, fixed = tuple(config.input), None
    if config.augment:
        fixed = preprocess.build(fixed_steps, image, batches, FIXED)
        image = fixed.output_shape[1:3]
    seen = batches if fixed is None or batches is None else lambda: map(fixed.predict_on_batch, batches())
    before = preprocess.build(steps, image, seen, first=len(config.preprocess) - len(steps) + 1)
    return build(
        config.network, size, classes, config.seed, before, config.regularize, config.compute, fixed,
        energy=config.target == ENERGY,
    )  # fmt: skip


def trained_part(model: keras.Model) -> keras.Model:
    """What training works on: the model without its part `fixed`, sharing its variables; or all of it."""
    if FIXED not in [layer.name for layer in model.layers]:
        return model
    return _chain([model.get_layer(name) for name in ("preprocess", CONVNET)])


def build(
    network: Sequence[Layer],
    image: tuple[int, int],
    classes: int,
    seed: int,
    before: Optional[keras.Model] = None,
    regularize: Optional[Regularize] = None,
    compute: str = "float32",
    fixed: Optional[keras.Model] = None,
    energy: bool = False,
) -> keras.Model:
    """The model: images (n, rows, columns, 1) float32 -> logits (n, classes).

    With `energy` its outputs are a dict: those logits, and pulse_energy (n, 1) from the same features.

    It has two parts, `preprocess` (which is `before`) and `convnet`, so that the first can be done
    to a whole minibatch and the second to parts of it; and before them `fixed`, if it is given, which
    training does once for every image, and no more when it has been augmented. image: rows and
    columns of what the convnet gets. Weights are drawn from `seed`, each layer
    from a seed of its own. With compute "bfloat16" the layers compute in it; weights and logits are
    float32. Raises ConfigError for a name in `regularize.layers` that is no layer.
    """
    shapes = layer_shapes(network, image, classes)
    check_regularized(regularize, shapes)
    policy = keras.DTypePolicy("mixed_bfloat16" if compute == "bfloat16" else "float32")
    inputs = keras.Input((*image, 1), name="pixels")
    x, flat = inputs, False
    for n, (layer, shape) in enumerate(zip(network, shapes)):
        if not (shape.in_convnet or flat):
            x, flat = keras.layers.Flatten(name="flatten", dtype=policy)(x), True
        before_output, x = x, _layer(layer, shape, seed + n, regularize, policy)(x)
    if energy:
        x = {LOGITS: x, ENERGY: keras.layers.Dense(1, name=ENERGY, dtype="float32")(before_output)}
    convnet = keras.Model(inputs, x, name=CONVNET)
    if before is None:
        before = preprocess.build([], image)
    return _chain([*([] if fixed is None else [fixed]), before, convnet])


def logits_alone(model: keras.Model) -> keras.Model:
    """The model, whose output is the logits and nothing else."""
    return keras.Model(model.input, model.output[LOGITS]) if isinstance(model.output, dict) else model


def with_features(model: keras.Model) -> keras.Model:
    """The model with one more output, `features` (n, 10 + k), by which shots are compared (novelty.py)."""
    parts = {part.name: part for part in model.layers if isinstance(part, keras.Model)}
    x = images = keras.Input(model.input_shape[1:], name="image")
    for name in (FIXED, "preprocess"):
        x = parts[name](x) if name in parts else x
    convnet = parts["convnet"]
    last = convnet.get_layer("output").input
    seen, found = keras.Model(convnet.input, [last, convnet.output])(x)
    found = found if isinstance(found, dict) else {LOGITS: found}
    numbers = PictureNumbers(name="numbers")(x)
    return keras.Model(images, {**found, FEATURES: keras.layers.Concatenate()([numbers, seen])})


def calibrate(model: keras.Model, temperature: float) -> None:
    """Divide the logits by `temperature`, and give the energy in mJ, by changing the last weights."""
    convnet = model.get_layer("convnet")
    for name, factor in (("output", 1 / temperature), (ENERGY, ENERGY_UNIT)):
        if name in [layer.name for layer in convnet.layers]:
            layer = convnet.get_layer(name)
            layer.set_weights([factor * weights for weights in layer.get_weights()])


def _chain(parts: Sequence[keras.Model]) -> keras.Model:
    x = images = keras.Input(parts[0].input_shape[1:], name="image")
    for part in parts:
        x = part(x)
    return keras.Model(images, x, name="model")


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
    if kind == "mean":
        return MeanOfAxis(settings.axis, **named)
    pool = AveragePool if kind == "average_pool" else keras.layers.MaxPooling2D
    return pool(settings.pool_size, settings.strides, settings.padding, **named)


def _weights(settings: Weights, name: str, seed: int, regularize: Optional[Regularize]) -> dict[str, Any]:
    """Keras' arguments for how the weights of a layer start and what is added to the loss for them."""
    start = {
        "truncated_normal": keras.initializers.TruncatedNormal(stddev=settings.stddev, seed=seed),
        "normal": keras.initializers.RandomNormal(stddev=settings.stddev, seed=seed),
        "he_normal": keras.initializers.HeNormal(seed=seed),
    }[settings.init]
    listed = regularize is not None and name in regularize.layers
    l1 = settings.l1 + (regularize.l1 if listed else 0.0)
    l2 = settings.l2 + (regularize.l2 if listed else 0.0)
    return {
        "kernel_initializer": start,
        "kernel_regularizer": keras.regularizers.L1L2(l1, l2) if l1 or l2 else None,
        "use_bias": settings.bias is not None,
        "bias_initializer": keras.initializers.Constant(settings.bias or 0.0),
    }
