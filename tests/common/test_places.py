"""Relative paths in what was made earlier, wherever it has been moved since."""

from __future__ import annotations

import pytest

from common import places


@pytest.mark.parametrize(
    "path, name, start",
    [
        ("project/runs/demo", "runs/demo", "project"),
        ("project/deep/runs/demo", "deep/runs/demo", "project"),
        ("project/runs/other", "runs/demo", None),
        ("demo", "runs/demo", None),
        ("project/runs/demo", "../runs/demo", None),
        ("project/runs/demo", "/runs/demo", None),
        ("project/data", ".", "project/data"),
    ],
)
def test_where_a_relative_name_leads_to_a_path(tmp_path, path, name, start):
    assert places.start_of(tmp_path / path, name) == (tmp_path / start if start else None)


def test_the_first_place_that_has_it(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b" / "x.h5").touch()
    starts = [None, tmp_path / "a", tmp_path / "b"]
    assert places.found("x.h5", starts) == tmp_path / "b" / "x.h5"
    assert places.found("x", starts) == tmp_path / "b" / "x"  # a data set, file or folder
    assert places.found("y.h5", starts) == tmp_path / "b" / "y.h5"
    assert places.found("/x.h5", starts).is_absolute()
