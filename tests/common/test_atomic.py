"""Files appear under their final name only when complete."""

from __future__ import annotations

import pytest

from common.errors import OutputExists
from common.files import atomic


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic.replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic.replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuse_existing(tmp_path):
    path = tmp_path / "a.txt"
    atomic.refuse_existing(path, force=False)
    path.write_text("x")
    atomic.refuse_existing(path, force=True)
    with pytest.raises(OutputExists, match="--force"):
        atomic.refuse_existing(path, force=False)
