"""Every config in configs/train: what `describe` says of it, and that its data are ones we can make."""

from __future__ import annotations

from pathlib import Path

import pytest

from prepare.config import load_config as load_prepare
from prepare.simulate.signal_noise import load_config as load_signal_noise
from tests.train.conftest import SHAPE, write_data
from train.config import load_config

CONFIGS = Path("configs/train")
PREPARE = Path("configs/prepare")

# Unknown variables in all, in convnet layers, in hidden layers, as in the 2016 study's logs where given.
VARIABLES = {
    "demo": ("13,234", "4,112 (31 %)", "9,122 (68 %)"),
    "demo_leak": ("13,234", "4,112 (31 %)", "9,122 (68 %)"),
    "first_scale_up": ("13,234", "4,112 (31 %)", "9,122 (68 %)"),
    "mlearn_4_layers": ("4,418", "2,832 (64 %)", "1,586 (35 %)"),
    "mlearn_6_layers": ("130,580", "7,148 (5 %)", "123,432 (94 %)"),
    "recommended": ("40,754", "39,600 (97 %)", "1,154 (2 %)"),
    "scale_up": ("20,174", "2,832 (14 %)", "17,342 (85 %)"),
    "scale_up_3_convolutions": ("14,558", "4,896 (33 %)", "9,662 (66 %)"),
    "scale_up_whitened": ("20,174", "2,832 (14 %)", "17,342 (85 %)"),
    "signal_noise_40": ("559", "407 (72 %)", "152 (27 %)"),
    "signal_noise_40_more_parameters": ("23,588", "23,396 (99 %)", "192 (0 %)"),
    "signal_noise_100": ("24,868", "23,396 (94 %)", "1,472 (5 %)"),
    "signal_noise_200": ("307,512", "278,560 (90 %)", "28,952 (9 %)"),
    "signal_noise_1000": ("905,912", "278,560 (30 %)", "627,352 (69 %)"),
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_describe_counts_the_variables_of_every_config(path, train):
    result = train("describe", str(path))
    assert result.exit_code == 0, result.output
    total, convnet, hidden = VARIABLES[path.stem]
    assert (
        f"convnet has {total} unknown variables, {convnet} in convnet layers, and {hidden} in hidden layers."
        in result.output.splitlines()
    )


@pytest.mark.parametrize(
    "name, shapes",
    [
        ("first_scale_up", ["(80, 284, 363, 1)", "(80, 142, 182, 16)", "(80, 15, 19, 16)", "(4560, 2)"]),
        ("signal_noise_40", ["(5, 5, 1, 4)", "(5, 5, 4, 3)", "(128, 20, 20, 4)", "(27, 5)", "(5, 2)"]),
        ("signal_noise_40_more_parameters", ["(12, 12, 1, 20)", "(8, 8, 20, 16)", "(16, 10)", "(10, 2)"]),
        ("signal_noise_200", ["(32, 32, 1, 16)", "(128, 34, 34, 16)", "(128, 6, 6, 16)", "(576, 50)"]),
        (
            "signal_noise_1000",
            [
                "(128, 1000, 1000, 1)", "(32, 32, 1, 16)", "(128, 500, 500, 16)", "(128, 167, 167, 16)",
                "(32, 32, 16, 16)", "(128, 84, 84, 16)", "(128, 28, 28, 16)", "(12544, 50)", "(50, 2)",
                "convnet maps 1,000,000 features to 2 outputs.",
            ],
        ),
        ("mlearn_4_layers", ["(8, 8, 1, 8)", "(6, 6, 8, 8)", "(40, 29, 37, 8)", "(40, 3, 4, 8)", "(96, 16)"]),
    ],
)  # fmt: skip
def test_describe_gives_the_shapes_of_the_2016_study(name, shapes, train):
    output = train("describe", str(CONFIGS / f"{name}.yaml")).output
    for shape in shapes:
        assert shape in output


def test_describe_says_how_each_pass_of_a_layer_is_computed(train):
    """Forward, gradient by the kernel, gradient by the input."""
    output = train("describe", str(CONFIGS / "signal_noise_200.yaml")).output
    ways = {line.split()[0]: line for line in output.splitlines() if line}
    assert "  spectra / spectra / direct; 1 x 2 tiles, transforms 115 x 65" in ways["convolution_1"]
    assert "  spectra / spectra / spectra; 1 x 1 tiles, transforms 32 x 32" in ways["convolution_2"]
    output = train("describe", str(CONFIGS / "first_scale_up.yaml")).output
    ways = {line.split()[0]: line for line in output.splitlines() if line}
    assert ways["convolution_1"].endswith("  direct / phases, r = 1 / direct")
    assert ways["average_pool_1"].endswith("  direct / matrix products")


def test_the_number_of_outputs_is_that_of_the_datas_classes(tmp_path, write_config, train):
    """The successors' task of 4 classes, told by the data file alone."""
    write_data(tmp_path / "data.h5", {"train": 40, "test": 30}, classes=("none", "first", "second", "both"))
    network = [{"hidden": {"units": 16}}, "relu", "output"]
    path = write_config(network=network, steps=3, table_every=1)
    described = train("describe", path).output
    assert "(16, 4)" in described and f"maps {SHAPE[0] * SHAPE[1]:,} features to 4 outputs." in described
    fitted = train("fit", path)
    assert fitted.exit_code == 0, fitted.output
    assert "1.38" in fitted.output  # the first loss, ln 4
    closing = [line for line in fitted.output.splitlines() if "called none, " in line]
    assert [line.split()[2].rstrip(":") for line in closing] == ["none", "first", "second", "both"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_has_data_that_a_prepare_config_makes(path):
    config = load_config(str(path))
    maker = PREPARE / f"{Path(config.data).stem}.yaml"
    if maker.stem.startswith("signal_noise"):
        made = load_signal_noise(str(maker))
        assert (str(made.output_path), made.shape) == (config.data, config.input)
        assert config.stop_when is None or config.stop_when.split in made.sizes
    else:
        made = load_prepare(str(maker))
        assert (str(made.output_path), made.image_shape) == (config.data, config.input)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_head_of_every_config_says_what_to_type(path):
    head = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert f"configs/train/{path.name}" in head
