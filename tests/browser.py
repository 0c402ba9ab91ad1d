"""Opening a page in headless Chromium, from its file, as a reader does: what it shows, what it asks for."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.limits import HANGS

WIDTHS = (1280, 390)  # a desk, a phone
NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRE = "XTCAV_REQUIRE_BROWSER"  # set where the tests must not be skipped

# The page in a frame of each width; what it looks like from inside is written into the wrapper's title.
_WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><title>waiting</title><body><script>
const page = %s, widths = %s, seen = [];
let left = widths.length;
function look(frame, at) {
  const view = frame.contentWindow, page = frame.contentDocument;
  const sections = {};
  for (const one of page.querySelectorAll("section")) sections[one.id] = one.getBoundingClientRect().height;
  const wide = [...page.querySelectorAll("body *")].filter(one => !one.closest(".box") &&
    one.getBoundingClientRect().right > view.innerWidth + 1).map(one => one.outerHTML.slice(0, 80));
  seen[at] = {width: view.innerWidth, scroll: page.documentElement.scrollWidth, sections, wide,
    images: [...page.images].map(one => [one.complete, one.naturalWidth, one.getBoundingClientRect().width]),
    requests: view.performance.getEntriesByType("resource").map(one => one.name.slice(0, 80))
      .filter(name => !name.startsWith("data:"))};
  if (--left === 0) document.title = JSON.stringify(seen);
}
for (const [at, width] of widths.entries()) {
  const frame = document.createElement("iframe");
  frame.style = `border:0;width:${width}px;height:900px`;
  frame.onload = () => look(frame, at);
  frame.src = page;
  document.body.append(frame);
}
</script></body>"""


class Seen(NamedTuple):
    """A page at one width (px): its scroll width, heights of its sections, [loaded, pixels, shown width] of
    its images, elements that stick out, and what it asked for besides itself."""

    width: int
    scroll: int
    sections: dict
    wide: list
    images: list
    requests: list


class Opened(NamedTuple):
    """What came of opening a page: at each width, and the console's messages."""

    at: list[Seen]
    console: list[str]


def chromium() -> str:
    """The browser's program; skips the test where there is none, unless it is required."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    message = "no chromium here (Debian: apt-get install chromium): pages are not looked at"
    if os.environ.get(REQUIRE):
        pytest.fail(message)
    pytest.skip(message)


def look_at(path: Path, folder: Path) -> Opened:
    """Open the page at `path`; `folder` is a scratch folder."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(_WRAPPER % (json.dumps(path.resolve().as_uri()), json.dumps(WIDTHS)), encoding="utf-8")
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # the browser itself must not call home either
        "--allow-file-access-from-files",  # the wrapper looks into the page
        f"--user-data-dir={folder / 'profile'}", "--window-size=1300,1000", "--enable-logging=stderr",
        "--virtual-time-budget=60000", "--dump-dom", wrapper.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    console = re.findall(r"CONSOLE[^\"]*\"(.*)\"", done.stderr)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title and title[1] != "waiting", done.stdout[:500] + done.stderr[-1000:] + str(console)
    return Opened([Seen(**seen) for seen in json.loads(html.unescape(title[1]))], console)
