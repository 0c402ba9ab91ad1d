"""How psana 2 is called: its runs, and its detectors' frames, fiducials and records."""

from __future__ import annotations

import contextlib
import itertools
from types import ModuleType
from typing import Callable, Container, Iterable

import numpy as np

from common.errors import DataError
from common.progress import warn
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, GMD_UNITS
from prepare.formats.xtc1.format import FIDUCIAL_MASK
from prepare.sources.reconcile import Received

# psana 2's names of the detectors; `ebeamh` is the electron beam of the hard X-ray line.
RECORDS = {
    "ebeam": EBEAM_UNITS,
    "ebeamh": EBEAM_UNITS,
    "gasdet": GAS_DETECTOR_UNITS,
    "gmd": GMD_UNITS,
}
TIMING = "timing"
# As LCLS-II's DAQ writes them.
_OTHER_SPELLINGS = {
    "ebeamLTUAngX": ("ebeamLUTAngX",),
    **{name: (name.replace("_", ""),) for name in GAS_DETECTOR_UNITS},  # f11ENRC
    "milliJoulesPerPulse": ("millijoulesperpulse", "energy"),
}
_EVENTS_WITH_EPICS = 240  # looked at
_OFFLINE = {"skip_calib_load": "all", "log_level": "WARNING"}  # no calibration constants, over the network


def open_file(psana: ModuleType, path: str):
    """psana's Run object for one file."""
    # What DataSource(files=path) gives, less the 40 ms that it spends on Python's garbage each time.
    return _only_run(psana.psexp.singlefile_ds.SingleFileDataSource(files=path, **_OFFLINE), path)


def open_run(psana: ModuleType, experiment: str, directory: str, run: int, **chosen):
    """psana's Run object for the files in a folder, read by their small data; `chosen` as in DataSource."""
    source = _on_disk(psana)(exp=experiment, run=run, dir=directory, **_OFFLINE, **chosen)
    return _only_run(source, f"{directory}: run {run}")


def _on_disk(psana: ModuleType) -> type:
    """psana's serial reader of a folder, less its question to the logbook which files there are."""

    class OnDisk(psana.psexp.serial_ds.SerialDataSource):
        def _get_file_info_from_db(self, runnum: int) -> dict:
            return {}  # then it looks into the folder

    return OnDisk


def _only_run(source, where: str):
    """The one run of a psana DataSource, which it must outlive."""
    run = next(source.runs(), None)
    if run is None:
        raise DataError(f"{where}: psana 2 finds no BeginRun in it; copy the files again")
    run.data_source = source
    return run


def detectors(psana_run) -> tuple[str, ...]:
    """The names of the detectors in a psana Run."""
    return tuple(dict.fromkeys(name for name, _ in psana_run.detinfo))


def detector(psana: ModuleType, psana_run, name: str):
    """The detector `name` of a psana Run.

    psana keeps one object for each name and gives it again for a run whose detector is of another
    class, not made for that run; so it is made to forget.
    """
    psana.detector.detector_impl.DetectorImpl._registry.clear()
    return psana_run.Detector(name)


def frame_reader(detector, name: str) -> Callable[..., Received]:
    """The function from an event to the raw frame: an opal's is `raw`, that of psana's test camera `array`.

    Where psana fails, as its detectors do in an event without their data, it gives the reason. The
    panels of a camera that has several are put below each other.
    """
    for method in ("raw", "array", "value"):
        read = getattr(getattr(detector, "raw", None), method, None)
        if callable(read):
            return lambda event: _frame(read, event)
    raise DataError(f"psana 2 has no raw images of detector '{name}' (camera.address)")


def _frame(read: Callable, event) -> Received:
    try:
        frame = read(event)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return f"psana could not read the frame ({type(error).__name__}: {' '.join(str(error).split())})"
    return frame.reshape(-1, frame.shape[-1]) if frame is not None and frame.ndim == 3 else frame


def epics_values(psana_run, names: Iterable[str]) -> dict[str, float]:
    """The first EPICS values `names` of a psana Run, as they are at its first events; numbers alone.

    They are written about once a second; a run's first shots may come before.
    """
    detectors = {name: psana_run.Detector(name) for name in names}
    values = {}
    for event in itertools.islice(psana_run.events(), _EVENTS_WITH_EPICS):
        for name in set(detectors) - set(values):
            with contextlib.suppress(TypeError, ValueError):  # None, or a text
                values[name] = float(detectors[name](event))
        if len(values) == len(detectors):
            break
    return values


def fiducial_filler(shots: np.ndarray, detector) -> Callable:
    """The function that fills in the fiducial of a shot, `fill(row, event)`: 0 where it is not LCLS-I's."""
    pulse_id = detector.raw.pulseId

    def fill(row: int, event) -> None:
        pulse = pulse_id(event)
        shots["fiducial"][row] = pulse if pulse is not None and pulse <= FIDUCIAL_MASK else 0

    return fill


def records_in(run: int, detectors: Container[str]) -> list[str]:
    """Which of `detectors` the fiducials and records of `run` are read from; warns of one that is not."""
    found = [name for name in (TIMING, *RECORDS) if name in detectors]
    if "ebeam" in found and "ebeamh" in found:
        warn(f"run {run}: has the records of two electron beams; ebeam is kept, ebeamh (hard X-rays) is not")
    return [name for name in found if name != "ebeamh" or "ebeam" not in found]


def record_filler(shots: np.ndarray, name: str, detector) -> Callable:
    """The function that fills in the fields of one record for a shot; warns of those that psana has not."""
    raw = getattr(detector, "raw", None)
    columns, missing = [], []
    for bit, field in enumerate(RECORDS[name]):
        spellings = (field, *_OTHER_SPELLINGS.get(field, ()))
        read = next((getattr(raw, spelled) for spelled in spellings if hasattr(raw, spelled)), None)
        if read is None:
            missing.append(field)
        else:
            columns.append((shots[field], bit, read))
    if missing:
        one = f"run {shots['run'][0]}: psana 2 has no {', '.join(missing)} of detector '{name}'"
        warn(f"{one}; {'it is' if len(missing) == 1 else 'they are'} missing from the records")
    damage = getattr(raw, "damageMask", None)

    def fill(row: int, event) -> None:
        mask = (damage(event) or 0) if damage is not None else 0
        for column, bit, read in columns:
            value = read(event)
            # Bit n of the record's damage mask says that its n-th value is not to be used.
            column[row] = np.nan if value is None or mask >> bit & 1 else value

    return fill
