"""How to show a stored image: oriented as the camera saw it, with axis names and unit."""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple, Optional

import numpy as np


class View(NamedTuple):
    """How the images of a data file relate to the camera's picture.

    transposed: axis 0 of a stored image is the camera's columns. blocks: (rows, columns) of the
    camera in one stored pixel. log: pixels are log(1 + counts), not counts. camera: whether a
    camera took them at all. scale: MeV in a row of the camera and fs in a column, where they are
    known: of simulated runs of one machine, or by the screen's calibration. The defaults are those
    of a config's `image:` section.
    """

    transposed: bool = True
    blocks: tuple[int, int] = (2, 2)
    log: bool = True
    camera: bool = True
    scale: Optional[tuple[float, float]] = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "View":
        """The view of a data file with these root attributes; plain images where no camera is named."""
        config = json.loads(attributes["config"])
        image = config.get("image")
        if not isinstance(image, dict):
            return cls(transposed=False, blocks=(1, 1), log=False, camera=False)
        usual = cls()
        return cls(
            image.get("transpose", usual.transposed),
            tuple(image.get("downsample", usual.blocks)),
            image.get("log", usual.log),
            scale=_scale(config),
        )

    @property
    def unit(self) -> str:
        """Of the pixels."""
        return "log(1 + counts)" if self.log else "counts" if self.camera else "pixel value"

    def picture(self, image: np.ndarray) -> np.ndarray:
        """`image`, (h, w) as stored, with the camera's rows from top to bottom."""
        return image.T if self.transposed else image

    def light(self, images: np.ndarray) -> np.ndarray:
        """Stored images, (n, h, w), as pictures for `common.slices`: (n, time, energy) float32, counts."""
        counts = np.exp(images, dtype=np.float32) - 1 if self.log else images
        return counts if self.transposed else counts.transpose(0, 2, 1)

    def extent(self, image: np.ndarray) -> tuple[float, float, float, float]:
        """left, right, bottom, top of `picture(image)`, as matplotlib wants them.

        In fs from the left edge and MeV from the lower edge where the scale is known, else in the
        camera's pixels.
        """
        rows, columns = self.picture(image).shape
        right, bottom = columns * self.blocks[1], rows * self.blocks[0]
        if self.scale is None:
            return 0, right, bottom, 0
        return 0, right * self.scale[1], 0, bottom * self.scale[0]

    def centers(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the columns and the rows of `picture(image)` are, in the units of `extent`."""
        rows, columns = self.picture(image).shape
        left, right, bottom, top = self.extent(image)
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        return x, top + (np.arange(rows) + 0.5) * (bottom - top) / rows

    @property
    def x_label(self) -> str:
        return "column" if not self.camera else "time (fs)" if self.scale else "time (camera column)"

    @property
    def y_label(self) -> str:
        return "row" if not self.camera else "energy (MeV)" if self.scale else "energy (camera row)"


def _scale(config: Mapping[str, Any]) -> Optional[tuple[float, float]]:
    """MeV in a row and fs in a column of simulated pictures; None unless all are of one scale."""
    try:
        beam, varied = config["simulate"]["beam"], config["simulate"].get("vary", {}).get("beam", {})
        if varied.get("energy_span") or varied.get("time_span"):
            return None
        rows, columns = config["camera"]["shape"]
        return float(beam["energy_span"]) / rows, float(beam["time_span"]) / columns
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None
