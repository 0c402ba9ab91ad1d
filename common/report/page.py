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
    """Pictures side by side where there is room: 3 "large", 4 "medium" or 5 "small"; on a phone 1 or 2."""

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


@dataclass(frozen=True)
class Code:
    """Text as a terminal shows it, scrolling inside its box."""

    text: str
    kind: ClassVar[str] = "code"


Block = Union[Text, Pictures, Table, Code]


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its title, what is in it."""

    id: str
    title: str
    blocks: Sequence[Block]


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML; raises UserError if Jinja2 is not installed."""
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
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("page.html").render(
        title=title, subtitle=subtitle, sections=sections, made=f"xtcav-lasing {__version__}, {now}"
    )


def not_installed(error: ImportError) -> UserError:
    """The error for a missing package that reports need."""
    return UserError(
        f"reports need matplotlib, Jinja2 and scipy ({error}); install: pip install matplotlib Jinja2 scipy"
    )
