"""What a generation's page tells of its builds, kept from one generation to the next."""

from __future__ import annotations

import html
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.files import digest_of
from backport.repository.builds import (
    FOLDER,
    Part,
    builds_of,
    digest_in_name,
    digest_over,
    files,
    read_rows,
    write_builds,
)
from backport.repository.page import Build
from tests.page_data import NASTY

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TINY = Build(
    name="tiny", evr="1-1", origin="tiny-1-1.fc29", source="source/tiny.src.rpm",
    packages=(("x86_64/tiny.rpm", "tiny"),), debug=("debug/x86_64/tiny-debuginfo.rpm",),
)  # fmt: skip


def part(nevra: str, *, source: str = "tiny-2-1.src.rpm", folder: str = "x86_64") -> Part:
    parsed = Nevra.parse(nevra)
    path = f"{folder}/{parsed.filename}"
    return Part(rpm=Rpm(nevra=parsed, path=Path(path), sha256=""), path=path, source=source)


def built(nevra: str, original: str) -> BuiltRpms:
    rpms = [Rpm(nevra=Nevra.parse(one), path=Path("x"), sha256="") for one in (nevra, original)]
    source = SourceRpm(
        rpm=rpms[1], build_id=1, url="", signing_key="", build_requires=(), changelog_time=0
    )  # fmt: skip
    patched = PatchedSrpm(
        source=source, spec=Path("x"), sources=Path("x"), sha256="", diff="", options=BuildOptions()
    )
    return BuiltRpms(patched=patched, srpm=rpms[0], rpms=(), logs=(), builder="")


PARTS = (
    part("tiny-1:2-1.noarch"), part("tiny-libs-1:2-1.noarch"), part("tiny-debuginfo-1:2-1.noarch"),
    part("tiny-1:2-1.src", source="", folder="source"), part("other-3-1.noarch", source="other-3-1.src.rpm"),
)  # fmt: skip


def test_packages_are_told_by_their_source_package() -> None:
    other, tiny = builds_of(PARTS, [built("tiny-1:2-1.src", "tiny-1:2-1.fc29.src")])
    assert (other.name, other.evr, other.origin, other.source) == ("other", "3-1", "", "")
    assert other.packages == (("x86_64/other-3-1.noarch.rpm", "other"),)
    assert (tiny.name, tiny.evr, tiny.origin) == ("tiny", "1:2-1", "tiny-2-1.fc29")
    assert tiny.source == "source/tiny-2-1.src.rpm"
    assert [name for _, name in tiny.packages] == ["tiny", "tiny-libs"]
    assert tiny.debug == ("x86_64/tiny-debuginfo-2-1.noarch.rpm",)


def test_without_a_word_about_its_build_the_source_package_itself_tells_the_epoch() -> None:
    assert [one.evr for one in builds_of(PARTS, ())] == ["3-1", "1:2-1"]


def write(generation: Path, *builds: Build, days: int = 0) -> None:
    (generation / FOLDER).mkdir(parents=True, exist_ok=True)
    write_builds(generation, builds, time=NOW + timedelta(days=days))


def test_rows_come_by_name_whichever_run_wrote_them(tmp_path: Path) -> None:
    write(tmp_path, replace(TINY, name="b"), replace(TINY, name="a-b"))
    write(tmp_path, replace(TINY, name="a"), replace(TINY, name="a", evr="2-1"), days=1)
    write(tmp_path, days=2)
    assert len(files(tmp_path)) == 2
    rows = read_rows(tmp_path)
    assert rows.packages == 4
    assert [row.split("</a>")[0].rpartition(">")[2] for row in rows.rows] == ["a", "a", "a-b", "b"]
    assert rows.rows[0].index("1-1") > 0
    assert "2-1" in rows.rows[1]


def test_what_comes_later_to_a_build_is_told_with_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, TINY, replace(TINY, name="tiny-other"))
    more = (("x86_64/tiny-libs.rpm", "tiny-libs"),)
    write(tmp_path, replace(TINY, origin="", source="", packages=more, debug=()), days=1)
    first, other = read_rows(tmp_path).rows
    for told in ("tiny.rpm", "tiny-libs.rpm", "tiny.src.rpm", "tiny-1-1.fc29", "and 1 for debugging"):
        assert told in first
    assert "tiny-libs" not in other
    assert read_rows(tmp_path).packages == 3
    write(tmp_path, TINY, days=2)
    assert read_rows(tmp_path).rows == (first, other)


def test_the_record_s_digest_is_over_all_that_is_told(tmp_path: Path) -> None:
    assert digest_over(tmp_path) == ""
    write(tmp_path, TINY)
    (file,) = files(tmp_path)
    assert digest_in_name(file) == digest_of(file)
    first = digest_over(tmp_path)
    write(tmp_path, replace(TINY, evr="2-1"), days=1)
    assert digest_over(tmp_path) != first
    file.unlink()
    assert digest_over(tmp_path) not in {first, ""}


@pytest.mark.parametrize("text", [NASTY, "a\tb\nc", "\u2028"])
def test_text_from_elsewhere_stays_in_its_place(tmp_path: Path, text: str) -> None:
    hostile = replace(TINY, origin=text, source=text, packages=((text, text),))
    write(tmp_path, hostile, replace(TINY, name="zebra"))
    first, second = read_rows(tmp_path).rows
    assert " ".join(text.split()) in html.unescape(first)
    assert "<script" not in first
    assert "zebra" in second


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    write(tmp_path, TINY)
    files(tmp_path)[0].write_text("tiny\t1-1\n")
    with pytest.raises(ValueError, match="not enough values"):
        read_rows(tmp_path)
