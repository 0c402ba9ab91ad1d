"""The config of a training run: data, network layer by layer, optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple, Union

from pydantic import Field, Strict, model_serializer, model_validator

from common.config import Model, load

# Rows, columns of the stored image. Lists are taken for it: below a validator that sees the
# file's values first, strict models do not know any more that they came from a file.
Window = Annotated[Tuple[int, int], Strict(False)]
Padding = Literal["same", "valid"]


class Initial(Model):
    """How weights start: normal, cut off at two stddev or not; `bias: null` means no bias."""

    init: Literal["truncated_normal", "normal"] = "truncated_normal"
    stddev: float = Field(0.01, ge=0)
    bias: Optional[float] = 0.0


class Convolution(Initial):
    """A convolution; kernel (*window, channels in, channels)."""

    window: Window
    channels: int = Field(gt=0)
    strides: Window = (1, 1)
    padding: Padding = "same"


class Pool(Model):
    """A pooling window."""

    window: Window
    strides: Window
    padding: Padding = "same"


class Hidden(Initial):
    """A fully connected layer of `units`; images are flattened before the first."""

    units: int = Field(gt=0)


class Output(Initial):
    """The last fully connected layer: as many outputs (logits) as the data have classes."""


class Empty(Model):
    """A layer without settings."""


class Layer(Model):
    """One layer: exactly one of these keys. A layer without settings is its bare name, `- relu`."""

    convolution: Optional[Convolution] = None
    relu: Optional[Empty] = None
    average_pool: Optional[Pool] = None
    max_pool: Optional[Pool] = None
    hidden: Optional[Hidden] = None
    output: Optional[Output] = None

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> Model:
        """What is given under the key."""
        return getattr(self, self.kind)

    @model_serializer
    def _only_what_is_given(self) -> Dict[str, Any]:
        return {self.kind: self.settings.model_dump()}

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {key: {} if settings is None else settings for key, settings in value.items()}
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> "Layer":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a layer is one of {', '.join(type(self).model_fields)}; given: {given or 'none'}"
            )
        for name in ("window", "strides"):
            if min(getattr(self.settings, name, (1, 1))) < 1:
                raise ValueError(f"{name}: {list(getattr(self.settings, name))} is not positive")
        return self


class Optimizer(Model):
    """momentum: m = momentum * m + g; w = w - rate * m, as the seed's TensorFlow did it."""

    kind: Literal["momentum", "sgd", "adam"] = "momentum"
    momentum: float = Field(0.4, ge=0, lt=1)  # of kind momentum only
    beta_1: float = Field(0.9, ge=0, lt=1)  # of kind adam only
    beta_2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-7, gt=0)


class LearningRate(Model):
    """start * decay^((step - 1) / steps); the exponent rounded down if `staircase`."""

    start: float = Field(0.01, gt=0)
    decay: float = Field(1.0, gt=0, le=1)
    steps: int = Field(10, gt=0)
    staircase: bool = True

    def at(self, step: int) -> float:
        """The rate of the update at `step`, which counts from 1."""
        exponent = (step - 1) / self.steps
        return self.start * self.decay ** (exponent // 1 if self.staircase else exponent)


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
    data: str = Field(min_length=1)
    runs_dir: str = "runs"
    seed: int = Field(1, ge=0, lt=2**31)
    threads: Threads = Threads()
    input: Window = (284, 363)  # rows and columns of the stored images
    preprocess: Literal["none", "standardise"] = "none"
    network: List[Layer] = Field(min_length=1)
    optimizer: Optimizer = Optimizer()
    learning_rate: LearningRate = LearningRate()
    minibatch: Union[int, Literal["full"]] = "full"
    steps: int = Field(gt=0)
    table_every: int = Field(5, gt=0)
    stop_when: Optional[StopWhen] = None

    @property
    def run_dir(self) -> Path:
        return Path(self.runs_dir) / self.name

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if isinstance(self.minibatch, int) and self.minibatch < 1:
            raise ValueError(f"minibatch: {self.minibatch} is not positive; give a number or full")
        kinds = [layer.kind for layer in self.network]
        if kinds.count("output") != 1 or kinds[-1] != "output":
            raise ValueError("network: the last layer, and no other, must be `output`")
        flat = kinds.index("hidden") if "hidden" in kinds else len(kinds) - 1
        for n, kind in enumerate(kinds):
            if n > flat and kind in ("convolution", "average_pool", "max_pool"):
                raise ValueError(
                    f"network[{n}]: {kind} after a fully connected layer, which has no rows and columns"
                )
        return self


def load_config(path: str) -> TrainConfig:
    """The train config at `path`; raises ConfigError."""
    return load(path, TrainConfig)
