"""The report of one training run: its sections and their order."""

from __future__ import annotations

from typing import Callable, Optional

from common.config import dump
from common.report.drawing import COLORS, new, svg
from common.report.page import Block, Code, Columns, Picture, Pictures, Section, Table, Text
from train.fit.watch import HELPS, swings
from train.metrics.measure import MEASURED
from train.model.shapes import describe
from train.report import curves, errors, first, images, trust
from train.report.evidence import Evidence, Run


def subtitle(run: Run) -> str:
    """The classes and the data file, in one line."""
    return f"{' or '.join(run.classes)}, from {run.summary['data']}"


def sections(run: Run, shots: Optional[Evidence], missing: str) -> list[Section]:
    """All sections of the page. `shots` is None if the images cannot be read; `missing` says why."""
    left_out = Text(
        f"Left out, because it is drawn from the images, and they cannot be read: {missing}", "note"
    )

    def drawn(section: Callable[[Run, Evidence], list[Block]]) -> list[Block]:
        return section(run, shots) if shots else [left_out]

    return [
        Section("result", "What was learned", _result(run), "Result"),
        Section(
            "slices", "Energy and spread along the bunches: the yardstick", drawn(images.slices), "Slices"
        ),
        Section("errors", "Where it errs", errors.blocks(run, shots, left_out.text), "Errors"),
        Section("time", "Probability over time", drawn(errors.time), "Time"),
        Section("decision", "Where in the image the decision comes from", drawn(images.decision), "Decision"),
        Section("means", "Mean images", drawn(images.means), "Images"),
        Section("aligned", "Images aligned on their centroid", drawn(images.aligned_means), "Images"),
        Section("gallery", "Right and wrong shots", drawn(images.gallery), "Shots"),
        Section("trust", "How far the probabilities can be relied on", trust.blocks(run), "Trust"),
        Section("controls", "Controls: lasing, or differences between runs?", _controls(run), "Controls"),
        Section("curves", "Learning curves", [Pictures(curves.pictures(run))], "Training"),
        Section("watch", "What the watch found", _watch(run), "Training"),
        Section("cost", "Where the time and memory went", _cost(run), "Training"),
        Section("network", "Network and config", _network(run), "Network"),
    ]


def _result(run: Run) -> list[Block]:
    scores = {name: of.score for name, of in run.splits.items()}
    rows = [(name, *s.cells, f"{s.z:.2f}", f"{s.p_value:.2g}") for name, s in scores.items()]
    note = (
        f"Ended at step {run.summary['step']}: {run.summary['stopped']}. Shots of one block of time are "
        "alike and count for fewer: for so many as are effective. Z counts standard deviations from always "
        "guessing the larger class; p is the one-tailed chance of as many right by that. Where the "
        "classes are different runs, whatever else differs between the runs can be learned, too: see the "
        "controls, and where in the image the decision comes from."
    )
    return [first.facts(run), Columns([Table(("split", *MEASURED, "Z", "p"), rows), Text(note, "note")])]


def _controls(run: Run) -> list[Block]:
    kept = first.controls(run)
    if kept.record is None:
        return [Text(kept.why)]
    rows, found = kept.record.rows, kept.record.verdict
    unfinished = [f"Not all of the controls are done yet; {first.how(run)} continues."]
    head, *reasons = found.lines if found else unfinished
    cells = [row.cells for row in rows]
    return [
        Text(head, "strong"),
        *map(Text, reasons),
        Table(list(cells[0]), [list(row.values()) for row in cells]),
        Text(
            "effective n: the shots of one block of time are classified correctly or not together and count "
            "for fewer; the interval by blocks is of so many. The networks of the controls are trained anew, "
            "each on its own shots.",
            "note",
        ),
    ]


def _network(run: Run) -> list[Block]:
    config = run.config
    minibatch = config.minibatch if isinstance(config.minibatch, int) else run.splits["train"].score.n
    network = "\n".join(describe(config, len(run.classes), minibatch))
    return [Columns([Code(network), Code(dump(config))])]


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
    return [Columns(blocks)]


def _time(seconds: dict[str, float]) -> Picture:
    parts = {name: value for name, value in seconds.items() if name not in ("total", "reading")}
    figure, axes = new(4.3, 0.9 + 0.3 * len(parts))
    axes.barh(list(parts), list(parts.values()), color=COLORS[0], height=0.6)
    for y, value in enumerate(parts.values()):
        axes.text(value, y, f" {value:.3g} s", va="center", fontsize=8)
    axes.set(title="Where the time went", xlabel="seconds", ylim=(len(parts) - 0.5, -0.5))
    axes.set_xlim(right=1.15 * max([*parts.values(), 1e-9]))
    told = ", ".join(f"{name} {value:.3g} s" for name, value in parts.items())
    caption = (
        f"Together {seconds['total']:.1f} s. Waiting: for images. Reading took {seconds['reading']:.1f} s, "
        "beside the rest."
    )
    return Picture(svg(figure), told, caption)


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
    times = swings(run.rows, run.splits, run.config.watch.share)
    blocks: list[Block] = [Table(("finding", "rows", "at steps", "what helps"), rows)]
    if times:
        blocks.append(Text(f"It swung from calling everything one class to another class {times} times."))
    return blocks
