"""The commands of `python -m train`: from the HDF5 file to a trained classifier."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Optional

import click

from common import __version__, cli, interrupt, parallel, ranks
from common.cli import CommandGroup, config_argument, force_option
from common.errors import UserError
from common.progress import announce, say
from train.config import load_config
from train.data.dataset import class_names, number_of_images
from train.fit import runtime
from train.run import folder
from train.training import complete, train

run_argument = click.argument("run", metavar="RUN", type=cli.FOLDER)
FORMATS = click.Choice(["keras", "saved_model", "onnx"])
AGAIN = "the same command continues where it stopped"
jobs_option = cli.count_option(
    "--jobs", 1, "Number of processes, which share the cores; leave it out under mpirun or srun."
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
    python -m train compare  runs/first_scale_up runs/demo       # several networks on test shots
    python -m train controls configs/train/first_scale_up.yaml   # lasing, or differences between runs?
    python -m train export   runs/first_scale_up --format onnx   # for programs without this package
    python -m train report   runs/first_scale_up                 # the report again
    """


@main.command()
@config_argument
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint, if there is one.")
@force_option
def fit(config_path: str, resume: bool, force: bool) -> None:
    """Train the network of CONFIG; results go to runs/NAME/.

    A finished run of this config on these data is left unchanged; --force trains it again.

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
            complete(config, together)
            return
        if config.tensorboard:
            runtime.check_tensorboard()
        stack.enter_context(interrupt.advising(go_on))
        if together.first:
            stack.enter_context(folder.claimed(config.run_dir, resume, force))
        train(config, resume, together)


@main.command()
@config_argument
@cli.json_option
def describe(config_path: str, as_json: bool) -> None:
    """List the layers of CONFIG's network.

    For each layer its variables, the shape of its output, and its memory in MB (2^20 bytes). No data file
    is needed.

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
@cli.count_option("--seeds", 1, "Train each setting with seeds 1 to N.")
@click.option("--one-at-a-time", is_flag=True, help="Change one setting of CONFIG at a time instead.")
@jobs_option
@cli.json_option
def sweep(
    config_path: str, settings: tuple[str, ...], seeds: int, one_at_a_time: bool, jobs: int, as_json: bool
) -> None:
    """Train CONFIG with every combination of settings.

    The results of all runs are printed as one table and written to sweep.csv. KEY is a dotted key of the
    config or the end of one; `*` stands for any keys in between. Started again, a sweep skips finished
    runs and resumes interrupted ones. A run that fails does not stop the others; the exit code is then 1.

    \b
    python -m train sweep configs/train/signal_noise_100.yaml --seeds 5
    python -m train sweep configs/train/scale_up.yaml --set momentum=.9,.99 --set learning_rate.start=.1,.01
    python -m train sweep configs/train/scale_up.yaml --set 'preprocess=[],[log]' \\
        --set 'network.*.bias=0.1' --one-at-a-time --seeds 5 --jobs 2
    srun python -m train sweep configs/train/scale_up.yaml --seeds 20   # runs spread over the ranks
    """
    with parallel.executor(jobs) as workers, interrupt.advising(AGAIN):
        if workers is None:  # a rank that has done its share
            return
        from train.sweep.sweep import run_sweep

        failed = run_sweep(load_config(config_path), settings, seeds, one_at_a_time, workers, as_json)
    sys.exit(1 if failed else 0)


@main.command()
@run_argument
@click.option("--data", "data_path", default=None, type=cli.PATH, help="Data file (default: the run's).")
@jobs_option
@cli.json_option
def evaluate(run: str, data_path: Optional[str], jobs: int, as_json: bool) -> None:
    """Compute the scores of a finished run again.

    The data are those that it was trained on, or others with the same classes and image processing.

    \b
    python -m train evaluate runs/demo
    python -m train evaluate runs/demo --data data/first_scale_up.h5
    """
    with parallel.executor(jobs) as workers:
        if workers is not None:  # else a rank that has done its share
            from train.predict.evaluate import evaluate

            evaluate(Path(run), data_path, workers, as_json)


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
    """Predict the class of every shot in DATA.

    The network is that of RUN; the shots may be labeled or not. Writes the probabilities of each shot
    beside its key, a plot of them over time, and a summary.

    \b
    python -m train predict runs/demo data/next.h5
    python -m train predict runs/demo data/demo.h5 --split test --out test.h5 --jobs 4
    """
    from train.predict import job

    with parallel.executor(jobs) as workers:
        if workers is not None:  # else a rank that has done its share
            job.run(Path(run), data_path, splits, Path(out) if out else None, force, as_json, workers)


