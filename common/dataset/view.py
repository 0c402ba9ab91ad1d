"""How a stored image is shown: the way the camera saw it, with its axes named."""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Tuple

import numpy as np


class View(NamedTuple):
    """How the images of a data file relate to the camera's picture.

    transposed: axis 0 of a stored image is the camera's columns. blocks: (rows, columns) of the
    camera in one stored pixel. camera: whether a camera took them at all. unit: of the pixels.
    """

    transposed: bool
    blocks: Tuple[int, int]
    camera: bool
    unit: str

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "View":
        """The view of a data file with these root attributes; plain images where no camera is named."""
        image = json.loads(attributes["config"]).get("image")
        if not isinstance(image, dict):
            return cls(False, (1, 1), False, "pixel value")
        unit = "log(1 + counts)" if image.get("log", True) else "counts"
        return cls(image.get("transpose", True), tuple(image.get("downsample", (2, 2))), True, unit)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """`image`, (h, w) as stored, with the camera's rows from top to bottom."""
        return image.T if self.transposed else image

    def extent(self, image: np.ndarray) -> Tuple[int, int, int, int]:
        """left, right, bottom, top of `picture(image)` in the camera's pixels, as matplotlib wants them."""
        rows, columns = self.picture(image).shape
        return 0, columns * self.blocks[1], rows * self.blocks[0], 0

    @property
    def x_label(self) -> str:
        return "time (camera column)" if self.camera else "column"

    @property
    def y_label(self) -> str:
        return "energy (camera row)" if self.camera else "row"
