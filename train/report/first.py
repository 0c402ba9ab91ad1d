"""The first screen of a training report: what matters most about a run, in a few words each."""

from __future__ import annotations

import hashlib
from typing import Any, Iterator, NamedTuple, Optional, Sequence

from common.dataset import provenance
from common.dataset.safety import MAX_JSON, read_json
from common.errors import DataError
from common.report.page import Fact, Facts
from train.controls import record, verdict
from train.controls.record import Record
from train.metrics.measure import Score
from train.report.evidence import Run
from train.run import folder

_TONES = {"above chance": "good", "below chance": "bad", "at chance": "bad"}


class Kept(NamedTuple):
    """The controls of a run as far as they are done; None if there are none, and why, in a sentence."""

    record: Optional[Record]
    why: str = ""


def facts(run: Run) -> Facts:
    """Held-out shots, unseen runs, controls, probabilities and energy, and what was trained on what."""
    kept = controls(run)
    return Facts([_held_out(run), _unseen(run, kept), _controls(kept), *_told(run), _data(run)])


def how(run: Run) -> str:
    """The command that runs the controls of a run."""
    return f"`python -m train controls {run.run_dir / folder.CONFIG}`"


def controls(run: Run) -> Kept:
    """The controls of a run, if they were made with its config and its data."""
    try:
        kept = record.read(run.run_dir)
    except DataError as error:
        return Kept(None, f"{error}")
    if not kept.rows:
        return Kept(
            None,
            "Not run yet. Where the classes are different runs, a network can learn whatever differs between "
            f"the runs. {how(run)} tests this with permuted labels, beam-free pixels, runs it was not "
            "trained on, and simple regressions.",
        )
    if kept.key != record.key_of(run.config, run.summary["data_digest"]):
        return Kept(
            None,
            f"The controls here are of another config or data file; {how(run)} --force runs them again.",
        )
    return Kept(kept)


def _held_out(run: Run) -> Fact:
    score = run.splits["test"].score
    low, high = (100 * end for end in score.interval)
    return Fact(
        "Held-out shots",
        f"{100 * score.accuracy:.1f} % right",
        f"{low:.1f} to {high:.1f} % (95 %), {score.share.of_shots}: {score.compared} always guessing the "
        f"larger class ({100 * score.chance:.1f} %)",
        _TONES[score.finding],
    )


def _unseen(run: Run, kept: Kept) -> Fact:
    """Accuracy on runs the network was not trained on: those the controls left out, or predicted since."""
    rows = [row for row in kept.record.rows if row.control.startswith("unseen_")] if kept.record else []
    found = []  # text, accuracy, whether that is above chance
    for row in rows:
        low, high = (100 * end for end in row.interval)
        text = f"run {row.control.partition('_')[2]}: {100 * row.value:.1f} % [{low:.0f}, {high:.0f}]"
        note = f"{text} of {row.n}, guessing {100 * row.chance:.0f} %"
        found.append((note, row.value, row.interval[0] > row.chance))
    for name, score in _predicted(run):
        note = f"{name}: {100 * score.accuracy:.1f} % of {score.share.of_shots}"
        found.append((note, score.accuracy, score.finding == "above chance"))
    if not found:
        return Fact(
            "Unseen runs",
            "not evaluated",
            "`train controls` leaves each run out; `train predict RUN DATA` tries it on runs it has not seen",
            "open",
        )
    notes, values, above = zip(*found)
    ends = dict.fromkeys(f"{100 * end:.1f}" for end in (min(values), max(values)))
    if rows:
        notes = (*notes, "the same network trained anew without it")
    return Fact(
        "Unseen runs", f"{' to '.join(ends)} % right", "; ".join(notes), "good" if all(above) else "bad"
    )


def _predicted(run: Run) -> Iterator[tuple[str, Score]]:
    """The scores of `predict` with this model on labeled splits of runs that it was not trained on."""
    model = run.run_dir / folder.MODEL
    digest = hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else ""
    for path in sorted(run.run_dir.glob("predictions_*.json")):
        try:
            kept: Any = read_json(path.read_bytes()[: MAX_JSON + 1], str(path))
            if kept["model_sha256"] != digest or kept["data_digest"] == run.summary["data_digest"]:
                continue
            name, trained = path.stem.partition("_")[2], {run for run, *_ in run.summary["shots"]["train"]}
            seen = {row["split"] for row in kept["runs"] if row["run"] in trained}
            rows = [row for row in kept["splits"] if row["split"] not in seen]
            scores = [(f"{name}, {row['split']}", Score.from_json(row)) for row in rows]
        except (OSError, DataError, KeyError, TypeError, ValueError):
            continue  # of another version, or no summary of predictions: nothing to tell here
        yield from scores


def _controls(kept: Kept) -> Fact:
    title = "Lasing, or the run? Controls"
    if kept.record is None:
        value = "not run" if kept.why.startswith("Not run") else "none that fit"
        return Fact(title, value, "`train controls` tells whether the accuracy comes from the runs", "open")
    found = kept.record.verdict
    if found is None:
        return Fact(title, "not finished", "the same command continues", "open")
    tone = {verdict.FOUND: "bad", verdict.NOT_FOUND: "good", verdict.UNDECIDED: "open"}[found.leak]
    because = f"because {found.because}" if found.leak == verdict.UNDECIDED else found.because
    return Fact(title, f"leak {found.leak}", because, tone)


def _told(run: Run) -> Iterator[Fact]:
    test = run.splits["test"]
    temperature = run.summary.get("calibration", {}).get("temperature")
    if test.calibration_error is not None:
        made = "not calibrated" if temperature is None else f"calibrated, temperature {temperature:.2f}"
        yield Fact("Probabilities", f"off by {test.calibration_error:.3f}", f"on average, test shots; {made}")
    if of := test.pulse_energy:
        yield Fact(
            "Pulse energy", f"R² {of.r2:.3f}", f"rms error {1000 * of.rms:.1f} µJ of {of.n} test shots"
        )


def _data(run: Run) -> Fact:
    kind = provenance.word(run.summary["provenance"])
    shots = run.summary.get("shots", {})
    parts = []
    for name, verb in (("train", "trained on"), ("test", "tested on")):
        of_runs = f" ({_runs(shots[name])})" if name in shots else ""
        parts.append(f"{verb} {run.splits[name].score.n} shots{of_runs}")
    trained, tested = ({run for run, *_ in shots.get(name, [])} for name in ("train", "test"))
    where = ""
    if trained and tested:
        apart = not trained & tested
        where = "; all of runs it was not trained on" if apart else "; other shots of the same runs"
        where = where if apart or tested <= trained else "; some of runs it was not trained on"
    return Fact("Data", f"{kind} shots", "; ".join(parts) + where, "open" if kind != provenance.REAL else "")


def _runs(rows: Sequence[Sequence]) -> str:
    """[[run, class, shots], ...] in words."""
    shown = ", ".join(f"run {run} {name} {n}" for run, name, n in rows[:6])
    return f"{shown}, and {len(rows) - 6} more" if len(rows) > 6 else shown
