"""Metadata by createrepo_c's bindings: what is written is read back, and every damage is found."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from backport import repodata
from backport.errors import HostError, ToolError
from tests.unit import rpmfile

REPO = "{http://linux.duke.edu/metadata/repo}"
ET.register_namespace("", REPO.strip("{}"))


def add(folder: Path, *names: str) -> list[Path]:
    paths = []
    for name in names:
        path = folder / f"{name}.rpm"
        path.parent.mkdir(parents=True, exist_ok=True)
        files = [rpmfile.File(name=f"{path.stem}.txt", folder="/usr/share/", content=path.stem.encode())]
        path.write_bytes(rpmfile.Package(files=files, name=path.stem, source=False).to_bytes())
        paths.append(path)
    return paths


def described(folder: Path) -> list[str]:
    return sorted(repodata.read_packages(folder))


def kinds(folder: Path, *, digests: Sequence[str] | None = None) -> list[tuple[str, str]]:
    return [(found.kind, found.path) for found in repodata.check_repodata(folder, digests=digests)]


def test_every_package_below_the_folder_is_described(tmp_path: Path) -> None:
    add(tmp_path, "one", "deep/two")
    repodata.write_repodata(tmp_path, compression="gz")
    assert described(tmp_path) == ["deep/two.rpm", "one.rpm"]
    assert kinds(tmp_path) == []
    package = repodata.read_packages(tmp_path)["one.rpm"]
    assert (package.name, package.files[0][2]) == ("one", "one.txt")
    assert package.changelogs
    names = repodata.metadata_files(tmp_path)
    assert [name.split("-")[1] for name in names] == ["primary.xml.gz", "filelists.xml.gz", "other.xml.gz"]
    for name in names:
        gzip.decompress((tmp_path / name).read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "one.rpm", "repodata"]


def test_an_empty_folder_is_a_repository_too(tmp_path: Path) -> None:
    repodata.write_repodata(tmp_path, compression="gz")
    assert described(tmp_path) == []
    assert kinds(tmp_path) == []


def test_only_the_named_packages_are_described(tmp_path: Path) -> None:
    one, _two = add(tmp_path, "one", "two")
    repodata.write_repodata(tmp_path, compression="gz", rpms=[one])
    assert described(tmp_path) == ["one.rpm"]
    assert kinds(tmp_path) == [("extra", "two.rpm")]


def test_new_metadata_takes_the_place_of_the_old(tmp_path: Path) -> None:
    add(tmp_path, "one")
    repodata.write_repodata(tmp_path, compression="gz")
    (tmp_path / "repodata/repomd.xml.asc").write_text("a signature of the old repomd.xml")
    add(tmp_path, "two")
    repodata.write_repodata(tmp_path, compression="gz")
    assert described(tmp_path) == ["one.rpm", "two.rpm"]
    names = {name.removeprefix("repodata/") for name in repodata.metadata_files(tmp_path)}
    assert {path.name for path in (tmp_path / "repodata").iterdir()} == {*names, "repomd.xml"}


def test_known_packages_are_described_as_if_they_were_parsed(tmp_path: Path) -> None:
    createrepo_c = importlib.import_module("createrepo_c")
    whole, partly = tmp_path / "whole", tmp_path / "partly"
    for folder in (whole, partly):
        add(folder, "one", "two")
    repodata.write_repodata(partly, compression="gz")
    known = repodata.read_packages(partly)
    (partly / "one.rpm").write_bytes(b"is not read again")
    for folder in (whole, partly):
        add(folder, "three")
    repodata.write_repodata(whole, compression="gz")
    repodata.write_repodata(partly, compression="gz", known=known)
    first, second = repodata.read_packages(whole), repodata.read_packages(partly)
    assert first.keys() == second.keys()
    for name, package in first.items():
        package.time_file = second[name].time_file
        for dump in ("primary", "filelists", "other"):
            write = getattr(createrepo_c, f"xml_dump_{dump}")
            assert write(package) == write(second[name])


def test_what_is_no_package_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "one.rpm").write_bytes(b"not a package")
    with pytest.raises(ToolError, match=r"one\.rpm: cannot be read as an RPM"):
        repodata.write_repodata(tmp_path, compression="gz")
    assert sorted(path.name for path in (tmp_path / "repodata").glob("*")) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add(tmp_path, "one", "two")
    repodata.write_repodata(tmp_path, compression="gz")
    return tmp_path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_missing_an_extra_and_a_changed_package_are_found(repository: Path) -> None:
    (repository / "one.rpm").rename(repository / "three.rpm")
    flip(repository / "two.rpm")
    assert kinds(repository) == [("missing", "one.rpm"), ("digest", "two.rpm"), ("extra", "three.rpm")]
    assert kinds(repository, digests=[]) == [("missing", "one.rpm"), ("extra", "three.rpm")]
    with (repository / "two.rpm").open("ab") as stream:
        stream.write(b"\0")
    assert ("digest", "two.rpm") in kinds(repository, digests=[])


def test_a_link_is_not_a_package(repository: Path) -> None:
    (repository / "one.rpm").rename(repository / "elsewhere")
    (repository / "one.rpm").symlink_to("elsewhere")
    assert kinds(repository) == [("missing", "one.rpm")]


@pytest.mark.parametrize("kind", repodata.KINDS)
def test_damaged_and_missing_metadata_is_found(repository: Path, kind: str) -> None:
    (path,) = (repository / "repodata").glob(f"*-{kind}.xml.gz")
    name = path.relative_to(repository).as_posix()
    flip(path)
    assert kinds(repository) == [("digest", name)]
    path.unlink()
    assert kinds(repository) == [("missing", name)]


def test_metadata_of_another_generation_is_found(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    add(other, "one")
    repodata.write_repodata(other, compression="gz")
    repomd = repository / "repodata/repomd.xml"
    mixed, others = (ET.parse(folder / "repodata/repomd.xml") for folder in (repository, other))
    for kind in ("filelists", "other"):
        (mine,) = (repository / "repodata").glob(f"*-{kind}.xml.gz")
        (theirs,) = (other / "repodata").glob(f"*-{kind}.xml.gz")
        theirs.rename(mine.with_name(theirs.name))
        for record in mixed.getroot().findall(f"{REPO}data[@type='{kind}']"):
            mixed.getroot().remove(record)
        mixed.getroot().extend(others.getroot().findall(f"{REPO}data[@type='{kind}']"))
    mixed.write(repomd)
    found = repodata.check_repodata(repository)
    assert {problem.kind for problem in found} == {"metadata"}
    assert {str(problem) for problem in found} >= {
        "repodata: filelists lacks two",
        "repodata: other lacks two",
    }
    with pytest.raises(ToolError, match="lacks two"):
        repodata.read_packages(repository)


@pytest.mark.parametrize("text", ["", "<repomd/", "not XML"])
def test_a_damaged_repomd_is_told(repository: Path, text: str) -> None:
    (repository / "repodata/repomd.xml").write_text(text)
    with pytest.raises(ToolError, match=r"repomd\.xml"):
        repodata.check_repodata(repository)


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "repodata/../../secret"])
def test_a_repomd_that_names_files_elsewhere_is_refused(repository: Path, place: str) -> None:
    repomd = repository / "repodata/repomd.xml"
    (primary,) = (repository / "repodata").glob("*-primary.xml.gz")
    repomd.write_text(repomd.read_text().replace(f"repodata/{primary.name}", place))
    with pytest.raises(ToolError, match="names a file outside"):
        repodata.check_repodata(repository)


def test_missing_bindings_are_told_with_their_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(HostError) as told:
        repodata.write_repodata(tmp_path, compression="gz")
    assert "python3-createrepo-c" in (told.value.hint or "")


def test_zstd_is_written_where_the_bindings_can_and_refused_where_not(tmp_path: Path) -> None:
    add(tmp_path, "one")
    if hasattr(repodata.bindings(), "ZSTD_COMPRESSION"):
        repodata.write_repodata(tmp_path, compression="zstd")
        assert all(name.endswith(".xml.zst") for name in repodata.metadata_files(tmp_path))
        assert kinds(tmp_path) == []
    else:
        with pytest.raises(HostError, match="cannot write zstd"):
            repodata.write_repodata(tmp_path, compression="zstd")
