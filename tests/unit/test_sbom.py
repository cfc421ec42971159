from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import rpm
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from backport.evidence import sbom
from backport.evidence.sbom import bill_of_materials, requirements
from tests.unit.evidence_data import DIFF, FINISHED, SmallRun, small_run


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    return small_run(tmp_path)


def document(run: SmallRun) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        bill_of_materials(run.tested, run.files, vendor="fedora", time=FINISHED)
    )
    return data


def test_the_schema_takes_it(run: SmallRun) -> None:
    text = bill_of_materials(run.tested, run.files, vendor="fedora", time=FINISHED)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_schema_is_a_check_that_can_fail(run: SmallRun) -> None:
    broken = document(run)
    broken["components"][0]["hashes"][0]["content"] = "not a digest"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_same_packages_give_the_same_document(run: SmallRun) -> None:
    first, second = (
        bill_of_materials(run.tested, run.files, vendor="fedora", time=FINISHED) for _ in range(2)
    )
    assert first == second


def test_components_have_purl_digest_and_file(run: SmallRun) -> None:
    components = {one["bom-ref"]: one for one in document(run)["components"]}
    assert set(components) == {file.path for file in run.files}
    binary = components["x86_64/tiny-1-1.noarch.rpm"]
    assert binary["purl"] == "pkg:rpm/fedora/tiny@1-1?arch=noarch"
    assert binary["hashes"] == [{"alg": "SHA-256", "content": run.files[1].sha256}]


def test_packages_are_their_targets_vendors_and_sources_fedoras(run: SmallRun) -> None:
    text = bill_of_materials(run.tested, run.files, vendor="almalinux", time=FINISHED)
    source, binary = (
        {one["bom-ref"].partition("/")[0]: one for one in json.loads(text)["components"]}[place]
        for place in ("source", "x86_64")
    )
    assert source["purl"] == "pkg:rpm/almalinux/tiny@1-1?arch=src"
    assert binary["pedigree"]["ancestors"][0]["purl"] == source["purl"]
    assert source["pedigree"]["ancestors"][0]["purl"] == "pkg:rpm/fedora/tiny@1-1.fc29?arch=src"


def test_the_source_package_descends_from_fedoras_with_the_whole_change(run: SmallRun) -> None:
    components = {one["bom-ref"]: one for one in document(run)["components"]}
    pedigree = components["source/tiny-1-1.src.rpm"]["pedigree"]
    (ancestor,) = pedigree["ancestors"]
    assert ancestor["purl"] == "pkg:rpm/fedora/tiny@1-1.fc29?arch=src"
    assert ancestor["hashes"][0]["content"] == "5" * 64
    (patch,) = pedigree["patches"]
    assert patch["type"] == "backport"
    assert base64.b64decode(patch["diff"]["text"]["content"]).decode() == DIFF


class Header(dict[int, Any]):
    """A package's header by its tags."""

    def isSource(self) -> bool:  # noqa: N802  # the bindings' name
        return bool(self.get(rpm.RPMTAG_SOURCEPACKAGE))


def header(
    provides: list[str], requires: list[str], files: list[str] | None = None, *, source: bool = False
) -> Header:
    return Header({
        rpm.RPMTAG_PROVIDENAME: provides, rpm.RPMTAG_REQUIRENAME: requires,
        rpm.RPMTAG_FILENAMES: files or [], rpm.RPMTAG_SOURCEPACKAGE: source,
    })  # fmt: skip


def test_packages_that_need_each_other_are_tied() -> None:
    needs = requirements({
        "openssl": header(["openssl"], ["libssl.so.1.1()(64bit)", "/usr/bin/sh", "openssl"]),
        "libs": header(["libssl.so.1.1()(64bit)"], ["libc.so.6()(64bit)", "/etc/policy"]),
        "policies": header(["crypto-policies"], [], ["/etc/policy"]),
        "source": header([], ["openssl"], source=True),
    })  # fmt: skip
    assert needs == {"openssl": ["libs"], "libs": ["policies"], "policies": [], "source": []}


def test_a_summary_in_another_encoding_stays_readable(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = header(["tiny"], [])
    odd[rpm.RPMTAG_LICENSE], odd[rpm.RPMTAG_SUMMARY] = "ASL 2.0 and OpenSSL", "caf\udce9 \x1b[2J"
    monkeypatch.setattr(sbom, "read_header", lambda path: odd)
    (first, *_) = document(run)["components"]
    assert first["description"] == "caf\ufffd \ufffd[2J"
    assert first["licenses"] == [{"license": {"name": "ASL 2.0 and OpenSSL"}}]
