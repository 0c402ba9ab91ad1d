"""The page comparing several training runs: settings that differ, and results."""

from __future__ import annotations

import json
from typing import Any, Sequence

import numpy as np

from common.dataset import provenance
from common.report.drawing import COLORS, GRAY, clip, new, svg
from common.report.page import Block, Columns, Picture, Pictures, Section, Table, Text
from train.metrics.measure import MEASURED
from train.report import figures
from train.report.curves import splits_of
from train.report.evidence import Run

_NOT_SETTINGS = {"name", "runs_dir", "threads", "cache"}
_DASHES = ("-", "--", ":", "-.")


def subtitle(runs: Sequence[Run]) -> str:
    """The names of the runs."""
    return ", ".join(run.config.name for run in runs)


def banner(runs: Sequence[Run]) -> str:
    """What the top of the page says if not all shots of the runs are real."""
    found = {run.config.name: provenance.word(run.summary["provenance"]) for run in runs}
    kinds = set(found.values())
    if kinds == {provenance.SIMULATED}:
        return provenance.banner(provenance.SIMULATED)
    if kinds <= {provenance.REAL, "unknown"}:
        return ""
    each = ", ".join(f"{name} {kind}" for name, kind in found.items())
    return f"Simulated data in part: the shots of the runs are {each}."


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections of the page."""
    return [
        Section("result", "What was learned", _result(runs), "Result"),
        Section("curves", "Learning curves", _of_groups(runs), "Curves"),
        Section("cost", "Time and memory", _cost(runs), "Cost"),
        Section("settings", "Settings that differ", _settings(runs), "Settings"),
    ]


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """{dotted key: its value in each run} of the settings that are not the same in all runs."""
    flat = [_flat(run.config.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key, "-") for settings in flat] for key in keys}
    return {key: of_key for key, of_key in values.items() if len(set(of_key)) > 1}


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs with the same classes and the same test shots, whose accuracies can be compared."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        of_test = run.summary.get("test_digest") or f"of the data {run.summary['data_digest']}"
        found.setdefault((tuple(run.classes), of_test), []).append(run)
    return list(found.values())


def _result(runs: Sequence[Run]) -> list[Block]:
    apart = groups(runs)
    blocks: list[Block] = []
    if len(apart) > 1:
        blocks.append(Text(_why(apart), "strong"))
    for n, group in enumerate(apart, 1):
        blocks += _of_group(group, f"Group {n}: " if len(apart) > 1 else "")
    return [
        *blocks,
        Text(
            "The best of many runs on one test set looks better than it is; to choose among runs, use a "
            "validation split.",
            "note",
        ),
    ]


def _why(apart: Sequence[Sequence[Run]]) -> str:
    """Why not all of the runs can be compared."""
    firsts = [group[0] for group in apart]
    reasons = []
    if len({tuple(run.classes) for run in firsts}) > 1:
        reasons.append("they do not tell the same classes apart")
    if len({tuple(run.classes) for run in firsts}) < len(firsts):
        reasons.append("they were not tested on the same shots")
    return (
        f"These runs are {len(apart)} groups, and an accuracy of one says nothing against one of another: "
        f"{' and '.join(reasons)}."
    )


def _of_group(runs: Sequence[Run], before: str) -> list[Block]:
    """The results of runs with the same classes and the same test shots."""
    rows = [
        (run.config.name, split, *of.score.cells, run.summary["step"], ", ".join(run.summary["watch"]) or "-")
        for run in runs
        for split, of in run.splits.items()
    ]
    picture = Picture(
        svg(_accuracies(runs)),
        "Test accuracy of each run with its interval",
        "Test split, with 95 % intervals; gray: the larger class.",
    )
    classes = ", ".join(runs[0].classes)
    what = f"{before}{classes}, {runs[0].splits['test'].score.n} test shots"
    beside = Columns([Table(("run", "split", *MEASURED, "steps", "watch"), rows), Pictures([picture])])
    return [Text(_best(runs, what), "" if before else "strong"), beside]


def _best(runs: Sequence[Run], what: str) -> str:
    """A sentence on the highest test accuracy of the runs."""
    scores = [(run.config.name, run.splits["test"].score) for run in runs]
    name, best = max(scores, key=lambda item: item[1].accuracy)
    low, high = (100 * end for end in best.interval)
    highest = "highest of these: " if len(runs) > 1 else ""
    return (
        f"{what}: {highest}{name}, {100 * best.accuracy:.1f} % of {best.share.of_shots} ({low:.1f} to "
        f"{high:.1f} %, 95 %), {best.compared} always guessing the larger class ({100 * best.chance:.1f} %)."
    )


def _accuracies(runs: Sequence[Run]) -> Any:
    tests = [run.splits["test"].score for run in runs]
    rows = [(clip(run.config.name, 40), y, score.share) for y, (run, score) in enumerate(zip(runs, tests))]
    figure, axes = figures.accuracies("Test accuracy", rows)
    for y, score in enumerate(tests):
        axes.plot([score.chance] * 2, [y - 0.4, y + 0.4], color=GRAY, ls=":")
    return figure


def _settings(runs: Sequence[Run]) -> list[Block]:
    found = differing(runs)
    if not found:
        return [Text("None: the runs have the same config.")]
    header = ("setting", *(run.config.name for run in runs))
    return [Table(header, [(key, *values) for key, values in found.items()])]


def _of_groups(runs: Sequence[Run]) -> list[Block]:
    apart = groups(runs)
    title = "Group {}" if len(apart) > 1 else ""
    return [Pictures(_curves(group), title=title.format(n)) for n, group in enumerate(apart, 1)]


def _curves(runs: Sequence[Run]) -> list[Picture]:
    splits = [name for name in ("train", "validation", "test") if all(name in splits_of(run) for run in runs)]
    wanted = {f"{name}_accuracy": f"Accuracy, {name}" for name in splits}
    wanted.update(
        {
            "cross_entropy": "Loss without regularization",
            "loss": "Loss with regularization",
            "gradient_norm": "Length of the gradient, |grad|",
            "learning_rate": "Learning rate",
        }
    )
    return [
        Picture(svg(_overlay(runs, key, title)), f"{title}, of {subtitle(runs)}, against the step")
        for key, title in wanted.items()
    ]


def _overlay(runs: Sequence[Run], key: str, title: str) -> Any:
    figure, axes = new()
    for n, run in enumerate(runs):
        dash = _DASHES[n // len(COLORS) % len(_DASHES)]
        label = clip(run.config.name)
        axes.plot(run.column("step"), run.column(key), color=COLORS[n % len(COLORS)], ls=dash, label=label)
    axes.set(title=title, xlabel="step")
    if not key.endswith("accuracy"):
        figures.finite_log(axes, np.concatenate([run.column(key) for run in runs]))
    axes.grid(axis="y")
    axes.legend(fontsize=7)
    return figure


def _cost(runs: Sequence[Run]) -> list[Block]:
    rows = []
    for run in runs:
        used, step = run.summary["usage"], f"{run.summary['step_seconds']:.3f}"
        rows.append((run.config.name, step, f"{used['cpu_seconds']:.0f}", f"{used['peak_memory_mb']:.0f}"))
    return [Table(("run", "a step, s", "CPU time, s", "most memory, MB"), rows)]


def _flat(value: Any, key: str = "") -> dict[str, str]:
    """A config as {dotted key: value as JSON}; lists are kept whole, except the network's layers."""
    if isinstance(value, dict) and value:
        parts = [(f"{key}.{name}" if key else name, part) for name, part in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [(f"{key}[{n}]", part) for n, part in enumerate(value)]
    else:
        return {} if key in _NOT_SETTINGS else {key: json.dumps(value)}
    return {k: v for name, part in parts if name not in _NOT_SETTINGS for k, v in _flat(part, name).items()}
