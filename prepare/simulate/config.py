"""The `simulate:` section of a prepare config: the machine, the beam on the screen, the camera.

Numbers that are measured are those of amo86815 run 70, shot by shot; the scales of the image
(fs and MeV across the frame) are not published for this experiment and are plausible choices.
"""

from __future__ import annotations

from typing import Optional

from pydantic import Field, ValidationError, create_model, model_validator

from common.config import Model
from prepare.formats.xtc1.format import FIDUCIAL_RATE


class Physical(Model):
    """Numbers that a picture is made from: none so large or small that it would overflow."""

    @model_validator(mode="after")
    def _in_reach(self) -> "Physical":
        for name, value in self:
            most = 1e12 if name == "counts" else 1e6
            if isinstance(value, float) and value and not 1e-6 <= abs(value) <= most:
                raise ValueError(
                    f"{name}: {value:g} is too {'large' if abs(value) > 1 else 'small'} to simulate"
                )
        return self


class Bunch(Physical):
    """One of the electron bunches in the picture, at the center of all jitters."""

    charge: float = Field(gt=0)  # share of the shot's charge
    delay: float  # fs from the middle of the frame
    energy: float  # MeV from the middle of the frame
    length: float = Field(gt=0)  # fs, full width of the current profile
    chirp: float  # MeV across the length
    curvature: float  # MeV at head and tail above the middle
    wake: float  # MeV, cubic: head up, tail down
    horns: float = Field(ge=0)  # height of the current horns at head and tail, in units of the core
    lasing: float = Field(ge=0)  # share of the pulse energy


class Jitter(Physical):
    """Standard deviations from shot to shot and bunch to bunch that the EBeam quantities do not show."""

    delay: float = Field(4.0, ge=0)  # fs
    length: float = Field(0.05, ge=0)  # share of the length
    horns: float = Field(0.25, ge=0)  # share of the height
    chirp: float = Field(1.2, ge=0)  # MeV
    curvature: float = Field(0.10, ge=0)  # share of the curvature
    wake: float = Field(0.10, ge=0)  # share of the wake


class MachineMeans(Physical):
    """How far this machine's means are from those of run 70; the EBeam record shows it, too."""

    charge: float = Field(0.0, ge=-0.25)  # nC, and the dump's electrons in proportion; the mean is 0.3
    l3_energy: float = 0.0  # MeV
    current: float = Field(0.0, ge=-1000)  # A, peak current behind BC2, 1352: shorter bunches, higher horns
    ltu_x: float = 0.0  # mm, moves the picture in time
    ltu_y: float = 0.0  # mm, moves the picture in energy
    xtcav_amplitude: float = 0.0  # MV, stretches the picture in time
    xtcav_phase: float = 0.0  # deg, moves the picture in time


class BeamOnScreen(Physical):
    """From the electron bunches to the screen."""

    time_span: float = Field(420.0, gt=0)  # fs across the frame's columns
    energy_span: float = Field(145.0, gt=0)  # MeV across the frame's rows
    streak_sign: int = 1  # -1 mirrors the picture in time: the other zero crossing of the RF
    time_resolution: float = Field(3.0, gt=0)  # fs
    energy_resolution: float = Field(0.8, gt=0)  # MeV, optics and screen
    slice_spread: float = Field(1.0, gt=0)  # MeV, without lasing
    lasing_spread: float = Field(0.7, ge=0)  # MeV of extra spread for each MeV that a slice loses
    lasing_window: float = Field(0.2, gt=0, le=1)  # share of the length that can lase
    lasing_place: float = 0.0  # share of the length by which the window is off the bunch's middle
    coherence: float = Field(7.0, gt=0)  # fs, width of a SASE spike
    spread_slope: float = Field(0.0, gt=-1, lt=1)  # share by which the slice spread is higher at the head
    horn_asymmetry: float = Field(0.0, ge=-1, le=1)  # share by which the horn at the head is higher
    ripple: float = Field(0.0, ge=0)  # MeV: a wave along the bunch, its phase another in each shot
    ripple_period: float = Field(30.0, gt=0)  # fs
    phase_to_time: float = 15.0  # fs of arrival on the screen for each degree of XTCAV phase
    pointing_to_time: float = 150.0  # fs for each mm of LTU X
    pointing_to_energy: float = 100.0  # MeV for each mm of LTU Y
    counts: float = Field(6.0e6, gt=0)  # sum over the frame, counts, at 0.3 nC
    halo: float = Field(0.0, ge=0, lt=1)  # share of the light that is scattered into long tails
    edge_line: float = Field(0.0, ge=0)  # counts at 0.3 nC: the screen's edge, lit by the beam, a sharp line
    edge_place: float = Field(0.9, ge=0, le=1)  # where that line is, as a share of the frame's width
    jitter: Jitter = Jitter()
    bunches: list[Bunch] = [
        Bunch(
            charge=0.52, delay=-62, energy=18, length=88, chirp=9, curvature=7, wake=4, horns=1.3, lasing=0.55
        ),
        Bunch(
            charge=0.48,
            delay=58,
            energy=-20,
            length=80,
            chirp=-7,
            curvature=8,
            wake=5,
            horns=1.1,
            lasing=0.45,
        ),
    ]

    @model_validator(mode="after")
    def _possible(self) -> "BeamOnScreen":
        if self.streak_sign not in (-1, 1):
            raise ValueError(f"streak_sign: {self.streak_sign} is neither 1 nor -1")
        if not self.bunches or not any(bunch.lasing for bunch in self.bunches):
            raise ValueError("bunches: one at least must have a lasing share")
        return self


