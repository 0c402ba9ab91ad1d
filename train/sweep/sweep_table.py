"""The table at the end of a sweep: the results of each point over its seeds."""

from __future__ import annotations

import csv
import json
import statistics
from typing import Any, Callable, Sequence

from common import text_table
from common.dataset import provenance
from common.manifest import SPLITS
from train.config import TrainConfig
from train.fit.watch import collapsed, swings
from train.metrics import scores
from train.metrics.scores import Scores
from train.run import folder
from train.sweep.grid import Case

Row = dict[str, Any]

NOTES = (
    "accuracies: mean +- standard deviation over the seeds (least to greatest); steps: median (same)",
    "collapsed: runs in which the watch found (nearly) all shots called one class; at the end: runs that",
    "closed so; swings: changes from all one class to all another, mean of the runs; vanished: runs in which",
    "no gradient reached the first layer (dead units)",
)


def table(cases: Sequence[Case], is_finished: Callable[[TrainConfig], bool]) -> list[Row]:
    """A row of numbers for each case, from its finished runs. Counts are numbers of runs."""
    return [_row(case, [config for config in case.runs if is_finished(config)]) for case in cases]


def lines(rows: Sequence[Row]) -> list[str]:
    """The table with notes on its numbers, as aligned lines of text."""
    splits = [split for split in SPLITS if any(f"{split}_mean" in row for row in rows)]
    shown = [_shown(row, splits) for row in rows]
    if not any(row["nan"] for row in rows):
        for cells in shown:
            del cells["NaN"]
    return [*text_table.lines(shown), "", *NOTES, *_about(rows, splits)]


def _row(case: Case, finished: Sequence[TrainConfig]) -> Row:
    ends = [json.loads((config.run_dir / folder.SUMMARY).read_text()) for config in finished]
    found = [scores.of_summary(end) for end in ends]
    row: Row = {"settings": case.label, "runs": len(case.runs), "finished": len(ends)}
    row["nan"] = sum(_is_nan(config) for config in case.runs if config not in finished)
    if not ends:
        return row
    for split in (split for split in SPLITS if split in found[0]):
        of = [each[split].score for each in found]
        row.update(_spread(split, [score.accuracy for score in of], statistics.mean))
        row.update({f"{split}_n": of[0].n, f"{split}_chance": of[0].chance})
        row[f"{split}_n_effective"] = statistics.median(score.share.n_effective for score in of)
        row[f"{split}_better"] = sum(score.finding == "above chance" for score in of)
    row["provenance"] = provenance.word(ends[0].get("provenance", "unknown"))
    row.update(_spread("steps", [end["step"] for end in ends], statistics.median))
    row["collapsed"] = sum(not {"collapsed", "lagging"}.isdisjoint(end["watch"]) for end in ends)
    row["vanished"] = sum("vanished" in end["watch"] for end in ends)
    row["collapsed_at_end"] = sum(map(_ended_collapsed, found, finished))
    row["swings"] = statistics.mean(
        swings(_metrics(config), of, config.watch.share) for of, config in zip(found, finished)
    )
    row["step_seconds"] = statistics.median(end["step_seconds"] for end in ends)
    return row


def _spread(name: str, values: Sequence[float], middle: Callable[[Sequence[float]], float]) -> Row:
    return {
        f"{name}_{middle.__name__}": middle(values),
        f"{name}_std": statistics.stdev(values) if len(values) > 1 else 0.0,
        f"{name}_min": min(values),
        f"{name}_max": max(values),
    }


def _ended_collapsed(splits: Scores, config: TrainConfig) -> bool:
    """Whether the final predictions are (nearly) all of one class."""
    row: Row = {}
    for split, of in splits.items():
        called = [sum(column) for column in zip(*of.confusion)]
        row[f"{split}_largest"] = called.index(max(called))
        row[f"{split}_largest_share"] = max(called) / of.score.n
    return collapsed(row, splits, config.watch.share) is not None


def _metrics(config: TrainConfig) -> list[dict[str, str]]:
    with open(config.run_dir / folder.METRICS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is_nan(config: TrainConfig) -> bool:
    try:
        rows = _metrics(config)
    except FileNotFoundError:
        return False
    return bool(rows) and rows[-1].get("watch") == "nan"


def _shown(row: Row, splits: Sequence[str]) -> dict[str, str]:
    cells = {"settings": row["settings"], "runs": f"{row['finished']}/{row['runs']}"}
    for split in splits:
        cells[split] = f"{row[f'{split}_mean']:.3f}" if f"{split}_mean" in row else ""
        if row["finished"] > 1 and cells[split]:
            cells[split] += f" +- {row[f'{split}_std']:.3f}"
            cells[split] += f" ({row[f'{split}_min']:.3f} to {row[f'{split}_max']:.3f})"
    done = bool(row["finished"])
    cells["steps"] = f"{row['steps_median']:g}" if done else ""
    if done and row["steps_max"] > row["steps_min"]:
        cells["steps"] += f" ({row['steps_min']} to {row['steps_max']})"
    cells["collapsed"] = str(row["collapsed"]) if done else ""
    cells["at the end"] = str(row["collapsed_at_end"]) if done else ""
    cells["swings"] = f"{row['swings']:.1f}" if done else ""
    cells["vanished"] = str(row["vanished"]) if done else ""
    cells["NaN"] = str(row["nan"])
    return cells


def _about(rows: Sequence[Row], splits: Sequence[str]) -> list[str]:
    """Notes on the number of shots, the accuracy of guessing, and its interval."""
    text = []
    if any(row.get("provenance") == provenance.SIMULATED for row in rows):
        text.append(provenance.banner(provenance.SIMULATED))
    for split in splits:
        of_split = [row for row in rows if f"{split}_n" in row]
        for n, chance in sorted({(row[f"{split}_n"], row[f"{split}_chance"]) for row in of_split}):
            mine = [row for row in of_split if (row[f"{split}_n"], row[f"{split}_chance"]) == (n, chance)]
            count = [row[f"{split}_n_effective"] for row in mine]
            better, runs = (sum(row[name] for row in mine) for name in (f"{split}_better", "finished"))
            text.append(
                f"{split}: {n} shots, the same for all seeds ({min(count):.0f} to {max(count):.0f} "
                f"effective); always guessing the larger class is right on {chance:.3f}, and {better} of "
                f"{runs} runs are better than that (95 % interval)"
            )
    if len(rows) > 1 and "validation" not in splits and "test" in splits:
        text.append(
            f"the best of {len(rows)} settings by test accuracy looks better than it is: test it on new shots"
        )
    return text
