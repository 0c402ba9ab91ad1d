"""HDF5 files, and texts in them, that someone made to do harm are refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.dataset import layout, reading, safety, writing
from common.dataset.safety import read_json
from common.errors import DataError
from common.progress import printable
from tests.limits import HANGS

SHAPE = (6, 8)


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "data.h5"
    with writing.create(path, {"train": 3, "test": 2}, SHAPE, (16, 12)) as file:
        for split in ("train", "test"):
            file[split]["images"][...] = np.arange(file[split]["images"].size).reshape(-1, *SHAPE)
        attributes = dict.fromkeys(layout.ATTRIBUTES, "{}")
        attributes["classes"] = json.dumps(["nolasing", "lasing"])
        writing.finish(file, attributes)
    return path


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, *SHAPE), np.float32)
        file["labels"] = np.zeros(3, np.int8)
    return path


def external_link(file, secret):
    del file["train/labels"]
    file["train/labels"] = h5py.ExternalLink(str(secret), "/labels")


def external_link_as_a_split(file, secret):
    file["validation"] = h5py.ExternalLink(str(secret), "/")


def soft_link(file, secret):
    file["statistics/more"] = h5py.SoftLink("/train/images")


def dangling_soft_link(file, secret):
    file["more"] = h5py.SoftLink("/../../etc/passwd")


def external_storage(file, secret):
    del file["train/labels"]
    file["train"].create_dataset("labels", (3,), "i1", external=[("/etc/passwd", 0, 3)])


def virtual_dataset(file, secret):
    del file["train/images"]
    layout = h5py.VirtualLayout((3, *SHAPE), "f4")
    layout[...] = h5py.VirtualSource(str(secret), "images", (3, *SHAPE))
    file["train"].create_virtual_dataset("images", layout)


def terabytes_from_nothing(file, secret):
    del file["train/images"]
    file["train"].create_dataset("images", (10**6, 4000, 4000), "f4", chunks=(1, 4000, 4000))


def terabytes_compressed(file, secret):
    del file["train/images"]
    images = file["train"].create_dataset(
        "images", (10**6, *SHAPE), "f4", chunks=(10**6, *SHAPE), compression="gzip"
    )
    images.id.write_direct_chunk((0, 0, 0), b"\x00" * 100)


def a_chunk_that_is_too_large(file, secret):
    file.create_dataset("more", (2**17, 2**10), "f4", chunks=(2**17, 2**10))


def unknown_filter(file, secret):
    file.create_dataset("more", (4,), "f4", chunks=(4,), compression="lzf")


def text_of_any_length(file, secret):
    file["more"] = ["a", "b"]


def references(file, secret):
    file.create_dataset("more", (1,), h5py.ref_dtype)


def a_group_in_itself(file, secret):
    file["train/more"] = file["train"]


def a_named_type(file, secret):
    file["more"] = np.dtype("f8")


def a_split_that_is_a_dataset(file, secret):
    file["validation"] = np.zeros(3)


def images_that_are_a_group(file, secret):
    del file["train/images"]
    file["train"].create_group("images")


@pytest.mark.parametrize(
    "harm, words",
    [
        (external_link, "train/labels is a link to elsewhere"),
        (external_link_as_a_split, "validation is a link to elsewhere"),
        (soft_link, "statistics/more is a link"),
        (dangling_soft_link, "more is a link"),
        (external_storage, "train/labels keeps its data in another file (.*etc/passwd"),
        (virtual_dataset, "train/images is a virtual dataset"),
        (terabytes_from_nothing, "train/images claims 64000000000000 bytes, of which the file holds 0"),
        (terabytes_compressed, "train/images claims 192000000 bytes, of which the file holds 100"),
        (a_chunk_that_is_too_large, "more has chunks"),
        (unknown_filter, "more has an unknown filter"),
        (text_of_any_length, "more is of type object"),
        (references, "more is of type object"),
        (a_group_in_itself, "groups nested over 16 deep"),
        (a_named_type, "more is neither"),
        (a_split_that_is_a_dataset, "a split is not a group"),
        (images_that_are_a_group, "train/images is missing"),
    ],
)
def test_a_file_that_reaches_out_or_blows_up_is_refused(good, secret, harm, words):
    with reading.open_data(good, ["train", "test"]):
        pass
    with h5py.File(good, "r+") as file:
        harm(file, secret)
    words = words.replace("(.", "\\(.")
    with pytest.raises(DataError, match=f"data.h5: {words}"):
        reading.open_data(good, ["train", "test"])


@settings(deadline=None, max_examples=25)
@given(
    rows=st.tuples(*[st.integers(0, 2_000_000) | st.sampled_from([0, 131_072, 131_073])] * 2),
    image=st.sampled_from([(1, 1), (3, 5), (284, 363)]),
    frame=st.sampled_from([(6, 10), (726, 568), (1024, 1024)]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_what_the_writer_makes_is_safe_at_any_size(tmp_path_factory, rows, image, frame, dtype):
    """Also columns and statistics that nobody wrote, which are not in the file; images are a hole."""
    path = tmp_path_factory.mktemp("large") / "data.h5"
    with writing.create(path, dict(zip(("train", "predict"), rows)), image, frame, dtype) as file:
        for name in ("mean", "std"):
            file["dark"][name][...] = 0
        for split in layout.present(file):
            file[split]["time"][-1:] = 0  # which gives all of it its room, as `finish` does
    with h5py.File(path, "r") as file:
        safety.check_hdf5(file, path, fixed=True)
    path.unlink()


def write(path: Path, image: tuple, **attributes: str) -> None:
    """A finished file of two packed images of zeros."""
    with writing.create(path, {"train": 2}, image, image, compression="bitshuffle-lz4") as file:
        for i in range(2):
            file["train/images"][i] = np.zeros(image, "f4")
        for name in ("mean", "std"):
            file["dark"][name][...] = 0
        some = dict.fromkeys(layout.ATTRIBUTES, "{}")
        writing.finish(file, {**some, "classes": json.dumps(["nolasing", "lasing"]), **attributes})


@pytest.mark.parametrize("shape", [(1, 1), (90, 91), (1024, 1024)])
def test_images_that_pack_well_are_read(tmp_path, shape):
    path = tmp_path / "data.h5"
    write(path, shape)
    with reading.open_data(path, ["train"]) as file:
        assert not file["train/images"][1].any()


def test_what_a_file_says_of_thousands_of_runs_is_read(tmp_path):
    path = tmp_path / "data.h5"
    files = [[f"e815-r0070-s{stream:02d}-c00.xtc", 10**11] for stream in range(12)]
    write(path, SHAPE, sources=json.dumps(dict.fromkeys(range(5000), files)))
    with reading.open_data(path) as file:
        assert len(json.loads(reading.attributes(file)["sources"])) == 5000


# Memory that is never clean by chance: what HDF5 did not set, and uses, shows.
DIRTY = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
FLIP = """
import sys
from pathlib import Path
from common.dataset import checksums, layout, reading, writing
from common.errors import UserError