class OpalCamera(Physical):
    """The camera: Opal1000, 12 bit."""

    pedestal: float = 32.0  # counts
    pattern: float = Field(1.5, ge=0)  # counts, fixed from pixel to pixel
    hot_pixels: int = Field(120, ge=0)
    read_noise: float = Field(2.2, ge=0)  # counts
    electrons_per_count: float = Field(4.0, gt=0)  # shot noise: variance = counts / this
    background_drift: float = 0.0  # counts: a planted difference between runs. 0: they differ in lasing only
    # Background that the dark run does not have, because it changed later or comes with the light:
    level: float = 0.0  # counts
    stripes: float = Field(0.0, ge=0)  # counts, std from column to column
    readout_step: float = 0.0  # counts by which the lower half of the rows is above the upper


Range = tuple[float, float]


def _ranges(name: str, model: type[Model]) -> type[Model]:
    """A model with a range for each number of `model`."""
    numbers = {key for key, field in model.model_fields.items() if field.annotation is float}
    keys = [key for key in model.model_fields if key in numbers]
    return create_model(name, __base__=Model, **{key: (Optional[Range], None) for key in keys})


VaryMachine = _ranges("VaryMachine", MachineMeans)
VaryBeam = _ranges("VaryBeam", BeamOnScreen)
VaryBunches = _ranges("VaryBunches", Bunch)
VaryCamera = _ranges("VaryCamera", OpalCamera)


class Vary(Model):
    """Ranges [low, high] from which each run with beam draws a machine of its own, uniformly.

    machine, beam, camera: ranges of the values. bunches: ranges of a factor on the value of each bunch.
    """

    machine: VaryMachine = VaryMachine()
    beam: VaryBeam = VaryBeam()
    bunches: VaryBunches = VaryBunches()
    camera: VaryCamera = VaryCamera()
    mirrored: float = Field(0.0, ge=0, le=1)  # share of the runs that are mirrored in time

    def ranges(self) -> dict[tuple[str, str], Range]:
        """{(section, key): range} of what varies."""
        sections = {name: getattr(self, name) for name in ("machine", "beam", "bunches", "camera")}
        return {
            (name, key): value
            for name, section in sections.items()
            for key, value in section.model_dump().items()
            if value is not None
        }


class SimulateConfig(Model):
    """What the simulated runs are like."""

    seed: int = Field(1, ge=0)
    experiment_number: int = Field(815, ge=0)
    start: int = 1_435_000_000  # Unix time of the first run; the others follow, `pause` apart
    pause: int = Field(300, ge=0)  # s
    rate: float = 120.0  # Hz
    shots: dict[str, int]  # of each run, by what it is: `dark`, `unlabeled`, or the name of its class
    lasing: list[str] = ["lasing"]  # classes whose runs lase
    # Whether the two classes have changed places: runs, lengths and shots are those of the config with each
    # class's runs in the other, and only the lasing differs. `prepare counterfactual` sets it.
    switched: bool = False
    unlabeled_lasing: list[int] = []  # of runs.unlabeled, those that lase
    missing: float = Field(0.03, ge=0, lt=1)  # share of shots without camera frame
    damaged: float = Field(0.01, ge=0, lt=1)  # share of frames marked as damaged
    daq_streams: int = Field(2, ge=1, le=80)
    chunk_shots: int = Field(500, ge=1)  # camera frames in a file
    clock_skew: int = 1  # s by which the camera recorder's clock is behind the DAQ's
    machine: MachineMeans = MachineMeans()
    beam: BeamOnScreen = BeamOnScreen()
    camera: OpalCamera = OpalCamera()
    vary: Vary = Vary()

    @property
    def fiducial_step(self) -> int:
        """Fiducials (360 Hz pulse ids) from one shot to the next."""
        return round(FIDUCIAL_RATE / self.rate)

    @model_validator(mode="after")
    def _possible(self) -> "SimulateConfig":
        if (
            self.rate <= 0
            or abs(FIDUCIAL_RATE / self.rate - self.fiducial_step) > 1e-9
            or self.fiducial_step < 1
            or self.fiducial_step % 3
        ):
            raise ValueError(f"rate: {self.rate:g} Hz is not 120 Hz divided by a whole number")
        if "dark" not in self.shots:
            raise ValueError("shots: `dark` is missing")
        negative = [name for name, n in self.shots.items() if n < 1]
        if negative:
            raise ValueError(f"shots.{negative[0]}: {self.shots[negative[0]]} is not positive")
        for (section, key), ends in self.vary.ranges().items():
            self._check_range(section, key, ends)
        return self

    def _check_range(self, section: str, key: str, ends: Range) -> None:
        """Raise ValueError unless both ends are values that the key itself could have."""
        if ends[0] > ends[1]:
            raise ValueError(f"vary.{section}.{key}: {list(ends)}: the lower end comes first")
        of_bunches = section == "bunches"
        for old in self.beam.bunches if of_bunches else [getattr(self, section)]:
            for end in ends:
                value = end * getattr(old, key) if of_bunches else end
                try:
                    type(old).model_validate({**old.model_dump(), key: value})
                except ValidationError as error:
                    reason = error.errors()[0]["msg"].replace("Value error, ", "")
                    raise ValueError(
                        f"vary.{section}.{key}: {end:g}: {reason[0].lower()}{reason[1:]}"
                    ) from None
