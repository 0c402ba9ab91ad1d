"""Networks: shapes and numbers without TensorFlow, the same with it, and the 2016 study's."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import load
from train.config import Layer, TrainConfig
from train.fit import runtime
from train.model import network
from train.model.shapes import layer_shapes

SEED = "configs/train/first_scale_up.yaml"


def test_describe_gives_the_seeds_numbers(train):
    result = train("describe", SEED)
    assert result.exit_code == 0
    for expected in (
        "(80, 284, 363, 1)",
        "(80, 142, 182, 16)",
        "126.19",
        "(80, 15, 19, 16)",
        "1.39",
        "(4560, 2)",
        "convnet has 13,234 unknown variables, 4,112 (31 %) in convnet layers, and 9,122 (68 %) in hidden "
        "layers.",
        "convnet maps 103,092 features to 2 outputs.",
    ):
        assert expected in result.output


def test_describe_needs_no_tensorflow(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from train.commands import main\n"
        f"main(['describe', '{SEED}'], standalone_mode=False)\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


windows = st.tuples(st.integers(1, 5), st.integers(1, 5))
paddings = st.sampled_from(["same", "valid"])
convolutions = st.builds(
    lambda **settings: {"convolution": settings},
    kernel_size=windows, strides=windows, padding=paddings, filters=st.integers(1, 3),
    bias=st.sampled_from([None, 0.0, 0.1]),
)  # fmt: skip
pools = st.builds(
    lambda kind, w, s, p: {kind: {"pool_size": w, "strides": s, "padding": p}},
    st.sampled_from(["average_pool", "max_pool"]), windows, windows, paddings,
)  # fmt: skip


@settings(max_examples=25)
@given(
    st.lists(st.one_of(convolutions, pools, st.just("relu")), max_size=3),
    st.lists(st.integers(1, 4), max_size=2),
)
def test_the_shapes_without_tensorflow_are_keras_shapes(spatial, hidden):
    layers = [*spatial, *({"hidden": {"units": n}} for n in hidden), {"output": {}}]
    parsed = [Layer.model_validate(layer) for layer in layers]
    try:
        shapes = layer_shapes(parsed, (17, 13), 3)
    except Exception as error:
        assert "leaves nothing" in str(error)
        return
    model = network.build(parsed, (17, 13), 3, seed=1)
    assert model.count_params() == sum(shape.variables for shape in shapes)
    assert model.output_shape == (None, 3)
    built = [layer for layer in model.get_layer("convnet").layers if layer.name != "flatten"][1:]
    assert [tuple(layer.output.shape[1:]) for layer in built] == [shape.output for shape in shapes]


def test_weights_start_as_the_config_says():
    layers = [
        {"hidden": {"units": 400, "stddev": 0.05, "bias": 0.1}},
        {"output": {"init": "normal", "bias": None}},
    ]
    model = network.build([Layer.model_validate(layer) for layer in layers], (20, 20), 2, seed=3)
    kernel, bias, out = (v.numpy() for v in model.trainable_variables)
    assert (bias == np.float32(0.1)).all()
    assert np.abs(kernel).max() <= 0.1 + 1e-6  # cut off at two stddev
    assert kernel.std() == pytest.approx(0.05, rel=0.15)
    assert np.abs(out).max() > 0.02  # not cut off


@pytest.mark.parametrize(
    "network_text, message",
    [
        ("[relu, {outputt: {}}]", "network[1].outputt: unknown key; did you mean 'output'?"),
        ("[relu]", "the last layer, and no other, must be `output`"),
        (
            "[{hidden: {units: 3}}, {max_pool: {pool_size: [2, 2], strides: [2, 2]}}, output]",
            "after a fully connected",
        ),
        ("[{convolution: {kernel_sise: [2, 2], filters: 1}}, output]", "did you mean 'kernel_size'?"),
        ("[{convolution: {kernel_size: [0, 2], filters: 1}}, output]", "kernel_size: [0, 2] is not positive"),
        ("[{relu: {}, output: {}}]", "a layer is one of"),
    ],
)
def test_impossible_networks_are_refused(tmp_path, network_text, message):
    path = tmp_path / "a.yaml"
    path.write_text(f"name: a\ndata: x.h5\nsteps: 1\nnetwork: {network_text}\n")
    with pytest.raises(Exception, match="a.yaml:4") as caught:
        load(path, TrainConfig)
    assert message in str(caught.value)


def test_a_network_that_leaves_nothing_is_refused(write_config, train):
    layers = [{"max_pool": {"pool_size": [30, 30], "strides": [1, 1], "padding": "valid"}}, "output"]
    result = train("describe", write_config(network=layers))
    assert result.exit_code == 2
    assert "leaves nothing of 20 x 24" in result.output


def test_bfloat16_is_for_computing_alone(write_config, data, train, tmp_path):
    layers = [
        {"convolution": {"kernel_size": [16, 16], "filters": 3, "strides": [2, 2]}},
        "batch_normalization",
        "relu",
        "local_response_normalization",
        {"max_pool": {"pool_size": [2, 2], "strides": [2, 2]}},
        {"hidden": {"units": 4}},
        {"dropout": {"rate": 0.5}},
        "output",
    ]
    parsed = [Layer.model_validate(layer) for layer in layers]
    model = network.build(parsed, (20, 24), 2, 1, compute="bfloat16")
    convnet = model.get_layer("convnet").layers
    assert {layer.name: layer.compute_dtype for layer in convnet if layer.compute_dtype != "bfloat16"} == {
        "pixels": "float32",
        "local_response_normalization_1": "float32",
        "output": "float32",
    }
    assert {weight.dtype for weight in model.weights} == {"float32"}
    images = np.random.default_rng(0).random((4, 20, 24, 1), np.float32)
    exact = network.build(parsed, (20, 24), 2, 1)
    assert model(images).dtype == "float32"
    np.testing.assert_allclose(model(images), exact(images), atol=0.02 * float(np.abs(exact(images)).max()))


def test_a_bfloat16_run_is_close_to_the_float32_one(data, write_config, train, tmp_path, monkeypatch):
    losses = []
    monkeypatch.setattr(runtime, "bfloat16_ratio", lambda: 0.6)
    for compute in ("float32", "bfloat16"):
        result = train("fit", write_config(compute=compute), "--force")
        assert result.exit_code == 0, result.output
        rows = list(csv.DictReader((tmp_path / "runs/small/metrics.csv").read_text().splitlines()))
        losses.append([float(row["cross_entropy"]) for row in rows])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert train("evaluate", str(tmp_path / "runs/small")).exit_code == 0


def test_bfloat16_is_refused_where_it_is_slow(data, write_config, train, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "bfloat16_ratio", lambda: 61.4)
    result = train("fit", write_config(compute="bfloat16"))
    assert result.exit_code == 2
    assert "compute: bfloat16 takes 61.4 times as long as float32" in result.output
    assert not (tmp_path / "runs/small/config.yaml").exists()
    assert train("fit", write_config(), "--force").exit_code == 0
