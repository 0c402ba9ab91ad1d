"""A model is loaded by its numbers alone: what else a run's folder may hold is refused or has no effect."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import DataError
from tests.command_line import refused
from train.model import saved

LAYERS = [
    {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}},
    {"batch_normalization": {"momentum": 0.5}},
    "relu",
    {"local_response_normalization": {}},
    {"dropout": {"rate": 0.4}},
    {"hidden": {"units": 5, "stddev": 0.1}},
    {"output": {"stddev": 0.1}},
]


@pytest.fixture
def run(data, fitted) -> Path:
    return fitted(steps=2, network=LAYERS, preprocess=["log", "standardize"])


def members(path: Path) -> dict:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewrite(path: Path, parts: dict, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def test_it_is_the_model_that_keras_loads(run):
    import keras

    images = np.random.default_rng(1).random((7, 20, 24, 1), np.float32)
    ours = saved.load_model(run)(images)
    theirs = keras.saving.load_model(run / "model.keras", compile=False)(images)
    assert np.array_equal(ours, theirs)


def test_what_the_file_says_of_code_is_not_read(run, train):
    """A config.json that names a function to call, as known attacks on Keras' loader do."""
    before = saved.load_model(run).get_weights()
    parts = members(run / "model.keras")
    marker = run / "attacked"
    call = {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"}
    layer = {
        "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
        "config": {"function": call, "arguments": {"source": f"open({str(marker)!r}, 'w')"}},
    }  # fmt: skip
    parts["config.json"] = json.dumps(layer).encode()
    parts["../../escaped"] = b"x"
    rewrite(run / "model.keras", parts)
    after = saved.load_model(run).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after))
    assert not marker.exists()
    assert not (run.parents[1] / "escaped").exists() and not (run.parents[0] / "escaped").exists()


def with_weights(change):
    def harm(run: Path) -> None:
        parts = members(run / "model.keras")
        stream = io.BytesIO(parts[saved.WEIGHTS])
        with h5py.File(stream, "r+") as file:
            change(file)
        parts[saved.WEIGHTS] = stream.getvalue()
        rewrite(run / "model.keras", parts)

    return harm


def first(file: h5py.File) -> str:
    names = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    return names[0]


def link_out(file: h5py.File) -> None:
    name = first(file)
    del file[name]
    file[name] = h5py.ExternalLink("/etc/passwd", "/")


def store_out(file: h5py.File) -> None:
    name, shape = first(file), file[first(file)].shape
    del file[name]
    file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def another_shape(file: h5py.File) -> None:
    name = first(file)
    del file[name]
    file[name] = np.zeros((3, 3))


def a_part_less(file: h5py.File) -> None:
    del file[first(file)]


def all_but_a_part(file: h5py.File) -> None:
    for name in list(file["layers"]):
        del file["layers"][name]
    file["more"] = np.zeros(10**5)


def a_dataset_for_a_group(file: h5py.File) -> None:
    name = first(file).rpartition("/")[0]
    del file[name]
    file[name] = np.zeros(3)


def not_a_zip(run: Path) -> None:
    (run / "model.keras").write_bytes(b"rubbish")


def a_zip_of_nothing(run: Path) -> None:
    rewrite(run / "model.keras", {})


def a_bomb(run: Path) -> None:
    rewrite(run / "model.keras", {saved.WEIGHTS: bytes(10**7)}, zipfile.ZIP_DEFLATED)


def weights_that_are_not_hdf5(run: Path) -> None:
    rewrite(run / "model.keras", {saved.WEIGHTS: b"rubbish"})


@pytest.mark.parametrize(
    "harm",
    [
        *map(with_weights, (link_out, store_out, another_shape, a_part_less, all_but_a_part)),
        with_weights(a_dataset_for_a_group),
        not_a_zip, a_zip_of_nothing, a_bomb, weights_that_are_not_hdf5,
    ],
)  # fmt: skip
def test_a_model_file_that_is_not_ours_is_refused(run, harm):
    harm(run)
    with pytest.raises(DataError, match="model.keras"):
        saved.load_model(run)


def test_a_config_for_a_far_larger_network_takes_no_memory(run, train):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("units: 5", "units: 1000000000"))
    refused(train("evaluate", str(run)), "model.keras: holds fewer numbers than the network")


@pytest.mark.parametrize("text", ["[" * 10**5, "{}", '{"classes": [1]}', "[]", '{"classes": []}'])
def test_a_summary_that_is_none(run, train, text):
    (run / "summary.json").write_text(text)
    refused(train("evaluate", str(run)), "summary.json")


def test_no_pickle_is_read(tmp_path):
    """A checkpoint with a pickled object: reading it must not run it."""
    code = (
        "import numpy as np, sys; from pathlib import Path; from train.run import checkpoint\n"
        "class Attack:\n"
        "    def __reduce__(self): return (print, ('attacked',))\n"
        "folder = Path(sys.argv[1]) / 'checkpoints'; folder.mkdir()\n"
        "np.savez(folder / 'step-00000001.npz', header=np.array([Attack()], object))\n"
        "checkpoint.load(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "attacked" not in done.stdout + done.stderr
    assert "is damaged" in done.stderr
    shutil.rmtree(tmp_path / "checkpoints")
