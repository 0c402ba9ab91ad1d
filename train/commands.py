"""The commands of `python -m train`: from the HDF5 file to a trained classifier."""

from __future__ import annotations

import contextlib
import shlex
import sys
from concurrent.futures import Executor
from pathlib import Path
from typing import Optional

import click

from common import __version__, cli, interrupt, parallel, ranks
from common.cli import CommandGroup, config_argument, force_option
from common.dataset import provenance
from common.errors import DataError, UserError
from common.files import atomic
from common.progress import say, warn
from common.ranks import Ranks
from train.config import TrainConfig, load_config
from train.data.dataset import Data, class_names, number_of_images, open_data
from train.data.validation import with_validation
from train.fit import runtime, timing
from train.run import folder

run_argument = click.argument("run", metavar="RUN", type=cli.FOLDER)
AGAIN = "the same command continues where it stopped"
jobs_option = cli.count_option(
    "--jobs", 1, "Processes that share the work and the cores; on ranks of mpirun or srun, leave it out."
)


@click.group(cls=CommandGroup)
@click.version_option(__version__, prog_name="train")
def main() -> None:
    """Train a network on the HDF5 file that `python -m prepare build` made.

    \b
    python -m train describe configs/train/first_scale_up.yaml   # the network, layer by layer
    python -m train fit      configs/train/first_scale_up.yaml   # train -> runs/first_scale_up/
    python -m train evaluate runs/first_scale_up                 # the final scores again
    python -m train predict  runs/first_scale_up data/next.h5    # every shot's probability
    python -m train controls configs/train/first_scale_up.yaml   # lasing, or differences between runs?
    python -m train report   runs/first_scale_up                 # the report again
    """


@main.command()
@config_argument
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint, if there is one.")
@force_option
def fit(config_path: str, resume: bool, force: bool) -> None:
    """Train the network of CONFIG; results go to runs/NAME/.

    A run of this config on these data that has finished stays as it is.

    \b
    python -m train fit configs/train/demo.yaml
    python -m train fit configs/train/demo.yaml --resume   # after an interruption, or with more steps
    mpirun -n 4 python -m train fit configs/train/demo.yaml   # ranks share every minibatch
    """
    go_on = f"continue with: python -m train fit {shlex.quote(config_path)} --resume"
    with contextlib.ExitStack() as stack:
        together = stack.enter_context(ranks.started())
        config = load_config(config_path)
        if resume and force:
            raise UserError("--resume continues a run, --force replaces it: give one of them")
        if together.from_first(not force and together.first and folder.is_finished(config)):
            say(f"{config.run_dir}: is complete, nothing is left to do; --force trains again")
            return
        if config.tensorboard:
            runtime.check_tensorboard()
        stack.enter_context(interrupt.advising(go_on))
        if together.first:
            stack.enter_context(folder.claimed(config.run_dir, resume, force))
        _fit(config, resume, together)


def _fit(config: TrainConfig, resume: bool, together: Ranks) -> None:
    """What `fit` does once the run's folder is its own."""
    with open_data(
        config.data,
        config.input,
        config.needed_splits,
        config.cache,
        check=config.check_images,
        processes=together.place.size,
    ) as data:
        threads = runtime.start(config.threads, config.seed, together)
        runtime.check_compute(config.compute)
        from train.fit import loop
        from train.metrics import scores
        from train.metrics.calibration import EnergyError
        from train.model.network import with_features
        from train.model.predictor import OnRanks, Predictor
        from train.predict import trust as trusted
        from train.report import card

        data = with_validation(data, config.validation_share)
        result = loop.fit(config, data, threads, resume, together)
        with result.clock.part("evaluation"):
            model, error = result.stepper.whole, result.calibration.get("pulse_energy")
            error = EnergyError(**error) if error else None
            found = scores.of_data(OnRanks(Predictor(model), together), data, error)
            telling = OnRanks(Predictor(with_features(model)), together)
            known = trusted.learn(telling, data)
            flags = trusted.flagged(telling, known, data)
        if not together.first:
            return
        trusted.save(config.run_dir, known)
        used = timing.usage(threads)
        loop.write_summary(config, data, result, {"splits": found, "flags": flags, "usage": used})
        say(f"stopped: {result.stopped}; {result.step_seconds:.3f} s a step")
        for line in scores.lines(found, data.classes):
            say(line)
        for line in trusted.lines(flags):
            say(line)
        if provenance.banner(data.provenance):
            say(provenance.banner(data.provenance))
        say(timing.line(result.clock.times(data.reading)))
        say(timing.usage_line(used))
        say(f"{config.run_dir}: config.yaml, metrics.csv, model.keras, checkpoints/, summary.json")
        say(f"{card.write(config.run_dir)}: the model's card")
        if config.report:
            _report_of_fit(config.run_dir, result.stepper.whole, data)


