"""A first look into a folder of runs, and a config to start from, with what is there filled in."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import yaml

from common.errors import DataError, UserError
from common.files import atomic
from common.progress import say, warn
from prepare.config import NAME
from prepare.formats.cameras import Beginning, Camera, beginning
from prepare.formats.files import XTC, XTC2, Files, files_by_run
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.sources.psana2_files import RunFiles

_EXPERIMENT = re.compile(r"^[a-z]{3}[a-z]{0,3}\d{3,6}$")  # amo86815, tmoc00118, amox27716


class Look(NamedTuple):
    """What is in a folder: format, experiment (as its files and folders tell), runs and their beginnings."""

    directory: Path
    form: str
    experiment: str
    files: dict[int, Files]
    runs: dict[int, Beginning]

    @property
    def camera(self) -> Optional[Camera]:
        """XTCAV's, or the only camera, or the one that most runs have."""
        cameras = [camera for run in self.runs.values() for camera in run.cameras]
        named = [c for c in cameras if c.address == XTCAV_ADDRESS or "xtcav" in (c.alias, c.address)]
        return max(named or cameras, key=cameras.count, default=None)


def look(directory: Path) -> Look:
    """Look into `directory`; raises DataError if it has no run that can be read."""
    by_form = {form: files_by_run(directory, form) for form in (XTC, XTC2)}
    form = max(by_form, key=lambda of: len(by_form[of]))
    runs: dict[int, Beginning] = {}
    for run in sorted(by_form[form]) if form == XTC else RunFiles(directory).runs():
        try:
            runs[run] = beginning(by_form[form][run])
        except (DataError, OSError) as error:
            warn(f"run {run} is left out: {error}")
    if not runs:
        raise DataError(
            f"{directory}: no run of .xtc or .xtc2 files that can be read; name the folder that holds them, "
            "at the facility .../INSTRUMENT/EXPERIMENT/xtc"
        )
    return Look(directory, form, _experiment(directory, by_form[form]), by_form[form], runs)


def write_config(directory: Path, name: Optional[str], out: Optional[str], force: bool) -> None:
    """Print what is in `directory`; write a config for it, by default configs/prepare/NAME.yaml."""
    if name is not None and not re.fullmatch(NAME, name):
        raise UserError(f"--name {name!r}: is to be made of letters, digits, _ . -")
    found = look(directory)
    for line in table(found):
        say(line)
    name = name or found.experiment
    path = Path(out if out is not None else f"configs/prepare/{name}.yaml")
    atomic.refuse_existing(path, force)
    atomic.write_text(path, config(found, name))
    say(f"{path}: written; say in it which run is what, then: python -m prepare list {path}")


def table(found: Look) -> list[str]:
    """What was found, as lines of text."""
    lines = [f"{'run':>5} {'began (UTC)':<19} {'streams':<12} {'chunks':>6} {'size':>12}  cameras"]
    for run, began in found.runs.items():
        files = found.files[run]
        streams = _ranges(sorted({name.stream for name in files}))
        size = sum(path.stat().st_size for path in files.values() if path.is_file())
        cameras = "; ".join(map(_in_words, began.cameras)) or "none in its first shots"
        lines.append(
            f"{run:>5} {_time(began):<19} {streams:<12} {len(files):>6} {size / 1e6:>9,.0f} MB  {cameras}"
        )
    return lines


def config(found: Look, name: str) -> str:
    """The text of a config for what was found; raises DataError if no run has a camera."""
    camera = found.camera
    if camera is None:
        raise DataError(f"{found.directory}: no camera in the first shots of any run")
    with_it = [
        run for run, began in found.runs.items() if camera.address in [c.address for c in began.cameras]
    ]
    dark, others = with_it[0], with_it[1:]
    begun = "\n".join(f"#   {run:>5}  {_time(found.runs[run])} UTC" for run in with_it)
    divides = [2 if n % 2 == 0 else 1 for n in camera.shape]
    alias = f"  # its alias is {camera.alias}" if camera.alias else ""
    also = {c for began in found.runs.values() for c in began.cameras if c.address != camera.address}
    rest = "".join(f"\n  # also there: {_in_words(c)}" for c in sorted(also))
    number = "" if _EXPERIMENT.match(found.experiment) else "  # of the files; psana needs its name, amo86815"
    kind = "xtc  # reads the files by itself; psana: through the psana that is installed"
    return f"""\
# Made by `prepare init` from what is in the folder; say which run is what, then
#
#   python -m prepare list   THIS_FILE   # shots, frames, mean intensity of each run: a dark one is low
#   python -m prepare select THIS_FILE   # draws the shots
#   python -m prepare build  THIS_FILE   # makes their images
#
# Runs with this camera:
{begun}
name: {_yaml(name)}
experiment: {_yaml(found.experiment)}{number}
source:
  kind: {kind if found.form == XTC else "psana2"}
  dir: {_yaml(str(found.directory.resolve()))}
camera:
  address: {_yaml(camera.address)}{alias}
  shape: {list(camera.shape)}  # rows, columns{rest}
runs:
  dark: [{dark}]  # a guess, the first one: a run without beam, to be subtracted
  unlabeled: {others}  # for a trained model to be applied to
  # For training, move runs into classes of your own names; their order gives the labels 0, 1:
  # classes:
  #   nolasing: []
  #   lasing: []
select:
  # How many shots over all classes, for training and for the test of what was learned:
  # train: 1000
  # test: 500
  by: block  # splits by blocks of time: shots a second apart are near-copies
  beam:
    min_charge: 0.2  # nC, of the EBeam record; null where the runs have none
image:
  downsample: {divides}  # block mean over rows, columns
"""


def _experiment(directory: Path, by_run: dict[int, Files]) -> str:
    """The experiment in the files' or the folder's names; else what the files' names begin with (e815)."""
    prefixes = sorted({name.prefix for files in by_run.values() for name in files if not name.chunk})
    words = [*prefixes, *reversed(directory.resolve().parts)]
    return next((word for word in words if _EXPERIMENT.match(word)), re.sub(r"\W", "", "".join(prefixes[:1])))


def _in_words(camera: Camera) -> str:
    rows, columns = camera.shape
    alias = f" ({camera.alias})" if camera.alias else ""
    return f"{camera.address}{alias} {rows} x {columns}, stream {_ranges(camera.streams)}"


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 80] as 0-2,80."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _time(began: Beginning) -> str:
    return f"{datetime.datetime.fromtimestamp(began.seconds, datetime.timezone.utc):%Y-%m-%d %H:%M:%S}"


def _yaml(text: str) -> str:
    """`text` as YAML writes it in one line."""
    return yaml.safe_dump(text, default_flow_style=True, width=1 << 20, allow_unicode=True).splitlines()[0]
