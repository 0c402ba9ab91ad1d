"""The config of a data set: where the runs are, which shots, what is done to the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import numpy as np
from pydantic import Field, model_validator

from common import places
from common.blocks import Blocks
from common.config import Model, PathText, load
from common.dataset.layout import AXES
from common.dataset.view import View
from common.manifest import LABELED
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.simulate.config import SimulateConfig


class SourceConfig(Model):
    """Where the runs are read from, and by what.

    `xtc` reads LCLS-I files by itself; `psana` reads through the psana that is installed;
    `psana1` and `psana2` require the LCLS-I or the LCLS-II one. `simulated` reads no files: the
    shots are those that `simulate` would write, made when they are asked for.
    """

    kind: Literal["xtc", "psana", "psana1", "psana2", "simulated"] = "xtc"
    dir: Optional[PathText] = None  # the folder of the files; psana has a default

    @property
    def place(self) -> str:
        """The folder, or in words where psana looks without one."""
        if self.kind == "simulated":
            return "the simulator"
        return self.dir if self.dir is not None else "the facility's folder of the experiment"

    @model_validator(mode="after")
    def _has_a_folder(self) -> "SourceConfig":
        if self.kind == "xtc" and self.dir is None:
            raise ValueError("dir is missing; for kind `xtc` it names the folder of the .xtc files")
        return self


class CameraConfig(Model):
    """The camera: its address or alias, and the shape of its frames (rows, columns)."""

    address: str = XTCAV_ADDRESS
    shape: tuple[int, int] = (726, 568)


RunNumber = Annotated[int, Field(ge=1, lt=1 << 31)]  # 0 is of images that no run has


class RunsConfig(Model):
    """Run numbers by what they are. The order of `classes` gives the labels 0, 1, ...

    A class may have no run where no training shots are asked for: a new run of one class tests a model.
    """

    dark: list[RunNumber] = Field(min_length=1)
    classes: dict[str, list[RunNumber]] = {}
    unlabeled: list[RunNumber] = []  # for a trained model to be applied to: split `predict`

    @property
    def with_runs(self) -> dict[str, list[int]]:
        """`classes` without those that have no run."""
        return {name: of_class for name, of_class in self.classes.items() if of_class}

    @property
    def measured(self) -> list[int]:
        """All runs but the dark ones, those of the classes first."""
        return [*(run for of_class in self.classes.values() for run in of_class), *self.unlabeled]

    @property
    def roles(self) -> dict[int, str]:
        """{run: `dark`, `unlabeled` or the name of its class}."""
        of = {"dark": self.dark, "unlabeled": self.unlabeled, **self.classes}
        return {run: what for what, runs in of.items() for run in runs}

    @model_validator(mode="after")
    def _each_run_once(self) -> "RunsConfig":
        runs = [*self.dark, *self.measured]
        twice = sorted({run for run in runs if runs.count(run) > 1})
        if twice:
            raise ValueError(f"run {twice[0]} is named twice: a run is dark, of one class, or unlabeled")
        if self.classes and not any(self.classes.values()):
            raise ValueError(f"class '{next(iter(self.classes))}' has no run, and no other class has one")
        if len(self.classes) < 2 and (self.classes or not self.unlabeled):
            raise ValueError(f"classes: {len(self.classes)} given; 2 or more, or only `unlabeled` runs")
        taken = sorted({"dark", "unlabeled"} & set(self.classes))
        if taken:
            raise ValueError(f"class '{taken[0]}': the word has a meaning here; choose another name")
        return self


class DarkConfig(Model):
    """How the dark run is averaged. Both limits are in standard deviations."""

    max_frames: int = Field(400, ge=2)
    reject_frames: float = Field(5.0, gt=0)  # a frame whose mean intensity is an outlier among the frames
    reject_pixels: float = Field(6.0, gt=0)  # a pixel value that is an outlier among that pixel's


class BeamConfig(Model):
    """What counts as a shot with beam. A limit that is null is not applied."""

    min_charge: Optional[float] = 0.2  # nC, from the EBeam record
    min_mean_intensity: Optional[float] = None  # counts: mean of the dark-subtracted frame


class BlocksConfig(Model):
    """Splitting by blocks of time, because neighboring shots are near-copies."""

    length: float = Field(Blocks().length, ge=1e-3, le=1e9)  # s
    guard: float = Field(Blocks().guard, ge=0)  # s left out at the start of each block
    # Of each cycle of consecutive blocks, how many go to which split.
    cycle: dict[Literal["train", "validation", "test"], int] = {"train": 3, "test": 1}

    @model_validator(mode="after")
    def _something_left(self) -> "BlocksConfig":
        if self.guard >= self.length:
            raise ValueError(f"guard {self.guard} leaves nothing of a block of length {self.length}")
        if min(self.cycle.values(), default=0) < 1:
            raise ValueError("cycle: name each split with at least 1 block, or leave it out")
        if max(self.cycle.values()) > 10_000:
            raise ValueError(f"cycle: {max(self.cycle.values())} blocks of one split; 10000 at the most")
        return self


class SelectConfig(Model):
    """How many shots of which split, and how they are drawn. Counts are over all classes."""

    train: int = Field(0, ge=0)
    test: int = Field(0, ge=0)
    validation: int = Field(0, ge=0)
    predict: Optional[int] = Field(None, ge=1)  # of the unlabeled runs; null: all with beam
    by: Literal["event", "block"] = "event"
    seed: int = 1
    blocks: BlocksConfig = BlocksConfig()
    beam: BeamConfig = BeamConfig()

    @property
    def sizes(self) -> dict[str, int]:
        """{split: number of shots} of the labeled splits that are asked for, in their fixed order."""
        return {split: getattr(self, split) for split in LABELED if getattr(self, split)}

    @model_validator(mode="after")
    def _blocks_for_each_split(self) -> "SelectConfig":
        if self.by == "block":
            missing = [split for split in self.sizes if split not in self.blocks.cycle]
            if missing:
                raise ValueError(f"blocks.cycle gives no block to '{missing[0]}', which is asked for")
        return self


class ImageConfig(Model):
    """What is done to each frame, in this order, and how it is stored."""

    subtract_dark: bool = True
    downsample: tuple[int, int] = View().blocks  # block mean over (rows, columns)
    transpose: bool = View().transposed
    log: bool = View().log  # log(1 + max(0, I))
    dtype: Literal["float32", "float16"] = "float32"
    compression: Literal["none", "bitshuffle-lz4"] = "none"


NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # of a data set: of its files, too


class PrepareConfig(Model):
    """One data set: runs in, `data_manifest/NAME.csv` and `data/NAME.h5` out."""

    name: str = Field(pattern=NAME)
    experiment: str = Field("amo86815", pattern=r"^[A-Za-z0-9]+$")
    source: SourceConfig
    camera: CameraConfig = CameraConfig()
    runs: RunsConfig
    dark: DarkConfig = DarkConfig()
    select: SelectConfig = SelectConfig()
    image: ImageConfig = ImageConfig()
    shard: int = Field(2000, ge=1)  # rows of the manifest in a file; a kill costs at most these
    max_missing: float = Field(0.05, ge=0, le=1)  # share of the shots asked for that may have no image
    manifest_dir: PathText = "data_manifest"
    output_dir: PathText = "data"
    simulate: Optional[SimulateConfig] = None

    @property
    def manifest_path(self) -> Path:
        return Path(self.manifest_dir) / f"{self.name}.csv"

    @property
    def output_path(self) -> Path:
        return Path(self.output_dir) / f"{self.name}.h5"

    @property
    def image_shape(self) -> tuple[int, int]:
        """Shape of a stored image: the frame's, divided by `downsample`, transposed if asked."""
        rows, columns = (n // k for n, k in zip(self.camera.shape, self.image.downsample))
        return (columns, rows) if self.image.transpose else (rows, columns)

    def plan(self) -> list[str]:
        """What is asked for, bases and defaults filled in, as lines of text."""
        runs, select = self.runs, self.select
        classes = [
            f"{n} {name} ({_listed(of) or 'no run'})" for n, (name, of) in enumerate(runs.classes.items())
        ]
        parts = [f"dark ({_listed(runs.dark)})", *classes]
        if runs.unlabeled:
            parts.append(f"unlabeled ({_listed(runs.unlabeled)})")
        sizes = [f"{split} {size}" for split, size in select.sizes.items()]
        if runs.unlabeled:
            sizes.append(f"predict {select.predict or 'all with beam'}")
        how = f", by {select.by}" if select.sizes else ""
        return [f"runs: {', '.join(parts)}", f"shots: {', '.join(sizes)}{how}"]

    @property
    def stored_as(self) -> tuple[tuple[int, int], str, str]:
        """Shape of an image, type and compression, as `ImageWriter` takes them."""
        return self.image_shape, self.image.dtype, self.image.compression

    @property
    def axes(self) -> list[tuple[str, np.ndarray]]:
        """Name of each axis of a stored image, and where its pixels' centers are on the camera."""
        places = [
            np.arange(n // k) * k + (k - 1) / 2 for n, k in zip(self.camera.shape, self.image.downsample)
        ]
        axes = list(zip(AXES, places))
        return axes[::-1] if self.image.transpose else axes

    @model_validator(mode="after")
    def _consistent(self) -> "PrepareConfig":
        if self.source.kind == "simulated" and self.simulate is None:
            raise ValueError("simulate: missing; `source.kind: simulated` makes the shots that it describes")
        for axis, n, k in zip(("rows", "columns"), self.camera.shape, self.image.downsample):
            if k < 1 or n < 1 or n % k:
                raise ValueError(
                    f"image.downsample: {k} does not divide the camera's {n} {axis}{_nearest_divisors(n, k)}"
                )
        if self.simulate is not None and min(self.camera.shape) < 2:
            raise ValueError("camera.shape: simulated frames have 2 rows and columns at least")
        _check_counts(self.select, self.runs)
        for split, size in self.select.sizes.items():
            if size % len(self.runs.with_runs):
                raise ValueError(
                    f"select.{split}: {size} shots cannot be balanced over {len(self.runs.with_runs)} classes"
                )
        return self


def load_config(path: str) -> PrepareConfig:
    """The prepare config at `path`; raises ConfigError."""
    return load(path, PrepareConfig)


def config_in(text: str, path: Path) -> PrepareConfig:
    """The config, JSON, of the data file at `path`, with `source.dir` as it is found from here.

    A relative folder is looked for from where the build was started, as the place of the data file tells,
    then from the working directory. Raises pydantic.ValidationError.
    """
    config = PrepareConfig.model_validate_json(text)
    if config.source.dir is None:
        return config
    starts = [places.start_of(folder, config.output_dir) for folder in (path.parent, path.parent.parent)]
    where = str(places.found(config.source.dir, [*starts, Path()]))
    return config.model_copy(update={"source": config.source.model_copy(update={"dir": where})})


def _check_counts(select: SelectConfig, runs: RunsConfig) -> None:
    """Raise ValueError if shots are asked for of classes, or of unlabeled runs, that are not there."""
    empty = [name for name, of_class in runs.classes.items() if not of_class]
    if select.train and empty:
        raise ValueError(f"runs.classes: class '{empty[0]}' has no run, and select.train asks for its shots")
    needed = ("train", "test") if select.train or select.validation else ("test",)
    for split in needed if runs.classes else ():
        if not getattr(select, split):
            raise ValueError(f"select.{split}: say how many shots, over all classes")
    if select.sizes and not runs.classes:
        zeros = ", ".join(f"{split}: 0" for split in select.sizes)
        raise ValueError(
            f"select.{next(iter(select.sizes))}: runs.classes is empty, there is nothing to draw; "
            f"for unlabeled runs alone: select: {{{zeros}}}"
        )
    if select.predict and not runs.unlabeled:
        raise ValueError(f"select.predict: {select.predict} shots, but runs.unlabeled is empty")


def _listed(runs: list[int]) -> str:
    return ", ".join(map(str, runs))


def _nearest_divisors(n: int, k: int) -> str:
    if n < 1 or k < 1:
        return "; both must be at least 1"
    divisors = sorted((d for d in range(1, min(n, 64) + 1) if n % d == 0), key=lambda d: abs(d - k))
    return f"; it can be {' or '.join(map(str, sorted(divisors[:2])))}"
