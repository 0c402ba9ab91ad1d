"""The card of a model, card.md: its data, how well it does, and when not to use it.

Every figure was measured by this software and is in summary.json or controls.json.
"""

from __future__ import annotations

from pathlib import Path

from common import __version__
from common.files import atomic
from train.metrics.measure import MEASURED
from train.metrics.scores import SplitScore
from train.report import first
from train.report.evidence import Run, read_run
from train.run import folder

_MANY = 0.02  # of the test shots flagged: more than a machine that has not changed gives


def write(run_dir: Path) -> Path:
    """Write the card of the finished run in `run_dir`; raises DataError."""
    path = run_dir / folder.CARD
    atomic.write_text(path, text(read_run(run_dir)))
    return path


def text(run: Run) -> str:
    """The card as Markdown."""
    summary = run.summary
    parts = [
        f"# {run.config.name}\n",
        f"A network that tells {' from '.join(run.classes)} in XTCAV images"
        f"{' and the pulse energy' if run.config.target == 'pulse_energy' else ''}; written by xtcav-lasing "
        f"{__version__} from what it measured.\n",
        "## Data\n",
        f"{summary['data']}, digest {summary['data_digest'][:16]}: {summary['provenance']} shots. Seed "
        f"{run.config.seed}, {summary['step']} steps.\n",
        *([f"**{run.banner}**\n"] if run.banner else []),
        _table(("split", *MEASURED, "calibration error"), [_row(name, s) for name, s in run.splits.items()]),
        "## Where it errs\n",
        *_errors(run),
        "## Probabilities, energy, flag\n",
        calibration_sentence(run) + "\n",
        *_energy(run),
        *_flags(run),
        "## Lasing, or the run?\n",
        *_controls(run),
        "## When not to use it\n",
        *_limits(run),
    ]
    return "\n".join(parts)


def calibration_sentence(run: Run) -> str:
    """What was done to the probabilities, and how far off they are on the test split."""
    error = run.splits["test"].calibration_error
    temperature = run.summary.get("calibration", {}).get("temperature")
    how = (
        "The logits were not calibrated, because there was no validation split (validation_share makes one)"
        if temperature is None
        else f"The logits were divided by the temperature {temperature:.2f}, fitted on the validation split"
    )
    return (
        f"{how}. On the test split the expected calibration error, the mean distance between the probability "
        f"of the called class and the share of such shots that are correct, is {error:.3f}. It holds for the "
        "machine that was trained on; on another one look at the flags first."
    )


def _row(name: str, s: SplitScore) -> tuple[str, ...]:
    error = s.calibration_error
    return (name, *s.score.cells, "" if error is None else f"{error:.3f}")


def _errors(run: Run) -> list[str]:
    test, lines = run.splits["test"], []
    for label, counts in zip(run.classes, test.confusion):
        wrong = ", ".join(f"{n} {other}" for n, other in zip(counts, run.classes) if other != label)
        lines.append(f"- Of {sum(counts)} {label} test shots are called: {wrong}.")
    for name, band in ((name, band) for name, bands in test.by_pulse_energy.items() for band in bands):
        low, high = band.share.interval
        lines.append(
            f"- {band.name} {name}, {band.low:.4f} to {band.high:.4f} mJ: "
            f"{band.share.k} of {band.share.n} found [{low:.3f}, {high:.3f}]."
        )
    lines += [f"- {line[0].upper()}{line[1:]}." for line in test.recognized()]
    return [*lines, ""]


def _energy(run: Run) -> list[str]:
    of = run.splits["test"].pulse_energy
    if of is None:
        return []
    covered = "" if of.covered is None else f", {of.covered:.3f} of the shots within the 90 % interval"
    return [
        f"Pulse energy, {of.n} test shots: R² {of.r2:.3f}, Spearman {of.spearman:.3f}, rms error "
        f"{1000 * of.rms:.1f} µJ{covered}.\n"
    ]


def _flags(run: Run) -> list[str]:
    return [
        f"{of['flagged']} of {of['n']} {name} shots are flagged as unlike those trained on.\n"
        for name, of in run.summary.get("flags", {}).items()
    ]


def _controls(run: Run) -> list[str]:
    kept = first.controls(run)
    if kept.record is None:
        return [f"{kept.why}\n"]
    cells = [row.cells for row in kept.record.rows]
    names = ("control", "n", "effective n", "result", "95 % by blocks", "finding")
    found = kept.record.verdict
    return [
        *(f"{line}\n" for line in (found.lines if found else [])),
        _table(names, [[row[name] for name in names] for row in cells]),
    ]


def _limits(run: Run) -> list[str]:
    lines = [
        "- On shots that `predict` flags, and on runs of which many are flagged: another machine, another "
        "answer.",
        f"- To count {' or '.join(run.classes[1:])} shots that hardly lase: a label says what the run was, "
        "not what the shot did.",
        "- On images prepared with other `image:` settings than its data.",
    ]
    score = run.splits["test"].score
    if score.finding != "above chance":
        lines.insert(0, f"- **At all: it is {score.compared} always guessing the larger class.**")
    if "temperature" not in run.summary.get("calibration", {}):
        lines.append("- For cuts on the probability: it was not calibrated.")
    flagged = run.summary.get("flags", {}).get("test")
    if flagged and flagged["flagged"] > _MANY * flagged["n"]:
        lines.append("- Its test shots differ from its training shots: more are flagged than should be.")
    return [*lines, ""]


def _table(header, rows) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
