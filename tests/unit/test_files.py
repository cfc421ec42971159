"""Files that others read: whole or not at all, locked by one, removed for certain."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backport import files
from backport.errors import Interrupted, ToolError
from backport.files import digest_of, locked, named, remove_tree, scratch_folder, write_atomically
from backport.roots import scratch


class TestNamed:
    def test_a_write_that_names_no_file_gets_one(self, tmp_path: Path) -> None:
        full = Path("/dev/full")
        with pytest.raises(OSError, match="No space left") as caught, named(tmp_path / "a"):
            full.write_bytes(b"x")
        assert caught.value.filename == str(tmp_path / "a")

    def test_what_names_its_file_keeps_it(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught, named(tmp_path / "a"):
            (tmp_path / "b").read_bytes()
        assert caught.value.filename == str(tmp_path / "b")


class TestWriteAtomically:
    def test_writes_text_and_bytes_with_the_mode(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "new/a", "täxt\n")
        write_atomically(tmp_path / "b", b"\xff", mode=0o600)
        assert (tmp_path / "new/a").read_bytes() == "täxt\n".encode()
        assert (tmp_path / "new/a").stat().st_mode & 0o777 == 0o644
        assert (tmp_path / "b").read_bytes() == b"\xff"
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600

    def test_an_open_reader_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("old")
        with path.open() as reader:
            write_atomically(path, "new")
            assert reader.read() == "old"
        assert path.read_text() == "new"

    def test_replaces_a_link_not_what_it_points_to(self, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("precious")
        (tmp_path / "a").symlink_to("victim")
        write_atomically(tmp_path / "a", "new")
        assert (tmp_path / "victim").read_text() == "precious"
        assert not (tmp_path / "a").is_symlink()

    def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a"
        path.write_text("old")

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert digest_of(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert digest_of(tmp_path / "a", "md5") == hashlib.md5(b"x" * 3_000_000).hexdigest()


class TestLocked:
    def test_the_second_is_told_who_holds_it(self, tmp_path: Path) -> None:
        with (
            locked(tmp_path / "sub/lock", timeout=0, what="publishing"),
            pytest.raises(ToolError, match=f"publishing: another process .pid {os.getpid()}. holds"),
            locked(tmp_path / "sub/lock", timeout=0, what="publishing"),
        ):
            pytest.fail("two holders")
        with locked(tmp_path / "sub/lock", timeout=0, what="publishing"):
            pass

    def test_a_holder_that_fails_lets_go(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), locked(tmp_path / "l", timeout=0, what="x"):
            raise RuntimeError
        with locked(tmp_path / "l", timeout=0, what="x"):
            pass

    def test_waits_its_time_and_no_longer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        naps: list[float] = []

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            clock[0] += seconds

        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(time, "sleep", sleep)
        with (
            locked(tmp_path / "l", timeout=0, what="x"),
            pytest.raises(ToolError),
            locked(tmp_path / "l", timeout=1, what="x"),
        ):
            pytest.fail("two holders")
        assert 1 <= sum(naps) <= 1.2


class TestRemoveTree:
    def test_removes_what_is_read_only_and_spares_what_links_point_to(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/precious").write_text("x")
        inner = tmp_path / "tree/deep/deeper"
        inner.mkdir(parents=True)
        (inner / "file").write_text("x")
        (inner / "link").symlink_to(tmp_path / "outside")
        (inner / "dangling").symlink_to("nowhere")
        for folder in (inner, inner.parent, inner.parent.parent):
            folder.chmod(0o500)
        remove_tree(tmp_path / "tree")
        assert not (tmp_path / "tree").exists()
        assert (tmp_path / "outside/precious").exists()

    def test_a_link_is_removed_itself_and_a_missing_folder_is_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "link").symlink_to("outside")
        remove_tree(tmp_path / "link")
        remove_tree(tmp_path / "link")
        assert [entry.name for entry in tmp_path.iterdir()] == ["outside"]


def test_a_scratch_folder_goes_however_the_work_ends(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new", "work-") as folder:
        (folder / "file").touch()
    with pytest.raises(RuntimeError), scratch_folder(tmp_path / "new", "work-") as folder:
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("of_roots", [False, True])
def test_what_ended_the_work_is_said_though_a_folder_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, of_roots: bool
) -> None:
    def refuse(folder: Path) -> None:
        raise ToolError("busy") if of_roots else OSError(errno.ENOTEMPTY, "Directory not empty", folder)

    monkeypatch.setattr(*((scratch, "remove") if of_roots else (files, "remove_tree")), refuse)
    folder_of = scratch.live_folder if of_roots else partial(scratch_folder, prefix="work-")
    with pytest.raises(Interrupted), folder_of(tmp_path):
        raise Interrupted("ended")
    with pytest.raises((ToolError, OSError)), folder_of(tmp_path):
        pass


def test_a_scratch_folder_is_held_until_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever removes what killed processes left would remove it at the same time."""
    original = files.remove_tree
    seen: list[bool] = []

    def look(folder: Path) -> None:
        seen.append(files.is_abandoned(folder))
        original(folder)

    monkeypatch.setattr(files, "remove_tree", look)
    with files.scratch_folder(tmp_path, "x-"):
        pass
    assert seen == [False]


def test_what_is_gone_already_need_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("")
    original = os.unlink

    def vanish(*arguments: Any, **options: Any) -> None:
        """Somebody else removes the whole folder at the same time."""
        original(*arguments, **options)
        folder.rmdir()
        raise FileNotFoundError(str(folder))

    monkeypatch.setattr(os, "unlink", vanish)
    files.remove_tree(folder)
    assert not folder.exists()


def test_a_folder_that_cannot_be_removed_leaves_the_one_above_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path / "above"
    (above / "folder").mkdir(parents=True)
    above.chmod(0o1777)

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match="busy"):
        remove_tree(above / "folder")
    assert above.stat().st_mode & 0o7777 == 0o1777
