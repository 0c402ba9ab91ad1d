"""The page comparing several training runs: settings that differ, and results."""

from __future__ import annotations

import json
from typing import Any, Sequence

import numpy as np

from common.report.drawing import COLORS, GRAY, clip, new, svg
from common.report.page import Block, Picture, Pictures, Section, Table, Text
from train.report import figures
from train.report.curves import splits_of
from train.report.evidence import Run

_NOT_SETTINGS = {"name", "runs_dir", "threads", "cache"}
_DASHES = ("-", "--", ":", "-.")


def subtitle(runs: Sequence[Run]) -> str:
    """The names of the runs."""
    return ", ".join(run.config.name for run in runs)


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections of the page."""
    return [
        Section("result", "What was learned", _result(runs)),
        Section("settings", "Settings that differ", _settings(runs)),
        Section("curves", "Learning curves", [Pictures(_curves(runs))]),
        Section("cost", "Time and memory", _cost(runs)),
    ]


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """{dotted key: its value in each run} of the settings that are not the same in all runs."""
    flat = [_flat(run.config.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key, "-") for settings in flat] for key in keys}
    return {key: of_key for key, of_key in values.items() if len(set(of_key)) > 1}


def _result(runs: Sequence[Run]) -> list[Block]:
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        for split, s in run.summary["splits"].items():
            low, high = s["interval"]
            rows.append(
                (
                    run.config.name,
                    split,
                    s["n"],
                    f"{s['accuracy']:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    f"{s['chance']:.3f}",
                    run.summary["step"],
                    ", ".join(run.summary["watch"]) or "-",
                )
            )
    header = ("run", "split", "shots", "accuracy", "95 % interval", "larger class", "steps", "watch")
    best = max(runs, key=lambda run: run.summary["splits"]["test"]["accuracy"])
    test = best.summary["splits"]["test"]
    low, high = test["interval"]
    same_data = len({run.summary["data_digest"] for run in runs}) == 1
    remark = (
        ""
        if same_data
        else " These runs were not trained on one data file: their accuracies differ by that, too."
    )
    return [
        Text(
            f"Highest on the test shots: {best.config.name}, {100 * test['accuracy']:.1f} % of {test['n']} "
            f"(95 % Wilson interval {100 * low:.1f} to {100 * high:.1f} %; always guessing the larger class: "
            f"{100 * test['chance']:.1f} %).",
            "strong",
        ),
        Pictures(
            [
                Picture(
                    svg(_accuracies(runs)),
                    "Test accuracy of each run with its interval",
                    "Test split, with 95 % Wilson intervals; gray: the larger class.",
                )
            ]
        ),
        Table(header, rows),
        Text(
            "The best of many runs on one test set looks better than it is; to choose among runs, use a "
            f"validation split.{remark}",
            "note",
        ),
    ]


def _accuracies(runs: Sequence[Run]) -> Any:
    figure, axes = new(4.3, 1.1 + 0.3 * len(runs))
    for y, run in enumerate(runs):
        test = run.summary["splits"]["test"]
        low, high = test["interval"]
        value = test["accuracy"]
        error = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar(value, y, xerr=error, fmt="o", capsize=3, color=COLORS[y % len(COLORS)])
        axes.plot([test["chance"]] * 2, [y - 0.4, y + 0.4], color=GRAY, ls=":")
    axes.set_yticks(range(len(runs)), [clip(run.config.name, 40) for run in runs])
    axes.set(title="Test accuracy", xlabel="share classified correctly", ylim=(len(runs) - 0.5, -0.5))
    axes.grid(axis="x")
    return figure


def _settings(runs: Sequence[Run]) -> list[Block]:
    found = differing(runs)
    if not found:
        return [Text("None: the runs have the same config.")]
    header = ("setting", *(run.config.name for run in runs))
    return [Table(header, [(key, *values) for key, values in found.items()])]


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
        Picture(svg(_overlay(runs, key, title)), f"{title} of {len(runs)} runs against the step")
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
        used = run.summary["usage"]
        rows.append(
            (
                run.config.name,
                f"{run.summary['step_seconds']:.3f}",
                f"{used['cpu_seconds']:.0f}",
                f"{used['peak_memory_mb']:.0f}",
            )
        )
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
