"""The report of one training run: its sections and their order."""

from __future__ import annotations

from typing import Optional

import numpy as np

from common.config import dump
from common.errors import DataError
from common.report.drawing import svg
from common.report.page import Block, Code, Picture, Pictures, Section, Table, Text
from train.controls import record
from train.fit.watch import HELPS, swings
from train.model.shapes import describe
from train.report import curves, figures, images, trust
from train.report.evidence import Evidence, Run
from train.run import folder


def subtitle(run: Run) -> str:
    """The classes and the data file, in one line."""
    return f"{' or '.join(run.classes)}, from {run.summary['data']}"


def sections(run: Run, shots: Optional[Evidence], missing: str) -> list[Section]:
    """All sections of the page. `shots` is None if the images cannot be read; `missing` says why."""
    first, *of_images = images.sections(run, shots) if shots else images.left_out(missing)
    return [
        Section("result", "What was learned", _result(run)),
        first,
        Section("curves", "Learning curves", [Pictures(curves.pictures(run))]),
        Section("confusion", "Confusion matrices", _confusion(run)),
        *of_images,
        Section("trust", "How far the probabilities can be relied on", trust.blocks(run)),
        Section("controls", "Controls: lasing, or differences between runs?", _controls(run)),
        Section("network", "The network", _network(run)),
        Section("cost", "Where the time and memory went", _cost(run)),
        Section("watch", "What the watch found", _watch(run)),
        Section("config", "Config", [Code(dump(run.config))]),
    ]


def sentence(run: Run) -> str:
    """The test accuracy with its interval, in one sentence."""
    test = run.summary["splits"]["test"]
    low, high = test["interval"]
    found = (
        "better than"
        if low > test["chance"]
        else "worse than"
        if high < test["chance"]
        else "not told apart from"
    )
    return (
        f"Of {test['n']} held-out test shots the network calls {100 * test['accuracy']:.1f} % right "
        f"(95 % Wilson interval {100 * low:.1f} to {100 * high:.1f} %): {found} always guessing the larger "
        f"class, which is right in {100 * test['chance']:.1f} %."
    )


def _result(run: Run) -> list[Block]:
    rows = []
    for name, s in run.summary["splits"].items():
        rows.append(
            (
                name,
                s["n"],
                f"{s['accuracy']:.3f}",
                f"{s['interval'][0]:.3f} to {s['interval'][1]:.3f}",
                f"{s['chance']:.3f}",
                f"{s['z']:.2f}",
                f"{s['p_value']:.2g}",
            )
        )
    header = ("split", "shots", "accuracy", "95 % interval", "larger class", "Z", "p")
    return [
        Text(sentence(run), "strong"),
        Table(header, rows),
        Text(
            f"Ended at step {run.summary['step']}: {run.summary['stopped']}. Z counts standard deviations "
            "from a coin's guesses; p is the one-tailed binomial chance of as many right by always guessing "
            "the larger class. Neighboring shots are alike, so intervals are somewhat too narrow. Where the "
            "classes are different runs, whatever else differs between the runs can be learned, too: see "
            "where in the image the decision comes from.",
            "note",
        ),
    ]


def _confusion(run: Run) -> list[Block]:
    pictures = []
    for name, s in run.summary["splits"].items():
        counts = np.array(s["confusion"])
        figure = figures.confusion(f"{name}, {s['n']} shots", counts, run.classes)
        told = "; ".join(
            f"of {sum(row)} {label} {row[n]} called {label}"
            for n, (label, row) in enumerate(zip(run.classes, s["confusion"]))
        )
        pictures.append(Picture(svg(figure), f"Confusion matrix of the {name} split: {told}"))
    return [Pictures(pictures, "medium")]