@main.command()
@config_argument
@cli.json_option
def describe(config_path: str, as_json: bool) -> None:
    """List the layers of CONFIG's network: variables, output shape, memory in MB (2^20 bytes).

    \b
    python -m train describe configs/train/first_scale_up.yaml
    """
    from train.model import shapes

    config = load_config(config_path)
    names = class_names(config)
    minibatch = (
        config.minibatch if isinstance(config.minibatch, int) else number_of_images(config, "train") or 80
    )
    if as_json:
        layers = shapes.layer_shapes(config.network, shapes.network_input(config), len(names) or 2)
        layers = [layer._asdict() for layer in layers]
        cli.print_json({"classes": names, "layers": layers, "config": config.model_dump(mode="json")})
        return
    say(f"classes of the data: {', '.join(names)}" if names else f"{config.data}: not there yet; 2 classes")
    for line in shapes.describe(config, len(names) or 2, minibatch):
        say(line)


@main.command()
@config_argument
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=A,B", help="Values to try for a key; repeatable."
)
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Train each setting with seeds 1 to N.",
)
@click.option("--one-at-a-time", is_flag=True, help="Change one setting of CONFIG at a time instead.")
@jobs_option
def sweep(config_path: str, settings: tuple[str, ...], seeds: int, one_at_a_time: bool, jobs: int) -> None:
    """Train CONFIG with every combination of settings and write one table of the results.

    KEY is a dotted key of the config or the end of one; `*` stands for any keys in between. Started
    again, it skips finished runs and resumes interrupted ones. A run that fails does not stop the
    others; the exit code is then 1.

    \b
    python -m train sweep configs/train/signal_noise_100.yaml --seeds 5
    python -m train sweep configs/train/scale_up.yaml --set momentum=.9,.99 --set learning_rate.start=.1,.01
    python -m train sweep configs/train/scale_up.yaml --set 'preprocess=[],[log]' --set 'network.*.bias=0.1' \
        --one-at-a-time --seeds 5 --jobs 2
    srun python -m train sweep configs/train/scale_up.yaml --seeds 20   # runs spread over the ranks
    """
    with parallel.executor(jobs) as workers, interrupt.advising(AGAIN):
        if workers is None:  # a rank that has done its share
            return
        from train.sweep.sweep import run_sweep

        failed = run_sweep(load_config(config_path), settings, seeds, one_at_a_time, workers)
    sys.exit(1 if failed else 0)


@main.command()
@run_argument
@click.option(
    "--data",
    "data_path",
    default=None,
    type=cli.PATH,
    help="Data file (default: the run's).",
)
@jobs_option
@cli.json_option
def evaluate(run: str, data_path: Optional[str], jobs: int, as_json: bool) -> None:
    """Compute the final scores of a finished run again, on its own or another data file.

    \b
    python -m train evaluate runs/demo
    python -m train evaluate runs/demo --data data/first_scale_up.h5
    """
    with parallel.executor(jobs) as workers:
        if workers is not None:  # else a rank that has done its share
            _evaluate(Path(run), data_path, workers, as_json)


def _evaluate(run_dir: Path, data_path: Optional[str], workers: Executor, as_json: bool) -> None:
    config = folder.config_of(run_dir)
    with open_data(data_path or config.data, config.input, [], "stream") as data:
        if not data.splits:
            raise DataError(f"{data.path}: has no labeled split; give it to `python -m train predict`")
        folder.check_fits(run_dir, data)
        if data_path is None:
            folder.check_data(run_dir, data)
        threads = runtime.start(config.threads, config.seed)
        from train.metrics import scores
        from train.predict import spread
        from train.predict import trust as trusted
        from train.predict.job import say_origin

        share = config.validation_share if data_path is None else 0
        data = with_validation(data, share)
        trust = trusted.load(run_dir)
        origin = spread.Origin(run_dir, tuple(data.paths), share, features=False)
        found = scores.of_data(spread.predictor(workers, origin), data, trust.error)
        if as_json:
            places = {"run": str(run_dir), "data": data.path}
            made = {"provenance": data.provenance, "trained_on": folder.provenance(run_dir)}
            cli.print_json({**places, **made, "classes": data.classes, "splits": found})
            return
        for line in scores.lines(found, data.classes):
            say(line)
        say_origin(run_dir, data)
        if trust.reference is not None:
            telling = spread.predictor(workers, origin._replace(features=True))
            for line in trusted.lines(trusted.flagged(telling, trust.reference, data)):
                say(line)
        if isinstance(workers, parallel.Here):
            say(timing.usage_line(timing.usage(threads)))


