"""The lines of the format's page by which other software reads a data file."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.train.conftest import write_data

PAGE = Path(__file__).parents[1] / "common" / "README.md"
SECTION = PAGE.read_text(encoding="utf-8").split("To read it without this project:")[1].split("\n## ")[0]
H5PY, XARRAY, PYTORCH = (part.partition("\n```")[0] for part in SECTION.split("```python\n")[1:])


@pytest.fixture
def place(tmp_path):
    """A folder with data/demo.h5, whose shots have times."""
    path = tmp_path / "data" / "demo.h5"
    path.parent.mkdir()
    write_data(path, {"train": 12, "test": 6}, first=1_435_000_000)
    with h5py.File(path, "r+") as file:
        file["train/time"][...] = (1_435_000_000 + np.arange(12)) * 10**9
    return tmp_path


@pytest.mark.parametrize(
    "lines, told",
    [
        (H5PY, "print(image.shape, label, classes)"),
        (XARRAY, "print(tuple(image.shape), labels.values[0], image.dims)"),
    ],
    ids=["h5py", "xarray"],
)
def test_they_read_an_image_and_its_label(place, lines, told):
    words = [sys.executable, "-I", "-c", f"{lines}\n{told}"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("(20, 24) 0 ")


def test_what_a_loader_of_pytorch_takes(place, monkeypatch):
    """A length and items, in processes to which it is pickled; PyTorch itself is not asked for here."""
    names = {}
    exec(PYTORCH, names)
    monkeypatch.setattr(sys.modules[__name__], "Shots", names["Shots"], raising=False)
    names["Shots"].__module__ = __name__
    shots = pickle.loads(pickle.dumps(names["Shots"](str(place / "data" / "demo.h5"), "train")))
    assert len(shots) == 12
    with h5py.File(place / "data" / "demo.h5") as file:
        for shot in (0, 7):
            image, label = shots[shot]
            assert image.shape == (1, 20, 24) and image.dtype == np.float32
            assert np.array_equal(image[0], file["train/images"][shot])
            assert label == file["train/labels"][shot]
