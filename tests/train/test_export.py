"""`python -m train export`: the same answers without this package, or no file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.special import softmax

from tests.command_line import refused
from tests.train.conftest import small_config, write_data
from train.commands import main
from train.config import Layer, TrainConfig
from train.config.images import Preprocess
from train.export import job, onnx_graph, standard
from train.model import network, saved

README = Path(__file__).parents[2] / "train" / "README.md"
IMAGE = {"downsample": [2, 2], "transpose": True, "log": True, "subtract_dark": True}
WRITERS = {
    "keras": (standard.write_keras, standard.read_keras),
    "saved_model": (standard.write_saved_model, standard.read_saved_model),
    "onnx": (onnx_graph.write, onnx_graph.read),
}

# Networks that together have every kind of layer and step, every padding and both kinds of output.
NETWORKS = {
    "images": {
        "target": "pulse_energy",
        "preprocess": [
            "counts", {"bin": [2, 2]}, {"center": {"threshold": 3, "size": [14, 17]}}, "augment",
            {"crop": [13, 14]}, {"scale": {"subtract": 2, "divide": 3}}, "log", "image_contrast",
        ],
        "augment": [{"shift": [1, 1]}],
        "network": [
            {"convolution": {"kernel_size": [3, 4], "filters": 5, "strides": [1, 2], "bias": None}},
            "batch_normalization", "leaky_relu",
            {"convolution": {"kernel_size": [2, 3], "filters": 4, "padding": "valid"}},
            {"local_response_normalization": {"radius": 1, "alpha": 0.3}}, "elu",
            {"mean": {"axis": 1}}, {"output": {"bias": None}},
        ],
    },
    "pools": {
        "preprocess": ["subtract_mean", "scale_01", "standardize", "scale_11", "whiten_minibatch"],
        "network": [
            {"average_pool": {"pool_size": [5, 4], "strides": [3, 3]}}, "relu",
            {"convolution": {"kernel_size": [4, 4], "filters": 6, "strides": [2, 3]}}, "softplus",
            {"max_pool": {"pool_size": [3, 3], "strides": [2, 2]}}, {"dropout": {"rate": 0.5}},
            {"average_pool": {"pool_size": [2, 2], "strides": [1, 1], "padding": "valid"}}, "tanh",
            {"hidden": {"units": 7}}, "batch_normalization", "sigmoid", {"hidden": {"units": 4}}, "output",
        ],
    },
    "even": {  # medians of an even number of blocks of the beam's columns, an odd one of rows
        "input": [44, 48],
        "preprocess": [{"center": {"threshold": 3, "size": [21, 30]}}, {"scale": {"divide": 40}}],
        "network": ["output"],
    },
}  # fmt: skip


def pictures(rng: np.random.Generator, rows: int, columns: int, n: int = 12) -> np.ndarray:
    """Logarithms of counts: bunches in all places, a saturated one among them, and an empty image."""
    row, column = np.arange(rows)[:, None], np.arange(columns)
    places = zip(rng.uniform(0, rows, n), rng.uniform(0, columns, n))
    light = [60 * np.exp(-((row - a) ** 2 + (column - b) ** 2) / 60) for a, b in places]
    light[0], light[1] = np.minimum(light[0], 20), 0 * light[1]
    return np.log1p(np.stack(light) + rng.uniform(0, 2, (n, rows, columns))).astype(np.float32)


def built(name: str, classes: int = 3) -> keras.Model:
    """The model of NETWORKS[name] with numbers as after a training."""
    rng = np.random.default_rng(3)
    config = TrainConfig(name="x", data="x.h5", steps=1, **{"input": (46, 50), **NETWORKS[name]})
    model = network.of_config(config, classes)
    for variable in model.variables:
        positive = variable.name in ("gamma", "moving_variance", "scale")
        low, high = (0.5, 2) if positive else (-1, 1)
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def test_the_networks_have_all_there_is():
    layers = [Layer.model_validate(each).kind for one in NETWORKS.values() for each in one["network"]]
    steps = [Preprocess.model_validate(each).kind for one in NETWORKS.values() for each in one["preprocess"]]
    assert set(layers) == set(Layer.model_fields)
    assert set(steps) == set(Preprocess.model_fields)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_every_layer_and_step_is_as_this_package_computes_it(name, kind, tmp_path):
    model = built(name)
    images = pictures(np.random.default_rng(5), *model.input_shape[1:3])
    write, read = WRITERS[kind]
    path = tmp_path / f"m{job.FORMATS[kind].ending}"
    write(model, path, "{}")
    ours, theirs = model(images[..., None]), read(path)(images)
    ours = ours if isinstance(ours, dict) else {"logits": ours}
    probability = softmax(np.asarray(ours.pop("logits")), axis=1)
    assert np.ptp(probability, axis=0).max() > 0.01  # the network does look at the images
    for wanted, name in [(probability, "probability"), *((y, name) for name, y in ours.items())]:
        np.testing.assert_allclose(np.asarray(theirs.pop(name)), wanted, rtol=2e-5, atol=5e-6)
    assert not theirs
    # one image alone is answered alike: the number of images is free
    alone = read(path)(images[:1])["probability"]
    np.testing.assert_allclose(np.asarray(alone), probability[:1], atol=5e-6)


def test_a_layer_that_nobody_else_knows_is_no_part_of_what_is_written():
    class OfOurs(keras.layers.Layer):
        def call(self, x):
            return x

    pixels = keras.Input((4, 4, 1))
    convnet = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(OfOurs(name="own")(pixels))))
    images = keras.Input((4, 4, 1))
    with pytest.raises(Exception, match="own: a layer OfOurs cannot be exported"):
        standard.of_model(keras.Model(images, convnet(images)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with data.h5, and a run whose network tells the pulse energy, with a temperature."""
    place = tmp_path_factory.mktemp("trained")
    write_data(place / "data.h5", {"train": 60, "validation": 30, "test": 30}, image=IMAGE)
    config = small_config(place, target="pulse_energy", preprocess=["standardize"], steps=31)
    result = CliRunner().invoke(main, ["fit", config])
    assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run."""
    return shutil.copytree(trained / "runs" / "small", tmp_path / "runs" / "small")


def predicted(run: Path, images: np.ndarray) -> np.ndarray:
    model = network.logits_alone(saved.load_model(run))
    return softmax(np.asarray(model(images[..., None])), axis=1)


def blocks_of_readme() -> dict[str, str]:
    """{format: code} of the section of README on programs without this package."""
    section = README.read_text(encoding="utf-8").split("## Without this package")[1].split("\n## ")[0]
    codes = [part.partition("\n```")[0] for part in section.split("```python\n")[1:]]
    return dict(zip(("keras", "saved_model", "onnx"), codes))


@pytest.mark.parametrize("kind", WRITERS)
def test_the_lines_of_the_readme_need_nothing_of_this_package(kind, trained, run, train, tmp_path):
    shutil.copy(trained / "data.h5", tmp_path)
    result = train(
        "export", str(run), "--format", kind, "--out", str(tmp_path / f"demo{job.FORMATS[kind].ending}")
    )
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / "data.h5") as file:
        images = file["test/images"][...]
    dark = np.random.default_rng(1).uniform(0, 9, (48, 40))
    frame = dark + np.kron(np.expm1(images[3]).T, np.ones((2, 2)))
    np.savez(tmp_path / "shot.npz", frame=frame, dark=dark)
    code = blocks_of_readme()[kind].replace("demo.h5", "data.h5")
    assert len(code.strip().splitlines()) <= 10
    alone = (
        f"{code}\nimport sys\nprint(probability.tolist() if not hasattr(probability, 'numpy') else "
        "probability.numpy().tolist())\nassert not {'train', 'common', 'prepare'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", alone], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    told = np.array(json.loads(done.stdout.splitlines()[-1]))
    wanted = predicted(run, images[3:4] if kind == "onnx" else images[: len(told)])
    np.testing.assert_allclose(told, wanted, atol=1e-5)
    assert "lasing" in done.stdout


def test_what_stands_beside_it(run, train):
    assert train("export", str(run), "--format", "onnx").exit_code == 0
    about = json.loads((run / "exported" / "small.onnx.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert about["classes"] == ["nolasing", "lasing"]
    assert about["image"] == IMAGE
    assert about["input"]["image"]["shape"] == ["n", 20, 24]
    assert about["outputs"]["pulse_energy"]["unit"] == "mJ"
    assert about["temperature"] == summary["calibration"]["temperature"]
    assert about["compared"]["images"] == 120 and about["compared"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize("kind", WRITERS)
def test_what_differs_from_predict_is_not_written(kind, run, train, monkeypatch):
    folder = run / "exported"
    folder.mkdir()
    monkeypatch.setattr(standard._Standard, "affine", lambda *words: words[-1] * 1.01)
    monkeypatch.setattr(onnx_graph.Graph, "affine", lambda *words: words[-1] * 1.01)
    refused(train("export", str(run), "--format", kind), "was not written: it differs from `predict` by")
    assert list(folder.iterdir()) == []


def test_a_network_that_was_trained_in_bfloat16_is_exported_in_float32(run, train):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "compute": "bfloat16"}))
    assert train("export", str(run), "--format", "onnx").exit_code == 0
    assert train("export", str(run), "--format", "keras").exit_code == 0
    model = keras.saving.load_model(run / "exported" / "small.keras")
    assert {layer.dtype_policy.name for layer in model.layers if layer.weights} == {"float32"}


def test_a_package_that_is_missing_is_named(run, train, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(train("export", str(run), "--format", "onnx"), "needs onnxruntime", "pip install onnxruntime")


def test_what_is_there_is_not_replaced_unasked(run, train, tmp_path):
    assert train("export", str(run), "--format", "saved_model").exit_code == 0
    refused(train("export", str(run), "--format", "saved_model"), "--force")
    assert train("export", str(run), "--format", "saved_model", "--force").exit_code == 0
    assert sorted(path.name for path in (run / "exported").iterdir()) == ["small", "small.json"]
    (run / "exported" / "small.onnx.json").write_text("mine")
    refused(train("export", str(run), "--format", "onnx"), "small.onnx.json: exists already")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    for kind in ("keras", "onnx"):
        refused(train("export", str(run), "--format", kind, "--out", str(mine)), "ends in")
    words = ("--format", "saved_model", "--out", str(mine), "--force")
    refused(train("export", str(run), *words), "is no SavedModel")
    assert (mine / "letter").read_text() == "dear"


def test_data_of_another_processing_are_no_images_to_compare_on(run, train, tmp_path):
    other = write_data(tmp_path / "other.h5", {"test": 10}, image={**IMAGE, "log": False})
    refused(train("export", str(run), "--format", "keras", "--data", str(other)), "other.h5", "`log: False`")


def test_training_again_names_what_was_exported_before(run, train, trained, write_config):
    (run / "exported").mkdir()
    changes = {
        "target": "pulse_energy",
        "preprocess": ["standardize"],
        "steps": 2,
        "data": str(trained / "data.h5"),
    }
    result = train("fit", write_config(**changes), "--force")
    assert f"{run / 'exported'}: made by the model that is being replaced" in result.output
