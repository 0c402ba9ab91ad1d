"""`prepare verify`: one thing is damaged in a good file, and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.dataset import reading, writing
from tests.prepare.conftest import XTC1


def damage(path: Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def test_verify_passes_a_good_file(built, prepare):
    result = prepare("verify", str(built))
    assert result.exit_code == 0
    assert "20 images computed again" in result.output


def test_verify_without_the_camera_files(write_config, prepare, tmp_path):
    folder = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", folder)
    prepare("select", write_config(folder))
    prepare("build", write_config(folder))
    shutil.rmtree(folder)
    result = prepare("verify", str(tmp_path / "data" / "small.h5"))
    assert result.exit_code == 0
    assert "no image compared" in result.output


def flip_pixel(file):
    file["test/images"][3, 5, 7] += 1e-3


def swap_images(file):
    images = file["train/images"]
    images[0], images[1] = images[1], images[0]


def zero_row(file):
    file["train/images"][4] = 0


def swap_with_checksums(file):
    """Two images and their checksums change places, the keys do not."""
    swap_images(file)
    sums = file["train/crc32"][...]
    sums[[0, 1]] = sums[[1, 0]]
    file["train/crc32"][...] = sums


def swap_rows(file):
    """Two whole rows change places, with every checksum of theirs: the order is the manifest's."""
    swap_images(file)

    def swap(_, node):
        if isinstance(node, h5py.Dataset) and node.ndim == 1:
            values = node[...]
            values[[0, 1]] = values[[1, 0]]
            node[...] = values

    file["train"].visititems(swap)


def consistent_forgery(file):
    """Image and checksum changed together: only the digest and the camera's files can tell."""
    changed = file["train/images"][0] + 1
    file["train/images"][0] = changed
    file["train/crc32"][0] = reading.image_checksum(changed)


@pytest.mark.parametrize(
    "change, words",
    [
        (flip_pixel, "test/images[3] (run"),
        (swap_images, "train/images[1] (run"),
        (zero_row, "train/images[4] (run"),
        (consistent_forgery, "train row 0 (run"),
        (consistent_forgery, "train/crc32 is not what was written"),
        (swap_with_checksums, "train row 1 (run"),
        (swap_rows, "train/fiducial is not what was written"),
        (swap_rows, "not those of the manifest"),
        (lambda file: file["dark/std"].__setitem__((0, 0), 9.0), "dark/std is not what was written"),
        (lambda file: writing.set_text(file["test/ebeam/ebeamCharge"], units="C"), "ebeamCharge is not"),
        (lambda file: writing.set_text(file, classes='["a", "b"]'), "an attribute was changed"),
        (lambda file: file["test/gas_detector/f_11_ENRC"].__setitem__(2, 1.0), "test row 2 (run"),
        (
            lambda file: file["train/labels"].__setitem__(0, 1 - file["train/labels"][0]),
            "not those of the manifest",
        ),
        (lambda file: writing.set_text(file, created="2001"), "a root attribute is not what was written"),
        (lambda file: file["train/labels"].__setitem__(0, 7), "train/labels[0] is 7"),
        (lambda file: file["test/fiducial"].__setitem__(0, 5), "test/fiducial is not what was written"),
        (lambda file: file.__delitem__("test/crc32"), "test/crc32 is missing"),
        (lambda file: file.attrs.__delitem__("config"), "attribute config is missing"),
    ],
)
def test_verify_names_what_is_wrong(built, prepare, change, words):
    damage(built, change)
    result = prepare("verify", str(built))
    assert result.exit_code == 1, result.output
    assert any(line.startswith("problem: ") and words in line for line in result.output.splitlines())


def test_verify_lists_every_problem(built, prepare):
    damage(built, flip_pixel)
    damage(built, zero_row)
    problems = [line for line in prepare("verify", str(built)).output.splitlines() if "problem:" in line]
    assert any("test/images[3]" in line for line in problems)
    assert any("train/images[4]" in line for line in problems)


def content(path: Path) -> list:
    """Everything that can be read from the file."""
    with h5py.File(path, "r") as file:
        nodes = [("/", file)]
        file.visititems(lambda name, node: nodes.append((name, node)))
        return [
            (name, sorted((key, str(value)) for key, value in node.attrs.items()))
            + ((node[...].tobytes(),) if isinstance(node, h5py.Dataset) else ())
            for name, node in nodes
        ]


def test_verify_finds_any_flipped_bit(built, prepare):
    """Where it finds none, the bit is in bytes that HDF5 does not use: nothing that is read differs."""
    raw, whole = built.read_bytes(), content(built)
    rng = np.random.default_rng(1)
    found = 0
    for at, bit in zip(rng.integers(len(raw), size=36).tolist(), rng.integers(8, size=36).tolist()):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << bit
        built.write_bytes(flipped)
        if prepare("verify", str(built), "--sample", "0").exit_code == 1:
            found += 1
        else:
            assert content(built) == whole, at
    assert found > 30


def test_verify_finds_references_to_scales_that_crash_hdf5(built, prepare):
    """They are in heaps of variable length, which have no checksums."""
    raw, whole = built.read_bytes(), content(built)
    heaps = [at for at in range(len(raw)) if raw.startswith(b"GCOL", at)]
    assert heaps
    rng = np.random.default_rng(2)
    found = 0
    for at in rng.integers(0, 300, size=24).tolist():  # the first references of a heap
        flipped = bytearray(raw)
        flipped[heaps[0] + at] ^= 1 << int(rng.integers(8))
        built.write_bytes(flipped)
        result = prepare("verify", str(built), "--sample", "0")
        if result.exit_code == 1:
            found += 1
            assert "the scales of its dimensions" in result.output
        else:
            assert content(built) == whole, at
    assert found > 6


def test_verify_a_file_that_was_copied_in_part(built, prepare):
    """Some tools give a file its size first: the rest is zeros."""
    raw = built.read_bytes()
    for share in (0.3, 0.6, 0.95):
        cut = int(len(raw) * share)
        built.write_bytes(raw[:cut] + bytes(len(raw) - cut))
        result = prepare("verify", str(built))
        assert result.exit_code == 1
        assert "problem: " in result.output


def test_verify_a_truncated_file(built, prepare):
    built.write_bytes(built.read_bytes()[:-1000])
    result = prepare("verify", str(built))
    assert result.exit_code == 1
    assert "cut short" in result.output
