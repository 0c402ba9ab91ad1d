"""The figures of a training report against the pulse energy in the gas detector."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from common.report.drawing import COLORS, GRAY, clip, new, png, svg
from common.report.page import Picture
from train.metrics import measure
from train.report.evidence import Evidence, Run
from train.report.figures import intervals


def pictures(run: Run, shots: Evidence) -> list[Picture]:
    """Shares classified correctly, and probabilities, against the pulse energy; none without records."""
    if not np.isfinite(shots.energy).any():
        return []
    return [_shares(run, shots), *(_probability(run, shots, label) for label in range(1, len(run.classes)))]


def _shares(run: Run, shots: Evidence) -> Picture:
    """The share of each class that is classified correctly, with intervals."""
    known, right, of_class = np.isfinite(shots.energy), shots.predicted == shots.labels, {}
    for label, name in enumerate(run.classes):
        energy = np.where(shots.labels == label, shots.energy, np.nan)
        shares = measure.shares_by_energy(energy, right, shots.block)
        of_class.update({name: shares} if shares else {})
    figure, axes = new(4.3, 3.2)
    for (name, shares), marker in zip(of_class.items(), itertools.cycle("os^Dvp*")):
        at = [each.energy for each in shares]
        intervals(axes, at, [each.share for each in shares], marker=marker, label=clip(name))
    axes.set(title="Classified correctly, by pulse energy", ylabel="share classified correctly")
    _energy_axis(axes, (-0.02, 1.04), min(each.energy for shares in of_class.values() for each in shares))
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    told = "; ".join(
        f"{name} from {shares[0].share.value:.2f} at {shares[0].energy:.3f} mJ to "
        f"{shares[-1].share.value:.2f} at {shares[-1].energy:.3f} mJ"
        for name, shares in of_class.items()
    )
    without = f" {(~known).sum()} shots have no record." if not known.all() else ""
    caption = (
        f"Split {shots.split}, {known.sum()} shots in bins of equal numbers, at their median energy, with "
        f"95 % intervals by {shots.units}.{without}"
    )
    return Picture(svg(figure), f"Share classified correctly: {told}", caption)


def _probability(run: Run, shots: Evidence, label: int) -> Picture:
    """The probability of a class of each shot, and the running median."""
    known = np.isfinite(shots.energy)
    energy, p, labels = shots.energy[known], shots.probabilities[known, label], shots.labels[known]
    figure, axes = new(4.3, 3.2)
    for k, name in enumerate(run.classes):
        style = {"ms": 4, "alpha": 0.45, "color": COLORS[k % len(COLORS)], "label": clip(name)}
        axes.plot(energy[labels == k], p[labels == k], ".", **style)
    order = np.argsort(energy, kind="stable")
    parts = [part for part in np.array_split(order, max(1, min(24, len(order) // 12))) if len(part)]
    medians = [(np.median(energy[part]), np.median(p[part])) for part in parts]
    axes.plot(*zip(*medians), color="black", lw=1.4, label="median")
    axes.axhline(0.5, color=GRAY, ls=":", lw=1)
    name = clip(run.classes[label])
    axes.set(title=f"Probability of {name}, by pulse energy", ylabel=f"p({name})")
    _energy_axis(axes, (-0.03, 1.03), float(energy.min()))
    figure.legend(loc="outside lower center", ncols=len(run.classes) + 1)
    what = f"p({run.classes[label]}) of each shot against its pulse energy"
    return Picture(png(figure), what, "Points: shots, colored by their own class; black: running median.")


def _energy_axis(axes: Any, limits: tuple[float, float], least: float) -> None:
    """The axes; logarithmic if no energy is below 0: without lasing the detector reads a few microjoules."""
    from matplotlib.ticker import LogLocator

    axes.set(xlabel="pulse energy in the gas detector (mJ)", ylim=limits)
    if least > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
