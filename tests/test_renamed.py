"""Keys of configs that had another name: refused in one line that says the new one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from common.config import from_data
from common.config_errors import RENAMED
from common.errors import ConfigError
from prepare.config import PrepareConfig
from train.config import TrainConfig

CONFIG_OF = {"network": TrainConfig, "preprocess": TrainConfig, "regularise": TrainConfig}


def nested(keys: list[str], at_end: str) -> Any:
    """A config with `at_end` under `keys`; layers and preprocessing are lists."""
    if not keys:
        return {at_end: 1}
    inside = [at_end] if keys == ["preprocess"] else nested(keys[1:], at_end)
    return {keys[0]: [inside] if keys[0] == "network" else inside}


def refusal(data: dict, model: type) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_data(data, model, "x.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_refused_in_one_line_with_the_new_one(old):
    keys, word, new = old.split(".")[:-1], old.split(".")[-1], RENAMED[old]
    model = CONFIG_OF.get(old.split(".")[0], PrepareConfig)
    (line,) = refusal(nested(keys, word), model)
    assert line.startswith("x.yaml: ") and line.endswith(f"{word}: is now called {new}")
    after = "\n".join(refusal(nested(keys, new), model))  # what is left is about other keys
    assert "is now called" not in after and f"{new}: unknown key" not in after
    assert f"'{new}' is not a choice" not in after


def test_every_old_name_of_a_file_has_its_line(tmp_path):
    layers = [{"convolution": {"window": [4, 4], "channels": 3}}, "batch_normalisation", "output"]
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "data": "x.h5", "steps": 1, "network": layers}))
    command = [sys.executable, "-m", "train", "describe", str(path)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2 and process.stdout == ""
    assert [line.replace("error: ", "") for line in process.stderr.splitlines()] == [
        f"{path}:5: network[0].convolution.channels: is now called filters",
        f"{path}:6: network[0].convolution.window: is now called kernel_size",
        f"{path}:9: network[1].batch_normalisation: is now called batch_normalization",
    ]