path = Path(sys.argv[1])
raw = path.read_bytes()
for at in range(0, len(raw), 83):
    damaged = bytearray(raw)
    damaged[at] ^= 1 << at % 8
    path.write_bytes(damaged)
    try:
        with reading.open_data(path) as file, reading.damage_named(path):
            checksums.object_digests(file)
            checksums.attributes_digest(file)
            reading.image_offsets(file["train/images"])
        print("read")
    except UserError:
        print("refused")
"""


def test_a_flipped_bit_takes_no_process_down(good):
    """HDF5 1.14 frees, and follows, what it did not set."""
    done = subprocess.run(
        [sys.executable, "-c", FLIP, str(good)],
        env={**os.environ, **DIRTY},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"read", "refused"} == set(done.stdout.split())
    assert done.stdout.count("refused") > 100


def test_texts_without_a_checksum_are_refused(good):
    """HDF5 keeps those of variable length in a heap that has none; a damaged one can hang it."""
    with h5py.File(good, "r+") as file:
        file["train/ebeam/ebeamCharge"].attrs["units"] = "nC"
    with pytest.raises(DataError, match="data.h5: attribute units is of a type that no file"):
        reading.open_data(good)


def test_the_number_of_attributes_is_bounded(good, monkeypatch):
    monkeypatch.setattr(safety, "MAX_OBJECTS", 200)
    with h5py.File(good, "r+") as file:
        file["train"].attrs.update({f"a{n}": n for n in range(201)})
    with pytest.raises(DataError, match="over 200 attributes of one group"):
        reading.open_data(good)


def test_the_number_of_objects_is_bounded(good, monkeypatch):
    monkeypatch.setattr(safety, "MAX_OBJECTS", 20)
    with pytest.raises(DataError, match="over 20 groups and datasets"):
        reading.open_data(good)


@pytest.mark.parametrize(
    "value",
    [
        "[",
        "[" * 100_000,
        "{}",
        "[]",
        "[1, 2]",
        '["a", "a"]',
        '["\\u001b[31mred", "b"]',
        json.dumps(["x" * 101, "b"]),
        json.dumps([str(i) for i in range(128)]),
        np.zeros(3),
        h5py.Empty("f4"),
    ],
)
def test_classes_that_are_no_list_of_names(good, value):
    with h5py.File(good, "r+") as file:
        if isinstance(value, str):
            writing.set_text(file, classes=value)
        else:
            file.attrs["classes"] = value
    with pytest.raises(DataError, match="data.h5: attribute classes"):
        reading.open_data(good)


@pytest.mark.parametrize("name", ["format", "format_version", "complete"])
@pytest.mark.parametrize("value", [np.zeros((2, 2)), "rubbish", h5py.Empty("f4"), 1e300, -1])
def test_attributes_of_another_kind(good, name, value):
    with h5py.File(good, "r+") as file:
        file.attrs[name] = value
    try:
        reading.open_data(good).close()
    except DataError as error:
        assert str(error).startswith(str(good))


@pytest.mark.parametrize("text", ["", "{", "[" * 10**6, b"\xff", None, 3, "1" * 5000])
def test_json_is_read_or_refused(text):
    try:
        read_json(text, "file: attribute")
    except DataError as error:
        assert str(error).startswith("file: attribute: is not")


def test_what_could_steer_a_terminal_is_shown_as_an_escape():
    assert printable("a\x1b[31mb\r\x9bc\u202ed\ne") == "a\\x1b[31mb\\r\\x9bc\\u202ed\ne"
    assert printable("Grüße, 図") == "Grüße, 図"
