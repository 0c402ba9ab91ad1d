"""Settings of what is done to images: preprocessing, which is part of the model, and augmentation.

Pairs are [rows, columns] of the stored image, which is transposed: rows are time, columns energy.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Optional, Union

from pydantic import Field, Strict, model_serializer, model_validator

from common.config import Model

# Lists are taken for tuples: below a validator that sees the file's values first, strict models do not know
# any more that they came from a file.
Pair = Annotated[tuple[int, int], Strict(False)]
Window = Annotated[tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], Strict(False)]
Pixels = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], Strict(False)]
Amounts = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], Strict(False)]
Axis = Literal[0, 1]  # of the stored image: 0 time, 1 energy
Share = Annotated[float, Field(gt=0, le=1)]  # of the images, drawn one by one


class Empty(Model):
    """Nothing to set."""


class OneOf(Model):
    """One step of a list: exactly one key, its kind, with its settings. Without settings, the bare name."""

    what: ClassVar[str] = "a step"

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> Any:
        """What is given under the key."""
        return getattr(self, self.kind)

    @model_serializer
    def _only_what_is_given(self) -> Union[str, dict[str, Any]]:
        settings = self.settings
        if isinstance(settings, Empty):
            return self.kind
        return {self.kind: settings.model_dump() if isinstance(settings, Model) else settings}

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {key: {} if settings is None else settings for key, settings in value.items()}
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> "OneOf":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{self.what} is one of {', '.join(type(self).model_fields)}; given: {given or 'none'}"
            )
        return self


# --- preprocessing: what each does is defined for a single image; train/model/preprocess.py ------


class Center(Model):
    """Cut out `size` pixels around the beam, by whole pixels; zeros where that is off the image.

    The beam is where blocks of 4 x 4 pixels are over `threshold`, in the pixels' unit, above the
    median of their row and their column; its place is the centroid of those blocks.
    """

    threshold: float = Field(gt=0)
    size: Window


class Scale(Model):
    """(x - subtract) / divide."""

    subtract: float = 0.0
    divide: float = Field(1.0, gt=0)


class Preprocess(OneOf):
    """One step of preprocessing; those before `augment` are done before the augmentation of training."""

    counts: Optional[Empty] = None  # exp(x) - 1: the counts of which the stored images are the logarithm
    bin: Optional[Window] = None  # mean over blocks of so many pixels; an incomplete last block is left out
    center: Optional[Center] = None
    crop: Optional[Window] = None  # so many pixels of the middle
    log: Optional[Empty] = None  # log(1 + max(0, x))
    scale: Optional[Scale] = None
    subtract_mean: Optional[Empty] = None
    scale_01: Optional[Empty] = None
    scale_11: Optional[Empty] = None
    standardize: Optional[Empty] = None
    whiten_minibatch: Optional[Empty] = None
    image_contrast: Optional[Empty] = None
    augment: Optional[Empty] = None


# --- augmentation: in training only; train/model/augment.py --------------------------------------


class Blur(Model):
    """Gaussian blur along each axis; the variance is drawn uniformly from 0 to `variance`, px^2."""

    variance: Amounts
    share: Share = 1.0


class Mirror(Model):
    """Reverse an axis."""

    axis: Axis
    share: Share = 0.5


class Stretch(Model):
    """Stretch about the middle; the factor of each axis is drawn uniformly from 1 - `by` to 1 + `by`."""

    by: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Strict(False)
    ]
    share: Share = 1.0


class Noise(Model):
    """Normal noise on every pixel."""

    stddev: float = Field(gt=0)
    share: Share = 1.0


class Augment(OneOf):
    """One step of augmentation."""

    shift: Optional[Pixels] = None  # by whole pixels, drawn uniformly up to so many; zeros come in
    blur: Optional[Blur] = None
    mirror: Optional[Mirror] = None
    stretch: Optional[Stretch] = None
    noise: Optional[Noise] = None
