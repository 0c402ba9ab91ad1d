"""What predictions come to: a row for each run, and for each split with labels; as data and as text."""

from __future__ import annotations

from collections import Counter
from typing import Any, Sequence

import numpy as np

from common import text_table
from common.blocks import Blocks
from train.metrics import effective, measure
from train.predict.predictions import Part


def of_runs(parts: Sequence[Part], classes: Sequence[str], blocks: Blocks) -> list[dict[str, Any]]:
    """For each run and split: n, its label if known, and for each class but the first the mean
    probability and the share that is called so, with its 95 % interval by blocks of time."""
    rows = []
    for run, split in sorted({(run, part.split) for part in parts for run in np.unique(part.ids["run"])}):
        chosen = [(part, part.ids["run"] == run) for part in parts if part.split == split]
        probability = np.concatenate([part.probability[mask] for part, mask in chosen])
        known = [part.labels[mask] for part, mask in chosen if part.labels is not None]
        labels = np.unique(np.concatenate(known)) if known else []
        row = {
            "run": int(run),
            "split": split,
            "n": len(probability),
            "label": "+".join(classes[label] for label in labels) or None,
        }
        called = probability.argmax(axis=1)
        block = blocks.of_times(np.concatenate([part.ids[mask] for part, mask in chosen]))
        for label, name in list(enumerate(classes))[1:]:
            share = effective.share(called == label, block)
            row[f"mean_probability_{name}"] = float(probability[:, label].mean(dtype=np.float64))
            row[f"called_{name}"] = share.k
            row[f"interval_{name}"] = share.interval
            row[f"n_effective_{name}"] = share.n_effective
            row["interval_by"] = share.by
        if chosen[0][0].energy is not None:
            estimates = np.concatenate([part.energy[mask, 0] for part, mask in chosen])
            row["mean_pulse_energy"] = float(estimates.mean(dtype=np.float64))
        if chosen[0][0].flags is not None:
            flags = [flag for part, mask in chosen for flag, mine in zip(part.flags, mask) if mine]
            row["flagged"] = dict(Counter(flag for flag in flags if flag).most_common())
        rows.append(row)
    return rows


def of_labeled(parts: Sequence[Part], blocks: Blocks) -> list[dict[str, Any]]:
    """For each split whose labels are known: accuracy with n, interval and the share of the larger class."""
    rows = []
    for split in dict.fromkeys(part.split for part in parts if part.labels is not None):
        chosen = [part for part in parts if part.split == split]
        labels = np.concatenate([part.labels for part in chosen])
        block = blocks.of_times(np.concatenate([part.ids for part in chosen]))
        score = measure.score(labels, np.concatenate([part.predicted for part in chosen]), block)
        rows.append({"split": split, **score.to_json()})
    return rows


def lines(runs: list[dict[str, Any]], splits: list[dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """The rows of `of_runs` and `of_labeled` as lines of text."""
    return [
        *text_table.lines([_cells(row, classes) for row in runs]),
        *(f"{row['split']}: {measure.Score.from_json(row)}" for row in splits),
        *_warnings(runs),
    ]


def _warnings(runs: list[dict[str, Any]]) -> list[str]:
    """A line for each run of which so many shots are flagged that its probabilities mean little."""
    from train.model.novelty import RUN, many

    lines = []
    for row in runs:
        own = {reason: n for reason, n in row.get("flagged", {}).items() if reason != RUN}
        if many(sum(own.values()), row["n"]):
            why = ", ".join(f"{n} {reason}" for reason, n in list(own.items())[:3])
            lines.append(
                f"run {row['run']}, {row['split']}: {sum(own.values())} of {row['n']} shots are unlike "
                f"those trained on ({why}); so all are flagged, do not rely on its probabilities"
            )
    return lines


def _cells(row: dict[str, Any], classes: Sequence[str]) -> dict[str, str]:
    """A row of `of_runs` as cells of a table."""
    cells = {"run": row["run"], "split": row["split"], "n": row["n"], "is": row["label"] or "?"}
    for name in classes[1:]:
        low, high = row[f"interval_{name}"]
        cells[f"mean p({name})"] = f"{row[f'mean_probability_{name}']:.3f}"
        cells[f"called {name}"] = f"{row[f'called_{name}'] / row['n']:.3f} [{low:.3f}, {high:.3f}]"
    if "mean_pulse_energy" in row:
        cells["mean mJ"] = f"{row['mean_pulse_energy']:.4f}"
    if "flagged" in row:
        cells["flagged"] = f"{sum(row['flagged'].values()) / row['n']:.3f}"
    return cells
