"""Unified diffs: what patch(1) could not read is refused, and any bytes can be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from backport.diffs import check_patch, readable, unified_diff
from backport.errors import PatchError

ROOT = Path(__file__).parents[2]
HUNK = b"@@ -1,3 +1,4 @@ context\n one\n-two\n+2\n+two and a half\n three\n"
LAST = b"\\ No newline at end of file\n"
WHOLE = b"Why.\n\n--- a/file\n+++ b/file\n" + HUNK


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        WHOLE + b"-- \n2.43.0\n",
        WHOLE + b"--- a/other\t2018-10-26\n+++ b/other\t2018-10-27\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+b\n",
        b"--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n",
        b"--- a/file\n+++ b/file\n@@ -1 +1 @@\n-a\n" + LAST + b"+b\n" + LAST,
        b"diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n\n-a\n+b\n",
        b"--- a/f\r\n+++ b/f\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n",
        b"--- a/sql\n+++ b/sql\n@@ -1,2 +1,2 @@\n--- a comment\n+++ another\n x\n",
    ],
)
def test_what_patch_reads_is_accepted(content: bytes) -> None:
    check_patch(content, name="x.patch", strip=1)


@pytest.mark.parametrize("path", sorted((ROOT / "patches").rglob("*.patch")), ids=lambda path: path.name)
def test_shipped_patches_are_accepted(path: Path) -> None:
    check_patch(path.read_bytes(), name=path.name, strip=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the patch is empty"),
        (b" \n\n", "the patch is empty"),
        (b"Only words.\n", "not a unified diff"),
        (HUNK, "not a unified diff"),
        (b"--- a/file\n+++ b/file\n", "not a unified diff"),
        (
            b"*** a/file\n--- b/file\n***************\n*** 1 ****\n! a\n--- 1 ----\n! b\n",
            "not a unified diff",
        ),
        (b"diff --git a/x b/x\nGIT binary patch\nliteral 1\n", "line 2: a binary patch"),
        (WHOLE[:-7], "line 10: the hunk of line 5 is not as long"),
        (WHOLE.replace(b" three\n", b""), "the hunk of line 5 is not as long"),
        (WHOLE.replace(b"+2\n", b"2\n"), "line 8: the hunk of line 5 is not as long"),
        (WHOLE.replace(b"+2\n", b"+2\n+3\n"), "the hunk of line 5 is not as long"),
        (WHOLE.replace(b"b/file", b"b/../../file"), "b/../../file leads out of the source tree"),
    ],
)
def test_what_patch_cannot_read_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(PatchError) as caught:
        check_patch(content, name="x.patch", strip=1)
    assert caught.value.message.startswith("x.patch")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("header", "strip", "message"),
    [
        (b"--- file\n+++ file\n", 1, "strip = 1 leaves nothing of file"),
        (b"--- a/file\n+++ b/file\n", 2, "strip = 2 leaves nothing of b/file"),
        (b"--- /etc/passwd\n+++ /etc/passwd\n", 0, "/etc/passwd is an absolute path"),
    ],
)
def test_a_strip_that_does_not_fit_is_refused(header: bytes, strip: int, message: str) -> None:
    with pytest.raises(PatchError) as caught:
        check_patch(header + HUNK, name="x.patch", strip=strip)
    assert message in caught.value.message


def test_a_strip_that_fits_is_accepted() -> None:
    check_patch(b"--- file\n+++ file\n" + HUNK, name="x.patch", strip=0)
    check_patch(b"--- x/y/file.orig\n+++ x/y/file\n" + HUNK, name="x.patch", strip=2)


def test_a_diff_of_the_same_is_empty() -> None:
    assert unified_diff(b"a\n", b"a\n", name="x") == ""


def test_a_diff_shows_any_bytes_and_a_missing_newline() -> None:
    old = b"caf\xe9\rx\nsame\nend"
    new = "café \x1b[2J\nsame\nend\n".encode()
    assert unified_diff(old, new, name="x.spec") == (
        "--- a/x.spec\n+++ b/x.spec\n@@ -1,3 +1,3 @@\n"
        "-caf\\xe9\\x0dx\n+café \\x1b[2J\n same\n-end\n\\ No newline at end of file\n+end\n"
    )


def test_a_diff_is_one_that_patch_reads() -> None:
    check_patch(unified_diff(b"a\nb\n", b"a\nc\nd\n", name="x").encode(), name="x", strip=1)


def test_readable_keeps_text() -> None:
    assert readable("Größe\t½\n".encode()) == "Größe\t½\n"
