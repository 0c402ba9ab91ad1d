"""The report of a data file: its sections and their order."""

from __future__ import annotations

import numpy as np
import yaml

from common.dataset import provenance
from common.dataset.view import View
from common.report.camera import camera_image
from common.report.drawing import png, svg
from common.report.page import Block, Code, Columns, Fact, Facts, Picture, Pictures, Section, Table, Text
from common.report.slices import slice_blocks
from prepare.report import figures
from prepare.report.contents import (
    HOT_LIMIT,
    IMAGES_OF_A_RUN,
    RECORDS,
    Contents,
    hot_limit,
    hot_pixels,
)
from prepare.report.steps import Sample

MOST_RUNS = 24  # whose mean intensities are drawn


def subtitle(contents: Contents) -> str:
    """The experiment and the file, in one line."""
    attributes = contents.attributes
    return f"{contents.path}: experiment {attributes['experiment']}, built {attributes['created']}"


def sections(contents: Contents) -> list[Section]:
    """All sections of the page."""
    return [
        Section("contents", "What is in it", _contents(contents), "Contents"),
        Section("slices", "Energy and spread along the bunches", _slices(contents), "Slices"),
        Section("splits", "Splits, and what was left out", _splits(contents), "Splits"),
        Section("samples", "Shots before and after each step", _samples(contents), "Shots"),
        Section("dark", "Dark", _dark(contents), "Dark"),
        Section("intensity", "Mean intensity of each run over time", _intensity(contents), "Intensity"),
        Section("histograms", "Pixel histograms", _histograms(contents), "Histograms"),
        Section("records", "Machine records by run", _records(contents), "Records"),
        Section("config", "Config and origin", _origin(contents), "Config"),
    ]


def of_runs(contents: Contents) -> dict[str, np.ndarray]:
    """{run and class: which shots} of every run, in the order of the classes."""
    found = {}
    for label in np.unique(contents.label):
        for run in np.unique(contents.ids["run"][contents.label == label]):
            mask = (contents.label == label) & (contents.ids["run"] == run)
            found[f"run {run}, {contents.class_name(int(label))}"] = mask
    return found


def _contents(contents: Contents) -> list[Block]:
    n = len(contents.label)
    labels = [int(label) for label in np.unique(contents.label)]
    classes = ", ".join(f"{(contents.label == label).sum()} {contents.class_name(label)}" for label in labels)
    names = ", ".join(
        f"{name} {(contents.split == number).sum()}" for number, name in enumerate(contents.splits)
    )
    rows, columns = contents.view.picture(contents.samples[0].steps[-1].image).shape
    table = []
    for name, mask in of_runs(contents).items():
        counts = [int((mask & (contents.split == number)).sum()) for number in range(len(contents.splits))]
        time = contents.time[mask]
        table.append((name, *counts, int(mask.sum()), f"{time.max() - time.min():.1f}"))
    settings = contents.json("config")
    by = settings.get("select", {}).get("by") if isinstance(settings.get("select"), dict) else None
    left_out = sum(sum(reasons.values()) for reasons in contents.json("skipped").values())
    kind = provenance.word(contents.provenance)
    facts = [
        Fact(
            "Shots",
            f"{n} shots of {len(contents.runs)} {'run' if len(contents.runs) == 1 else 'runs'}",
            f"{classes}; in splits {names}{f', by {by}' if by else ''}",
        ),
        Fact("Images", f"{rows} × {columns} pixels", contents.view.unit),
        Fact("Machine", f"{kind} shots", contents.attributes["experiment"], "" if kind == "real" else "open"),
        Fact(
            "Not there",
            f"{len(contents.missing)} missing",
            f"of the shots that were selected; {left_out} could not be selected",
            "bad" if contents.missing else "",
        ),
    ]
    runs = Table(("run", *contents.splits, "all", "from first to last, s"), table)
    return [Facts(facts), runs]


def _slices(contents: Contents) -> list[Block]:
    if contents.slices is None:
        return [Text("These images have no slices: no camera took them, or they are of too few pixels.")]
    looked_at = np.isfinite(contents.intensity)
    label = contents.label[looked_at]
    names = {int(key): contents.class_name(int(key)) for key in np.unique(label)}
    return slice_blocks(contents.slices, label, names, contents.view)


