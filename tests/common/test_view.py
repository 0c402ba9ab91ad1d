"""A stored image is shown as the camera saw it."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from common.dataset import screen, writing
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


def test_axes_are_in_fs_and_mev_where_the_scale_is_known_energy_upwards():
    frame = np.arange(6 * 10).reshape(6, 10)
    view = view_of()._replace(scale=(0.5, 2.0))
    assert view.extent(frame.T) == (0, 80.0, 0, 6.0)  # 10 columns of 4 of 2 fs, 6 rows of 2 of 0.5 MeV
    assert (view.x_label, view.y_label) == ("time (fs)", "energy (MeV)")
    x, y = view.centers(frame.T)
    assert x[:2].tolist() == [4.0, 12.0] and y[[0, -1]].tolist() == [5.5, 0.5]  # the first row is on top


VALUES = {
    "um_per_pixel": 40.0, "streak_strength": 100.0, "rf_amplitude": 20.0, "rf_phase": 90.0,
    "dump_energy": 4.0, "dump_dispersion": 0.5, "roi_start_x": 0.0, "roi_start_y": 0.0,
}  # fmt: skip


def write(path, of_runs: dict, amplitude: float = 40.0) -> View:
    """A file of two runs with these calibrations; its view as it is opened."""
    with writing.create(path, {"test": 8}, (20, 16), (40, 32)) as file:
        file["test/run"][...] = [69] * 4 + [70] * 4
        file["test/ebeam/ebeamXTCAVAmpl"][...] = amplitude
        writing.add_calibration(file, of_runs)
    with h5py.File(path) as file:
        return screen.view_of({"config": json.dumps({"image": {}})}, [file])


def test_the_scale_of_real_runs_is_the_calibration_of_the_screen(tmp_path):
    mev, fs = write(tmp_path / "a.h5", {69: VALUES, 70: VALUES}).scale
    assert mev == pytest.approx(40e-6 / 0.5 * 4e3)  # a row's share of the dispersion, of 4 GeV in MeV
    assert fs == pytest.approx(40 * 20 / (0.3 * 100 * 40))


@pytest.mark.parametrize(
    "second", [{}, {"dump_dispersion": 0.0}, {"um_per_pixel": float("nan")}, {"um_per_pixel": 60.0}, None]
)
def test_without_one_scale_for_all_runs_axes_are_in_pixels(tmp_path, second):
    """A run without values, a value of 0 or none, another screen."""
    other = None if second is None else {**VALUES, **second} if second else {}
    runs = {69: VALUES} if other is None else {69: VALUES, 70: other}
    assert write(tmp_path / "a.h5", runs).scale is None
