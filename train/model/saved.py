"""The model of a finished run, from files of unknown origin.

Keras' own loader makes any classes and functions that a .keras file names, with the arguments in
the file. Here only numbers are read from model.keras; the network is built from the run's
config.yaml by this software, so that nothing in a run's folder says what code runs.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Optional

import h5py
import keras
import numpy as np

from common.dataset.safety import HDF5_ERRORS, check_hdf5
from common.errors import DataError
from train.config import load_config
from train.model import network
from train.model.shapes import FLOAT_BYTES, layer_shapes, network_input
from train.run import folder
from train.run.archive import ZIP_ERRORS, members

WEIGHTS = "model.weights.h5"  # Keras' name for the member with the numbers


def load_model(run_dir: Path, compute: Optional[str] = None) -> keras.Model:
    """The Keras model of a finished run; raises DataError if there is none or it does not fit its config.

    compute: what its layers compute in, instead of what the config says. Memory is bounded by a few times
    the size of model.keras.
    """
    path = run_dir / folder.MODEL
    if not path.exists():
        raise DataError(f"{path}: no such model; finish the run with `python -m train fit CONFIG --resume`")
    config, classes = load_config(str(run_dir / folder.CONFIG)), folder.classes(run_dir)
    config = config.model_copy(update={"compute": compute or config.compute})
    raw = _weights(path)
    shapes = layer_shapes(config.network, network_input(config), len(classes))
    if sum(layer.variables for layer in shapes) * FLOAT_BYTES > len(raw):
        raise DataError(f"{path}: holds fewer numbers than the network in {run_dir / folder.CONFIG} has")
    model = network.of_config(config, len(classes))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / WEIGHTS
        file.write_bytes(raw)
        try:
            if _numbers_in(raw) != sum(int(np.prod(v.shape)) for v in model.weights):
                raise ValueError("it holds other variables")  # Keras leaves out what it does not find
            model.load_weights(file)
        except (*HDF5_ERRORS, AttributeError) as error:
            raise _unfit(path, error) from None
    return model


def _weights(path: Path) -> bytes:
    """The HDF5 file with the numbers of a .keras file, checked to be one that holds all its data."""
    try:
        raw = members(path)[WEIGHTS]
        with h5py.File(io.BytesIO(raw), "r") as file:
            check_hdf5(file, f"{path}: {WEIGHTS}")
    except (*ZIP_ERRORS, *HDF5_ERRORS) as error:
        raise _unfit(path, error) from None
    return raw


def _numbers_in(raw: bytes) -> int:
    sizes = []
    with h5py.File(io.BytesIO(raw), "r") as file:
        file.visititems(lambda _, node: sizes.append(node.size) if isinstance(node, h5py.Dataset) else None)
    return sum(sizes)


def _unfit(path: Path, error: Exception) -> DataError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return DataError(f"{path}: cannot be loaded as a model of this run ({first}); train again with --force")
