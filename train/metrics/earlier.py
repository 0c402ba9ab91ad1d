"""The scores of runs that earlier versions trained."""

from __future__ import annotations

from typing import Any

from train.metrics.effective import Share
from train.metrics.measure import Score


def upgraded(summary: dict[str, Any]) -> dict[str, Any]:
    """A run's summary.json as this version writes it. Earlier ones had two classes and plain intervals."""
    classes, splits = summary["classes"], {}
    for name, s in summary["splits"].items():
        found = {**s, **Score.from_json(s).to_json()}
        found["by_pulse_energy"] = [
            {"class": classes[1], **band, **Share.from_json(band["n"], band["found"], band).to_json()}
            for band in s["by_pulse_energy"]
        ]
        found["thresholds"] = [{"class": classes[1], **row} for row in s.get("thresholds", [])]
        found["reliability"] = [
            {**each, **Share.from_json(each["n"], each["correct"], each).to_json()}
            for each in s.get("reliability", [])
        ]
        half = s.get("half_recognized")
        found["half_recognized"] = half if isinstance(half, dict) else {classes[1]: half} if half else {}
        splits[name] = found
    return {"provenance": "unknown", **summary, "splits": splits}
