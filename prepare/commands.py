"""The commands of `python -m prepare`: from the camera's files to HDF5."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

import click

from common import __version__, cli
from common.cli import CommandGroup, config_argument, force_option
from common.files import atomic
from common.progress import say
from prepare.children import early

# The config of a command that reads runs: if by psana, that is loaded while the command loads the rest.
read_argument = click.argument(
    "config_path", metavar="CONFIG", type=cli.FILE, callback=lambda _context, _param, path: early.begin(path)
)
data_argument = click.argument("path", metavar="DATA", type=cli.PATH)
jobs_option = cli.count_option("--jobs", 1, "Processes that share the work.", most=256)


@click.group(cls=CommandGroup)
@click.version_option(__version__, prog_name="prepare")
def main() -> None:
    """Prepare an HDF5 data set for `python -m train` from the XTCAV camera's files.

    \b
    python -m prepare simulate configs/prepare/demo.yaml   # simulate runs if you have no data
    python -m prepare init     /path/to/xtc                # look into a folder, write a config to start from
    python -m prepare list     configs/prepare/demo.yaml   # what is in the runs
    python -m prepare select   configs/prepare/demo.yaml   # draw shots -> data_manifest/demo.csv
    python -m prepare build    configs/prepare/demo.yaml   # make their images -> data/demo.h5
    python -m prepare verify   data/demo.h5                # check it
    python -m prepare report   data/demo.h5                # a page of pictures of it
    """


@main.command()
@config_argument
@force_option
@click.option("--if-missing", is_flag=True, help="Keep existing runs and write only missing ones.")
@click.option(
    "--format",
    "form",
    default="xtc",
    show_default=True,
    type=click.Choice(["xtc", "xtc2"]),
    help="LCLS-I's files, or LCLS-II's with small-data files (needs psana 2).",
)
def simulate(config_path: str, force: bool, if_missing: bool, form: str) -> None:
    """Write simulated runs in the camera's file format.

    They go to the config's source.dir. A run that is there is an error without --force or --if-missing.

    \b
    python -m prepare simulate configs/prepare/demo.yaml
    python -m prepare simulate configs/prepare/demo.yaml --format xtc2   # the same shots as xtc2
    python -m prepare simulate configs/prepare/demo.yaml --force   # replace runs that are there
    """
    import prepare.simulate.run

    prepare.simulate.run.simulate(prepare.simulate.run.load(config_path), force, if_missing, form)


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="Name of the data set; without one, the experiment's.")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="The config; without one, configs/prepare/NAME.yaml."
)
@force_option
def init(directory: Path, name: Optional[str], out: Optional[str], force: bool) -> None:
    """Write a config to start from, for a folder of runs.

    The cameras and runs in DIR are listed and filled in; say in the config which run is what.

    \b
    python -m prepare init /sdf/data/lcls/ds/amo/amo86815/xtc
    python -m prepare init data/xtc/demo --name mine --out mine.yaml
    """
    from prepare.init import write_config

    write_config(directory, name, out, force)


@main.command()
@click.argument("directory", metavar="[DIR]", default="configs", type=cli.FOLDER)
def examples(directory: str) -> None:
    """Copy the example configs into DIR (default: configs).

    Files that are there already stay as they are.

    \b
    python -m prepare examples
    python -m prepare examples ~/xtcav/configs
    """
    from prepare.examples import copy

    copied, kept = copy(Path(directory))
    there = f", {kept} were there already" if kept else ""
    say(f"{directory}: {copied} example configs{there}; the head of each says what to type")


@main.command("list")
@read_argument
@cli.count_option("--frames", 20, "Frames read of each run for its mean intensity.")
@cli.json_option
def list_runs(config_path: str, frames: int, as_json: bool) -> None:
    """List the runs: shots, frames, damage, time, intensity.

    Shots are all that the run has; frames are those that can be used, damaged and missing ones those
    that cannot. Length is the time between the first and the last shot.

    \b
    python -m prepare list configs/prepare/demo.yaml
    python -m prepare list configs/prepare/demo.yaml --frames 200 --json
    """
    from prepare.config import load_config
    from prepare.list_runs import print_runs

    print_runs(load_config(config_path), frames, as_json)


@main.command()
@read_argument
@force_option
@click.option("--if-missing", is_flag=True, help="Keep a manifest that has what CONFIG asks for.")
def select(config_path: str, force: bool, if_missing: bool) -> None:
    """Draw balanced splits and write the manifest.

    The manifest is data_manifest/NAME.csv. If it exists, its rows are kept and only missing shots are
    drawn; --force draws everything again.

    \b
    python -m prepare select configs/prepare/demo.yaml
    """
    from prepare.config import load_config
    from prepare.draw import draw

    draw(load_config(config_path), config_path, force, if_missing)


@main.command()
@read_argument
@force_option
@jobs_option
def build(config_path: str, force: bool, jobs: int) -> None:
    """Make the images of the manifest's shots.

    The data set is data/NAME.h5 or, with more shots than the config's `shard`, the files of data/NAME/.
    Started again after an interruption, a build continues with the files that are missing. --jobs shares
    the files among processes of this machine, MPI among machines; the content is the same.

    \b
    python -m prepare build configs/prepare/demo.yaml
    python -m prepare build configs/prepare/demo.yaml --jobs 4
    mpirun -n 4 python -m prepare build configs/prepare/demo.yaml
    python -m prepare build configs/prepare/demo.yaml --force   # replace finished files
    """
    from prepare.build.command import build_data_set

    advice = f"what was made so far is kept, continue with: python -m prepare build {config_path}"
    build_data_set(config_path, jobs, advice, force)


@main.command()
@read_argument
@jobs_option
def repair(config_path: str, jobs: int) -> None:
    """Make the damaged or missing files of a data set again.

    They get the content that they had. Every file is checked as `verify` does; those that are good stay.

    \b
    python -m prepare repair configs/prepare/demo.yaml
    """
    from prepare.build.command import build_data_set
    from prepare.verify import damage

    advice = f"what is good stays, continue with: python -m prepare repair {config_path}"
    build_data_set(config_path, jobs, advice, damage=damage)


@main.command()
@config_argument
@force_option
@jobs_option
def counterfactual(config_path: str, force: bool, jobs: int) -> None:
    """Make simulated test shots again with lasing switched.

    Machine, jitter and noise are the same, but the shots that lased do not, and the others do. No camera
    files are written. `python -m train controls` looks for the file, data/NAME.counterfactual.h5, and
    tells by it how much of the accuracy comes from the runs.

    \b
    python -m prepare counterfactual configs/prepare/demo.yaml
    """
    from prepare.build.command import build_data_set
    from prepare.simulate.counterfactual import switched

    advice = f"what was made so far is kept, continue with: python -m prepare counterfactual {config_path}"
    build_data_set(config_path, jobs, advice, force, change=switched)


@main.command("signal-noise")
@config_argument
@force_option
def signal_noise(config_path: str, force: bool) -> None:
    """Write the 2016 study's signal-against-noise images.

    They go to data/NAME.h5; the config gives their size and number.

    \b
    python -m prepare signal-noise configs/prepare/signal_noise_40.yaml
    """
    from prepare.simulate.signal_noise import write_images

    write_images(config_path, force)


@main.command("check-psana")
@read_argument
@cli.count_option("--shots", 100, "Shots whose pixels are compared, spread over the runs.")
def check_psana(config_path: str, shots: int) -> None:
    """Compare psana with the native reader.

    Keys and records of all shots of the config's runs, and the pixels of some. The exit code is 1 if
    something differs.

    \b
    python -m prepare check-psana configs/prepare/amo86815.yaml --shots 500
    """
    from prepare.check_psana import print_check
    from prepare.config import load_config

    sys.exit(0 if print_check(load_config(config_path), shots) else 1)


@main.command()
@data_argument
@cli.count_option("--sample", 20, "Images to compute again from the camera's files.", least=0)
@cli.json_option
def verify(path: str, sample: int, as_json: bool) -> None:
    """Check a data set: structure, digests and every image.

    DATA is a file or a folder. Some images are computed again from the camera's files, if those are
    there. The exit code is 1 if something is wrong.

    \b
    python -m prepare verify data/demo.h5
    python -m prepare verify data/demo.h5 --sample 200
    """
    from prepare.verify import print_report

    sys.exit(0 if print_report(path, sample, as_json) else 1)


@main.command()
@data_argument
@click.argument("out", metavar="FILE", type=cli.FILE)
@force_option
def merge(path: str, out: str, force: bool) -> None:
    """Write a data set of several files as one file.

    FILE holds the same content, with the same digest. Every image is checked on the way.

    \b
    python -m prepare merge data/demo demo.h5
    """
    import prepare.merge

    digest = prepare.merge.merge(Path(path), Path(out), force)
    say(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB, content digest {digest[:16]}...")


@main.command()
@data_argument
@cli.page_option
@force_option
def report(path: str, out: Optional[str], force: bool) -> None:
    """Write a page of pictures of a data set.

    It is DATA.report.html, beside the data, and opens offline: dark and hot pixels, mean intensity over
    time, histograms, shots before and after each step (if the camera's files are there), shots left
    out, splits and machine records.

    \b
    python -m prepare report data/demo.h5
    """
    from prepare.report import write

    if out is not None:
        atomic.refuse_existing(out, force)
    say(f"{write(Path(path), Path(out) if out else None)}: open it in a browser")
