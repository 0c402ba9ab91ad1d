"""The points of a sweep, and the table of what came of them: no run is trained here."""

from __future__ import annotations

import pytest

from common.errors import ConfigError, UserError
from train.config import load_config
from train.sweep import sweep_table
from train.sweep.grid import parse_setting, plan


@pytest.fixture
def base(data, write_config):
    return load_config(write_config())


def set_all(base, *texts):
    return [parse_setting(text, base) for text in texts]


def test_the_grid_is_every_combination_with_every_seed(base):
    cases = plan(base, set_all(base, "momentum=.9,.99", "learning_rate.start=.1,1e-2"), seeds=3)
    assert [case.label for case in cases] == [
        f"momentum={m},learning_rate.start={rate}" for m in ("0.9", "0.99") for rate in ("0.1", "0.01")
    ]
    runs = [run for case in cases for run in case.runs]
    assert len({run.run_dir for run in runs}) == 12
    assert {run.run_dir.parent.name for run in runs} == {"small_sweep"}
    assert [run.seed for run in cases[0].runs] == [1, 2, 3]
    assert {(run.optimizer.momentum, run.learning_rate.start) for run in cases[1].runs} == {(0.9, 0.01)}
    assert all(run.network == base.network and not run.report for run in runs)


def test_one_at_a_time_is_the_config_and_each_value_by_itself(base):
    cases = plan(base, set_all(base, "momentum=.9,.99", "minibatch=8"), seeds=1, one_at_a_time=True)
    assert [case.label for case in cases] == ["base", "momentum=0.9", "momentum=0.99", "minibatch=8"]
    momenta, minibatches = zip(*((c.runs[0].optimizer.momentum, c.runs[0].minibatch) for c in cases))
    assert momenta == (0.4, 0.9, 0.99, 0.4)
    assert minibatches == (16, 16, 16, 8)


def test_values_are_yaml_lists_and_words_included(base):
    cases = plan(base, set_all(base, "preprocess=[],[log],[log,standardize]", "minibatch=full"), seeds=1)
    assert [case.label.split(",")[0] for case in cases] == [
        "preprocess=none", "preprocess=log", "preprocess=log+standardize",
    ]  # fmt: skip
    assert [[step.kind for step in case.runs[0].preprocess] for case in cases] == [
        [],
        ["log"],
        ["log", "standardize"],
    ]
    assert cases[0].runs[0].minibatch == "full"


def test_a_star_sets_a_key_of_every_layer_that_has_it(base):
    cases = plan(base, set_all(base, "network.*.bias=.1", "network.*.convolution.filters=5"), seeds=1)
    convolution, *_, output = cases[0].runs[0].network
    assert (convolution.settings.bias, output.settings.bias) == (0.1, 0.1)
    assert convolution.settings.filters == 5


def test_one_layer_by_its_number(base):
    case = plan(base, set_all(base, "network.3.output.stddev=0.5"), seeds=1)[0]
    assert [getattr(layer.settings, "stddev", None) for layer in case.runs[0].network] == [
        0.1,
        None,
        None,
        0.5,
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("momentum", "--set momentum: give KEY=VALUE"),
        ("momentum=", "give KEY=VALUE"),
        ("momentun=.9", "momentun: no such key; did you mean"),
        ("kind=adam", "fits optimizer.kind, learning_rate.kind; name one of them whole"),
        ("bias=.1", "fits network.0.convolution.bias, network.3.output.bias; name one of them whole, or all"),
        ("network.*.channels=8", "network.*.channels: no such key; it is now called filters"),
        ("network.*.biass=.1", "network.*.biass: no such key"),
        ("momentum=[", "'[' is not a value"),
        ("seed=1,2", "seed: not to be set in a sweep; give --seeds N"),
        ("name=a", "name: not to be set in a sweep"),
    ],
)
def test_settings_that_cannot_be(base, text, message):
    with pytest.raises(UserError) as caught:
        parse_setting(text, base)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("momentum=.9,1.5", "--set momentum=1.5: optimizer.momentum: 1.5: input should be less than 1"),
        ("minibatch=0", "minibatch: 0 is not positive"),
        ("preprocess=[lgo]", "preprocess[0].lgo: unknown key; did you mean 'log'?"),
    ],
)
def test_one_bad_value_stops_the_sweep_before_any_run(base, write_config, train, text, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        plan(base, set_all(base, text), seeds=2)
    assert message in str(caught.value)
    result = train("sweep", write_config(), "--set", text)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "runs").exists()


def test_missing_data_are_one_error_not_one_for_each_run(write_config, train, tmp_path):
    result = train("sweep", write_config(), "--seeds", "3")
    assert result.exit_code == 2
    assert result.output.count("no such data file") == 1
    assert not (tmp_path / "runs").exists()


def test_data_of_another_shape_or_without_the_split_to_stop_by(data, write_config, train, tmp_path):
    other = train("sweep", write_config(input=[20, 20]), "--seeds", "3")
    assert other.exit_code == 2 and other.output.count("images are 20 x 24") == 1
    stop = train("sweep", write_config(stop_when={"split": "validation", "accuracy": 0.9}), "--seeds", "3")
    assert stop.exit_code == 2 and stop.output.count("no split 'validation'") == 1
    assert not (tmp_path / "runs").exists()


def numbers(**changes) -> dict:
    row = {
        "settings": "a=1",
        "runs": 5,
        "finished": 5,
        "nan": 0,
        "collapsed": 2,
        "collapsed_at_end": 1,
        "vanished": 0,
    }
    row.update({"swings": 1.4, "steps_median": 51, "steps_min": 31, "steps_max": 61})
    row.update({"test_mean": 0.61234, "test_std": 0.0499, "test_min": 0.55, "test_max": 0.68})
    of_test = {"test_n": 300, "test_chance": 0.5, "test_n_effective": 120.0, "test_better": 3}
    return {**row, **of_test, **changes}


def test_the_table_shows_spread_n_chance_and_what_was_collapsed():
    text = sweep_table.lines([numbers(), numbers(settings="a=10", finished=4, nan=1)])
    words = "settings runs test steps collapsed at the end swings vanished NaN"
    assert text[0].split() == words.split()
    assert "0.612 +- 0.050 (0.550 to 0.680)" in text[1] and "51 (31 to 61)" in text[1]
    assert text[2].split()[:2] == ["a=10", "4/5"] and text[2].endswith("1")
    closing = "\n".join(text)
    assert "test: 300 shots, the same for all seeds" in closing
    assert "(120 to 120 effective); always guessing the larger class is right on 0.500" in closing
    assert "and 6 of 9 runs are better than that (95 % interval)" in closing
    assert "the best of 2 settings by test accuracy looks better than it is" in closing


def test_one_run_has_no_spread_and_no_choice():
    text = sweep_table.lines([numbers(runs=1, finished=1, steps_min=51, steps_max=51)])
    assert "+-" not in text[1] and "the best of" not in "\n".join(text)


def test_a_table_of_failures_only():
    row = {"settings": "a=1", "runs": 2, "finished": 0, "nan": 0}
    assert sweep_table.lines([row])[1].split() == ["a=1", "0/2"]