def _controls(run: Run) -> list[Block]:
    how = f"`python -m train controls {run.run_dir / folder.CONFIG}`"
    try:
        kept = record.read(run.run_dir)
    except DataError as error:
        return [Text(str(error))]
    if not kept.rows:
        return [
            Text(
                "Not run yet. Where the classes are different runs, a network can learn whatever differs "
                f"between the runs. {how} tests this with permuted labels, beam-free pixels, runs it was not "
                "trained on, and simple regressions."
            )
        ]
    if kept.key != record.key_of(run.config, run.summary["data_digest"]):
        return [Text(f"The controls here are of another config or data file; {how} --force runs them again.")]
    cells = [record.cells(row) for row in kept.rows]
    columns = [name for name in cells[0] if name != "95 % Wilson"]  # which is too narrow, and leaves no room
    head, *reasons = kept.verdict or [f"Not all of the controls are done yet; {how} continues."]
    return [
        Text(head, "strong"),
        *(Text(f"{reason[0].upper()}{reason[1:]}.") for reason in reasons if reason),
        Table(columns, [[row[name] for name in columns] for row in cells]),
        Text(
            "effective n: the shots of one block of time are classified correctly or not together and count "
            "for fewer; the interval by blocks is of so many. The networks of the controls are trained anew, "
            "each on its own shots.",
            "note",
        ),
    ]


def _network(run: Run) -> list[Block]:
    config = run.config
    train = run.summary["splits"]["train"]["n"]
    minibatch = config.minibatch if isinstance(config.minibatch, int) else train
    return [Code("\n".join(describe(config, len(run.classes), minibatch)))]


def _cost(run: Run) -> list[Block]:
    summary = run.summary
    used, seconds = summary["usage"], summary["step_seconds"]
    rows: list[tuple[str, str]] = [
        ("one step", f"{seconds:.3f} s"),
        (f"all {summary['step']} steps, at that", f"{seconds * summary['step']:.1f} s"),
        ("CPU time of the process", f"{used['cpu_seconds']:.1f} s"),
        ("most memory held", f"{used['peak_memory_mb']:.0f} MB (10^6 bytes)"),
        (
            "threads",
            f"{used['threads']}: {used['intra_op_threads']} within an operation, "
            f"{used['inter_op_threads']} between operations",
        ),
    ]
    blocks: list[Block] = [Table(("what", "how much"), rows)]
    if "time" in summary:  # runs of earlier versions have none
        blocks.append(Pictures([_time(summary["time"])]))
    return blocks


def _time(seconds: dict[str, float]) -> Picture:
    parts = {name: value for name, value in seconds.items() if name not in ("total", "reading")}
    told = ", ".join(f"{name} {value:.3g} s" for name, value in parts.items())
    caption = (
        f"Together {seconds['total']:.1f} s. Waiting: for images. Reading took {seconds['reading']:.1f} s, "
        "beside the rest."
    )
    return Picture(svg(figures.bars("Where the time went", parts)), told, caption)


def _watch(run: Run) -> list[Block]:
    steps: dict[str, list[int]] = {}
    for row in run.rows:
        for kind in str(row["watch"]).split():
            steps.setdefault(kind, []).append(int(row["step"]))
    if not steps:
        return [
            Text(
                f"Nothing: in none of the table's {len(run.rows)} rows had the network collapsed to one "
                "class, the gradient gone, or the first loss far from ln(classes)."
            )
        ]
    meaning = {
        "collapsed": "(nearly) all shots were called one class",
        "lagging": "the same, while the minibatches were told apart",
        "first_loss": "the first loss was far from ln(classes)",
        "vanished": "(nearly) no gradient reached the first layer",
    }
    rows = [
        (
            meaning.get(kind, kind),
            len(at),
            f"{at[0]} to {at[-1]}" if len(at) > 1 else f"{at[0]}",
            HELPS.get(kind, ""),
        )
        for kind, at in steps.items()
    ]
    times = swings(run.rows, run.summary["splits"], run.config.watch.share)
    blocks: list[Block] = [Table(("finding", "rows", "at steps", "what helps"), rows)]
    if times:
        blocks.append(Text(f"It swung from calling everything one class to another class {times} times."))
    return blocks
