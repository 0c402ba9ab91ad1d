"""The picture a physicist looks at first: mean energy and energy spread against time, class by class."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from common.dataset.view import View
from common.report.drawing import COLORS, GRAY, clip, new, svg
from common.report.page import Block, Picture, Pictures, Text
from common.slices import FOUND, PLACES, REASONS, Slices

_BAND = (16, 84)  # percentiles: of normal values one standard deviation to both sides
_FEWEST = 2  # shots for a curve


def told(slices: Slices) -> str:
    """How many shots could be read, and why the others could not."""
    n = len(slices.status)
    kinds = [f"{k} with {what}" for k, what in _kinds(slices)]
    read = f"Slices were read in {int((slices.status == FOUND).sum())} of {n} shots"
    text = f"{read} ({' and '.join(kinds)})" if kinds else read
    reasons = [f"{reason} in {count}" for reason, count in unread(slices).items()]
    return f"{text}; {', '.join(reasons)}." if reasons else f"{text}."


def unread(slices: Slices) -> dict[str, int]:
    """{reason: shots} of the shots that could not be read."""
    counts = {reason: int((slices.status == status).sum()) for status, reason in REASONS.items()}
    return {reason: count for reason, count in counts.items() if count}


def blocks(slices: Slices, label: np.ndarray, names: dict[int, str], view: View) -> list[Block]:
    """Words and figure for a page. label: (n,), a key of `names` for each shot."""
    if not (slices.status == FOUND).any():
        return [Text(told(slices))]
    unit = _units(view)
    alt = "; ".join(_summary(slices, label == key, name, unit) for key, name in names.items())
    caption = (
        "Lines: medians over the shots; bands: the middle 68 % of them. Each bunch is cut into "
        f"{PLACES} slices between 2 % and 98 % of its charge, energies are relative to the bunch's mean."
    )
    return [
        Text(told(slices)),
        Pictures([Picture(svg(figure(slices, label, names, view)), f"Slices: {alt}", caption)]),
        Text(
            "Slices that lase have lost energy and are wider than the same slices without lasing; what is "
            "another all along a bunch is the machine, not the lasing.",
            "note",
        ),
    ]


def figure(slices: Slices, label: np.ndarray, names: dict[int, str], view: View) -> Any:
    """Mean energy above, rms spread below, against time within the bunch; a column for each bunch."""
    bunches = max(int(slices.bunches.max()), 1)
    (energy, energy_unit), (time, time_unit) = _units(view)
    drawn, axes = new(4.3 * bunches, 4.6, nrows=2, ncols=bunches, squeeze=False, sharex="col", sharey="row")
    for bunch in range(bunches):
        length = np.nanmedian(slices.length[:, bunch]) * time
        place = ((np.arange(PLACES) + 0.5) / PLACES - 0.5) * length
        for n, (key, name) in enumerate(names.items()):
            rows = (label == key) & (slices.bunches > bunch)
            if rows.sum() < _FEWEST:
                continue
            for row, values in enumerate((slices.energy, slices.spread)):
                _curve(axes[row, bunch], place, values[rows, bunch] * energy, COLORS[n], clip(name))
        axes[0, bunch].set_title(f"bunch {bunch + 1} of {bunches}" if bunches > 1 else "the bunch")
        axes[1, bunch].set_xlabel(f"time from the bunch's middle ({time_unit})")
    axes[0, 0].set_ylabel(f"mean energy ({energy_unit})")
    axes[1, 0].set_ylabel(f"rms energy spread ({energy_unit})")
    axes[1, 0].set_ylim(bottom=0)
    for each in axes.flat:
        each.grid(axis="y")
    handles, labels = axes[0, 0].get_legend_handles_labels()
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


def _summary(slices: Slices, rows: np.ndarray, name: str, unit: Sequence) -> str:
    found = rows & (slices.status == FOUND)
    if not found.any():
        return f"{name}: none could be read"
    scale, of = unit[0]
    median = np.nanmedian(slices.spread[found, 0]) * scale
    return f"{name}: {int(found.sum())} shots, median slice spread of the first bunch {median:.3g} {of}"


def _kinds(slices: Slices) -> list[tuple]:
    counts = [(int((slices.bunches == k).sum()), what) for k, what in ((1, "one bunch"), (2, "two bunches"))]
    return [(count, what) for count, what in counts if count]
