"""Metadata to which packages come, against a full run of createrepo_c over the same folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backport import repodata
from backport.errors import PublishError
from backport.repository.splice import extend_repodata
from tests.e2e import tiny

FIELDS = (
    "arch", "changelogs", "checksum_type", "conflicts", "description", "enhances", "epoch", "files",
    "location_base", "location_href", "name", "obsoletes", "pkgId", "provides", "recommends",
    "release", "requires", "rpm_buildhost", "rpm_group", "rpm_header_end", "rpm_header_start",
    "rpm_license", "rpm_packager", "rpm_sourcerpm", "rpm_vendor", "size_archive", "size_installed",
    "size_package", "suggests", "summary", "supplements", "time_build", "time_file", "url", "version",
)  # fmt: skip
CHANGELOG = """\
* Wed Jan 03 2024 A & B <a@example.org> - 2-1
- a line with <brackets> & more
* Tue Jan 02 2024 A <a@example.org> - 1-1
- first
"""


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rpms")
    old = tiny.build(folder / "a", "old", subpackages=[f"old-{number}" for number in range(20)])
    new = tiny.build(folder / "b", "middle", subpackages=("zebra", "aardvark"), changelog=CHANGELOG)
    for name, built in (("old", old), ("new", new)):
        (folder / name).mkdir()
        for rpm in built.rpms:
            shutil.copy2(rpm.path, folder / name)
    return folder


def extended(rpms: Path, tmp_path: Path, *, known: int = 21) -> Path:
    base, folder = tmp_path / "base", tmp_path / "extended"
    shutil.copytree(rpms / "old", base)
    repodata.write_repodata(base, compression="gz")
    folder.mkdir()
    for path in sorted((*rpms.glob("old/*"), *rpms.glob("new/*"))):
        shutil.copy2(path, folder)
    extend_repodata(folder, base, known=known, rpms=[folder / path.name for path in rpms.glob("new/*")])
    return folder


def fields(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        place: {name: getattr(package, name) for name in FIELDS}
        for place, package in repodata.read_packages(folder).items()
    }


def test_createrepo_c_finds_the_same_packages_field_by_field_as_in_a_full_run(
    rpms: Path, tmp_path: Path
) -> None:
    folder = extended(rpms, tmp_path)
    assert repodata.check_repodata(folder) == ()
    ours = fields(folder)
    full = tmp_path / "full"
    shutil.copytree(folder, full, ignore=shutil.ignore_patterns("repodata"))
    subprocess.run(["createrepo_c", "--quiet", "--general-compress-type=gz", full], check=True, timeout=60)
    theirs = fields(full)
    assert len(ours) == 24
    assert ours == theirs
    assert {len(package["changelogs"]) for package in ours.values()} == {0, 2}


def test_it_can_be_extended_again_and_taken_over_by_createrepo_c(rpms: Path, tmp_path: Path) -> None:
    folder = extended(rpms, tmp_path)
    before = fields(folder)
    more = tiny.build(tmp_path / "more", "more").rpms[0].path
    again = tmp_path / "again"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("repodata"))
    shutil.copy2(more, again)
    extend_repodata(again, folder, known=24, rpms=[again / more.name])
    assert repodata.check_repodata(again) == ()
    found = fields(again)
    assert {place: found[place] for place in before} == before
    subprocess.run(["createrepo_c", "--quiet", "--update", again], check=True, timeout=60)
    taken_over = fields(again)
    assert {place: one["pkgId"] for place, one in taken_over.items()} == {
        place: one["pkgId"] for place, one in found.items()
    }


def test_a_base_that_is_damaged_or_another_is_refused(rpms: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="does not describe 20 packages"):
        extended(rpms, tmp_path, known=20)
    shutil.rmtree(tmp_path / "extended")
    primary = next((tmp_path / "base").glob("repodata/*primary.xml.gz"))
    primary.write_bytes(primary.read_bytes()[:-4])
    with pytest.raises(PublishError, match="the metadata is damaged"):
        extend_repodata(tmp_path / "folder", tmp_path / "base", known=21, rpms=[])
