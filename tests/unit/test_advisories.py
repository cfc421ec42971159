from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import createrepo_c
import pytest
import rpm

from backport.artifacts import Nevra, Rpm
from backport.errors import PublishError
from backport.recipe import Advisory as Wishes
from backport.repodata import check_repodata, write_repodata
from backport.repository import advisories
from backport.repository.advisories import (
    Advisory,
    AdvisoryPackage,
    Reference,
    add_updateinfo,
    fixed_cves,
    make_advisory,
    new_entries,
    read_advisories,
    still_here,
    to_xml,
)
from tests.unit.rpmfile import Package

ISSUED = datetime(2026, 11, 24, 3, 20, 5, tzinfo=UTC)
CHANGELOG = (
    ("A <a@example.org> - 1:1.1.1a-1.bp1", "- Carry over"),
    ("A <a@example.org> - 1:1.1.1a-1", "- fix CVE-2018-0734 and cve-2018-0735"),
    ("A <a@example.org> - 1.1.1-1", "- CVE-2018-1000001 but not CVE-18-1"),
    ("A <a@example.org>", "- an entry without a version: CVE-2018-2222"),
    ("A <a@example.org> - 1:1.1.0i-1", "- CVE-2018-0732"),
    ("A <a@example.org> - 1:1.1.0h-3", "- CVE-2018-0737"),
)


class Header(dict[int, Any]):
    """A package's header by its tags."""

    def isSource(self) -> bool:  # noqa: N802  # the bindings' name
        return False


def header(changelog: Sequence[tuple[str, str]] = CHANGELOG) -> Header:
    return Header({
        rpm.RPMTAG_CHANGELOGNAME: [title for title, _ in changelog],
        rpm.RPMTAG_CHANGELOGTEXT: [text for _, text in changelog],
        rpm.RPMTAG_SOURCERPM: "openssl-1.1.1a-1.fc28.bp1.src.rpm",
    })  # fmt: skip


def package(name: str = "openssl-libs", *, release: str = "1.fc28.bp1") -> Rpm:
    nevra = Nevra(name=name, epoch=1, version="1.1.1a", release=release, arch="x86_64")
    return Rpm(nevra=nevra, path=Path(nevra.filename), sha256="1" * 64)


@pytest.fixture(autouse=True)
def _headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisories, "read_header", lambda path: header())


def made(wishes: Wishes | None = None, *, stock: dict[str, str] | None = None, **changes: Any) -> Advisory:
    one = make_advisory(
        wishes or Wishes(), [package()], summary="OpenSSL with TLS 1.3",
        stock={"openssl-libs": "1:1.1.0i-1.fc28"} if stock is None else stock, issued=ISSUED,
        publisher="A <a@example.org>",
    )  # fmt: skip
    return replace(one, **changes)


def test_entries_down_to_that_of_the_stock_package_are_new() -> None:
    texts = list(new_entries(CHANGELOG, "1:1.1.0i-1.fc28"))
    assert texts == [text for _, text in CHANGELOG[:4]]


@pytest.mark.parametrize(
    ("stock", "count"),
    [
        ("1:1.1.0h-3.fc28", 5),
        ("1:1.1.0h-4.fc28", 5),
        ("1:1.1.1a-1.fc28", 1),
        ("1:1.1.1a-1.fc28.bp1", 1),
        ("1:1.1.1a-1.bp1", 0),
        ("2:1-1.fc28", 0),
        ("1:1.0-1.fc28", 6),
    ],
)
def test_the_entries_evr_is_compared_as_rpm_does(stock: str, count: int) -> None:
    assert len(list(new_entries(CHANGELOG, stock))) == count


def test_a_stock_evr_that_is_none_is_told() -> None:
    with pytest.raises(PublishError, match="not an epoch:version-release"):
        list(new_entries(CHANGELOG, "nonsense"))


def test_only_new_cves_count() -> None:
    assert fixed_cves(header(), "1:1.1.0i-1.fc28") == {
        "CVE-2018-0734", "CVE-2018-0735", "CVE-2018-1000001", "CVE-2018-2222",
    }  # fmt: skip
    assert fixed_cves(header(), None) == set()


def test_text_in_another_encoding_is_read() -> None:
    assert fixed_cves(header([("A - 2-1", "- caf\xe9 CVE-2020-1234")]), "1-1") == {"CVE-2020-1234"}
    raw: Any = b"- caf\xe9 CVE-2020-1234"
    assert fixed_cves(header([("A - 2-1", raw)]), "1-1") == {"CVE-2020-1234"}


def test_a_settled_cve_makes_a_security_update() -> None:
    one = made()
    assert one.kind == "security"
    assert one.cves == ("CVE-2018-0734", "CVE-2018-0735", "CVE-2018-2222", "CVE-2018-1000001")
    assert one.title == "OpenSSL with TLS 1.3"
    assert "CVE-2018-0734" in one.description


def test_without_a_cve_it_is_an_enhancement() -> None:
    one = made(stock={})
    assert (one.kind, one.severity, one.description) == ("enhancement", "None", "OpenSSL with TLS 1.3")