@main.command()
@run_argument
@click.argument("data_path", metavar="DATA", type=cli.PATH)
@click.option(
    "--out",
    default=None,
    type=cli.FILE,
    help="Output file, .csv or .h5 (default: RUN/predictions_FILE.csv); a plot and a summary go beside it.",
)
@click.option(
    "--split", "splits", multiple=True, metavar="S", help="Only this split; repeatable (default: all splits)."
)
@jobs_option
@force_option
@cli.json_option
def predict(
    run: str,
    data_path: str,
    out: Optional[str],
    splits: tuple[str, ...],
    jobs: int,
    force: bool,
    as_json: bool,
) -> None:
    """Predict the class of every shot in DATA, labeled or not, with the network of RUN.

    \b
    python -m train predict runs/demo data/next.h5
    python -m train predict runs/demo data/demo.h5 --split test --out test.h5 --jobs 4
    """
    from train.predict import job

    with parallel.executor(jobs) as workers:
        if workers is not None:  # else a rank that has done its share
            job.run(Path(run), data_path, splits, Path(out) if out else None, force, as_json, workers)


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=cli.FOLDER)
@click.option("--out", default=None, type=cli.FILE, help="Where to write the page.")
@force_option
def report(runs: tuple[str, ...], out: Optional[str], force: bool) -> None:
    """Write RUN/report.html for a finished run, or compare several runs on one page.

    The comparison is comparison.html beside the first run. Each page is one file that opens offline.

    \b
    python -m train report runs/demo
    python -m train report runs/demo runs/first_scale_up --out runs/two.html
    """
    from train.report import card, write, write_comparison

    folders = [Path(run) for run in runs]
    if out is not None:
        atomic.refuse_existing(out, force)
    if len(folders) > 1:
        path = Path(out) if out else folders[0].parent / "comparison.html"
        say(f"{write_comparison(folders, path)}: {len(folders)} runs; open it in a browser")
        return
    config = folder.config_of(folders[0])
    runtime.start(config.threads, config.seed)
    say(f"{write(folders[0], Path(out) if out else None, force)}: open it in a browser")
    card.write(folders[0])


def _report_of_fit(run_dir: Path, model: object, data: Data) -> None:
    """The report at the end of a training, which has succeeded, whatever happens here."""
    from train.report import write_with

    try:
        say(f"{write_with(run_dir, model, data)}: open it in a browser")
    except Exception as error:  # hours of training must not end as a failure for want of a picture
        reason = " ".join(str(error).split()) or type(error).__name__
        warn(f"no report was drawn ({reason}); try again with: python -m train report {run_dir}")


@main.command()
@config_argument
@click.option("--steps", default=None, type=click.IntRange(1), help="Training steps (default: the config's).")
@force_option
def controls(config_path: str, steps: Optional[int], force: bool) -> None:
    """Test whether the accuracy comes from lasing or from run-to-run differences.

    Trains CONFIG's network on permuted labels, on beam-free pixels alone and without one run at a
    time; compares it with logistic regressions on a few numbers; correlates its probability with the
    pulse energy. Started again, it continues where it stopped.

    \b
    python -m train controls configs/train/demo.yaml
    python -m train controls configs/train/demo_leak.yaml --steps 100
    """
    config = load_config(config_path)
    config = config.model_copy(update={"steps": steps or config.steps})
    try:
        from train.controls import job
    except ImportError as error:
        raise UserError(f"controls need scikit-learn ({error}); install: pip install -e '.[train]'") from None
    with interrupt.advising("the same command continues where it stopped"):
        job.run(config, force)
    if folder.is_finished(config):
        from train.report import card

        say(f"{card.write(config.run_dir)}: the model's card")
