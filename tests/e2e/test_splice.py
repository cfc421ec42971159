"""Metadata to which packages come, against a full run of createrepo_c over the same folder."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from backport import repodata
from backport.errors import PublishError
from backport.repository.splice import extend_repodata, read_base
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


def can_write(compression: repodata.Compression) -> bool:
    return compression == "gz" or hasattr(repodata.bindings(), "ZSTD_COMPRESSION")


WRITABLE: tuple[repodata.Compression, ...] = tuple(
    one for one in get_args(repodata.Compression) if can_write(one)
)


def extended(rpms: Path, tmp_path: Path, compression: repodata.Compression = "gz") -> Path:
    base, folder = tmp_path / "base", tmp_path / "extended"
    shutil.copytree(rpms / "old", base)
    repodata.write_repodata(base, compression=compression)
    folder.mkdir()
    for path in sorted((*rpms.glob("old/*"), *rpms.glob("new/*"))):
        shutil.copy2(path, folder)
    known = read_base(base, compression)
    assert known.locations == {path.name for path in rpms.glob("old/*")}
    extend_repodata(folder, known, rpms=[folder / path.name for path in rpms.glob("new/*")])
    return folder


def fields(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        place: {name: getattr(package, name) for name in FIELDS}
        for place, package in repodata.read_packages(folder).items()
    }


@pytest.mark.parametrize("compression", WRITABLE)
def test_createrepo_c_finds_the_same_packages_field_by_field_as_in_a_full_run(
    rpms: Path, tmp_path: Path, compression: repodata.Compression
) -> None:
    folder = extended(rpms, tmp_path, compression)
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
    extend_repodata(again, read_base(folder), rpms=[again / more.name])
    assert repodata.check_repodata(again) == ()
    found = fields(again)
    assert {place: found[place] for place in before} == before
    subprocess.run(["createrepo_c", "--quiet", "--update", again], check=True, timeout=60)
    taken_over = fields(again)
    assert {place: one["pkgId"] for place, one in taken_over.items()} == {
        place: one["pkgId"] for place, one in found.items()
    }


def replaced(base: Path, kind: str, old: bytes, new: bytes) -> None:
    """Change the text of one metadata file, and name what came of it by ``repomd.xml``."""
    createrepo_c = repodata.bindings()
    repomd = createrepo_c.Repomd(str(base / "repodata/repomd.xml"))
    (record,) = (one for one in repomd.records if one.type == kind)
    path = base / record.location_href
    text = gzip.decompress(path.read_bytes())
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new)))
    again = createrepo_c.RepomdRecord(kind, str(path))
    again.fill(createrepo_c.SHA256)
    again.location_href = record.location_href
    repomd.set_record(again)
    (base / "repodata/repomd.xml").write_text(repomd.xml_dump())


@pytest.mark.parametrize("kind", repodata.KINDS)
def test_a_base_whose_files_do_not_agree_is_refused(rpms: Path, tmp_path: Path, kind: str) -> None:
    extended(rpms, tmp_path)
    replaced(tmp_path / "base", kind, b'packages="21"', b'packages="20"')
    assert repodata.check_metadata_files(tmp_path / "base") == ()
    with pytest.raises(PublishError, match="does not describe 21 packages"):
        read_base(tmp_path / "base")


def test_a_damaged_base_is_refused(rpms: Path, tmp_path: Path) -> None:
    extended(rpms, tmp_path)
    primary = next((tmp_path / "base").glob("repodata/*primary.xml.gz"))
    primary.write_bytes(primary.read_bytes()[:-4])
    with pytest.raises(PublishError, match="the metadata is damaged"):
        read_base(tmp_path / "base")
