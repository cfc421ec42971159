"""Targets: consistent in themselves, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from backport.errors import UsageError
from backport.target import Target, load_target

ROOT = Path(__file__).parents[2]
WHOLE = f"""
name = "f28"
summary = "Fedora 28"
releasever = "28"
dist = ".fc28"
arch = "x86_64"
buildroot = ["bash", "/usr/bin/cmp", "perl(Test::More)"]

[[repositories]]
id = "fedora"
baseurl = "https://mirror.example/$releasever/$basearch/"
keys = ["fedora-28"]

[[repositories]]
id = "updates"
baseurl = "file:///srv/updates"
keys = ["fedora-28"]

[keys.fedora-28]
fingerprint = "{"A" * 40}"
file = "k.asc"
"""


def load_text(folder: Path, text: str) -> Target:
    (folder / "f28.toml").write_text(text)
    return load_target(folder, "f28")


def test_loads_with_defaults_that_an_old_release_can_read(tmp_path: Path) -> None:
    target = load_text(tmp_path, WHOLE)
    assert target.compression == "gz"
    assert target.signature_digest == "sha256"
    assert [repository.id for repository in target.repositories] == ["fedora", "updates"]


@pytest.mark.parametrize("path", sorted((ROOT / "mock-configs").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_targets_load_under_their_own_name(path: Path) -> None:
    target = load_target(path.parent, path.stem)
    assert target.name == path.stem
    assert target.dist.startswith(".")


def test_fedora_28_gets_what_it_can_read_from_repositories_with_pinned_keys() -> None:
    target = load_target(ROOT / "mock-configs", "f28")
    assert target.compression == "gz"
    for repository in target.repositories:
        assert repository.baseurl.startswith("https://")
        assert [len(target.keys[name].fingerprint) for name in repository.keys] == [40]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('id = "updates"', 'id = "fedora"', "repositories: every id must be unique"),
        ('keys = ["fedora-28"]', 'keys = ["fedora-29"]', "key 'fedora-29' is not among the keys"),
        ('dist = ".fc28"', 'dist = "fc28"', "f28.toml:5: dist: 'fc28' does not have the form"),
        ('arch = "x86_64"', 'arch = "vax"', "f28.toml:6: arch: must be 'x86_64'"),
        ('arch = "x86_64"', 'arch = "i686"', "f28.toml:6: arch: must be 'x86_64'"),
        (
            'arch = "x86_64"',
            'arch = "x86_64"\ncompression = "xz"',
            "compression: must be 'gz' or 'zstd'",
        ),
        ('"bash"', '"-y"', "does not have the form"),
        ('"bash"', '"bash; reboot"', "does not have the form"),
        ("https://mirror.example", "gopher://mirror.example", "is no URL"),
        ("releasever", "release", "release: unknown key (did you mean releasever?)"),
    ],
)
def test_refuses(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in WHOLE
    with pytest.raises(UsageError) as caught:
        load_text(tmp_path, WHOLE.replace(before, after, 1))
    assert message in caught.value.message


def test_a_target_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "f27.toml").write_text(WHOLE)
    with pytest.raises(UsageError, match=r"f27\.toml:2: name: 'f28' is not the name of the file") as caught:
        load_target(tmp_path, "f27")
    assert 'name = "f27"' in (caught.value.hint or "")


def test_unknown_target(tmp_path: Path) -> None:
    (tmp_path / "f28.toml").touch()
    with pytest.raises(UsageError, match=r"unknown target 'f82' \(did you mean f28\?\)"):
        load_target(tmp_path, "f82")


@pytest.mark.parametrize(
    ("dist", "namespace"),
    [
        (".fc28", "fedora"),
        (".el9_4", "redhat"),
        (".el8.1", "redhat"),
        (".amzn2023", "amzn"),
        (".oe2403", "oe"),
    ],
)
def test_a_dist_tells_whose_packages_they_are(tmp_path: Path, dist: str, namespace: str) -> None:
    assert load_text(tmp_path, WHOLE.replace(".fc28", dist)).namespace == namespace
    named = WHOLE.replace('dist = ".fc28"', f'dist = "{dist}"\nvendor = "almalinux"')
    assert load_text(tmp_path, named).namespace == "almalinux"


@pytest.mark.parametrize("dist", ["fc28", ".", ".fc28-1", ".fc 28", ".fc28%x", ".fc28..", "._4", ".el9_"])
def test_what_is_no_dist_is_refused(tmp_path: Path, dist: str) -> None:
    with pytest.raises(UsageError, match="dist"):
        load_text(tmp_path, WHOLE.replace(".fc28", dist))
