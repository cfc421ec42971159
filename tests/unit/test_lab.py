"""The lab's arithmetic: which of a host's package sources it uses, what becomes of names and paths."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.lab.debs import Archive, Release, debian_archives, running_release
from tests.lab.layout import LabError
from tests.lab.repackage import LEFT_OUT, fedora_path, split_version
from tests.lab.serve import _toml

BOOKWORM = Release(number="12", codename="bookworm")
ONE_LINE = """\
# deb http://mirror.example/old bookworm main
deb [signed-by=/keys/debian.gpg arch=amd64] http://mirror.example/debian bookworm main contrib # a comment
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm-backports main
deb https://cloud.example/apt cloud-sdk-bookworm main
deb https://docker.example/linux bookworm stable
"""
DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://node.example/x
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


def _apt(folder: Path, one_line: str = "", deb822: str = "") -> Path:
    parts = folder / "sources.list.d"
    parts.mkdir()
    (folder / "sources.list").write_text(one_line)
    (parts / "debian.sources").write_text(deb822)
    (parts / "off.sources.disabled").write_text(DEB822)
    return folder


def test_one_line_sources_of_the_running_release_only(tmp_path: Path) -> None:
    assert debian_archives(BOOKWORM, _apt(tmp_path, ONE_LINE)) == [
        Archive(
            uri="http://mirror.example/debian", suite="bookworm", options={"Signed-By": "/keys/debian.gpg"}
        )
    ]


def test_deb822_sources_with_the_key_inside(tmp_path: Path) -> None:
    found = debian_archives(BOOKWORM, _apt(tmp_path, deb822=DEB822))
    assert [(each.uri, each.suite) for each in found] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
    ]
    assert found[0].options["Signed-By"].endswith(" -----END PGP PUBLIC KEY BLOCK-----")


def test_a_host_without_debians_main_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no source of Debian trixie main"):
        debian_archives(Release(number="13", codename="trixie"), _apt(tmp_path, ONE_LINE, DEB822))


def test_another_distribution_is_told(tmp_path: Path) -> None:
    other = tmp_path / "os-release"
    other.write_text('ID=fedora\nVERSION_ID=28\nVERSION_CODENAME=""\n')
    with pytest.raises(LabError, match="Debian 12 or 13"):
        running_release(other)


@pytest.mark.parametrize(
    ("debian", "fedora"),
    [
        ("/bin/sed", "/usr/bin/sed"),
        ("/lib64/ld-linux-x86-64.so.2", "/usr/lib64/ld-linux-x86-64.so.2"),
        ("/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib64/libc.so.6"),
        ("/usr/lib/x86_64-linux-gnu", "/usr/lib64"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1"),
        ("/usr/include/x86_64-linux-gnu/bits", "/usr/include/x86_64-linux-gnu/bits"),
        ("/library", "/library"),
    ],
)
def test_paths_become_fedoras(debian: str, fedora: str) -> None:
    assert fedora_path(debian) == fedora


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("5.2.15-2+b13", ("", "5.2.15", "2+b13")),
        ("1:4.13+dfsg1-1+deb12u2", ("1", "4.13+dfsg1", "1+deb12u2")),
        ("2.0-1-3", ("", "2.0.1", "3")),
        ("20230311", ("", "20230311", "1")),
    ],
)
def test_versions_become_rpms(version: str, parts: tuple[str, str, str]) -> None:
    assert split_version(version) == parts


@pytest.mark.parametrize("name", ["dpkg", "debconf", "openssl", "usr-is-merged"])
def test_debians_own_machinery_is_left_out(name: str) -> None:
    assert LEFT_OUT.fullmatch(name)


@pytest.mark.parametrize("name", ["dpkg-dev", "libssl3", "libarchive13t64", "debugedit"])
def test_other_packages_are_kept(name: str) -> None:
    assert not LEFT_OUT.fullmatch(name)


def test_site_files_are_toml() -> None:
    table = {
        "builder": "auto",
        "koji": {"hub": "http://x/\"'"},
        "mirrors": {"f28": {"fedora": "y"}},
        "pins": {},
    }
    assert tomllib.loads("\n".join(_toml(table))) == table
