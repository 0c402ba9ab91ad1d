"""Which way a convolution is computed: a rule, the same on every machine, so that runs repeat.

Costs are operations of one image. A direct convolution does those of the taps that lie in the image.
Spectra do those of their transforms and products; and each number that one product writes and the
next one reads costs as much as WORD operations. Measured with TensorFlow 2.21 on 2 cores with AVX-512, CPU
time in milliseconds an image, and by this rule at 130 GFLOP/s a core:

                                          forward                      gradients
    image, channels, kernel, stride       direct       by spectra      direct       by spectra
    200 x 200, 1 to 16, 32 x 32, 2        2.2 / 2.3    1.5 / 1.6       2.7 / 3.2    1.2 / 1.2
    34 x 34, 16 to 16, 32 x 32, 2         0.6 / 0.7    0.3 / 0.3       2.5 / 2.2    0.7 / 0.4
    167 x 167, 16 to 16, 32 x 32, 2       22 / 26      7.5 / 5.2       55 / 64      13 / 5.6
    1000 x 1000, 1 to 16, 32 x 32, 2      54 / 62      43 / 39         70 / 79      30 / 30
    284 x 363, 1 to 16, 16 x 16, 2        1.6 / 1.6    3.3 / 3.0       1.9 / 2.0    2.5 / 2.3

(the gradients: by the kernel, and by the input where there are 16 channels of it).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Optional, Sequence

WORD = 290
PHASES = 1.25  # what an operation of a kernel's gradient takes against one of the forward pass, by phases
STOCK = 2.0  # and in the stock form
INPUT = 1.1  # the same of the gradient by the input
BFLOAT16 = 0.55  # of a direct pass in bfloat16 against float32; spectra are in float32 always
GAIN = 0.8  # spectra are chosen if they cost at most this share of what they replace
# Tiles that are done at a time: what a product writes should be in a cache when the next one reads it. With
# many input channels there are more, as the sums for the kernel's gradient are added up once for each.
TILES, TILES_OF_CHANNELS = 16, 32


def padding_of(size: int, window: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after one axis (TensorFlow's rule: the odd one comes after)."""
    if padding == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def outputs_of(size: int, window: int, stride: int, padding: str) -> int:
    """Positions of a window along one axis (TensorFlow's rule)."""
    return -(-size // stride) if padding == "same" else -(-(size - window + 1) // stride)


def phases_for(window: Sequence[int], strides: Sequence[int]) -> int:
    """The factor r by which `convolution` computes a kernel's gradient by phases; 0: the stock gradient.

    Measured on 2 cores with AVX-512, time of forward, relu and kernel gradient against stock:
    16 x 16 stride 2: r = 1 0.50, r = 2 0.64; 32 x 32 stride 2: r = 1 1.0, r = 2 0.48, with 16 channels
    in 0.35; 12 x 12 stride 4: r = 1 1.16.
    """
    if max(strides) < 2 or min(window) < 16:
        return 0
    return 1 if min(window) < 24 else 2


class Axis(NamedTuple):
    """One axis of a convolution, and the number of tiles into which its outputs are cut."""

    size: int  # pixels of the input
    window: int  # of the kernel
    stride: int
    before: int  # zeros before the first pixel
    outputs: int
    tiles: int = 1

    @property
    def taps(self) -> int:
        """Of one phase of the kernel: every stride-th."""
        return -(-self.window // self.stride)

    @property
    def kept(self) -> int:
        """Outputs of one tile."""
        return -(-self.outputs // self.tiles)

    @property
    def length(self) -> int:
        """Pixels of one phase of a tile, which is the length of its transform."""
        return self.kept + self.taps - 1

    @property
    def covered(self) -> int:
        """Pixels from the first one of the first tile to the last one of the last."""
        return ((self.tiles - 1) * self.kept + self.length) * self.stride

    def starts(self) -> range:
        """The first pixel of each tile, counted from the first zero before the image."""
        return range(0, self.tiles * self.kept * self.stride, self.kept * self.stride)

    def inside(self) -> int:
        """Taps that lie in the image, summed over the outputs."""
        firsts = (self.stride * n - self.before for n in range(self.outputs))
        return sum(max(min(first + self.window, self.size) - max(first, 0), 0) for first in firsts)


class Plan(NamedTuple):
    """A convolution of images (n, rows, columns, inputs) to (n, rows, columns, outputs), cut into tiles."""

    rows: Axis
    columns: Axis
    inputs: int
    outputs: int

    @property
    def channels(self) -> int:
        """Phases of the image times input channels."""
        return self.rows.stride * self.columns.stride * self.inputs

    @property
    def frequencies(self) -> int:
        """Of the rows: half of them tell all of a real image. Of the columns there are `columns.length`."""
        return self.rows.length // 2 + 1

    @property
    def strips(self) -> int:
        """Rows of tiles that are done at a time."""
        return max(1, round((TILES if self.inputs == 1 else TILES_OF_CHANNELS) / self.columns.tiles))


class Ways(NamedTuple):
    """How each pass of a convolution is computed: "direct", "phases" or "spectra"."""

    forward: str
    kernel: str  # the gradient by the kernel
    input: str  # and by the input
    phases: int  # r of `phases_for`
    plan: Optional[Plan]  # of the spectra, if there are any

    def __str__(self) -> str:
        kernel = f"phases, r = {self.phases}" if self.kernel == "phases" else self.kernel
        text = " / ".join((self.forward, kernel, self.input))
        if self.plan is None:
            return text
        rows, columns = self.plan.rows, self.plan.columns
        return f"{text}; {rows.tiles} x {columns.tiles} tiles, transforms {rows.length} x {columns.length}"


def ways_of(
    image: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
    channels: tuple[int, int],
    compute: str = "float32",
) -> Ways:
    """How to compute a convolution of images of (rows, columns) pixels and (inputs, outputs) channels.

    The gradient by the input goes by spectra together with that by the kernel, whose transforms it
    shares; with one input channel, that of the images themselves, it is direct: training does not ask for it.
    """
    r = phases_for(window, strides)
    plan = min(_plans(image, window, strides, padding, channels), key=_both)
    forward, kernel, by_input = direct_costs(plan, r)
    scale = GAIN * (BFLOAT16 if compute == "bfloat16" else 1.0)
    spectra = spectral_costs(plan)
    whole = channels[0] > 1
    first = spectra.forward <= scale * forward
    gradients = spectra.kernel + (spectra.input if whole else 0) + (0 if first else spectra.transform)
    second = gradients <= scale * (kernel + (by_input if whole else 0))
    return Ways(
        "spectra" if first else "direct",
        "spectra" if second else "phases" if r else "direct",
        "spectra" if second and whole else "direct",
        r,
        plan if first or second else None,
    )


class Costs(NamedTuple):
    """Of the passes of a convolution by spectra, in operations of one image."""

    transform: float  # of the input: a part of `forward`
    forward: float
    kernel: float  # with the transform of the gradient by the output
    input: float  # without it


def direct_costs(plan: Plan, r: int) -> tuple[float, float, float]:
    """Operations of an image: forward, gradient by the kernel (by phases if r > 0) and by the input."""
    rows, columns = plan.rows, plan.columns
    pairs = 2.0 * plan.inputs * plan.outputs
    forward = pairs * rows.inside() * columns.inside()
    whole = pairs * rows.outputs * columns.outputs * rows.window * columns.window
    return forward, PHASES * whole if r else STOCK * forward, INPUT * forward


def spectral_costs(plan: Plan, word: float = WORD) -> Costs:
    """Operations of an image, with `word` for each number that is written and read between two of them."""
    rows, columns, channels, outputs = plan.rows, plan.columns, plan.channels, plan.outputs
    tiles, frequencies = rows.tiles * columns.tiles, plan.frequencies

    def transform(height: int, width: int, channels: int) -> float:
        along_rows = 2 * (2 * frequencies) * height * width * channels
        along_columns = 2 * frequencies * (2 * columns.length) * (2 * width) * channels
        return along_rows + along_columns + word * 2 * frequencies * columns.length * channels

    product = 2 * frequencies * columns.length * (2 * channels) * (2 * outputs)
    uneven = sum(axis.tiles * axis.kept > axis.outputs for axis in (rows, columns))
    x = transform(rows.length, columns.length, channels)
    y = transform(rows.kept, columns.kept, outputs)  # as much as its inverse
    y += uneven * word / 3 * rows.kept * columns.kept * outputs  # filled up or cut off
    return Costs(*(float(tiles * cost) for cost in (x, x + product + y, y + product, product + x)))


def least_operations(
    image: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
    channels: tuple[int, int],
) -> list[tuple[float, str]]:
    """Operations of an image, forward and of the gradients by kernel and input, of the way that has fewer.

    With that way, "direct" or "spectra". Each pass for itself, with the tiles that are best for it; what is
    written and read counts nothing.
    """
    plans = _plans(image, window, strides, padding, channels)
    direct = direct_costs(plans[0], 0)[0]  # the gradients do the same operations
    spectra = [spectral_costs(plan, word=0) for plan in plans]
    passes = zip(*((costs.forward, costs.kernel, costs.input) for costs in spectra))
    return [min((direct, "direct"), (min(operations), "spectra")) for operations in passes]


def _plans(
    image: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
    channels: tuple[int, int],
) -> list[Plan]:
    """Every way to cut a convolution into tiles that are not too small."""
    axes = [
        Axis(*sizes, padding_of(*sizes, padding)[0], outputs_of(*sizes, padding))
        for sizes in zip(image, window, strides)
    ]
    return [Plan(*tiled, *channels) for tiled in itertools.product(*map(_tilings, axes))]


def _tilings(axis: Axis) -> list[Axis]:
    """The axis in one tile, two and so on, until they keep half as many outputs as a phase has taps.

    Of tiles that keep as many outputs each, the fewest: for 726 outputs there are some 50 ways, not 1,452.
    """
    most = max(1, 2 * axis.outputs // axis.taps)
    cut = [axis._replace(tiles=tiles) for tiles in range(1, most + 1)]
    return list({tiled.kept: tiled for tiled in reversed(cut)}.values())


def _both(plan: Plan) -> float:
    costs = spectral_costs(plan)
    return costs.forward + costs.kernel