@main.command()
@run_argument
@click.option("--format", "kind", required=True, type=FORMATS, help="What to write.")
@click.option(
    "--out", default=None, type=cli.PATH, help="File, or folder of a SavedModel (default: in RUN/exported/)."
)
@click.option(
    "--data", "data_path", default=None, type=cli.PATH, help="Images to compare on (default: the run's data)."
)
@force_option
def export(run: str, kind: str, out: Optional[str], data_path: Optional[str], force: bool) -> None:
    """Write the network of RUN for other programs.

    The exported network takes images as they are stored and returns probabilities, and the pulse energy
    if RUN tells it. Before the file gets its name, its results on images of the data are compared with
    those of `predict`; they must agree to 1e-5.

    \b
    python -m train export runs/demo --format keras         # standard Keras layers
    python -m train export runs/demo --format saved_model   # a folder for TensorFlow
    python -m train export runs/demo --format onnx          # for ONNX Runtime
    """
    from train.export import job

    job.run(Path(run), kind, Path(out) if out else None, data_path, force)


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=cli.FOLDER)
@click.option("--data", "more", multiple=True, type=cli.PATH, help="Other labeled data as well; repeatable.")
@cli.json_option
def compare(runs: tuple[str, ...], more: tuple[str, ...], as_json: bool) -> None:
    """Compare the networks of finished runs on test shots.

    The shots are the test shots of the runs' data, the same shots with lasing switched (where
    `python -m prepare counterfactual` has made them), and the test shots of --data. The table also says
    how many shots each network flags as unlike those it was trained on, and its accuracy on the others.

    \b
    python -m train compare runs/recommended runs/demo --data data/unseen.h5
    """
    from train.predict import comparison

    comparison.run([Path(name) for name in runs], [Path(path) for path in more], as_json)


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=cli.FOLDER)
@cli.page_option
@force_option
def report(runs: tuple[str, ...], out: Optional[str], force: bool) -> None:
    """Write the report of a run, or compare several runs.

    The report is written to RUN/report.html, a comparison to comparison.html beside the first run. Each
    page is one file that opens offline.

    \b
    python -m train report runs/demo
    python -m train report runs/demo runs/first_scale_up --out runs/two.html
    """
    from train.report import write_page

    write_page([Path(run) for run in runs], Path(out) if out else None, force)


@main.command()
@config_argument
@click.option("--steps", default=None, type=click.IntRange(1), help="Training steps (default: the config's).")
@jobs_option
@force_option
@cli.json_option
def controls(config_path: str, steps: Optional[int], jobs: int, force: bool, as_json: bool) -> None:
    """Test whether accuracy comes from lasing or from the runs.

    The label is the run, so a network can learn any other difference between runs, too. The controls
    train CONFIG's network on permuted labels, on beam-free pixels alone and without one run at a time,
    compare it with logistic regressions on a few numbers, and correlate its probability with the pulse
    energy. Started again, the command continues where it stopped.

    \b
    python -m train controls configs/train/demo.yaml
    python -m train controls configs/train/demo_leak.yaml --steps 100 --jobs 4
    """
    with parallel.executor(jobs) as workers, interrupt.advising(AGAIN):
        if workers is None:  # a rank that has done its share
            return
        config = load_config(config_path)
        config = config.model_copy(update={"steps": steps or config.steps})
        try:
            from train.controls import job
        except ImportError as error:
            what = f"controls need scikit-learn ({error})"
            raise UserError(f"{what}; install: pip install -e '.[train]'") from None
        job.run(config, force, workers, as_json)
    if folder.is_finished(config):
        from train.report import card

        (announce if as_json else say)(f"{card.write(config.run_dir)}: the model's card")
