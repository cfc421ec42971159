"""A log that is followed while it is written."""

from __future__ import annotations

import os
from pathlib import Path

from backport.progress import Follower


def append(log: Path, text: str) -> None:
    with log.open("a") as stream:
        stream.write(text)


def test_lines_are_told_once_when_they_are_whole(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    follower = Follower(log)
    assert list(follower.lines()) == []
    append(log, "one\ntw")
    assert list(follower.lines()) == ["one"]
    append(log, "o\nthree\n")
    assert list(follower.lines()) == ["two", "three"]
    assert list(follower.lines()) == []
    assert list(Follower(log, start=4).lines()) == ["two", "three"]


def test_the_section_of_the_spec_is_known(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    follower = Follower(log)
    append(log, "Executing(%build): /bin/sh -e /var/tmp/rpm-tmp.x\n+ make\n")
    list(follower.lines())
    assert follower.section == "%build"
    append(log, "Executing(%check): /bin/sh\n")
    list(follower.lines())
    assert follower.section == "%check"


def test_what_a_log_holds_is_harmless(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_bytes(b"\x1b]0;title\x07\n" + b"x" * 5_000_000 + b"\n\xff\n")
    lines = list(Follower(log).lines())
    assert "\x1b" not in "".join(lines)
    assert max(len(line) for line in lines) <= 2000
    assert sum(len(line) for line in lines) < 20_000


def test_only_a_plain_file_is_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("pipe", "link"):
        assert list(Follower(tmp_path / name).lines()) == []
