"""Reports of training runs: self-contained HTML pages of one run, or comparing several."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

from common.errors import DataError, OutputExists
from common.files import atomic
from common.progress import say
from common.report.drawing import drawing
from common.report.page import render
from train.data.dataset import Data, open_data
from train.data.validation import with_validation
from train.fit import runtime
from train.report import card, compare, page
from train.report.evidence import Evidence, Run, look, read_run
from train.run import folder


def write_page(run_dirs: Sequence[Path], out: Optional[Path], force: bool) -> None:
    """Write the report of a run and its card, or the comparison of several runs, and print its path."""
    if out is not None:
        atomic.refuse_existing(out, force)
    if len(run_dirs) > 1:
        path = write_comparison(run_dirs, out or run_dirs[0].parent / "comparison.html")
        say(f"{path}: {len(run_dirs)} runs; open it in a browser")
        return
    config = folder.config_of(run_dirs[0])
    runtime.start(config.threads, config.seed)
    say(f"{write(run_dirs[0], out, force)}: open it in a browser")
    card.write(run_dirs[0])


def write(run_dir: Path, out: Optional[Path] = None, force: bool = False) -> Path:
    """Write the report of the finished run in `run_dir` and return its path. Start TensorFlow before.

    If the data file of the run is missing, the sections that need its images say so. Raises OutputExists
    if such a page would replace another one, unless with `force`, and DataError for a damaged run.
    """
    run, shots, missing = read_run(run_dir), None, ""
    try:
        with open_data(run.config.data, run.config.input, ["train", "test"], "stream") as data:
            shots, run = _look(run, data), run.of(with_validation(data, run.config.validation_share))
    except DataError as error:
        missing = str(error)
    path = out or run_dir / folder.REPORT
    if missing and path.exists() and not force:
        raise OutputExists(
            f"{path}: stays as it is, because the new page would lack the images ({missing}); "
            "--out writes it elsewhere, --force replaces the page"
        )
    return _write(run, shots, missing, path)


def write_with(run_dir: Path, model: Any, data: Data) -> Path:
    """Write the report of a run whose model and data are already loaded; returns its path."""
    run = read_run(run_dir)
    with drawing():  # before the work: it says if a package is missing
        return _write(run, look(model, data), "", run_dir / folder.REPORT)


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the page that compares finished runs; needs neither TensorFlow nor the data files."""
    runs: list[Run] = [read_run(run_dir) for run_dir in run_dirs]
    with drawing():
        sections = compare.sections(runs)
    text = render(f"{len(runs)} training runs", compare.subtitle(runs), sections, compare.banner(runs))
    atomic.write_text(out, text)
    return out


def _look(run: Run, data: Data) -> Evidence:
    from train.model.saved import load_model

    if data.digest != run.summary["data_digest"]:
        raise DataError(f"{data.path}: is not the file that this run was trained on (digests differ)")
    return look(load_model(run.run_dir), data)


def _write(run: Run, shots: Optional[Evidence], missing: str, out: Path) -> Path:
    run = run.judged(shots) if shots else run
    with drawing():
        sections = page.sections(run, shots, missing)
    text = render(f"Training run {run.config.name}", page.subtitle(run), sections, run.banner)
    atomic.write_text(out, text)
    return out
