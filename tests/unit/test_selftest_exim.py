from pathlib import Path

import pytest

from backport.selftest.daemon import _seen_inside

NAME = "usr/lib64/libssl.so.1.1.1w"


def line(inode: int, path: str) -> str:
    return f"7f00-7f10 r-xp 00000000 fe:00 {inode} {path}"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    file = tmp_path / NAME
    file.parent.mkdir(parents=True)
    file.write_text("library")
    return file


@pytest.mark.parametrize("outside", ["", "/srv/chroot/debian"])
def test_a_mapped_file_has_its_name_inside_the_root(tmp_path: Path, library: Path, outside: str) -> None:
    inode = library.stat().st_ino
    assert _seen_inside(tmp_path, line(inode, f"{outside}/{NAME}")) == line(inode, f"/{NAME}")


@pytest.mark.parametrize("path", [f"/{NAME} (deleted)", f"/srv/{NAME}", "[heap]"])
def test_a_file_that_is_not_the_mapped_one_keeps_its_line(tmp_path: Path, library: Path, path: str) -> None:
    other = line(library.stat().st_ino + 1, path)
    assert _seen_inside(tmp_path, other) == other