def test_the_recipe_has_the_last_word() -> None:
    wishes = Wishes(
        type="bugfix", severity="Low", title="Title", description="Told: CVE-2018-0734.",
        references=("https://bugzilla.redhat.com/show_bug.cgi?id=12", "https://example.org/a"),
    )  # fmt: skip
    one = made(wishes)
    assert (one.kind, one.severity, one.title) == ("bugfix", "Low", "Title")
    assert one.description.count("CVE-2018-0734") == 1
    assert [(each.kind, each.id) for each in one.references[-2:]] == [
        ("bugzilla", "12"),
        ("other", "https://example.org/a"),
    ]


def test_the_id_follows_the_packages() -> None:
    one = made()
    assert one.id.startswith("BACKPORT-2026-")
    assert made(Wishes(title="Other")).id == one.id
    other = make_advisory(
        Wishes(), [package(release="1.fc28.bp2")], summary="", stock={}, issued=ISSUED, publisher=""
    )
    assert other.id != one.id


def test_createrepo_c_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "updateinfo.xml"
    path.write_text(to_xml([made()]))
    (update,) = createrepo_c.UpdateInfo(str(path)).updates
    assert (update.id, update.type, update.status) == (made().id, "security", "final")
    assert update.issued_date == ISSUED.replace(tzinfo=None)
    (collection,) = update.collections
    (entry,) = collection.packages
    assert (entry.name, entry.epoch, entry.version, entry.release, entry.arch) == (
        "openssl-libs", "1", "1.1.1a", "1.fc28.bp1", "x86_64",
    )  # fmt: skip
    assert entry.filename == "openssl-libs-1.1.1a-1.fc28.bp1.x86_64.rpm"
    assert {reference.type for reference in update.references} == {"cve"}


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    nasty = made(title="<b>&\x00\x1b[2J</b>", description="]]><update/>")
    root = ET.fromstring(to_xml([nasty]))
    assert [child.tag for child in root] == ["update"]
    assert root.findtext("update/title") == "<b>&\ufffd\ufffd[2J</b>"
    assert root.findtext("update/description") == "]]><update/>"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "tiny-1-1.noarch.rpm").write_bytes(Package(files=[], source=False).to_bytes())
    write_repodata(tmp_path, compression="gz")
    return tmp_path


def test_the_repository_names_its_advisories(repository: Path) -> None:
    (repository / "repodata/repomd.xml.asc").write_text("of the old one")
    add_updateinfo(repository, [made()], compression="gz")
    assert read_advisories(repository) == (made(),)
    assert check_repodata(repository) == ()
    assert not (repository / "repodata/repomd.xml.asc").exists()
    (file,) = (repository / "repodata").glob("*updateinfo*")
    assert file.name.endswith("-updateinfo.xml.gz")
    records = {one.type: one for one in createrepo_c.Repomd(str(repository / "repodata/repomd.xml")).records}
    assert set(records) == {"primary", "filelists", "other", "updateinfo"}
    assert records["updateinfo"].size_open == len(to_xml([made()]).encode())
    assert not [path for path in repository.iterdir() if path.name.startswith(".")]


def test_without_advisories_the_metadata_stays(repository: Path) -> None:
    before = (repository / "repodata/repomd.xml").read_bytes()
    add_updateinfo(repository, [], compression="gz")
    assert (repository / "repodata/repomd.xml").read_bytes() == before
    assert read_advisories(repository) == ()


def test_damaged_advisories_are_told(repository: Path) -> None:
    add_updateinfo(repository, [made()], compression="gz")
    (file,) = (repository / "repodata").glob("*updateinfo*")
    file.write_bytes(b"nonsense")
    with pytest.raises(PublishError, match="cannot be read"):
        read_advisories(repository)


def test_an_advisory_goes_with_the_last_of_its_packages() -> None:
    one = made()
    late = made(id="BACKPORT-2026-2", issued=ISSUED + timedelta(days=1))
    file = "openssl-libs-1.1.1a-1.fc28.bp1.x86_64.rpm"
    assert still_here([one, late], {file}.__contains__) == (late, one)
    assert still_here([one, late], {"other.rpm"}.__contains__) == ()


def test_the_newer_word_on_an_advisory_counts() -> None:
    file = "openssl-libs-1.1.1a-1.fc28.bp1.x86_64.rpm"
    assert still_here([made(), made(title="New")], {file}.__contains__) == (made(title="New"),)


def test_a_reference_to_a_cve_in_the_recipe_is_one() -> None:
    one = made(Wishes(references=("https://nvd.nist.gov/vuln/detail/CVE-2019-1547",)), stock={})
    assert one.references == (
        Reference(kind="cve", id="CVE-2019-1547", url="https://nvd.nist.gov/vuln/detail/CVE-2019-1547"),
    )
    assert AdvisoryPackage(
        nevra=package().nevra, filename=package().nevra.filename, sha256="1" * 64,
        source="openssl-1.1.1a-1.fc28.bp1.src.rpm",
    ) in one.packages  # fmt: skip
