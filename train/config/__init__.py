"""The config of a training run: data, network layer by layer, optimization."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Optional, Union

from pydantic import Field, model_validator

from common.config import Model, PathText, load
from train.config.images import Augment, Axis, Empty, OneOf, Pair, Preprocess

Padding = Literal["same", "valid"]


class Weights(Model):
    """How weights start and are held down. Normal with `stddev`, cut off at two stddev or not.

    he_normal: cut off, with the stddev sqrt(2 / inputs of a unit), which keeps the size of what relu
    passes on (He, Zhang, Ren, Sun 2015); `stddev` then has no say.
    """

    init: Literal["truncated_normal", "normal", "he_normal"] = "truncated_normal"
    stddev: float = Field(0.01, ge=0)
    bias: Optional[float] = 0.0  # null: no bias
    l1: float = Field(0.0, ge=0)  # times the sum of |w| of the kernel, added to the loss
    l2: float = Field(0.0, ge=0)  # times the sum of w^2 of the kernel


class Convolution(Weights):
    """A convolution; kernel (*kernel_size, channels in, filters)."""

    kernel_size: Pair
    filters: int = Field(gt=0)
    strides: Pair = (1, 1)
    padding: Padding = "same"


class Pool(Model):
    """The mean or the maximum of each window of `pool_size` pixels."""

    pool_size: Pair
    strides: Pair
    padding: Padding = "same"


class Hidden(Weights):
    """A fully connected layer of `units`; images are flattened before the first."""

    units: int = Field(gt=0)


class Output(Weights):
    """The last fully connected layer: as many outputs (logits) as the data have classes."""


class BatchNormalization(Model):
    """Per channel over the minibatch; at prediction by the moving averages (Ioffe, Szegedy 2015).

    The averages follow the weights some 3 / (1 - momentum) steps behind: with 0.99 a network of 181
    steps that had learned (0.86 with the averages recomputed) predicted at chance.
    """

    momentum: float = Field(0.9, ge=0, lt=1)
    epsilon: float = Field(1e-3, gt=0)


class LocalResponseNormalization(Model):
    """x / (bias + alpha * sum of x^2 over 2 radius + 1 channels)^beta (Krizhevsky et al. 2012)."""

    radius: int = Field(5, ge=0)
    bias: float = Field(1.0, gt=0)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(0.5, ge=0)


class Dropout(Model):
    """At training this share of values is set to 0, the others are scaled up."""

    rate: float = Field(gt=0, lt=1)


class Mean(Model):
    """The mean over one whole axis of the image, which stays, of length 1; 0 is time, 1 energy."""

    axis: Axis


ACTIVATIONS = ("relu", "leaky_relu", "elu", "softplus", "tanh", "sigmoid")


class Layer(OneOf):
    """One layer: exactly one of these keys. A layer without settings is its bare name, `- relu`."""

    what: ClassVar[str] = "a layer"
    convolution: Optional[Convolution] = None
    max_pool: Optional[Pool] = None
    average_pool: Optional[Pool] = None
    mean: Optional[Mean] = None
    hidden: Optional[Hidden] = None
    output: Optional[Output] = None
    batch_normalization: Optional[BatchNormalization] = None
    local_response_normalization: Optional[LocalResponseNormalization] = None
    dropout: Optional[Dropout] = None
    relu: Optional[Empty] = None
    leaky_relu: Optional[Empty] = None
    elu: Optional[Empty] = None
    softplus: Optional[Empty] = None
    tanh: Optional[Empty] = None
    sigmoid: Optional[Empty] = None

    @model_validator(mode="after")
    def _positive(self) -> "Layer":
        for name in ("kernel_size", "pool_size", "strides"):
            if min(getattr(self.settings, name, (1, 1))) < 1:
                raise ValueError(f"{name}: {list(getattr(self.settings, name))} is not positive")
        return self


class Optimizer(Model):
    """momentum: m = momentum * m + g; w = w - rate * m, as the 2016 study's TensorFlow did it.

    With nesterov, w = w - rate * (g + momentum * m). adam: Kingma, Ba 2015; adamw: with the
    weight decay apart from the gradient, Loshchilov, Hutter 2019.
    """

    kind: Literal["momentum", "sgd", "adam", "adamw"] = "momentum"
    momentum: float = Field(0.4, ge=0, lt=1)  # of kind momentum
    nesterov: bool = False
    beta_1: float = Field(0.9, ge=0, lt=1)  # of kinds adam, adamw
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)
    weight_decay: float = Field(0.004, ge=0)  # of kind adamw
    clip_norm: Optional[float] = Field(None, gt=0)  # longest gradient that is applied; longer ones are scaled


class LearningRate(Model):
    """The rate at step t, which counts from 1; never under `minimum` after the warm-up.

    For the first `warmup` steps it rises in equal parts to `start`; then the schedule begins.
    exponential: start * decay^((t - 1) / steps), the exponent rounded down if `staircase` (with a
    minimum, the ancestors' drop schedule). cosine: from start to minimum over `steps`, then minimum.
    """

    kind: Literal["exponential", "cosine", "constant"] = "exponential"
    start: float = Field(0.01, gt=0)
    decay: float = Field(1.0, gt=0, le=1)
    steps: int = Field(10, gt=0)
    staircase: bool = True
    minimum: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0)

    def at(self, step: int) -> float:
        """The rate of the update at `step`."""
        if step <= self.warmup:
            return self.start * step / self.warmup
        done = (step - self.warmup - 1) / self.steps
        if self.kind == "constant":
            return self.start
        if self.kind == "cosine":
            share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
            return self.minimum + (self.start - self.minimum) * share
        return max(self.start * self.decay ** (done // 1 if self.staircase else done), self.minimum)


class Regularize(Model):
    """L1 and L2 for a list of layers, by their names in `describe`, added to the layers' own."""

    layers: list[str] = Field(min_length=1)
    l1: float = Field(0.0, ge=0)
    l2: float = Field(0.0, ge=0)


class Watch(Model):
    """When training is reported as failing. A split has collapsed if one class gets `share` of it."""

    share: float = Field(0.97, gt=0.5, le=1)
    evaluations: int = Field(3, ge=1)  # how many rows of the table running
    stop: bool = False


class StopWhen(Model):
    """Stop at the first row of the table where `split` reaches `accuracy`."""

    split: Literal["train", "validation"]  # not test: a test set that decides is none
    accuracy: float = Field(gt=0, le=1)


class Threads(Model):
    """TensorFlow's threads. null: the cores this process may use; 2 between operations."""

    intra: Optional[int] = Field(None, gt=0)
    inter: Optional[int] = Field(None, gt=0)


class TrainConfig(Model):
    """One training run: `data` in, `runs/NAME/` out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    # One data file, or a list of files of the same classes and image processing that make one data set.
    data: Union[PathText, Annotated[list[PathText], Field(min_length=1)]]
    runs_dir: PathText = "runs"
    seed: int = Field(1, ge=0, lt=2**31)
    threads: Threads = Threads()
    input: Pair = (284, 363)  # rows and columns of the stored images
    preprocess: list[Preprocess] = []  # in this order, part of the model
    augment: list[Augment] = []  # in this order, in training only, at the place of preprocess' `augment`
    network: list[Layer] = Field(min_length=1)
    # pulse_energy: the network tells the class and, by one more output, the gas detector's energy.
    target: Literal["class", "pulse_energy"] = "class"
    # mJ: shots of a class other than the first with less than this do not count in the classes' loss.
    energy_floor: Optional[float] = Field(None, gt=0)
    # How many times a shot of a class other than the first counts in the classes' loss.
    lasing_weight: float = Field(1.0, gt=0)
    # mJ: errors of the energy beyond it count linearly (Huber 1964); null: all count as their square.
    energy_huber: Optional[float] = Field(None, gt=0)
    # Share of the train split's blocks of time that becomes the split `validation` where the data have none.
    validation_share: float = Field(0.0, ge=0, le=0.5)
    regularize: Optional[Regularize] = None
    optimizer: Optimizer = Optimizer()
    learning_rate: LearningRate = LearningRate()
    minibatch: Union[int, Literal["full"]] = "full"
    # Images whose gradient is computed at once; the gradients are averaged: same result, less memory.
    microbatch: Optional[int] = Field(None, gt=0)
    # In bfloat16 layers compute with 8 bits instead of 24; weights, gradients' sum and logits stay float32.
    compute: Literal["float32", "bfloat16"] = "float32"
    cache: Literal["auto", "memory", "stream"] = "auto"  # auto: in memory, if half of what is free is enough
    check_images: bool = True  # compare each image's crc32 when it is first read
    steps: int = Field(gt=0)
    table_every: int = Field(5, gt=0)  # steps from one row of the table to the next; more by table_share
    # Where a split has more shots than this (null: nowhere) rows of the table judge some of each split, the
    # same in every row, that cost `table_share` of the steps from row to row. At the end all are judged.
    table_shots: Optional[int] = Field(2000, gt=0)
    table_share: float = Field(0.05, gt=0)
    checkpoint_seconds: float = Field(10.0, ge=0)  # at least; more where saving takes over 2 % of the time
    stop_when: Optional[StopWhen] = None
    watch: Watch = Watch()
    report: bool = True  # write report.html at the end
    tensorboard: bool = False  # write tensorboard/ on the way

    @property
    def run_dir(self) -> Path:
        return Path(self.runs_dir) / self.name

    @property
    def needed_splits(self) -> list[str]:
        """The splits that the data must have."""
        return list(dict.fromkeys(["train", "test", *([self.stop_when.split] if self.stop_when else [])]))

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if isinstance(self.minibatch, int) and self.minibatch < 1:
            raise ValueError(f"minibatch: {self.minibatch} is not positive; give a number or full")
        kinds = [layer.kind for layer in self.network]
        if kinds.count("output") != 1 or kinds[-1] != "output":
            raise ValueError("network: the last layer, and no other, must be `output`")
        places = [step.kind for step in self.preprocess].count("augment")
        if places != bool(self.augment):
            raise ValueError(
                "augment: its steps need one `- augment` in preprocess, which says where they are done"
                if self.augment
                else "preprocess: has the word augment, but there are no steps under `augment:`"
            )
        if self.microbatch is not None and "batch_normalization" in kinds:
            raise ValueError(
                "microbatch: not with batch_normalization, whose averages are over the whole minibatch"
            )
        flat = kinds.index("hidden") if "hidden" in kinds else len(kinds) - 1
        for n, kind in enumerate(kinds):
            if n > flat and kind in ("convolution", "average_pool", "max_pool", "mean"):
                raise ValueError(
                    f"network[{n}]: {kind} after a fully connected layer, which has no rows and columns"
                )
        return self


def load_config(path: str) -> TrainConfig:
    """The train config at `path`; raises ConfigError."""
    return load(path, TrainConfig)
