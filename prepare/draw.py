"""Draw the shots that a manifest lacks, write it, and say what came of it."""

from __future__ import annotations

from common import manifest
from common.errors import ManifestError
from common.progress import say
from prepare.build.command import say_counts, say_left_out
from prepare.build.inputs import average_dark
from prepare.config import PrepareConfig
from prepare.select import has_all, mean_intensity_of, select
from prepare.sources import open_source


def draw(config: PrepareConfig, config_path: str, force: bool, if_missing: bool) -> None:
    """Write the manifest of `config`; keep the rows that it has already, unless `force`.

    if_missing: leave a manifest alone that has what is asked for. Raises ManifestError, naming `config_path`.
    """
    path = config.manifest_path
    drawn = manifest.read(path) if path.exists() and not force else []
    if if_missing and has_all(config, drawn):
        say(f"{path}: is there and has what is asked for; its {len(drawn)} shots are used")
        return
    with open_source(config) as source:
        intensity = None
        if config.select.beam.min_mean_intensity is not None:
            intensity = mean_intensity_of(source, config, average_dark(source, config).mean)
        try:
            selection = select(source, config, drawn, intensity)
        except ManifestError as error:
            raise ManifestError(f"{config_path}: {error}") from None
    say_left_out(selection.left_out)
    if drawn == selection.rows:
        say(f"{path}: has all {len(drawn)} shots already, nothing changed")
        return
    manifest.write(path, selection.rows)
    say_counts(selection.rows.counts())
    kept = f" ({len(drawn)} of them were there before)" if drawn else ""
    say(f"{path}: {len(selection.rows)} shots{kept}")
