"""What gates decide without a program: versions, files, names of libraries, and what a recipe says."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rpm

from backport.artifacts import Check, Nevra, Verdict
from backport.errors import PublishError, ToolError, UsageError
from backport.gates import check_names, passed
from backport.gates.abi import sonames_of
from backport.gates.contents import is_conflict, privileges_of
from backport.gates.repositories import TargetRepositories, metadata_of_folder
from backport.gates.upgrade_path import bound_for, next_bump
from backport.progress import Silent
from backport.recipe import Gates, load_recipe
from backport.settings import Key
from backport.target import Repository, Target
from backport.trust import compare_evrs
from tests.unit.evidence_data import small_run

RECIPE = """
summary = "Tiny"
targets = ["f28"]
[source]
tag = "f29-updates"
keys = ["fedora-29"]
[packages.tiny]
nvr = "tiny-1.0-1.fc29"
[self_test]
[[self_test.commands]]
id = "tiny-runs"
run = ["tiny"]
"""


def nevra(text: str) -> Nevra:
    return Nevra.parse(f"{text}.x86_64")


def a_file(mode: int = stat.S_IFREG | 0o644, **facts: Any) -> SimpleNamespace:
    plain = {"name": "/f", "user": "root", "group": "root", "linkto": "", "size": 1, "digest": "aa",
             "fflags": 0, "color": 0, "caps": ""}  # fmt: skip
    return SimpleNamespace(mode=mode, **{**plain, **facts})


@pytest.mark.parametrize(
    "text", ["openssl-libs-1:1.1.1w-1.fc28.bp1.x86_64", "tzdata-2018g-1.fc28.noarch", "a-b-c-1-1.src"]
)
def test_a_nevra_is_read_as_it_is_written(text: str) -> None:
    assert str(Nevra.parse(text)) == text


@pytest.mark.parametrize("text", ["", "openssl", "openssl-1.x86_64", "openssl-1-1", "openssl-x:1-1.noarch"])
def test_what_is_no_nevra_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        Nevra.parse(text)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("a-1.1.0i-1.fc28", "a-1.1.1a-1.fc28.bp1"),
        ("a-1.1.1a-1.fc28.bp1", "a-1.1.1a-1.fc29"),
        ("a-1-1.fc28.bp9", "a-1-1.fc28.bp10"),
        ("a-9-1", "a-1:1-1"),
        ("a-1~rc1-1", "a-1-1"),
    ],
)
def test_versions_are_compared_as_rpm_does(lower: str, higher: str) -> None:
    assert compare_evrs(nevra(lower), nevra(higher)) == -1
    assert compare_evrs(nevra(higher), nevra(lower)) == 1
    assert compare_evrs(nevra(lower), nevra(lower)) == 0


def test_a_package_is_bound_by_the_release_it_came_from() -> None:
    made, origin = nevra("a-1:1.1.1-1.fc28.bp1"), nevra("a-1:1.1.1-1.fc29")
    assert str(bound_for(nevra("a-libs-1:1.1.1-1.fc28.bp1"), made=made, origin=origin)) == (
        "a-libs-1:1.1.1-1.fc29.x86_64"
    )


def test_a_subpackage_with_a_version_of_its_own_keeps_it_in_its_bound() -> None:
    made, origin = nevra("a-1.1.1-1.fc28.bp1"), nevra("a-1.1.1-1.fc29")
    assert str(bound_for(nevra("b-7-1.fc28.bp1"), made=made, origin=origin)) == "b-7-1.fc29.x86_64"


def test_a_release_of_its_own_has_no_bound() -> None:
    made, origin = nevra("a-1.1.1-1.fc28.bp1"), nevra("a-1.1.1-1.fc29")
    assert bound_for(nevra("b-7-4.fc28.bp1"), made=made, origin=origin) is None


def test_the_next_change_counts_up() -> None:
    assert str(next_bump(nevra("a-1-1.fc28.bp9"))) == "a-1-1.fc28.bp10.x86_64"
    assert next_bump(nevra("a-1-1.fc28")) is None


def test_sonames_are_told_from_other_provides_and_from_files() -> None:
    provided = [
        "libssl.so.1.1()(64bit)", "libssl.so.1.1(OPENSSL_1_1_0)(64bit)", "libdb-5.3.so",
        "openssl-libs = 1:1-1", "pkgconfig(libssl) = 1", "/usr/lib64/libother.so.1",
    ]  # fmt: skip
    assert sonames_of(provided) == {"libssl.so.1.1", "libdb-5.3.so"}


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (a_file(), a_file(), False),
        (a_file(), a_file(digest="bb"), True),
        (a_file(), a_file(size=2), True),
        (a_file(), a_file(stat.S_IFREG | 0o755), True),
        (a_file(), a_file(user="mail"), True),
        (a_file(digest="bb", fflags=rpm.RPMFILE_GHOST), a_file(), False),
        (a_file(digest="bb", color=1), a_file(color=2), False),
        (a_file(digest="bb", color=2), a_file(color=2), True),
        (a_file(stat.S_IFDIR | 0o755, user="mail"), a_file(stat.S_IFDIR | 0o755), False),
        (a_file(stat.S_IFDIR | 0o755), a_file(stat.S_IFDIR | 0o700), True),
        (a_file(stat.S_IFDIR | 0o755), a_file(), True),
        (a_file(stat.S_IFLNK | 0o777, linkto="a"), a_file(stat.S_IFLNK | 0o777, linkto="a", size=9), False),
        (a_file(stat.S_IFLNK | 0o777, linkto="a"), a_file(stat.S_IFLNK | 0o777, linkto="b"), True),
    ],
)
def test_files_of_the_same_name_conflict_where_rpm_says_so(one: Any, other: Any, conflict: bool) -> None:
    assert is_conflict(one, other) is conflict
    assert is_conflict(other, one) is conflict


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (a_file(), set()),
        (a_file(stat.S_IFREG | 0o6755, group="mail"), {"set-user-id root", "set-group-id mail"}),
        (a_file(caps="= cap_net_raw+ep"), {"capabilities = cap_net_raw+ep"}),
        (a_file(caps="="), set()),
        (a_file(stat.S_IFREG | 0o666), {"writable by all"}),
        (a_file(stat.S_IFDIR | 0o777), {"writable by all"}),
        (a_file(stat.S_IFDIR | 0o1777), set()),
        (a_file(stat.S_IFDIR | 0o2755), set()),
        (a_file(stat.S_IFLNK | 0o777), set()),
    ],
)
def test_what_a_file_gives_to_others(file: Any, expected: set[str]) -> None:
    assert privileges_of(file) == expected


def test_what_failed_forbids_publishing_and_a_warning_does_not(tmp_path: Path) -> None:
    tested = small_run(tmp_path).tested
    checks = (
        Check(id="gate.abi.a", title="A", verdict=Verdict.WARN),
        Check(id="gate.files.conflicts", title="F", verdict=Verdict.FAIL, found="/f", advice="mend it"),
        Check(id="gate.installable", title="I", verdict=Verdict.ERROR),
    )
    assert passed(tested, checks[:1]).checks == checks[:1]
    with pytest.raises(PublishError, match=r"gate\.files\.conflicts, gate\.installable: F: /f") as caught:
        passed(tested, checks)
    assert caught.value.hint == "mend it"


def test_the_longest_name_of_a_gate_gives_the_reason() -> None:
    gates = Gates(warn={"abi": "all", "abi.libstdc++": "one", "installable.downgrade": "one way"})
    assert gates.reason_to_warn("abi.zlib") == "all"
    assert gates.reason_to_warn("abi.libstdc++") == "one"
    assert gates.reason_to_warn("installable.update") is None
    assert gates.reason_to_warn("abinormal") is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[gates.warn]\nabii = "reason"', "there is no gate 'abii' (did you mean abi?)"),
        ('[gates.warn]\nabi = " "', "gates.warn.abi"),
        ("[gates.consumers]\nexim = []", "gates.consumers.exim"),
        ('[gates]\nwarning = "x"', "did you mean warn?"),
    ],
)
def test_a_recipe_with_a_wrong_gate_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "tiny.toml").write_text(f"{RECIPE}\n{table}\n")
    with pytest.raises(UsageError) as caught:
        check_names(load_recipe(tmp_path, "tiny"))
    assert message in caught.value.message


def stock(folder: Path) -> TargetRepositories:
    key = Key(fingerprint="A" * 40, file=folder / "key.asc")
    repository = Repository(id="base", baseurl=(folder / "repository").as_uri(), keys=("key",))
    target = Target(
        name="f28", summary="Old", releasever="28", dist=".fc28", arch="x86_64", repositories=(repository,),
        keys={"key": key}, buildroot=("bash",),
    )  # fmt: skip
    return TargetRepositories(target=target, cache=folder / "cache", progress=Silent())


@pytest.mark.parametrize("location", ["/etc/passwd", "../x.rpm", "a/../../x.rpm", "http://elsewhere/x.rpm"])
def test_a_repository_cannot_name_files_outside_of_itself(tmp_path: Path, location: str) -> None:
    with pytest.raises(ToolError, match="names a file outside of itself"):
        stock(tmp_path).package("base", location, ("sha256", "0" * 64))


def test_a_package_with_another_digest_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "x.rpm").write_bytes(b"other")
    with pytest.raises(ToolError, match="is not what the metadata of base names"):
        stock(tmp_path).package("base", "x.rpm", ("sha256", "0" * 64))


def test_a_package_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be read: No such file"):
        stock(tmp_path).package("base", "x.rpm", ("sha256", "0" * 64))


def test_metadata_that_is_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="its metadata cannot be read"):
        metadata_of_folder(tmp_path)
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata" / "repomd.xml").write_text("<repomd/>")
    with pytest.raises(ToolError):
        metadata_of_folder(tmp_path)
