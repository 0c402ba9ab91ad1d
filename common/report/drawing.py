"""The style of figures, and figures as data URIs for a page."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
from typing import Any, Iterator, Optional

import numpy as np

from common.dataset.view import View
from common.plotting import load_matplotlib
from common.report.page import not_installed

# Okabe and Ito (2008): told apart with any kind of color vision. Black comes last.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GRAY = "#57606a"
IMAGE_COLORS = "viridis"
SIGNED_COLORS = "RdBu_r"
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.grid": False,
    "grid.color": "#e3e7eb",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "figure.facecolor": "white",
    "image.interpolation": "nearest",
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "xtcav-lasing",  # the same figure is the same bytes
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Use the reports' figure style inside this context, whatever a user's settings say.

    Raises UserError if a package that reports need is not installed.
    """
    try:
        matplotlib = load_matplotlib()
        importlib.import_module("scipy.ndimage")  # what is drawn of slices needs it
    except ImportError as error:
        raise not_installed(error) from None
    ours = {**_STYLE, "axes.prop_cycle": matplotlib.cycler(color=COLORS)}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **ours}):
        yield


def new(
    width: float = 4.3, height: float = 2.9, layout: Optional[str] = "compressed", **subplots: Any
) -> tuple[Any, Any]:
    """A figure of this size in inches, and its axes (an array of them with nrows, ncols)."""
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure it makes

    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(**subplots)


def clip(text: str, most: int = 34) -> str:
    """A user's `text` for a figure: shortened to fit, with dollar signs escaped for matplotlib."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")


def svg(figure: Any) -> str:
    """The figure as a data URI; for curves, sharp at any size."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, **_cropped(figure))
    return _uri("image/svg+xml", out.getvalue())


def png(figure: Any, dpi: int = 130) -> str:
    """The figure as a data URI; for camera images, of which an SVG would hold every pixel."""
    from PIL import Image  # matplotlib brings it

    out, small = io.BytesIO(), io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, **_cropped(figure))
    # 255 colors are as many as viridis shows: a third of the bytes. Chosen to cover all colors, so that
    # the few pixels at the ends of a scale keep theirs.
    colors = (
        Image.open(out).convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    colors.save(small, "PNG", optimize=True)
    return _uri("image/png", small.getvalue())


def show(
    axes: Any,
    view: View,
    image: np.ndarray,
    limits: Optional[tuple[float, float]] = None,
    signed: bool = False,
) -> Any:
    """Draw a stored image, (h, w), as the camera saw it, with named axes; returns what a color bar needs.

    signed: around 0, red above and blue below.
    """
    if signed:
        reach = float(np.abs(image).max()) or 1.0
        limits = limits or (-reach, reach)
    low, high = limits or (None, None)
    shown = axes.imshow(
        view.picture(image),
        cmap=SIGNED_COLORS if signed else IMAGE_COLORS,
        vmin=low,
        vmax=high,
        extent=view.extent(image),
        aspect="equal" if view.scale is None else "auto",
    )
    if view.scale is not None:  # in the shape in which the camera saw it, whatever the units
        rows, columns = (size * block for size, block in zip(view.picture(image).shape, view.blocks))
        axes.set_box_aspect(rows / columns)
    axes.set_xlabel(view.x_label)
    axes.set_ylabel(view.y_label)
    return shown


def _cropped(figure: Any) -> dict[str, Any]:
    """Crop the empty margins that images of a fixed shape leave, except where margins were set by hand."""
    return {"bbox_inches": "tight", "pad_inches": 0.03} if figure.get_layout_engine() else {}


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
