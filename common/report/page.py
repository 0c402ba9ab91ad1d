"""A report page: blocks of text, tables and pictures -> one HTML file that needs nothing else.

Everything that comes from a user (names, paths, configs) goes through the template, which escapes
it; the page's own policy forbids it to load anything or to run a script.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Sequence, Union

from common import __version__
from common.errors import UserError


@dataclass(frozen=True)
class Text:
    """A paragraph; weight `strong` for the main statement, `note` for a remark."""

    text: str
    weight: str = ""  # "", "strong" or "note"
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Picture:
    """An image: data URI, alternative text, and caption."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side as there is room: "large", "medium" or "small" ones."""

    pictures: Sequence[Picture]
    size: str = "large"
    title: str = ""
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Table:
    """A table; numbers are right-aligned. It scrolls inside its box if the page is too narrow."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    kind: ClassVar[str] = "table"

    @property
    def numbers(self) -> list[bool]:
        """Of each column whether it holds numbers only."""
        return [all(map(_is_number, column)) for column in zip(*self.rows)] or [False] * len(self.header)


@dataclass(frozen=True)
class Code:
    """Text as a terminal shows it, scrolling inside its box."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Fact:
    """What matters at first sight: title, a few words, what they mean; tone: "good", "bad", "open" or ""."""

    title: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """Facts side by side, as many as there is room for."""

    facts: Sequence[Fact]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Columns:
    """Blocks side by side where there is room."""

    blocks: Sequence["Block"]
    kind: ClassVar[str] = "columns"


Block = Union[Text, Pictures, Table, Code, Facts, Columns]


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its title, what is in it, and what the bar of contents calls it.

    Sections with the same word in `bar` are one entry there, which leads to the first of them.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    bar: str


def render(title: str, subtitle: str, sections: Sequence[Section], banner: str = "") -> str:
    """The page as HTML, `banner` above everything; raises UserError if Jinja2 is not installed."""
    try:
        import jinja2
    except ImportError as error:
        raise not_installed(error) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).parent)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bar: dict[str, str] = {}
    for section in sections:
        bar.setdefault(section.bar, section.id)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        bar=bar,
        banner=banner,
        made=f"xtcav-lasing {__version__}, {now}",
    )


def _is_number(cell: object) -> bool:
    try:
        float(str(cell) or 0)
    except ValueError:
        return False
    return True


def not_installed(error: ImportError) -> UserError:
    """The error for a missing package that reports need."""
    return UserError(
        f"reports need matplotlib, Jinja2 and scipy ({error}); install: pip install matplotlib Jinja2 scipy"
    )
