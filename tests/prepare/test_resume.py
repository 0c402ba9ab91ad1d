"""An interrupted build goes on, ends in the same content, and mixes nothing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from common import manifest
from common.dataset import schema
from common.files import atomic
from common.files.lock import only_one
from common.shots import ShotId
from prepare.build import parts, ranks
from prepare.build import run as build_module
from prepare.build.extract import Task, extract
from prepare.build.unfinished import Unfinished
from prepare.config import load_config
from prepare.sources.native import XtcSource
from tests.prepare.conftest import XTC1, Stop, digest, whole
from tests.prepare.test_commands import refused


@pytest.mark.parametrize("at", [[1], [13], [29], [5, 5, 5]])
def test_an_interrupted_build_goes_on_and_ends_the_same(
    ready, prepare, tmp_path, folder, stop_after, in_place, at
):
    expected = whole(ready, prepare, tmp_path)
    for n in at:
        stop_after(n)
        with pytest.raises(Stop):
            prepare("build", ready)
        assert not (tmp_path / "data" / "small.h5").exists()
    stop_after(0)
    result = prepare("build", ready)
    assert f"{sum(at)} of 30 images are there already, going on" in result.output
    assert digest(tmp_path) == expected
    assert not folder.exists()
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


def test_the_dark_is_not_averaged_again(ready, prepare, stop_after, monkeypatch):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    stop_after(0)
    monkeypatch.setattr(build_module, "average_dark", lambda *_: pytest.fail("the dark was averaged again"))
    assert prepare("build", ready).exit_code == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "header", "dark", "stray"])
def test_what_is_damaged_is_made_again(ready, prepare, tmp_path, folder, stop_after, in_place, damage):
    expected = whole(ready, prepare, tmp_path)
    stop_after(20)
    with pytest.raises(Stop):
        prepare("build", ready)
    (path,) = folder.glob("*.part")
    image = 40 * 48 * 4
    record = parts.HEADER_SIZE + (12 if in_place else image)
    if damage == "flip" and in_place:
        start = 48 + 5 * record + parts.HEADER_SIZE  # of the sixth record's payload: where its image is
        flip(folder / "images.h5", int.from_bytes(path.read_bytes()[start : start + 8], "little") + image - 1)
    elif damage == "flip":
        flip(path, 48 + 5 * record + 100)
    elif damage == "header":
        flip(path, 48 + 5 * record + 3)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size - record - 7)
    elif damage == "dark":
        dark = folder / "dark.npz"
        dark.write_bytes(dark.read_bytes()[:-100])
    else:
        (folder / "00007.part").write_bytes(b"something else")
    stop_after(0)
    left = {"flip": 19, "cut": 18, "header": 5}.get(damage, 20)
    result = prepare("build", ready)
    assert f"{left} of 30 images are there already" in result.output
    assert ("damaged or cut-off records" in result.output) == (damage != "dark")
    assert digest(tmp_path) == expected
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_images_are_written_once(ready, prepare, tmp_path, monkeypatch):
    """By one process without compression: the file that they are written into becomes the finished one."""
    put, before = atomic.put, []
    monkeypatch.setattr(
        atomic, "put", lambda partial, path: before.append(partial.stat().st_ino) or put(partial, path)
    )
    assert prepare("build", ready).exit_code == 0
    made = tmp_path / "data" / "small.h5"
    assert made.stat().st_ino in before
    with schema.open_data(made) as file:
        assert all(schema.image_offsets(file[split]["images"]) is not None for split in schema.present(file))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_images_of_full_size_have_places(write_config, dtype):
    config = load_config(write_config(camera__shape=[726, 568], image__dtype=dtype))
    sizes = {"train": 3, "test": 2}
    unfinished = Unfinished(config.output_path)
    unfinished.folder.mkdir(parents=True)
    keys = {split: [ShotId(69, i, 0, 0) for i in range(n)] for split, n in sizes.items()}
    for _ in range(2):  # made, found again
        slots = unfinished.slots(config, sizes, parts.scan(unfinished.folder, b"", keys))
        assert {split: len(offsets) for split, offsets in slots.offsets.items()} == sizes
    image = 284 * 363 * np.dtype(dtype).itemsize
    assert (np.diff(slots.offsets["train"]) == image).all()
    assert slots.path.stat().st_size > 5 * image


@pytest.mark.parametrize("damage", ["cut", "flag", "header", "other"])
def test_a_file_to_be_that_is_damaged_still_has_its_images(
    ready, prepare, tmp_path, folder, stop_after, damage
):
    """As when a process is killed while HDF5 writes the last tables into it; it is finished all the same."""
    expected = whole(ready, prepare, tmp_path)
    stop_after(20)
    with pytest.raises(Stop):
        prepare("build", ready)
    images = folder / "images.h5"
    if damage == "flag":
        code = "import os, sys; from common.dataset import schema; schema.reopen(sys.argv[1]); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, str(images)], check=True)
    elif damage == "cut":
        os.truncate(images, images.stat().st_size - 100)
    elif damage == "header":
        flip(images, images.read_bytes().index(b"ebeamCharge"))
    else:
        with h5py.File(images, "w") as file:
            file["train/images"] = file["test/images"] = np.zeros((3, 40, 48), "f4")
    left = images.stat().st_ino
    stop_after(0)
    result = prepare("build", ready)
    assert ("20 of 30 images are there already" in result.output) == (damage != "other")
    assert digest(tmp_path) == expected and not folder.exists()
    assert (tmp_path / "data" / "small.h5").stat().st_ino == left
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


def test_images_whose_places_are_others_now_are_copied(
    ready, prepare, tmp_path, folder, stop_after, monkeypatch
):
    """As when a build goes on with another version of HDF5."""
    expected = whole(ready, prepare, tmp_path)
    stop_after(20)
    with pytest.raises(Stop):
        prepare("build", ready)
    left = (folder / "images.h5").stat().st_ino
    create = schema.create
    monkeypatch.setattr(
        schema, "create", lambda path, sizes, *rest: create(path, dict(reversed([*sizes.items()])), *rest)
    )
    stop_after(0)
    assert "20 of 30 images are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected and not folder.exists()
    assert (tmp_path / "data" / "small.h5").stat().st_ino != left
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image__transpose": False}, "image.transpose was true, is false"),
        ({"dark__max_frames": 3}, "dark.max_frames was 400, is 3"),
        ({"runs__unlabeled": [71], "runs__classes": {"nolasing": [69], "lasing": [70]}}, "runs.classes"),
    ],
)
def test_a_config_that_changed_is_not_mixed_in(
    write_config, ready, prepare, folder, stop_after, changes, words
):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    stop_after(0)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = write_config(**changes)
    if "runs__classes" in changes:
        prepare("select", changed, "--force")
    refused(prepare("build", changed), "small.h5.parts", words, "--force")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert prepare("build", changed, "--force").exit_code == 0
    assert not folder.exists()


def test_a_manifest_that_changed_is_not_mixed_in(write_config, ready, prepare, tmp_path, stop_after):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    stop_after(0)
    more = write_config(select__train=24)
    prepare("select", more)
    refused(prepare("build", more), "the manifest changed")


def test_source_files_that_changed(write_config, prepare, tmp_path, stop_after):
    """A file that is new changes no image; one that is gone or of another size, or of the dark, may."""
    source = tmp_path / "xtc"
    shutil.copytree(XTC1 / "experiment", source)
    config = write_config(source)
    prepare("select", config)
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", config)
    stop_after(0)
    dark, measured = source / "e815-r0068-s00-c00.xtc", source / "e815-r0069-s00-c00.xtc"
    for path in (dark, measured):
        whole_file = path.read_bytes()
        path.write_bytes(whole_file + bytes(4))
        refused(prepare("build", config), path.name, f"was {len(whole_file)} bytes")
        path.write_bytes(whole_file)
    new = source / "e815-r0068-s02-c00.xtc"
    shutil.copy(dark, new)
    refused(prepare("build", config), new.name, "was not there")
    new.unlink()
    shutil.copy(measured, source / "e815-r0069-s02-c00.xtc")
    assert "9 of 30 images are there already" in prepare("build", config).output


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_read_that_fails_names_the_source_file(ready, prepare, monkeypatch, folder, number):
    pread, reads = os.pread, [0]

    def failing(descriptor, size, offset):
        reads[0] += size > 10_000 and size < 16_384  # frames, not headers
        if reads[0] > 45:
            raise OSError(number, os.strerror(number))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    refused(prepare("build", ready), "s80-c00.xtc: " + os.strerror(number), "is kept in")


def test_settings_that_change_no_image_may_change(write_config, ready, prepare, stop_after):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    stop_after(0)
    result = prepare("build", write_config(max_missing=0.5))
    assert "9 of 30 images are there already" in result.output


def test_a_replacement_that_was_interrupted_goes_on_without_force(
    ready, prepare, tmp_path, folder, stop_after
):
    assert prepare("build", ready).exit_code == 0
    before = (tmp_path / "data" / "small.h5").read_bytes()
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready, "--force")
    assert (tmp_path / "data" / "small.h5").read_bytes() == before
    stop_after(0)
    assert "9 of 30 images" in prepare("build", ready).output
    refused(prepare("build", ready), "exists already")


def test_force_starts_anew(ready, prepare, stop_after):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    stop_after(0)
    assert "already" not in prepare("build", ready, "--force").output


def test_a_build_that_was_killed_with_its_file_in_place_tidies_up(
    ready, prepare, tmp_path, folder, monkeypatch
):
    remove = Unfinished.remove
    monkeypatch.setattr(Unfinished, "remove", lambda self: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        prepare("build", ready)
    made = digest(tmp_path)
    monkeypatch.setattr(Unfinished, "remove", remove)
    assert prepare("build", ready).exit_code == 0
    assert digest(tmp_path) == made and not folder.exists()
    refused(prepare("build", ready), "exists already")


@pytest.mark.parametrize("left", [[], ["lock"], ["plan.json", "lock"]])
def test_a_build_that_was_killed_while_it_tidied_up_leaves_no_folder(ready, prepare, folder, left):
    assert prepare("build", ready).exit_code == 0
    folder.mkdir()
    for name in left:
        (folder / name).write_text("{}")
    refused(prepare("build", ready), "small.h5: exists already; give --force to replace it")
    assert not folder.exists()


def test_what_an_interrupted_build_left_replaces_no_other_file(
    write_config, ready, prepare, tmp_path, folder, stop_after
):
    stop_after(9)
    with pytest.raises(Stop):
        prepare("build", ready)
    left = folder.rename(tmp_path / "left")
    stop_after(0)
    assert prepare("build", write_config(image__log=False)).exit_code == 0
    left.rename(folder)
    other = digest(tmp_path)
    refused(prepare("build", write_config()), "exists already")
    assert digest(tmp_path) == other


@pytest.mark.parametrize("module, step", [(schema, "finish"), (schema, "content_digest"), (atomic, "put")])
def test_an_assembly_that_was_interrupted_goes_on(
    ready, prepare, tmp_path, folder, monkeypatch, in_place, module, step
):
    expected = whole(ready, prepare, tmp_path)
    change = getattr(module, step)

    def stop_at_the_file(*args):
        if step != "put" or "small.h5" in args[1].name:
            raise Stop
        change(*args)

    monkeypatch.setattr(module, step, stop_at_the_file)
    with pytest.raises(Stop):
        prepare("build", ready)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small.h5.parts"]
    monkeypatch.setattr(module, step, change)
    assert "30 of 30 images are there already" in prepare("build", ready).output
    assert digest(tmp_path) == expected


def test_a_second_build_is_refused_by_name(ready, prepare, folder):
    with only_one(folder / "lock", "small.h5"):
        refused(prepare("build", ready), "small.h5", f"process {os.getpid()}")
    assert prepare("build", ready).exit_code == 0


@pytest.mark.parametrize("compression", ["none", "bitshuffle-lz4"])
@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_any_number_of_processes_and_then_another(write_config, prepare, tmp_path, folder, compression, size):
    """Shares of the work, each into a part file of its own, as ranks do; the last one is lost."""
    path = write_config(image__compression=compression)
    prepare("select", path)
    expected = whole(path, prepare, tmp_path)
    config = load_config(path)
    rows = manifest.read(config.manifest_path)
    source = XtcSource(config.source.dir, config.camera.address)
    unfinished = build_module.Unfinished(config.output_path)
    identity = unfinished.begin(build_module.plan_of(source, config, rows), True)
    dark = build_module.average_dark(source, config)
    places = sorted(build_module.locate(source, config, rows))
    shares = ranks.split(places, size)
    assert [place for share in shares for place in share] == places
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share, name in list(zip(shares, unfinished.new_parts(size)))[:-1]:
        extract(source, config, Task(share, dark.mean, name, identity, 0), lambda n: None)
    source.close()
    done = len(places) - len(shares[-1])
    result = prepare("build", path)
    assert not done or f"{done} of 30 images are there already" in result.output
    assert digest(tmp_path) == expected
    assert not folder.exists()
