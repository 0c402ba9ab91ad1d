"""The scales of a split's dimensions, by which xarray and netCDF have names and times: made, and looked at.

HDF5 keeps what a scale is of as references in a heap of variable length, the one structure without a
checksum: where a bit of it flipped, HDF5 ends the process or never returns. So nothing of this software
reads them (`safety.LINKS`), and `problem` looks at them in a process of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Iterable, Optional, Sequence

import h5py

from common.dataset.layout import AXES, TIME, present

SECONDS = 60  # after which the look at some 40 references is taken for one that never ends


def attach(columns: Iterable[h5py.Dataset], images: h5py.Dataset, scales: Sequence[h5py.Dataset]) -> None:
    """Make `scales` those of `images`, dimension by dimension, and the first one that of the `columns`."""
    for scale in scales:
        scale.make_scale(scale.name.rpartition("/")[2])
    for column in columns:
        column.dims[0].attach_scale(scales[0])
    for dimension, scale in enumerate(scales):
        images.dims[dimension].attach_scale(scale)


def problem(path: Path) -> Optional[str]:
    """What is wrong with the scales of the data file at `path`, whose structure is sound; None if nothing."""
    child = multiprocessing.get_context("fork").Process(target=_look, args=(path,), daemon=True)
    child.start()
    child.join(SECONDS)
    child.kill()  # does nothing to one that has ended
    child.join()
    if child.exitcode == 0:
        return None
    return "the scales of its dimensions are not those that were written; other software may crash on them"


def _look(path: Path) -> None:
    """End this process, with 0 if all datasets of the splits have their scales."""
    good = False
    faulthandler.disable()  # a crash is an answer here
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(BaseException), h5py.File(path, "r") as file:
        good = all(_sound(file[split]) for split in present(file))
    os._exit(0 if good else 1)


def _sound(split: h5py.Group) -> bool:
    """Whether the images have a scale for every axis, and all that has a value a shot its time."""
    time, *of_images = _scales(split["images"])
    found: list[list[str]] = [[time]]

    def note(name: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset) and name not in ("images", TIME, *AXES):
            found.append(_scales(node))

    split.visititems(note)
    prefix = f"{split.name}/"
    return sorted(of_images) == sorted(prefix + name for name in AXES) and all(
        scales == [prefix + TIME] for scales in found
    )


def _scales(dataset: h5py.Dataset) -> list[str]:
    return [scale.name for dimension in dataset.dims for scale in dimension.values()]
