"""Seals: what fits, what does not, whose key it is, and folders that others can write to."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backport import seals
from backport.errors import HostError
from backport.seals import Sealer, digest_of_tree, open_sealer, require_own


def test_a_seal_fits_one_key_kind_name_and_content() -> None:
    sealer = Sealer(key=b"k" * 32)
    seal = sealer.seal("built", "name", "content")
    assert sealer.holds(seal, "built", "name", "content")
    for other in (("base", "name", "content"), ("built", "n", "content"), ("built", "name", "contenT")):
        assert not sealer.holds(seal, *other)
    # Nothing can be moved from one part to the next.
    assert not sealer.holds(sealer.seal("a", "bc", ""), "ab", "c", "")
    assert not Sealer(key=b"K" * 32).holds(seal, "built", "name", "content")
    for wrong in (None, "", 1, "é\udcff", seal.upper()):
        assert not sealer.holds(wrong, "built", "name", "content")


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "cache-key"
    first = open_sealer(file)
    assert open_sealer(file).key == first.key
    assert len(first.key) == seals.KEY_BYTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["cache-key"]
    assert "key" not in repr(first)


def test_of_two_that_make_the_key_both_use_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cache-key"
    other = open_sealer(file).key
    monkeypatch.setattr(seals, "_read_key", lambda path: path.read_bytes())
    assert seals._make_key(file) == other


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda file: file.chmod(0o640), "others can read the key"),
        (lambda file: file.write_bytes(b"short"), "holds no key of 32 bytes"),
        (lambda file: file.write_bytes(b"l" * 33), "holds no key of 32 bytes"),
        (pipe, "holds no key of 32 bytes"),
        (lambda file: file.parent.chmod(0o777), "others can write to it"),
    ],
)
def test_a_key_that_is_no_secret_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], what: str
) -> None:
    file = tmp_path / "keys" / "cache-key"
    open_sealer(file)
    spoil(file)
    with pytest.raises(HostError, match=what) as caught:
        open_sealer(file)
    assert caught.value.exit_code == 9
    assert str(file if "key" in what else file.parent) in caught.value.message


def test_a_folder_that_others_can_write_to_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "cache"
    require_own(folder)
    folder.mkdir(parents=True)
    require_own(folder)
    for place, mode in ((folder, 0o775), (folder, 0o1777), (folder.parent, 0o757)):
        place.chmod(mode)
        with pytest.raises(HostError, match=rf"^{place}: others can write to it \(mode {mode:04o}\)"):
            require_own(folder)
        place.chmod(0o755)
    folder.parent.chmod(0o1777)
    require_own(folder)


def test_a_folder_is_looked_at_where_its_link_leads_and_where_the_link_is(tmp_path: Path) -> None:
    (tmp_path / "open" / "cache").mkdir(parents=True)
    (tmp_path / "link").symlink_to("open/cache")
    require_own(tmp_path / "link")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(HostError, match="open: others can write"):
        require_own(tmp_path / "link")


def test_a_folder_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.delenv("SUDO_UID", raising=False)
    if owner:
        with pytest.raises(HostError, match=f"belongs to another user \\(uid {owner}\\)"):
            require_own(tmp_path)
        monkeypatch.setenv("SUDO_UID", str(owner))
    require_own(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "usr" / "bin").mkdir(parents=True)
    (folder / "usr" / "bin" / "tool").write_bytes(b"#!/bin/sh\n" * 100)
    (folder / "etc").mkdir()
    (folder / "etc" / "passwd").write_text("root\n")
    (folder / "bin").symlink_to("usr/bin")
    return folder


def in_place(folder: Path) -> None:
    file = folder / "usr/bin/tool"
    state = file.stat()
    file.write_bytes(b"#!/bin/sH\n" * 100)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def relinked(folder: Path) -> None:
    (folder / "bin").unlink()
    (folder / "bin").symlink_to("usr/sbin")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content, size and time kept": in_place,
    "outside of /usr": lambda folder: (folder / "etc/passwd").write_text("toor\n"),
    "mode": lambda folder: (folder / "usr/bin/tool").chmod(0o4755),
    "time": lambda folder: os.utime(folder / "usr/bin/tool", (1, 1)),
    "mode of a folder": lambda folder: (folder / "etc").chmod(0o777),
    "mode of the whole": lambda folder: folder.chmod(0o700),
    "link": relinked,
    "one more": lambda folder: (folder / "etc/ld.so.preload").touch(),
    "one more folder": lambda folder: (folder / "opt").mkdir(),
    "one less": lambda folder: (folder / "etc/passwd").unlink(),
    "another name for a file": lambda folder: os.link(folder / "etc/passwd", folder.parent / "outside"),
    "a name in bytes": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch(),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "an attribute": lambda folder: os.setxattr(folder / "usr/bin/tool", "user.x", b"1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_in_a_tree_changes_its_digest(tree: Path, change: Callable[[Path], object]) -> None:
    before = digest_of_tree(tree)
    assert digest_of_tree(tree) == before
    try:
        change(tree)
    except OSError as problem:
        pytest.skip(f"this file system: {problem.strerror}")
    assert digest_of_tree(tree) != before


def test_a_copy_of_a_tree_has_its_digest(tree: Path, tmp_path: Path) -> None:
    tree.chmod(0o755)
    copy = tmp_path / "copy"
    os.system(f"cp -a {tree} {copy}")
    assert digest_of_tree(copy) == digest_of_tree(tree)
