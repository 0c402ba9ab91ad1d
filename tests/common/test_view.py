"""A stored image is shown as the camera saw it."""

from __future__ import annotations

import json

import numpy as np

from common.dataset.view import View
from prepare.config import ImageConfig


def view_of(**image: object) -> View:
    settings = {"transpose": True, "downsample": [2, 4], "log": True, **image}
    return View.of({"config": json.dumps({"image": settings})})


def test_stored_columns_become_time_and_rows_energy():
    frame = np.arange(6 * 10).reshape(6, 10)  # camera: 6 rows, 10 columns
    view = view_of()
    assert np.array_equal(view.picture(frame.T), frame)
    assert view.extent(frame.T) == (0, 40, 12, 0)  # 10 columns of 4, 6 rows of 2, row 0 on top
    assert view.x_label.startswith("time") and view.y_label.startswith("energy")


def test_images_that_were_not_transposed():
    frame = np.zeros((6, 10))
    assert view_of(transpose=False).picture(frame).shape == (6, 10)
    assert view_of(log=False).unit == "counts"


def test_images_that_no_camera_took():
    view = View.of({"config": "{}"})
    assert (view.x_label, view.y_label, view.unit) == ("column", "row", "pixel value")


def test_what_a_config_leaves_out_is_what_a_build_does():
    assert View.of({"config": json.dumps({"image": {}})}) == View.of(
        {"config": json.dumps({"image": ImageConfig().model_dump()})}
    )
