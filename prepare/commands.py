"""The commands of `python -m prepare`: from the camera's files to HDF5."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

import click

from common import __version__, cli, manifest
from common.cli import CommandGroup, config_argument, force_option
from common.errors import ConfigError, DataError, ManifestError
from common.files import atomic
from common.progress import say, warn
from prepare.config import load_config
from prepare.sources import open_source


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
    python -m prepare verify   data/demo.h5                # check the file
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
    """Write simulated runs, in the camera's file format, into the config's source.dir.

    \b
    python -m prepare simulate configs/prepare/demo.yaml
    python -m prepare simulate configs/prepare/demo.yaml --format xtc2   # the same shots as xtc2
    python -m prepare simulate configs/prepare/demo.yaml --force   # replace runs that are there
    """
    config = load_config(config_path)
    if config.simulate is None:
        raise ConfigError(
            f"{config_path}: simulate: missing, so these runs are real ones; "
            "start from `base: demo.yaml`, or add a `simulate:` section"
        )
    import prepare.simulate.run

    prepare.simulate.run.simulate(config, force, if_missing, form)


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="Name of the data set; without one, the experiment's.")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="The config; without one, configs/prepare/NAME.yaml."
)
@force_option
def init(directory: Path, name: Optional[str], out: Optional[str], force: bool) -> None:
    """Look into a folder of runs; write a config to start from, with its cameras and runs filled in.

    \b
    python -m prepare init /sdf/data/lcls/ds/amo/amo86815/xtc
    python -m prepare init data/xtc/demo --name mine --out mine.yaml
    """
    from prepare.init import config, look, table

    found = look(directory)
    for line in table(found):
        say(line)
    path = Path(out if out is not None else f"configs/prepare/{name or found.experiment}.yaml")
    atomic.refuse_existing(path, force)
    atomic.write_text(path, config(found, name or found.experiment))
    say(f"{path}: written; say in it which run is what, then: python -m prepare list {path}")


@main.command()
@click.argument("directory", metavar="[DIR]", default="configs", type=cli.FOLDER)
def examples(directory: str) -> None:
    """Copy the example configs into DIR (default: configs), but none over a file that is there.

    \b
    python -m prepare examples
    """
    from prepare.examples import copy

    copied, kept = copy(Path(directory))
    there = f", {kept} were there already" if kept else ""
    say(f"{directory}: {copied} example configs{there}; the head of each says what to type")


@main.command("list")
@config_argument
@click.option(
    "--frames",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Frames read of each run for its mean intensity.",
)
@cli.json_option
def list_runs(config_path: str, frames: int, as_json: bool) -> None:
    """List the runs: shots, frames, damaged and missing ones, time range, mean intensity.

    \b
    python -m prepare list configs/prepare/demo.yaml
    """
    from prepare.list_runs import summarize, table

    config = load_config(config_path)
    with open_source(config) as source:
        found = summarize(source, config, frames)
    if as_json:
        cli.print_json({"runs": [s._asdict() for s in found.summaries], "problems": found.problems})
    else:
        for line in (*config.plan(), *table(found.summaries)):
            say(line)
    for problem in found.problems[:-1]:
        warn(problem)
    if found.problems:
        raise DataError(found.problems[-1])


@main.command()
@config_argument
@force_option
@click.option("--if-missing", is_flag=True, help="Keep a manifest that has what CONFIG asks for.")
def select(config_path: str, force: bool, if_missing: bool) -> None:
    """Draw balanced splits and write them to data_manifest/NAME.csv.

    If the manifest exists, its rows are kept and only missing shots are drawn; --force draws
    everything again.

    \b
    python -m prepare select configs/prepare/demo.yaml
    """
    import prepare.select
    from prepare.build.command import say_counts, say_left_out
    from prepare.build.run import average_dark

    config = load_config(config_path)
    path = config.manifest_path
    drawn = manifest.read(path) if path.exists() and not force else []
    if if_missing and prepare.select.has_all(config, drawn):
        say(f"{path}: is there and has what is asked for; its {len(drawn)} shots are used")
        return
    with open_source(config) as source:
        intensity = None
        if config.select.beam.min_mean_intensity is not None:
            intensity = prepare.select.mean_intensity_of(source, config, average_dark(source, config).mean)
        try:
            selection = prepare.select.select(source, config, drawn, intensity)
        except ManifestError as error:
            raise ManifestError(f"{config_path}: {error}") from None
    say_left_out(selection.left_out)
    if drawn == selection.rows:
        say(f"{path}: has all {len(drawn)} shots already, nothing changed")
        return
    manifest.write(path, selection.rows)
    say_counts(manifest.counts(selection.rows))
    kept = f" ({len(drawn)} of them were there before)" if drawn else ""
    say(f"{path}: {len(selection.rows)} shots{kept}")


jobs_option = click.option(
    "--jobs", default=1, type=click.IntRange(1, 256), help="Processes that share the work. [1]"
)


@main.command()
@config_argument
@force_option
@jobs_option
def build(config_path: str, force: bool, jobs: int) -> None:
    """Make the images of the manifest's shots: data/NAME.h5, or the files of data/NAME/.

    A data set of more than `shard` shots is a folder of files. Started again after an interruption, a
    build continues with the files that are missing. --jobs shares the files among processes of this
    machine, MPI among machines; the content is the same.

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
@config_argument
@jobs_option
def repair(config_path: str, jobs: int) -> None:
    """Make the damaged or missing files of a data set again, with the content that they had.

    Every file is read as `verify` does; those that are good stay as they are.

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
    """Make the test shots of simulated runs again with lasing switched: data/NAME.counterfactual.h5.

    The same machine, jitter and noise; what does not lase lases, and the other way round. No camera files
    are written. `python -m train controls` finds the file beside data/NAME.h5 and tells how much of the
    accuracy comes from the runs.

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
    """Write the 2016 study's signal-against-noise images, at any size, to data/NAME.h5.

    \b
    python -m prepare signal-noise configs/prepare/signal_noise_40.yaml
    """
    import prepare.simulate.signal_noise

    config = prepare.simulate.signal_noise.load_config(config_path)
    written = prepare.simulate.signal_noise.write(config, force)
    for split, n in written.counts.items():
        say(f"{split}: {n} images of {config.shape[0]} x {config.shape[1]}, half of them with a signal")
    rate = written.bytes / 1e6 / written.seconds
    say(f"{config.output_path}: {written.bytes / 1e6:.1f} MB in {written.seconds:.1f} s, {rate:.0f} MB/s")


