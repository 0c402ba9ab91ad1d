"""Shots of a data file before and after each step of the processing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pydantic

from common.dataset import reading
from common.dataset.view import View
from common.errors import DataError, UserError
from common.manifest import Row, Rows
from common.shots import ID_FIELDS, ShotId, shot_id
from prepare.build.inputs import locate
from prepare.config import PrepareConfig, config_in
from prepare.image import transform
from prepare.sources import open_source


class Step(NamedTuple):
    """An image on its way from the camera to the file: what was done last, the image, how to show it."""

    done: str
    image: np.ndarray
    view: View


class Sample(NamedTuple):
    """A shot with its steps; with the stored image alone where the camera's frame is not there."""

    label: int
    shot: ShotId
    steps: list[Step]


def samples(
    file: h5py.File, where: list[tuple[h5py.Group, int]], ids: np.ndarray, label: np.ndarray, view: View
) -> tuple[list[Sample], str]:
    """A shot of each class: the one in the middle of the file's."""
    rows = [int(np.flatnonzero(label == one)[(label == one).sum() // 2]) for one in np.unique(label)]
    stored = [where[row][0]["images"][where[row][1]] for row in rows]
    keys = [shot_id(ids[row]) for row in rows]
    try:
        steps = _steps(file, [_row(*where[row]) for row in rows], stored, view)
        missing = ""
    except UserError as error:
        steps = [[Step("as stored", pixels, view)] for pixels in stored]
        missing = str(error)
    return [Sample(int(label[row]), key, of_shot) for row, key, of_shot in zip(rows, keys, steps)], missing


def _row(group: h5py.Group, i: int) -> Row:
    """The manifest's row of image `i` of a split."""
    label = reading.classes(group.file)[int(group["labels"][i])] if "labels" in group else ""
    return Row(group.name.strip("/"), label, ShotId(*(int(group[name][i]) for name in ID_FIELDS)))


def _steps(file: h5py.File, rows: list[Row], stored: list[np.ndarray], view: View) -> list[list[Step]]:
    """The frames of `rows` and what becomes of them; raises UserError if the camera's files are not there."""
    if not view.camera:
        raise DataError("these images are simulated, no camera took them")
    config = _config(file)
    with open_source(config) as source:
        dark = file["dark/mean"][...]
        found = []
        for row, pixels in zip(rows, stored):
            places = locate(source, config, Rows.of([row]))
            (frame,) = source.good_frames(row.shot.run, places.tolist())
            found.append(_one_by_one(frame, dark, config, pixels, view))
        return found


def _one_by_one(
    frame: np.ndarray, dark: np.ndarray, config: PrepareConfig, stored: np.ndarray, view: View
) -> list[Step]:
    settings = config.image
    full = View(transposed=False, blocks=(1, 1), log=False, scale=view.scale)
    steps = [Step("raw frame", frame, full)]
    pixels: np.ndarray = frame
    if settings.subtract_dark:
        pixels = transform.subtract_dark(pixels, dark)
        steps.append(Step("minus dark", pixels, full))
    if settings.downsample != (1, 1):
        rows, columns = settings.downsample
        pixels = transform.block_mean(pixels, settings.downsample)
        steps.append(Step(f"{rows}×{columns} block mean", pixels, full._replace(blocks=settings.downsample)))
    steps.append(Step(f"{'log(1 + I), ' if settings.log else ''}as stored", stored, view))
    return steps


def _config(file: h5py.File) -> PrepareConfig:
    try:
        return config_in(reading.attributes(file)["config"], Path(file.filename))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{file.filename}: attribute config: {json.dumps(first['loc'])}: {first['msg']}"
        ) from None
