"""The manifest: written, read back, refused with file and line."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import manifest
from common.errors import ManifestError
from common.manifest import LABELED, Row
from common.shots import ShotId

HEADER = "split,label,run,seconds,nanoseconds,fiducial\n"
GOOD = HEADER + "train,lasing,70,1435000000,525123446,1149\ntest,nolasing,69,1435000000,5,1086\n"

u32 = st.integers(0, 2**32 - 1)
shots = st.builds(ShotId, u32, u32, u32, u32)
labels = st.text("abcdefg_", min_size=1) | st.text("a,\"' é", min_size=1, max_size=100)
rows = st.builds(Row, st.sampled_from(LABELED), labels, shots)
rows |= st.builds(Row, st.just("predict"), st.just(""), shots)


def read_text(path, text: str):
    path.write_text(text)
    return manifest.read(path)


@given(st.lists(rows, min_size=1, unique_by=lambda row: row.shot), st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read_back(tmp_path_factory, some, end):
    """Also with the line ends of other systems."""
    path = tmp_path_factory.mktemp("m") / "m.csv"
    manifest.write(path, some)
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    read = manifest.read(path)
    assert read == some and list(read) == some and manifest.digest(read) == manifest.digest(some)
    assert manifest.Rows.joined([read[:1], read[1:]]) == some
    for label, n in Counter(row.label for row in some).items():
        assert [read[int(i)].label for i in read.of_label(label).nonzero()[0]] == [label] * n


def test_five_nanoseconds_stay_five(tmp_path):
    assert read_text(tmp_path / "m.csv", GOOD)[1].shot == ShotId(69, 1435000000, 5, 1086)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", ":1: the header is not split,label"),
        (GOOD.replace("split,", "part,"), ":1: the header is not"),
        (HEADER, "has no rows"),
        (GOOD.replace("train,", "tarin,"), ":2: split 'tarin' is none of"),
        (GOOD.replace("lasing,70", ",70"), ":2: the label is empty"),
        (GOOD.replace("train,", "predict,"), ":2: label 'lasing', but shots of split predict have none"),
        (GOOD.replace("1149", "1149.0"), ":2: fiducial '1149.0' is not an integer"),
        (GOOD.replace("1149", "-1"), ":2: fiducial '-1' is not an integer"),
        (GOOD.replace("1149", "99999999999"), ":2: fiducial '99999999999' is not an integer"),
        (GOOD.replace(",1149", ""), ":2: 5 columns, not 6"),
        (GOOD + GOOD.splitlines()[1].replace("train", "test") + "\n", ":4: run 70 1435000000.525123446"),
        (GOOD.replace("lasing,70", 'las"ing",70'), ""),
    ],
)
def test_refusals_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "m.csv"
    if not message:  # an odd label is a label
        assert read_text(path, text)
        return
    with pytest.raises(ManifestError, match="m.csv") as caught:
        read_text(path, text)
    assert message in str(caught.value)


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ManifestError, match="prepare select"):
        manifest.read(tmp_path / "none.csv")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "m.csv"
    path.write_bytes(HEADER.encode() + raw)
    try:
        manifest.read(path)
    except ManifestError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("label", ["x" * 101, "a\x1b[31m", "\x9b31m"])
def test_labels_are_plain_text(tmp_path, label):
    path = tmp_path / "m.csv"
    path.write_text(f"{HEADER}train,{label},1,2,3,4\n")
    with pytest.raises(ManifestError, match="label .* is not plain text"):
        manifest.read(path)


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "m.csv"
    with path.open("wb") as file:
        file.write(HEADER.encode() + b"train,a,")
        file.seek(10**9)
        file.write(b"\n")  # a hole of a gigabyte, on a disk of any size
    with pytest.raises(ManifestError, match=":2: a line of 1000 characters or more"):
        manifest.read(path)


@settings(max_examples=300)
@given(
    raw=st.one_of(st.binary(max_size=300), st.text(alphabet='train,lasing0123456789\r\n"\x00', max_size=300))
)
def test_any_bytes_are_rows_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "m.csv"
    raw = raw.encode() if isinstance(raw, str) else raw
    for start in (b"", HEADER.encode()):
        path.write_bytes(start + raw)
        try:
            rows = manifest.read(path)
        except ManifestError as error:
            assert str(error).startswith(str(path))
        else:
            assert manifest.text(rows).encode()


@pytest.mark.parametrize("line", [2, 10_500])
def test_a_mistake_far_down_is_named_with_its_line(tmp_path, line):
    rows = [Row("train", "lasing", ShotId(70, 1000 + i, 0, 5)) for i in range(21_000)]
    path = tmp_path / "m.csv"
    manifest.write(path, rows)
    assert manifest.read(path) == rows
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = lines[20_000]
    path.write_text("".join(lines))
    with pytest.raises(ManifestError, match=f":20001: run 70 .* stands in line {line} already"):
        manifest.read(path)
    lines[line - 1] = "train,lasing,70,x,0,5\n"
    path.write_text("".join(lines))
    with pytest.raises(ManifestError, match=f":{line}: seconds 'x' is not an integer"):
        manifest.read(path)
