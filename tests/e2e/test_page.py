"""The published page in a real browser: nothing sticks out, both colour schemes, no script."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from backport.repository.page import render_page
from tests.page_data import LONG, example, hostile

WIDTHS = (320, 390, 1280)
SCHEMES = {"dark": 0, "light": 1}
PAPER = {"dark": (0x16, 0x18, 0x1A), "light": (0xFC, 0xFC, 0xFA)}
# Each page is in a frame of its own width; a script outside of it measures, since the page allows none.
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><style>* {{ margin: 0; border: 0 }}</style>
{frames}<pre id="found"></pre>
<script>
onload = () => {{
  const found = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const inner = frame.contentDocument, root = inner.documentElement;
    const all = [...inner.querySelectorAll("body *")];
    const style = element => frame.contentWindow.getComputedStyle(element);
    found[frame.id] = {{
      width: root.clientWidth, content: root.scrollWidth, title: inner.title,
      background: style(inner.body).backgroundColor,
      smallest: Math.min(...all.map(element => parseFloat(style(element).fontSize))),
      outside: all.filter(element => {{
        const box = element.getBoundingClientRect();
        return box.width > 1 && (box.left < 0 || box.right > root.clientWidth + 0.5);
      }}).map(element => element.outerHTML.slice(0, 200)),
    }};
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>
"""
Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "`make host` installs chromium-headless-shell"
    home = tmp_path_factory.mktemp("browser")
    return [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        f"--user-data-dir={home}", "--disable-dev-shm-usage",
    ]  # fmt: skip


def run(browser: list[str], *arguments: str, scheme: str = "light") -> bytes:
    completed = subprocess.run(
        [*browser, f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *arguments],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return completed.stdout


def measured(browser: list[str], pages: dict[tuple[str, int], str], folder: Path, *, scheme: str) -> Found:
    frames = "".join(
        f'<iframe id="{name}-{width}" width="{width}" height="800" srcdoc="{escape(text)}"></iframe>'
        for (name, width), text in pages.items()
    )
    file = folder / "frames.html"
    file.write_text(FRAMES.format(frames=frames))
    text = run(browser, "--dump-dom", file.as_uri(), scheme=scheme).decode()
    found: Found = json.loads(unescape(text.rsplit('<pre id="found">', 1)[1].split("</pre>")[0]))
    return found


PAGES = {
    "example": example(),
    "hostile": hostile(),
    "script": hostile("<script>document.title = 'taken'</script>"),
    "long": hostile(LONG),
}


@pytest.fixture(scope="module")
def found(browser: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What the browser makes of every page, by scheme."""
    pages = {(name, width): render_page(page) for name, page in PAGES.items() for width in WIDTHS}
    wide = '<main><div style="width: 2000px">wide</div>'
    pages["wide", 390] = render_page(example()).replace("<main>", wide)
    folder = tmp_path_factory.mktemp("frames")
    return {scheme: measured(browser, pages, folder, scheme=scheme) for scheme in SCHEMES}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out(found: dict[str, Found], name: str, width: int, scheme: str) -> None:
    seen = found[scheme][f"{name}-{width}"]
    assert seen["outside"] == []
    assert (seen["width"], seen["content"]) == (width, width)
    assert seen["background"] == f"rgb{PAPER[scheme]}"
    assert seen["smallest"] >= 12


def test_what_sticks_out_would_be_found(found: dict[str, Found]) -> None:
    seen = found["light"]["wide-390"]
    assert seen["content"] > 390
    assert seen["outside"]


def test_text_that_could_be_a_script_runs_nowhere(found: dict[str, Found]) -> None:
    title = found["light"]["script-390"]["title"]
    assert "taken" in title
    assert title != "taken"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_the_screenshot_shows_the_scheme_that_was_asked_for(
    browser: list[str], tmp_path: Path, width: int, scheme: str
) -> None:
    (tmp_path / "index.html").write_text(render_page(example()))
    picture = tmp_path / "page.png"
    page = (tmp_path / "index.html").as_uri()
    run(browser, f"--window-size={width},900", f"--screenshot={picture}", page, scheme=scheme)
    size, first = first_row(picture.read_bytes())
    assert size == (width, 900)
    assert set(first) == {PAPER[scheme]}
    # A page without content compresses to next to nothing.
    assert picture.stat().st_size > 20_000


def first_row(png: bytes) -> tuple[tuple[int, int], list[tuple[int, int, int]]]:
    """Size and uppermost row of a picture (PNG specification, chunks IHDR and IDAT, filters 0 to 4)."""
    position, data, header = 8, b"", b""
    while position < len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        body = png[position + 8 : position + 8 + length]
        header = body if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        position += 12 + length
    width, height, depth, color = struct.unpack(">IIBB", header[:10])
    assert (depth, color) in {(8, 2), (8, 6)}
    step = 3 if color == 2 else 4
    raw = zlib.decompressobj().decompress(data, 1 + width * step)
    row = bytearray()
    for index, value in enumerate(raw[1:]):
        left = row[index - step] if index >= step else 0
        # Above the first row there is nothing: up is 0, and Paeth's predictor is the left pixel.
        row.append((value + {0: 0, 1: left, 2: 0, 3: left // 2, 4: left}[raw[0]]) % 256)
    pixels = [(row[at], row[at + 1], row[at + 2]) for at in range(0, len(row), step)]
    return (width, height), pixels
