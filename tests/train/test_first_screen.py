"""The first screen of a training report: one verdict, of numbers that do not contradict each other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.page import Page
from tests.train.conftest import write_data
from tests.train.test_verdict import row
from train.config import load_config
from train.controls import record
from train.controls.outcome import STRICT, Outcome
from train.controls.record import Record
from train.controls.verdict import verdict
from train.metrics import effective, measure
from train.metrics.scores import SplitScore
from train.report import aligned, card, first
from train.report.evidence import Run
from train.report.first import Kept


def run_of(tmp_path: Path, score: measure.Score, config) -> Run:
    """A run of which only the test score, the data and the files of its folder are told."""
    test = SplitScore(score, [[1, 0], [0, 1]], {}, 0, 0.1, 0.01, [], {}, {}, None)
    summary = {
        "classes": ["nolasing", "lasing"], "data": "data.h5", "data_digest": "d" * 64, "step": 3,
        "provenance": "simulated", "stopped": "all done",
        "shots": {"train": [(69, "nolasing", 50), (70, "lasing", 50)], "test": [(69, "nolasing", 30)]},
    }  # fmt: skip
    return Run(tmp_path, config, summary, [], {"train": test, "test": test})


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 10), st.integers(1, 12), st.floats(0.2, 1), st.integers(0, 10**6))
def test_page_card_and_controls_say_one_thing_of_the_same_predictions(blocks, shots, share, seed):
    """Whatever goes right: never "better than always guessing" here and "nothing learned" there."""
    rng = np.random.default_rng(seed)
    labels, block = np.repeat([0, 1], blocks * shots), np.repeat(np.arange(2 * blocks), shots)
    right = np.repeat(rng.random(2 * blocks), shots) < share
    score = measure.score(labels, np.where(right, labels, 1 - labels), block)
    network = Outcome(
        "network", "the network", "accuracy", score.n, score.accuracy, score.share.n_effective,
        score.interval, score.chance, score.share.freedom, score.share.at(STRICT),
    )  # fmt: skip
    run = run_of(Path("runs/a"), score, None)
    better = score.interval[0] > score.chance
    assert ("better than always guessing" in first._held_out(run).note) is better
    assert first._held_out(run).tone == ("good" if better else "bad")
    nothing = "so there is no accuracy to explain" in verdict([network]).head
    assert nothing is not better
    assert ("At all: it is" in "".join(card._limits(run._replace(config=Config)))) is not better


class Config:
    pass


@pytest.fixture
def config(write_config):
    return load_config(write_config())


def score() -> measure.Score:
    labels = np.repeat([0, 1], 60)
    return measure.score(labels, labels, np.arange(120) // 6)


def test_the_first_screen_tells_what_the_controls_found(tmp_path, config):
    run = run_of(tmp_path, score(), config)
    facts = {fact.title: fact for fact in first.facts(run).facts}
    assert facts["Held-out shots"].value == "100.0 % right"
    assert facts["Unseen runs"].value == "not evaluated"
    assert facts["Lasing, or the run? Controls"].value == "not run"
    assert facts["Data"].value == "simulated shots"
    assert "trained on 120 shots (run 69 nolasing 50, run 70 lasing 50)" in facts["Data"].note
    assert "other shots of the same runs" in facts["Data"].note
    rows = [row("network", 0.8, 0.9, 0.95, 0.7), row("beam_free", 0.4, 0.5, 0.6)]
    unseen = [row("unseen_70", 0.6, 0.7, 0.8, 0.55), row("unseen_71", 0.45, 0.55, 0.65)]
    controls = {"network": rows[:1], "beam_free": rows[1:], "other_runs": unseen}
    for alone, told in (([], "leak not found"), (["nolasing", "lasing"], "leak cannot be decided")):
        found = verdict([*rows, *unseen], alone)
        key = record.key_of(config, run.summary["data_digest"])
        record.write(tmp_path, Record(key, "simulated", controls, found))
        facts = {fact.title: fact for fact in first.facts(run).facts}
        assert facts["Lasing, or the run? Controls"].value == told
        assert found.because in facts["Lasing, or the run? Controls"].note
        assert found.head in "".join(card._controls(run))
    assert facts["Unseen runs"].value == "55.0 to 70.0 % right"
    assert facts["Unseen runs"].tone == "bad"  # one of them is not told apart from guessing


def test_the_controls_of_a_run_are_its_own_wherever_its_data_are_found(config):
    """The command was given a relative path, which a report follows from elsewhere."""
    moved = config.model_copy(update={"data": "/elsewhere/data.h5", "runs_dir": "/elsewhere/runs"})
    assert record.key_of(moved, "d") == record.key_of(config, "d") != record.key_of(config, "e")
    other = config.model_copy(update={"steps": config.steps + 1})
    assert record.key_of(other, "d") != record.key_of(config, "d")


def test_unseen_runs_are_those_that_this_model_predicted(tmp_path, config):
    run = run_of(tmp_path, score(), config)
    (tmp_path / "model.keras").write_bytes(b"model")
    told = {"split": "test", **score().to_json()}
    origin = {"model_sha256": hashlib.sha256(b"model").hexdigest(), "data_digest": "e" * 64}
    for name, change in (
        ("next", {}),
        ("own", {"data_digest": "d" * 64}),
        ("old", {"model_sha256": "0"}),
        ("torn", {"splits": None}),
        ("switched", {"runs": [{"run": 70, "split": "test"}]}),
    ):
        kept = {**origin, "runs": [{"run": 72, "split": "test"}], "splits": [told], **change}
        (tmp_path / f"predictions_{name}.json").write_text(json.dumps(kept))
    fact = first._unseen(run, Kept(None))
    assert fact.value == "100.0 % right" and fact.tone == "good"
    assert fact.note.startswith("next, test: 100.0 % of 120 shots")
    assert not {"own,", "old,", "torn,", "switched,"} & set(fact.note.split())


def test_intervals_of_shots_without_times_are_plain_and_say_so(write_config, train, tmp_path):
    """Images that are of no run: each is drawn by itself."""
    write_data(tmp_path / "data.h5", {"train": 40, "test": 30}, timed=False, simulated=True)
    output = train("fit", write_config(steps=30, report=True)).output
    run = tmp_path / "runs/small"
    test = json.loads((run / "summary.json").read_text())["splits"]["test"]
    assert (test["interval_by"], test["n_effective"], test["freedom"]) == ("shots", 30, None)
    assert tuple(test["interval"]) == effective.plain(30, test["correct"]).interval
    assert "of 30 shots (plain Wilson interval)" in output
    text = Page(run / "report.html").text
    assert "30 shots (plain Wilson interval)" in text and "95 % intervals by shots" in text
    assert "blocks of time" not in text.partition("Where it errs")[2].partition("Probability over")[0]
    predicted = train("predict", str(run), str(tmp_path / "data.h5")).output
    assert "of 30 shots (plain Wilson interval)" in predicted


# --- images aligned on their centroid --------------------------------------------------------------


def test_aligned_spots_lie_on_each_other_wherever_they_are():
    rng = np.random.default_rng(0)
    total, count = np.zeros((40, 30)), np.zeros((40, 30))
    time, energy = np.meshgrid(np.arange(40), np.arange(30), indexing="ij")
    for _ in range(50):
        place = rng.uniform(12, 28), rng.uniform(10, 20)
        spot = np.exp(-(((time - place[0]) / 2) ** 2 + ((energy - place[1]) / 1.5) ** 2) / 2)
        aligned.add_aligned(spot, total, count)
    mean = total[10:30, 8:22] / count[10:30, 8:22]
    middle = np.unravel_index(mean.argmax(), mean.shape)
    assert abs(middle[0] + 10 - 19.5) <= 1 and abs(middle[1] + 8 - 14.5) <= 1
    assert mean.max() > 0.85  # as sharp as one of them; unaligned it would be 0.15
    assert count[20, 15] == 50 and count.min() < 50


def test_the_projection_of_lasing_shots_reaches_to_lower_energies():
    energy = np.arange(200)  # rows: the energy falls along them
    plain = np.exp(-(((energy - 100) / 8.0) ** 2) / 2)
    lased = 0.7 * plain + 0.3 * np.exp(-(((energy - 125) / 12.0) ** 2) / 2)
    shares = []
    for profile in (plain, lased):
        total, count = np.zeros((50, 200)), np.zeros((50, 200))
        aligned.add_aligned(np.tile(profile, (50, 1)), total, count)
        with np.errstate(invalid="ignore"):
            shares.append(aligned.projection(total / count))
    assert all(share.sum() == pytest.approx(1) for share in shares)
    assert shares[1][130:].sum() > 5 * shares[0][130:].sum()
