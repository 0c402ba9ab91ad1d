"""The reports in a real browser: nothing missing, nothing fetched, nothing wider than the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from prepare.commands import main as prepare
from tests.browser import WIDTHS, chromium, look_at
from tests.page import Page
from tests.prepare.conftest import settings
from tests.train.conftest import SHAPE, write_data
from train.commands import main as train


def run(command, *args: object) -> None:
    result = CliRunner().invoke(command, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A training run's report, a comparison with long names, and the report of a data file from XTC files."""
    chromium()  # before the work
    folder = tmp_path_factory.mktemp("reports")
    write_data(folder / "data.h5", {"train": 40, "test": 30}, classes=("no lasing " * 4, "<b>lasing</b>"))
    config = {
        "name": "small", "data": str(folder / "data.h5"), "runs_dir": str(folder / "runs"),
        "threads": {"intra": 1, "inter": 1}, "input": list(SHAPE), "minibatch": 16, "steps": 11,
        "network": [
            {"convolution": {"kernel_size": [4, 4], "filters": 3, "strides": [2, 2], "stddev": 0.1}}, "relu",
            {"output": {"stddev": 1e-4}},
        ],
    }  # fmt: skip
    names = ["small", "a_run_with_a_name_as_long_as_those_of_sweeps.momentum-0.9.rate-0.01"]
    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**config, "name": name, "report": name == "small"}))
        run(train, "fit", path)
    run(train, "report", *(folder / "runs" / name for name in names), "--out", folder / "two.html")
    path = folder / "prepare.yaml"
    path.write_text(yaml.safe_dump(settings(folder)))
    run(prepare, "select", path)
    run(prepare, "build", path)
    run(prepare, "report", folder / "data" / "small.h5")
    return {
        "training": folder / "runs" / "small" / "report.html",
        "comparison": folder / "two.html",
        "data": folder / "data" / "small.report.html",
    }


@pytest.mark.parametrize("name", ["training", "comparison", "data"])
def test_a_report_in_the_browser(pages, name, tmp_path):
    opened = look_at(pages[name], tmp_path)
    assert opened.console == []
    page = Page(pages[name])
    assert [seen.width for seen in opened.at] == list(WIDTHS)
    for seen in opened.at:
        assert seen.requests == []
        assert seen.scroll <= seen.width
        assert seen.wide == []
        assert set(seen.sections) == set(page.sections)
        assert min(seen.sections.values()) > 30
        assert len(seen.images) == len(page.images)
        for loaded, pixels, shown in seen.images:
            assert loaded and pixels > 100 and shown > 90


def test_what_is_wrong_with_a_page_is_seen(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><body><section id='a'><p style='width:900px'>wide</p></section>"
        "<img src='http://example.invalid/nothing.png'><script>undefined.x</script></body>"
    )
    desk, phone = (opened := look_at(path, tmp_path)).at
    assert any("TypeError" in message for message in opened.console)
    assert desk.scroll <= desk.width and phone.scroll > phone.width
    assert phone.wide and desk.sections.keys() == {"a"}
    assert any("example.invalid" in request for request in desk.requests)
    assert not desk.images[0][1]
