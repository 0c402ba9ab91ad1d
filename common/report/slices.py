"""The picture a physicist looks at first: mean energy and energy spread against time, class by class."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from common.bunches import FOUND, REASONS
from common.dataset.view import View
from common.report.drawing import COLORS, GRAY, clip, new, svg
from common.report.page import Block, Picture, Pictures, Text
from common.slices import PLACES, Slices

_BAND = (16, 84)  # percentiles: of normal values one standard deviation to both sides
_FEWEST = 2  # shots for a curve
_BESIDE = 0.005  # of the light, beside the bunches: in simulated runs there is less


def told(slices: Slices) -> str:
    """How many shots could be read, and why the others could not."""
    bunches = ((slices.bunches == n, f"with {what}") for n, what in ((1, "one bunch"), (2, "two bunches")))
    kinds = [f"{mask.sum()} {what}" for mask, what in bunches if mask.any()]
    unread = ((slices.status == status, reason) for status, reason in REASONS.items())
    reasons = [f"{reason} in {mask.sum()}" for mask, reason in unread if mask.any()]
    beside = (slices.status == FOUND) & (slices.left_out > _BESIDE)
    if beside.any():
        reasons.append(
            f"over {_BESIDE:.1%} of the light is in islands too small to be bunches in {beside.sum()}"
        )
    read = f"Slices were read in {(slices.status == FOUND).sum()} of {len(slices.status)} shots"
    text = f"{read} ({' and '.join(kinds)})" if kinds else read
    return f"{text}; {', '.join(reasons)}." if reasons else f"{text}."


def slice_blocks(slices: Slices, label: np.ndarray, names: dict[int, str], view: View) -> list[Block]:
    """Words and figure for a page. label: (n,), a key of `names` for each shot."""
    if not (slices.status == FOUND).any():
        return [Text(told(slices))]
    bunches = max(int(slices.bunches.max()), 1)
    pictures = []
    for bunch in range(bunches):
        alt = "; ".join(_summary(slices, label == key, name, bunch, view) for key, name in names.items())
        drawn = figure(slices, label, names, view, bunch)
        which = f", bunch {bunch + 1}" if bunch else ""
        pictures.append(Picture(svg(drawn), f"Slices{which}: {alt}"))
    return [
        Text(told(slices)),
        Pictures(pictures),
        Text(
            "Lines: medians over the shots; bands: the middle 68 % of them. Each bunch is cut into "
            f"{PLACES} slices between 2 % and 98 % of its charge, energies are relative to the bunch's mean. "
            "Slices that lase have lost energy and are wider than the same slices without lasing; what is "
            "another all along a bunch is the machine, not the lasing.",
            "note",
        ),
    ]


def figure(slices: Slices, label: np.ndarray, names: dict[int, str], view: View, bunch: int) -> Any:
    """Mean energy above, rms spread below, against time within a bunch."""
    (energy, energy_unit), (time, time_unit) = _units(view)
    drawn, (above, below) = new(4.3, 4.4, nrows=2, sharex="col")
    length = np.nanmedian(slices.length[:, bunch]) * time
    place = ((np.arange(PLACES) + 0.5) / PLACES - 0.5) * length
    for n, (key, name) in enumerate(names.items()):
        rows = (label == key) & (slices.bunches > bunch)
        if rows.sum() >= _FEWEST:
            _curve(above, place, slices.energy[rows, bunch] * energy, COLORS[n % len(COLORS)], clip(name))
            _curve(below, place, slices.spread[rows, bunch] * energy, COLORS[n % len(COLORS)], clip(name))
    several = int(slices.bunches.max()) > 1
    above.set(title=f"Bunch {bunch + 1}" if several else "The bunch", ylabel=f"mean energy ({energy_unit})")
    below.set(
        xlabel=f"time from the bunch's middle ({time_unit})", ylabel=f"rms energy spread ({energy_unit})"
    )
    below.set_ylim(bottom=0)
    for each in (above, below):
        each.grid(axis="y")
    handles, labels = above.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=max(len(labels), 1), labelcolor=GRAY)
    return drawn


def _curve(axes: Any, place: np.ndarray, values: np.ndarray, color: str, name: str) -> None:
    low, middle, high = np.nanpercentile(values, [_BAND[0], 50, _BAND[1]], axis=0)
    axes.fill_between(place, low, high, color=color, alpha=0.2, lw=0)
    axes.plot(place, middle, color=color, label=name)


def _units(view: View) -> Sequence:
    """(MeV in a row, its name) and (fs in a column, its name); rows and columns where they are not known."""
    if view.scale is None:
        return (1.0, "camera rows"), (1.0, "camera columns")
    return (view.scale[0], "MeV"), (view.scale[1], "fs")


def _summary(slices: Slices, rows: np.ndarray, name: str, bunch: int, view: View) -> str:
    found = rows & (slices.status == FOUND) & (slices.bunches > bunch)
    if not found.any():
        return f"{name}: none could be read"
    scale, of = _units(view)[0]
    median = np.nanmedian(slices.spread[found, bunch]) * scale
    which = "first" if bunch == 0 else "second"
    return f"{name}: {int(found.sum())} shots, median slice spread of the {which} bunch {median:.3g} {of}"
