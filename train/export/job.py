"""`python -m train export`: write a run's model for other programs, and compare it with `predict`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

import numpy as np
from scipy.special import softmax

from common import __version__
from common.errors import UserError
from common.files import atomic
from common.progress import say
from train.data.dataset import Data, open_data
from train.data.minibatches import Split
from train.fit import runtime
from train.run import folder

IMAGES = 200  # that are compared, of all splits
TOLERANCE = 1e-5  # of a probability, and of mJ


class Format(NamedTuple):
    """ending: of the name of the file or folder; needs: packages in addition to those of `train`."""

    ending: str
    needs: tuple[str, ...] = ()


FORMATS = {
    "keras": Format(".keras"),
    "saved_model": Format(""),
    "onnx": Format(".onnx", ("onnx", "onnxruntime")),
}


def run(run_dir: Path, kind: str, out: Optional[Path], data_path: Optional[str], force: bool) -> None:
    """The whole of `python -m train export`. Raises UserError."""
    config = folder.config_of(run_dir)
    path = out or run_dir / folder.EXPORTED / f"{run_dir.resolve().name}{FORMATS[kind].ending}"
    _check_output(path, kind, force)
    with open_data(
        folder.data_of(run_dir, config, data_path), config.input, [], "stream", unlabeled=True
    ) as data:
        folder.check_fits(run_dir, data)
        runtime.start(config.threads, config.seed)
        from train.model import saved

        model = saved.load_model(run_dir, "float32")
        about = description(run_dir, data, model)
        write, read = _functions(kind)
        with _replacing(path, kind) as partial:
            write(model, partial, json.dumps(about))
            images, difference = compare(read(partial), model, data)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{path}: was not written: it differs from `predict` by {difference:.2g} on {images} "
                    f"images of {data.path}, more than {TOLERANCE:g}"
                )
            about["compared"] = {"images": images, "data": data.names, "largest_difference": difference}
            atomic.write_text(described_in(path), json.dumps(about, indent=1) + "\n")
    say(f"{path}: as `predict` to {difference:.1g} on {images} images of {data.names}")
    say(f"{described_in(path)}: classes, how its images are made, inputs and outputs")


def described_in(path: Path) -> Path:
    """The file beside the exported one that describes its inputs and outputs."""
    return path.with_name(path.name + ".json")


def description(run_dir: Path, data: Data, model: Any) -> dict[str, Any]:
    """What a program must know to use the model, and the model's origin."""
    import keras
    import tensorflow as tf

    calibration, view = folder.calibration(run_dir), data.view
    rows, columns = model.input_shape[1:3]
    axes = ["time", "energy"] if view.transposed else ["energy", "time"]
    classes = folder.classes(run_dir)
    outputs: dict[str, Any] = {"probability": {"of": classes}}
    if isinstance(model.output, dict):
        outputs["pulse_energy"] = {"unit": "mJ", "error": calibration.get("pulse_energy")}
    return {
        "classes": classes,
        "image": data.processing,
        "input": {
            "image": {
                "shape": ["n", rows, columns],
                "dtype": "float32",
                "unit": view.unit,
                "axes": axes if view.camera else None,
            }
        },
        "outputs": outputs,
        "temperature": calibration.get("temperature"),
        "provenance": data.provenance,
        "run": run_dir.resolve().name,
        "trained_on": folder.provenance(run_dir),
        "model_sha256": hashlib.sha256((run_dir / folder.MODEL).read_bytes()).hexdigest(),
        "software": {"xtcav-lasing": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }


def compare(exported: Callable[[np.ndarray], dict[str, Any]], model: Any, data: Data) -> tuple[int, float]:
    """The number of images of `data` compared, and the largest difference of `exported` from `predict`.

    The difference is NaN if a result is not a number.
    """
    from train.model.predictor import Predictor

    predictor, differences, images = Predictor(model), [0.0], 0
    for split, rows in _chosen(data):
        ours, theirs = predictor.outputs(split, rows), exported(split.images(rows)[..., 0])
        told = {"probability": softmax(ours.logits.astype(np.float64), axis=1)}
        if ours.energy is not None:
            told["pulse_energy"] = ours.energy[:, None]
        differences += [float(np.abs(np.asarray(theirs[name]) - told[name]).max()) for name in told]
        images += len(rows)
    return images, float(np.max(differences))


def _chosen(data: Data) -> Iterator[tuple[Split, np.ndarray]]:
    """The rows of each split to compare, spread evenly over it, a few images at a time."""
    each = -(-IMAGES // len(data.splits))
    for split in data.splits.values():
        rows = np.unique(np.linspace(0, len(split) - 1, min(each, len(split))).astype(np.int64))
        for start in range(0, len(rows), 25):
            yield split, rows[start : start + 25]


def _check_output(path: Path, kind: str, force: bool) -> None:
    """Raise UserError if the model cannot be written to `path`, or a package is missing."""
    form = FORMATS[kind]
    missing = [name for name in form.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {kind} needs {' and '.join(missing)}; install: pip install {' '.join(missing)}"
        )
    if form.ending and path.suffix != form.ending:
        raise UserError(f"--out {path}: a file of format {kind} ends in {form.ending}")
    for output in (path, described_in(path)):
        atomic.refuse_existing(output, force)
    if kind == "saved_model" and path.exists() and not (path / "saved_model.pb").exists():
        raise UserError(f"{path}: is no SavedModel, and is not replaced; choose another --out")
    if kind != "saved_model" and path.is_dir():
        raise UserError(f"{path}: is a folder; choose another --out")


def _replacing(path: Path, kind: str) -> Any:
    return atomic.replacing_folder(path) if kind == "saved_model" else atomic.replacing(path)


def _functions(kind: str) -> tuple[Callable, Callable]:
    """The functions that write and read this format; loads the packages they need."""
    if kind == "onnx":
        from train.export import onnx_graph

        return onnx_graph.write, onnx_graph.read
    from train.export import standard

    if kind == "keras":
        return standard.write_keras, standard.read_keras
    return standard.write_saved_model, standard.read_saved_model
