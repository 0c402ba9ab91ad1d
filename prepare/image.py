"""The maths on one image: functions of arrays, no file and no config object.

Each step is right on its own; `process` composes them. Subtracting the dark and taking block
means are both linear, so the dark is binned once and subtracted from the binned frame: the
same numbers at a quarter of the work.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np


def block_mean(frame: np.ndarray, blocks: Tuple[int, int]) -> np.ndarray:
    """Mean over blocks of r x c pixels: (H, W) any number type, counts -> (H/r, W/c) float64, counts.

    Integer frames are summed exactly (uint32 holds 65,536 pixels of 16 bits), then divided.
    Raises ValueError if r or c does not divide the frame.
    """
    r, c = blocks
    if frame.shape[0] % r or frame.shape[1] % c:
        raise ValueError(f"blocks of {r} x {c} do not divide a frame of {frame.shape[0]} x {frame.shape[1]}")
    total_type = np.uint32 if frame.dtype.kind == "u" else np.float64
    total = frame[::r, ::c].astype(total_type)  # a copy: frames are read-only
    for i in range(r):
        for j in range(c):
            if i or j:
                total += frame[i::r, j::c]
    return total / np.float64(r * c)


def subtract_dark(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """image - dark, both (H, W), counts -> float64: the difference of near-equals keeps its digits."""
    return np.subtract(image, dark, dtype=np.float64)


def log_transform(image: np.ndarray) -> np.ndarray:
    """log(1 + max(0, I)), the seed's transform: counts -> float32 of the same shape, no unit."""
    return np.log1p(np.maximum(image, 0, dtype=np.float32))


def process(
    frame: np.ndarray,
    binned_dark: Optional[np.ndarray],
    downsample: Tuple[int, int] = (2, 2),
    transpose: bool = True,
    log: bool = True,
    dtype: str = "float32",
) -> np.ndarray:
    """One raw frame to one stored image.

    frame: (H, W) uint8 or uint16, counts. binned_dark: `block_mean` of the dark's mean,
    (H/r, W/c), or None for no subtraction. Returns (W/c, H/r) if `transpose`, else (H/r, W/c),
    C-contiguous, of `dtype`: log(1 + max(0, I)) if `log`, else counts.
    """
    image = block_mean(frame, downsample)
    if binned_dark is not None:
        image = subtract_dark(image, binned_dark)
    # The cast comes after the subtraction and before the log, which is 4 times faster in float32.
    image = image.astype(np.float32)
    if transpose:
        image = np.ascontiguousarray(image.T)
    if log:
        image = log_transform(image)
    return image.astype(dtype, copy=False)
