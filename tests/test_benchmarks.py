"""What the benchmark counts and how it goes on without a peer; its figures are for `make bench`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.benchmarks import bound, inputs, race, ranks, steps, training
from train.model import costs


def test_the_bound_of_a_step_is_the_sum_of_its_layers_and_passes():
    config = steps.load("signal_noise_200")
    first, second, hidden, output = bound.bounded(config)
    assert first.before == (200, 200, 1) and len(first.operations) == 2  # none by its input
    axes = (32, 32), (2, 2), "same"
    least = costs.least_operations((34, 34), *axes, (16, 16))
    assert [*zip(second.operations, second.ways)] == least and len(least) == 3
    assert hidden.operations == [2 * 576 * 50] * 3 and output.operations == [2 * 50 * 2] * 3
    result = {"ours": [2.0], "matrix product": [1.0]}
    layers = first, second, hidden, output
    for training_too, operations in (
        (True, sum(sum(layer.operations) for layer in layers)),
        (False, sum(layer.operations[0] for layer in layers)),
    ):
        row = bound.against_bound("a step", config, 5, training_too, result)
        assert row.figure == pytest.approx(2 * 2 * bound.MATRIX**3 / (5 * operations))


def test_each_pass_of_each_convolution_has_a_row(monkeypatch):
    networks = [(name, steps.load(name), 4) for name in ("signal_noise_40", "signal_noise_200", "scale_up")]

    def turns(contestants, repeat):
        return {"layers": [dict.fromkeys(keys, 0.5)] * repeat, "matrix product": [1.0] * repeat}

    keys = [
        bound._key(name, layer, passed)
        for name, layer, _ in bound._convolutions(networks)
        for passed, _, _ in bound._timed(layer)
    ]
    monkeypatch.setattr(bound, "race", turns)
    rows = list(bound.rows(networks, 3))
    assert len(rows) == len(keys) == 3 * (2 + 3)
    assert all("to its bound" in row.what and row.note.endswith(("direct", "spectra")) for row in rows)


def test_absent_peers_are_named_and_left_out_and_a_failure_ends_nothing(monkeypatch, tmp_path):
    found, missing, raced = race.importlib.util.find_spec, ("torch", "datasets"), []
    monkeypatch.setattr(
        race.importlib.util, "find_spec", lambda name: None if name in missing else found(name)
    )

    def turns(contestants, repeat, *more, **kinds):
        raced.append(list(contestants))
        raise RuntimeError(f"{raced[-1][0]}: ValueError: no")

    for module in (steps, inputs, bound):
        monkeypatch.setattr(module, "race", turns)
    for name in ("write_others", "write_file"):
        monkeypatch.setattr(inputs, name, lambda *given: None)
    result = CliRunner().invoke(training.main, ["--out", str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "not installed, so left out: PyTorch, Hugging Face datasets" in result.output
    assert result.output.count("error: left out: ours: ValueError: no") > 5
    assert len(raced) > 15 and ["layers", "matrix product"] in raced
    names = {name for each in raced for name in each}
    assert {"stock Keras", "TFRecord"} <= names and not names & {"datasets", *steps.TORCH}


def test_the_model_of_a_step_on_ranks_finds_what_its_figures_were_made_of():
    fixed, image, latency, bandwidth = 0.01, 0.004, 4e-6, 2e9
    way = latency, bandwidth

    def on(size: int) -> dict:
        seconds = {n: ranks.exchange_of(n, size, *way) for n in (500, 2000)}
        few = 2 * (size - 1) * latency  # a sum of few numbers: their bytes take no time
        steps = {str(m): size * fixed + image * m / size for m in (80, 40, 20)}
        sums = [1000, 10] if size > 1 else []
        exchanges = {"exchanges": {**seconds, size: few}, "sums": sums}
        return {"variables": 1000, "steps": steps, "row": 0.4, **exchanges}

    found = {size: on(size) for size in (1, 2, 4)}
    for size, of in found.items():
        assert ranks.fitted(of, size) == pytest.approx((size * fixed, image))
        if size > 1:
            assert ranks.line_of(of, size) == pytest.approx(way)
        step, exchanged = ranks.model(found, 80, size, way)
        assert exchanged == pytest.approx(sum(ranks.exchange_of(n, size, *way) for n in of["sums"]))
        computed = min(size, 2) * fixed + image * 80 / size + 0.4 / size / ranks.EVERY
        assert step == pytest.approx(computed + exchanged)
