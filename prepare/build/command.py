"""The commands that build a data set, and how they say what came of it."""

from __future__ import annotations

from typing import Callable, Optional

from common import interrupt, manifest, parallel
from common.progress import say
from prepare.build.output import Check
from prepare.build.run import Built, build
from prepare.config import load_config


def build_data_set(
    config_path: str,
    jobs: int,
    advice: str,
    force: bool = False,
    damage: Optional[Check] = None,
    change: Optional[Callable] = None,
) -> None:
    """Build the data set of a config and print what was built; raises UserError.

    change: makes another config and manifest of these, which are built instead.
    """
    with parallel.executor(jobs) as workers, interrupt.advising(advice):
        if workers is None:  # a rank that has done its share
            return
        config = load_config(config_path)
        rows = manifest.read(config.manifest_path)
        if change is not None:
            config, rows = change(config, rows, config_path)
        built = build(config, rows, force, workers, damage)
    if built is not None:
        say_built(built)


def say_built(built: Built) -> None:
    """Print what a build has made."""
    say_left_out(built.skipped)
    for reason, count in sorted(built.missing.items()):
        say(f"missing: {count} shots of the manifest: {reason}")
    dark = built.dark
    say(
        f"dark: {dark.frames} frames averaged, {dark.rejected_frames} frames and {dark.rejected_pixels} "
        f"pixel values rejected; mean {dark.mean.mean():.2f}, noise {dark.std.mean():.2f} counts"
    )
    say_counts(built.counts)
    if built.simulated:
        say("simulated: these are no shots of a real machine")
    say(f"content digest {built.content_digest[:16]}...")
    files = f" in {built.files} files" if built.files > 1 else ""
    say(f"{built.path}: {built.bytes / 1e6:.1f} MB{files}, in {built.seconds:.1f} s")


def say_left_out(left_out: dict[int, dict[str, int]]) -> None:
    """Print how many shots of each run were left out, by reason."""
    for run, reasons in sorted(left_out.items()):
        what = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "nothing"
        say(f"run {run}: left out {what}")


def say_counts(counts: dict[str, dict[str, int]]) -> None:
    """Print how many shots each split has, by class."""
    for split in manifest.SPLITS:
        if split in counts:
            what = ", ".join(f"{n} {label or 'without label'}" for label, n in sorted(counts[split].items()))
            say(f"{split}: {sum(counts[split].values())} shots ({what})")