def _left_out(contents: Contents) -> list[Block]:
    reasons = contents.json("skipped")
    runs = sorted(reasons, key=int)
    table: list[tuple[object, ...]] = [
        (reason, *(reasons[run].get(reason, 0) for run in runs))
        for reason in sorted({reason for of_run in reasons.values() for reason in of_run})
    ]
    blocks: list[Block] = []
    if table:
        header = ("reason", *(f"run {run}" for run in runs))
        blocks.append(Table(header, table, "Shots that could not be selected."))
    else:
        blocks.append(Text("Nothing was left out when shots were selected."))
    if contents.missing:
        missing = [
            (one.split, str(one.shot), contents.class_name(one.label), one.reason)
            for one in contents.missing[:50]
        ]
        more = f" The first 50 of {len(contents.missing)}." if len(contents.missing) > 50 else ""
        title = f"Shots that were selected and could not be read.{more}"
        blocks.append(Table(("split", "shot", "class", "reason"), missing, title))
    else:
        blocks.append(Text("Every shot that was asked for has its image.", "note"))
    return blocks


def _splits(contents: Contents) -> list[Block]:
    runs = of_runs(contents)
    row = np.zeros(len(contents.label))
    for n, mask in enumerate(runs.values()):
        row[mask] = n
    figure = figures.blocks(contents.time, row, contents.split, contents.splits, list(runs))
    select = contents.json("config").get("select", {})
    how = "Neighboring shots are near-copies: where splits take turns shot by shot, the test is too easy."
    if isinstance(select, dict) and select.get("by") == "block":
        settings = select["blocks"]
        how = (
            f"Blocks of {settings['length']:g} s belong to one split, with {settings['guard']:g} s left out "
            "at the start of each, because neighboring shots are near-copies."
        )
    picture = Picture(svg(figure), "Times of the shots of each split, run by run")
    return [Text(how), Columns([Pictures([picture]), *_left_out(contents)])]


def _samples(contents: Contents) -> list[Block]:
    blocks: list[Block] = []
    if contents.frames:
        blocks.append(Text(f"Only the stored images are shown: {contents.frames}", "note"))
    drawn = [
        (sample, [_step(contents, sample, n) for n in range(len(sample.steps))])
        for sample in contents.samples
    ]
    if contents.frames:
        blocks.append(Pictures([picture for _, pictures in drawn for picture in pictures]))
    else:
        names = [f"{contents.class_name(sample.label)}: {sample.shot}" for sample, _ in drawn]
        blocks += [Pictures(pictures, "medium", name) for name, (_, pictures) in zip(names, drawn)]
    if contents.view.transposed:
        blocks.append(
            Text(
                "Images are stored transposed (axis 0 is the camera's columns, time); all are shown as the "
                "camera saw them. Colors end at the 0.5th and the 99.9th percentile.",
                "note",
            )
        )
    return blocks


def _step(contents: Contents, sample: Sample, n: int) -> Picture:
    """A shot after its step `n`, counted from 0."""
    step, name = sample.steps[n], contents.class_name(sample.label)
    limits = (float(np.percentile(step.image, 0.5)), float(np.percentile(step.image, 99.9)))
    title = f"{name}, {step.done}" if len(sample.steps) == 1 else f"{n + 1} {step.done}"
    figure = camera_image(title, step.view, step.image, step.view.unit, limits, width=3.2)
    rows, columns = step.image.shape
    range_ = f"{step.image.min():.4g} to {step.image.max():.4g} {step.view.unit}"
    which = f"{sample.shot}; " if len(sample.steps) == 1 else ""
    caption = f"{which}{rows} × {columns} {step.image.dtype}, {range_}."
    return Picture(png(figure), f"{name} shot, {step.done}", caption)