@main.command("check-psana")
@config_argument
@click.option(
    "--shots",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Shots whose pixels are compared, spread over the runs.",
)
def check_psana(config_path: str, shots: int) -> None:
    """Compare psana with the native reader on the config's runs; exit code 1 if they differ.

    \b
    python -m prepare check-psana configs/prepare/amo86815.yaml --shots 500
    """
    from prepare.check_psana import check

    verdict = check(load_config(config_path), shots)
    for line in verdict.compared:
        say(line)
    for line in verdict.differences:
        click.echo(f"difference: {line}", err=True)
    if verdict.differences:
        click.echo("psana and the native reader differ", err=True)
        sys.exit(1)
    say("psana and the native reader give the same shots, records and pixels")


@main.command()
@click.argument("path", metavar="DATA", type=cli.PATH)
@click.option(
    "--sample",
    default=20,
    show_default=True,
    type=click.IntRange(0),
    help="Images to compare with the camera's files.",
)
@cli.json_option
def verify(path: str, sample: int, as_json: bool) -> None:
    """Check a data set, a file or a folder: structure, digests, every image; exit 1 if something is wrong.

    \b
    python -m prepare verify data/demo.h5
    """
    import prepare.verify

    report = prepare.verify.verify(path, sample)
    if as_json:
        cli.print_json({"data": path, "good": not report.problems, **report._asdict()})
        sys.exit(1 if report.problems else 0)
    for line in report.notes:
        say(f"{path}: {line}")
    for line in report.problems:
        click.echo(f"problem: {line}", err=True)
    if report.problems:
        sys.exit(1)
    say(f"{path}: good")


@main.command()
@click.argument("path", metavar="DATA", type=cli.PATH)
@click.option("--out", default=None, type=cli.FILE, help="Where to write the page.")
@force_option
def report(path: str, out: Optional[str], force: bool) -> None:
    """Write a page of pictures of what is in a data set: DATA.report.html, beside it.

    Dark and hot pixels, mean intensity over time, histograms, shots before and after each step (if the
    camera's files are there), shots left out, splits and machine records. It opens offline.

    \b
    python -m prepare report data/demo.h5
    """
    from prepare.report import write

    if out is not None:
        atomic.refuse_existing(out, force)
    say(f"{write(Path(path), Path(out) if out else None)}: open it in a browser")
