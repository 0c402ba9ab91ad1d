"""Reading a report page in a test: its sections, pictures and text, and that it loads nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image


class Page(HTMLParser):
    """sections: {id: title}; text: all there is to read; tags: kinds of element; images: [(alt, source)]."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.tags: set[str] = set()
        self.images: list[tuple] = []
        self.links: list[str] = []
        self.text = ""
        self._title_of = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag == "section":
            self.sections[values["id"]] = ""
        elif tag == "h2":
            self._title_of = values["id"].removesuffix("-title")
        elif tag == "img":
            self.images.append((values["alt"], values["src"]))
        self.links += [values[name] for name in ("src", "href", "data", "action") if name in values]
        assert not [name for name in values if name.startswith("on")], "an event handler"

    def handle_endtag(self, tag):
        if tag == "h2":
            self._title_of = ""

    def handle_data(self, data):
        self.text += data
        if self._title_of:
            self.sections[self._title_of] += data


def check(page: Page, sections: set[str]) -> None:
    """The page has these sections with titles, needs nothing from elsewhere, and no figure is empty."""
    assert sections == set(page.sections)
    assert all(title.strip() for title in page.sections.values())
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for link in page.links:
        assert link.startswith("data:image/") or link in {f"#{name}" for name in page.sections}, link[:80]
    assert not re.search(r"url\(|@import|https?://", page.source)
    assert page.images
    for alt, uri in page.images:
        assert alt.strip()
        kind, _, content = uri.partition(";base64,")
        raw = base64.b64decode(content)
        if kind == "data:image/png":
            image = Image.open(io.BytesIO(raw)).convert("RGB")
            assert len(image.getcolors(1_000_000)) > 10, alt
        else:
            assert kind == "data:image/svg+xml"
            assert b"<script" not in raw
            assert raw.count(b"<path") > 5, alt
