"""What killed processes left: removed for certain, and nothing that somebody still works on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from backport.files import Hold, is_abandoned, scratch_folder
from backport.runs import history
from backport.runs.history import remove_leftovers
from backport.site import Paths, Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    patterns = dict(zip([temporary], history._SCRATCH.values(), strict=True))
    monkeypatch.setattr(history, "_SCRATCH", patterns)
    return Site(paths=Paths(cache=tmp_path / "cache"))


LEFT = [
    "cache/runs/20261124T030000Z-hello-f28-abcd", "cache/built/.new-abcd_123", "cache/sources/keys-abcd_123",
    "cache/stock/f28-x86_64/repomd-abcd_123", "cache/.diff-abcd_123", "tmp/backport-keyring-abcd_123",
    "tmp/backport-gnupg-abcd_123", "tmp/backport-verify-abcd_123",
]  # fmt: skip
OTHERS = [
    "cache/built/0123", "cache/roots/live-abcd_123", "cache/sources/sha256", "tmp/backport-work-abcd_123",
    "tmp/gnupg-abcd_123", "tmp/backport-keyring-of-mine", "cache/runs/notes",
]  # fmt: skip


def test_what_nobody_holds_is_removed_and_named(site: Site, tmp_path: Path) -> None:
    for name in (*LEFT, *OTHERS):
        (tmp_path / name / "deep").mkdir(parents=True)
    assert set(remove_leftovers(site)) == {str(tmp_path / name) for name in LEFT}
    assert [name for name in LEFT if (tmp_path / name).exists()] == []
    assert all((tmp_path / name / "deep").is_dir() for name in OTHERS)
    assert remove_leftovers(site) == ()


def test_what_somebody_holds_stays(site: Site, tmp_path: Path) -> None:
    run = tmp_path / LEFT[0]
    run.mkdir(parents=True)
    with contextlib.closing(Hold(run, run)), scratch_folder(tmp_path / "tmp", "backport-keyring-") as scratch:
        assert remove_leftovers(site) == ()
        assert scratch.is_dir()
    assert not scratch.exists()
    assert remove_leftovers(site) == (str(run),)


def test_a_finished_run_stays(site: Site, tmp_path: Path) -> None:
    run = tmp_path / LEFT[0]
    run.mkdir(parents=True)
    (run / "report.json").write_text("{}")
    assert remove_leftovers(site) == ()


def test_links_and_folders_of_other_users_stay(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "tmp" / "backport-keyring-abcd_123").symlink_to(tmp_path / "elsewhere")
    assert remove_leftovers(site) == ()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not is_abandoned(tmp_path / "elsewhere")
