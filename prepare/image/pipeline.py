"""From a raw frame to the stored image: the steps of a config's `image:` section, in their order.

Subtracting the dark and taking block means are both linear, so the dark is binned once and
subtracted from the binned frame: the same numbers at a quarter of the work.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from prepare.config import ImageConfig
from prepare.image import transform


class Pipeline:
    """Makes stored images. dark: (H, W), counts, or None where none is subtracted.

    `bin` and `finish` are its two halves, for two threads; to call it does both.
    """

    def __init__(self, steps: ImageConfig, dark: Optional[np.ndarray]) -> None:
        self._steps = steps
        subtracts = steps.subtract_dark and dark is not None
        self._dark = transform.block_mean(dark, steps.downsample) if subtracts else None

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """One raw frame, (H, W) uint8 or uint16, counts, to one stored image.

        (W/c, H/r) if it is transposed, else (H/r, W/c), C-contiguous, of the config's dtype:
        log(1 + max(0, I)) if the config says so, else counts.
        """
        return self.finish(self.bin(frame))

    def bin(self, frame: np.ndarray) -> np.ndarray:
        """Means over the blocks of a frame less the dark's, a new (H/r, W/c) float32 array, counts.

        The frame is not needed any more. A half of the work of an image, reading the frame included.
        """
        image = transform.block_mean(frame, self._steps.downsample)
        if self._dark is not None:
            transform.subtract_dark(image, self._dark, out=image)
        # The cast comes after the subtraction and before the log, which is 4 times faster in float32.
        return image.astype(np.float32)

    def finish(self, image: np.ndarray) -> np.ndarray:
        """The stored image from what `bin` gave."""
        if self._steps.transpose:
            image = np.ascontiguousarray(image.T)
        if self._steps.log:
            image = transform.log_transform(image)
        return image.astype(self._steps.dtype, copy=False)
