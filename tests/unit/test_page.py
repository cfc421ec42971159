from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from backport.artifacts import Check, Verdict
from backport.repository.page import Entry, render_index, render_page
from tests.page_data import NASTY, NOW, example, hostile

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Outline(HTMLParser):
    """What a page is made of, and whether every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, wanted: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == wanted]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_everything_is_on_it() -> None:
    text = Outline(render_page(example())).text
    for part in (
        "Backports for Fedora 28", "openssl-libs", "1:1.1.1a-1.fc28.bp1", "openssl-1.1.1a-1.fc29",
        "and 7 for debugging", "BACKPORT-2026-1a2b3c4d", "CVE-2018-0735", "important",
        "after: TLSv1.3, TLS_AES_256_GCM_SHA384", "TLS 1.0 is refused", "250 STARTTLS",
        "20261122T041000Z-aaaaaaaaaaaa", "rollback", "0123 4567 89AB CDEF", "provenance.json",
        "6 checks: 4 passed, 1 with a warning, 1 skipped.", "24 November 2026, 04:10 UTC",
    ):  # fmt: skip
        assert part in text


def test_each_recipe_has_its_own_tests_and_transcript() -> None:
    text = Outline(render_page(example())).text
    openssl, hello = text.split("Recipe openssl")[1].split("Recipe hello")
    assert "250 STARTTLS" in openssl
    assert "S: hello" in hello


def test_what_did_not_pass_comes_first_and_open_and_the_rest_is_folded() -> None:
    page = render_page(example())
    openssl = page.split("<code>openssl</code></h3>")[1].split("<code>hello</code></h3>")[0]
    warned, skipped = openssl.index('verdict warn"'), openssl.index('verdict skipped"')
    assert warned < skipped < openssl.index("<details>") < openssl.index('verdict pass"')
    assert "<summary>starttls: 3 passed</summary>" in openssl


def test_what_was_taken_back_is_told_before_all_else() -> None:
    text = Outline(render_page(example())).text
    assert text.index("Withdrawn: nginx") < text.index("Use it")
    assert "curl --fail --location --output" in text


def test_a_repository_lists_its_targets_and_channels() -> None:
    entries = [
        Entry(target="f28", channel="stable", path="f28", changed=NOW, packages=6),
        Entry(target=NASTY, channel="testing", path=f"testing/{NASTY}", changed=NOW, packages=1),
    ]
    outline = Outline(render_index(entries))
    assert "f28/index.html" in outline.values("href")
    assert NASTY in outline.text
    assert "script" not in outline.tags
    assert "Nothing is published here yet." in Outline(render_index([])).text


def test_it_needs_no_script_and_loads_nothing() -> None:
    outline = Outline(render_page(example()))
    assert not {"script", "link", "img", "iframe", "form", "object"} & set(outline.tags)
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]
    assert "url(" not in render_page(example())
    assert "default-src 'none'" in render_page(example())


def test_headings_and_tables_make_sense_to_those_who_hear_them() -> None:
    outline = Outline(render_page(example()))
    headings = [int(tag[1]) for tag in outline.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))
    assert outline.tags.count("table") == outline.tags.count("caption") == 6
    assert ("html", "lang", "en") in outline.attributes
    scopes = [value for tag, name, value in outline.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == outline.tags.count("th")
    ids = outline.values("id")
    assert len(set(ids)) == len(ids)
    assert set(outline.values("aria-labelledby")) == set(ids)


def test_a_verdict_is_a_word_and_not_a_colour_alone() -> None:
    text = Outline(render_page(example())).text
    for word in ("pass", "warn", "skipped"):
        assert f" {word} " in text


def test_hostile_text_stays_text() -> None:
    page = hostile()
    outline, plain = Outline(render_page(page)), Outline(render_page(example()))
    assert NASTY in outline.text
    assert set(outline.tags) == set(plain.tags)
    assert {name for _, name, _ in outline.attributes} == {name for _, name, _ in plain.attributes}


def test_only_web_addresses_are_links() -> None:
    targets = Outline(render_page(hostile())).values("href")
    assert targets
    assert not [one for one in targets if not re.match(r"https?://|current/", one)]


def test_an_empty_repository_says_so() -> None:
    page = replace(
        example(), builds=(), notices=(), tests=(), advisories=(), history=(), evidence=()
    )  # fmt: skip
    text = Outline(render_page(page)).text
    assert "There is no package here yet." in text
    assert "Advisories" not in text


def test_a_failed_check_brings_its_advice() -> None:
    check = Check(id="a", title="Fails", verdict=Verdict.FAIL, found="this", advice="do that")
    tests = (replace(example().tests[0], checks=(check,)),)
    text = Outline(render_page(replace(example(), tests=tests))).text
    assert "1 check: 1 failed." in text
    assert "do that" in text


def _luminance(color: str) -> float:
    """WCAG 2.1, "relative luminance"."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "soft", "link", "good", "bad", "warn"])
def test_text_stands_out_from_the_paper(scheme: int, name: str) -> None:
    palettes = re.findall(r":root \{[^}]*?--paper[^}]*\}", render_page(example()))
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", palettes[scheme]))
    for ground in ("paper", "wash"):
        dark, light = sorted((_luminance(colors[name]), _luminance(colors[ground])))
        # Success criterion 1.4.3 asks for 4.5.
        assert (light + 0.05) / (dark + 0.05) >= 4.5