def _dark(contents: Contents) -> list[Block]:
    mean, std = contents.dark_mean, contents.dark_std
    hot = hot_pixels(mean, std)
    if hot is None:
        return [Text("There is no dark: no camera took these images.")]
    view = View(transposed=False, blocks=(1, 1), log=False)
    count = int(hot.sum())
    pictures = []
    for title, values in (("Pedestal: mean of the dark", mean), ("Noise: std of the dark", std)):
        limits = (float(np.percentile(values, 0.5)), float(np.percentile(values, 99.5)))
        figure = camera_image(title, view, values, "counts", limits, marked=hot, width=3.2)
        caption = f"Median {np.median(values):.2f} counts, from {values.min():.2f} to {values.max():.2f}."
        pictures.append(Picture(png(figure), f"{title}, {count} hot pixels circled", caption))
    for title, values in (("Pedestal of the pixels", mean), ("Noise of the pixels", std)):
        figure = figures.histogram(title, "counts", values, hot_limit(values))
        pictures.append(Picture(svg(figure), f"Histogram: {title}", ""))
    return [
        Text(
            f"{count} hot pixels of {hot.size} ({100 * count / hot.size:.3f} %), circled: pedestal or noise "
            f"over {HOT_LIMIT:g} robust standard deviations above the median."
        ),
        Pictures(pictures, "medium"),
    ]


def _intensity(contents: Contents) -> list[Block]:
    seen = np.isfinite(contents.intensity)
    low, high = float(contents.intensity[seen].min()), float(contents.intensity[seen].max())
    margin = 0.05 * (high - low) or 1.0
    pictures = []
    runs = list(of_runs(contents).items())
    for name, mask in runs[:MOST_RUNS]:
        read = mask & seen
        values = contents.intensity[read]
        figure = figures.intensity(
            name, contents.time[read], values, f"mean ({contents.view.unit})", (low - margin, high + margin)
        )
        told = f"mean {values.mean():.4g}, standard deviation {values.std():.2g}"
        pictures.append(
            Picture(svg(figure), f"Mean intensity of {name}: {told}", f"{len(values)} images: {told}.")
        )
    more = f" The first {MOST_RUNS} of {len(runs)} are drawn." if len(runs) > MOST_RUNS else ""
    return [
        Text(
            "The mean of each stored image. Where a run's mean intensity alone tells it from another's, a "
            f"network can learn the run instead of what it should.{more}"
        ),
        Pictures(pictures),
        Text(f"Of each run up to {IMAGES_OF_A_RUN} images were read, evenly spread.", "note"),
    ]


def _histograms(contents: Contents) -> list[Block]:
    by_class: dict[str, np.ndarray] = {}
    by_run: dict[str, np.ndarray] = {}
    for (run, label), counts in sorted(contents.histograms.items(), key=lambda item: item[0][::-1]):
        name = contents.class_name(label)
        by_class[name] = by_class.get(name, 0) + counts
        by_run[f"run {run}, {name}"] = counts
    pictures = []
    for title, counts in (("By class", by_class), ("By run", by_run)):
        figure = figures.pixel_histograms(title, contents.view.unit, contents.edges, counts)
        alt = f"Histograms of the pixels of {', '.join(counts)}"
        pictures.append(Picture(svg(figure), alt, "Of the same images as the mean intensities."))
    return [Pictures(pictures)]


def _records(contents: Contents) -> list[Block]:
    pictures = []
    runs = of_runs(contents)
    for name, (title, unit) in RECORDS.items():
        what = f"{title} ({unit})"
        values = contents.records[name]
        if not np.isfinite(values).any():
            continue
        of_run = {run: values[mask & np.isfinite(values)] for run, mask in runs.items()}
        told = "; ".join(f"{run} median {np.median(v):.4g}" for run, v in of_run.items() if len(v))
        figure = figures.spreads(title, what, of_run)
        pictures.append(Picture(svg(figure), f"{what}: {told}", ""))
    if not pictures:
        return [Text("There are no machine records.")]
    return [
        Text(
            "Box: the middle half of the shots, with the median; line: from the 5th to the 95th percentile. "
            "Where classes are different runs, a record that differs between them can be learned, too."
        ),
        Pictures(pictures),
    ]


def _origin(contents: Contents) -> list[Block]:
    attributes = contents.attributes
    config = contents.json("config")
    sources = contents.json("sources")
    files = [file for of_run in sources.values() for file in of_run]
    size = sum(one[1] for one in files)
    rows = [
        ("content digest", attributes["content_digest"]),
        ("manifest SHA-256", attributes["manifest_sha256"]),
        ("built", attributes["created"]),
        ("read from", f"{len(files)} files, {size / 1e9:.2f} GB" if files else "no files"),
        ("software", attributes["software"]),
    ]
    return [Table(("what", "value"), rows), Code(yaml.safe_dump(config, sort_keys=False))]
