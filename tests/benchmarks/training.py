"""`make bench`: the trainer's speed against its peers, in one table.

    python -m tests.benchmarks.training [--repeat 7] [--only steps|inputs] [--out runs/benchmark]

Every ratio is the median over runs of the contestants in turn. It needs the `bench` extra, 15 GB in
the temporary folder, 8 GB of memory, and a quiet machine for about 15 minutes.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import click

from tests.benchmarks import inputs, steps
from tests.benchmarks.race import installed, line, machine, write

PEERS = {"torch": "PyTorch", "datasets": "Hugging Face datasets"}


@click.command(help=__doc__)
@click.option("--repeat", default=7, show_default=True, type=click.IntRange(1))
@click.option("--only", type=click.Choice(["steps", "inputs"]))
@click.option("--images", default=20_000, show_default=True, help="Images of the larger file for memory.")
@click.option("--out", default="runs/benchmark", show_default=True, type=click.Path(file_okay=False))
def main(repeat: int, only: str, images: int, out: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    about, table, failed = machine(), [], False
    if absent := [name for package, name in PEERS.items() if not installed(package)]:
        click.echo(f"not installed, so left out: {', '.join(absent)}; `make bench` installs them", err=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        wholes = {
            "steps": lambda: steps.parts(repeat),
            "inputs": lambda: inputs.parts(Path(folder), repeat, images),
        }
        for part in itertools.chain.from_iterable(
            whole() for name, whole in wholes.items() if only in (None, name)
        ):
            try:
                for row in part:
                    table.append(row)
                    click.echo(line(row))
                    write(Path(out), about, table)  # what there is so far
            except RuntimeError as error:  # of a contestant; the others still have their turns
                click.echo(f"error: left out: {error}", err=True)
                failed = True
    click.echo(f"{out}: training.txt, training.json")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
