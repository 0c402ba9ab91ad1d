"""Configs: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

from typing import Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Model, PathText, dump, load
from common.errors import ConfigError
from common.yaml_lines import MAX_BYTES


class Inner(Model):
    window: tuple[int, int] = (2, 2)
    kind: Literal["average", "maximum"] = "average"


class Example(Model):
    name: str
    rate: float = 0.5
    steps: int = 3
    inner: Inner = Inner()
    runs: dict[str, list[int]] = {}
    note: Optional[str] = None
    flag: bool = False
    place: PathText = "."
    rooms: Optional[dict[str, Inner]] = None
    other: Optional[Inner] = None


@pytest.fixture
def config(tmp_path):
    def write(text: str, name: str = "a.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def refusal(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, Example)
    return str(caught.value)


def test_values_and_defaults(config):
    loaded = load(config("name: x\nrate: 1e-3\ninner: {window: [3, 4]}\nruns: {a: [1, 2]}\n"), Example)
    assert loaded == Example(name="x", rate=0.001, inner=Inner(window=(3, 4)), runs={"a": [1, 2]})


def test_dump_reads_back_equal(config):
    first = load(config("name: 'yes'\nrate: 1e-7\ninner: {kind: maximum}\n"), Example)
    assert load(config(dump(first), "b.yaml"), Example) == first


def test_equal_configs_have_equal_texts(config):
    explicit = load(config("rate: 0.5\nname: x\n"), Example)
    short = load(config("name: x\n", "b.yaml"), Example)
    other = load(config("name: y\n", "c.yaml"), Example)
    assert explicit.canonical() == short.canonical() != other.canonical()


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("name: x\nstps: 4\n", 2, "stps: unknown key; did you mean 'steps'?"),
        ("name: x\ninner:\n  windw: [1, 2]\n", 3, "inner.windw: unknown key; did you mean 'window'?"),
        ("name: x\nsteps: many\n", 2, "steps: 'many': input should be a valid integer"),
        ("name: x\nsteps: 2.5\n", 2, "steps: 2.5: input should be a valid integer"),
        ("name: x\ninner: null\n", 2, "inner: null: is to be a section of window, kind"),
        ("name: x\nruns: [1]\n", 2, "runs: [1]: is to be a section: {key: value, ...}"),
        ("name: x\ninner: {window: 3}\n", 2, "inner.window: 3: is to be a list: [value, ...]"),
        ("name: 5\n", 1, "name: 5: is to be text; quote it"),
        ("name: x\nrate: .nan\n", 2, "rate: .nan is not a finite number"),
        ("name: x\ninner: {window: [1]}\n", 2, "inner.window[1]: missing"),
        ("name: x\ninner: {kind: maximun}\n", 2, "'maximun' is not a choice; did you mean 'maximum'?"),
        ("name: x\nname: y\n", 2, "name: given twice"),
        ("name: x\nnote: 2015-06-22\n", 2, "note: '2015-06-22' is read as a date; quote it"),
        ("name: &a x\nnote: *a\n", 2, "aliases (*name) are not read"),
        ("name: [x\n", 2, "not valid YAML"),
        ("name: x\nsteps: !!int ''\n", 2, "tags (!name) are not read"),
        ("name: x\nnote: !!python/object/apply:os.system [ls]\n", 2, "tags (!name) are not read"),
        ("name: x\nsteps: " + "9" * 40 + "\n", 2, "does not fit 64 bits"),
        ("name: x\nsteps: " + "9" * 101 + "\n", 2, "a number of over 100 characters"),
        ("name: x\nsteps: " + "1:" * 50_000 + "1\n", 2, "base 60"),
        ("name: x\nsteps: 0020\n", 2, "steps: 0020 begins with a zero, which YAML 1.1 reads as octal"),
        ("name: x\nruns: {a: [68, 0o20]}\n", 2, "runs.a[1]: 0o20 is not decimal"),
        ("name: x\nsteps: 0x1F\n", 2, "steps: 0x1F is not decimal"),
        ("name: x\nsteps: 0b11\n", 2, "steps: 0b11 is not decimal"),
        ("name: x\nsteps: -1_000\n", 2, "steps: -1_000 has underscores"),
        ("name: x\nrate: 1:30\n", 2, "rate: 1:30 is what YAML 1.1 reads as a number of base 60"),
        ("name: x\nrate: 1:30.5\n", 2, "base 60"),
        ("name: 0815\n", 1, "if it is text, quote it: '0815'"),
        ("name: x\nruns: {0815: [1]}\n", 2, "key 0815 begins with a zero"),
        ("name: x\nruns: {true: [1]}\n", 2, "runs: key true is not a word; quote it"),
        ("name: x\nrate: -.Inf\n", 2, "rate: -.Inf is not a finite number"),
        ("name: x\nflag: yes\n", 2, "flag: 'yes': say true or false"),
        ("name: x\nplace: $HOME/data\n", 2, "variables are not read here"),
        ('name: x\nplace: "a\\0b"\n', 2, r"'a\x00b': has the character that ends a path"),
        ("name: x\nplace: ~nobody-of-that-name/data\n", 2, "there is no such user"),
        ("name: x\nrate: 1e999\n", 2, "rate: 1e999 is not a finite number"),
        ("name: x\n5: y\n", 2, "key 5 is not a word"),
    ],
)
def test_refusals_name_file_line_key_and_value(config, text, line, message):
    path = config(text)
    assert f"{path}:{line}: " in refusal(path)
    assert message in refusal(path)


def test_a_missing_key_is_named(config):
    assert "name: missing" in refusal(config("steps: 3\n"))


def test_every_mistake_is_reported(config):
    assert len(refusal(config("stps: 1\nrate: x\n")).splitlines()) == 3


def test_a_variant_gives_only_what_differs(config):
    config("name: x\nsteps: 9\ninner: {kind: maximum, window: [5, 5]}\n", "base.yaml")
    loaded = load(config("base: base.yaml\ninner: {window: [6, 7]}\n"), Example)
    assert (loaded.name, loaded.steps) == ("x", 9)
    assert loaded.inner == Inner(kind="maximum", window=(6, 7))


def test_names_of_the_base_are_replaced_and_sections_merge(config):
    """Two lists of classes on top of one another are not a third that somebody wrote."""
    config(
        "name: x\nruns: {off: [1], on: [2]}\nrooms: {a: {}, b: {}}\nother: {window: [5, 5]}\n", "base.yaml"
    )
    loaded = load(
        config("base: base.yaml\nruns: {no: [3], yes: [4, 5]}\nrooms: {c: {}}\nother: {kind: maximum}\n"),
        Example,
    )
    assert loaded.runs == {"no": [3], "yes": [4, 5]}
    assert list(loaded.rooms) == ["c"]
    assert loaded.other == Inner(window=(5, 5), kind="maximum")
    assert load(config("base: base.yaml\nruns: {}\n"), Example).runs == {}


@given(
    st.text(max_size=12)
    | st.from_regex(r"[-+]?[0-9._:eExXbBoO]{1,8}", fullmatch=True)
    | st.sampled_from(
        [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "true",
            "null",
            "~",
            "1e-3",
            "0020",
            "1:30",
            "1_0",
            ".inf",
            "2015-06-22",
            "a\x85b\u2028c",
            "\x85",
        ]
    )
)
def test_every_text_is_dumped_so_that_it_is_read_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("dump") / "a.yaml"
    first = Example(name=text, note=text, runs={text: [1]})
    path.write_bytes(dump(first).encode())
    assert load(path, Example) == first


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_numbers_are_read_as_they_are_written(tmp_path_factory, whole, broken):
    path = tmp_path_factory.mktemp("numbers") / "a.yaml"
    path.write_text(f"name: x\nsteps: {whole}\nrate: {broken!r}\n")
    loaded = load(path, Example)
    assert (loaded.steps, loaded.rate) == (whole, broken)


def test_a_home_is_written_out(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load(config("name: x\nplace: ~/data\n"), Example).place == "/home/me/data"
    assert load(config("name: x\nplace: ./~/data\n"), Example).place == "./~/data"


def test_a_config_of_another_command_is_told_as_one(config):
    told = refusal(config("name: x\nsource: {dir: x}\nruns: {}\nselect: {}\n"))
    assert told.endswith("this is a config for `python -m prepare` (it has runs, select, source)")
    assert "\n" not in told


def test_a_mistake_in_the_base_names_the_base(config):
    base = config("name: x\nsteps: many\n", "base.yaml")
    assert f"{base}:2: steps" in refusal(config("base: base.yaml\n"))


def test_a_missing_base_is_suggested(config):
    config("name: x\n", "base.yaml")
    assert "did you mean" in refusal(config("base: bsae.yaml\n"))


def test_bases_in_a_circle(config):
    config("base: a.yaml\n", "b.yaml")
    assert "leads back to itself" in refusal(config("base: b.yaml\n"))


def test_missing_file_suggests_the_nearest(config, tmp_path):
    config("name: x\n", "demo.yaml")
    assert "did you mean" in refusal(str(tmp_path / "dmeo.yaml"))


def test_a_huge_file_is_refused_before_it_is_parsed(config):
    assert "larger than" in refusal(config("name: " + "x" * MAX_BYTES))


def test_deep_nesting_is_refused(config):
    assert "not valid YAML" in refusal(config("name: " + "[" * 5000 + "]" * 5000))


@given(raw=st.one_of(st.binary(max_size=200), st.text(alphabet="[]{}:,&*!|>-'\"\n ab1#%@`?", max_size=80)))
def test_any_bytes_load_or_are_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "a.yaml"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    with pytest.raises(ConfigError):  # none of these has the required key `name`
        load(path, Example)


VALUES = [
    "!!int ''", "!!timestamp x", "!!bool x", "0x", "0x" + "f" * 50, "1:2:3", "1e999", ".inf", "2001-99-99",
    "=", "<<", "~", "null", "yes", "0b", "0_", "1_000", "'",
    '"\\x', "[", "{a: 1}", "? a", "&a x", "*a", "%TAG",
    "\t", "\x00", "\ud800",
]  # fmt: skip


@settings(max_examples=400)
@given(
    key=st.sampled_from(["name", "steps", "rate", "note", "inner", "base", "<<", "=", "? [a]", "x"]),
    value=st.one_of(st.sampled_from(VALUES), st.text(max_size=20)),
    more=st.lists(st.sampled_from(VALUES), max_size=3),
)
def test_any_value_loads_or_is_refused(tmp_path_factory, key, value, more):
    path = tmp_path_factory.mktemp("fuzz") / "a.yaml"
    text = f"name: x\n{key}: {value}\n" + "".join(f"inner: [{item}]\n" for item in more)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert load(path, Example).name
    except ConfigError as error:
        assert str(error).startswith(str(path))
