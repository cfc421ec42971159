from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1.statement import Statement

from backport.artifacts import Check, Nevra, Verdict
from backport.errors import PublishError, ToolError, UsageError
from backport.evidence import store as evidence_module
from backport.evidence.intoto import ProvenanceStatement, Resource, TestStatement, read_statement
from backport.evidence.intoto import TestStatement as Results
from backport.evidence.provenance import INLINE_LIMIT, provenance_statement, purl, source_purl
from backport.evidence.provenance import test_statement as results_statement
from backport.evidence.store import (
    FOLDER,
    Evidence,
    new_evidence,
    place_evidence,
    statements,
    verify_provenance,
)
from backport.evidence.store import test_results as results_of
from backport.evidence.why import to_text, why
from backport.signing.key import Signer
from tests.unit.evidence_data import DIFF, FEDORA_KEY, FINGERPRINT, SmallRun, generation, small_run

PROOF = Resource(name="test-results.json", digest={"sha256": "9" * 64}, annotations={"role": "tests"})


class StandInSigner:
    """Writes down the digest of what it signs, and who signed."""

    def __init__(self, fingerprint: str = FINGERPRINT) -> None:
        self.fingerprint = fingerprint

    def sign_file(self, path: Path) -> Path:
        signature = path.with_name(f"{path.name}.asc")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        signature.write_text(f"{self.fingerprint} {digest}")
        return signature


def verify(path: Path, *, public_key: Path, fingerprint: str) -> None:
    signature = path.with_name(f"{path.name}.asc")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not signature.exists() or signature.read_text() != f"{fingerprint} {digest}":
        raise ToolError(f"{path.name}: its signature is not a good one")


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "verify_file", verify)
    monkeypatch.setattr(evidence_module, "fingerprints_in", lambda file: (file.read_text(),))


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    (tmp_path / "run").mkdir()
    return small_run(tmp_path / "run")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.asc"
    path.write_text(FINGERPRINT)
    return path


def place(
    folder: Path, evidence: Evidence | None, present: dict[str, str], before: Path | None = None
) -> None:
    place_evidence(
        folder, evidence, earlier=(before,) if before else (), present=present,
        signer=cast("Signer", StandInSigner()), link=os.link,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, run: SmallRun) -> Path:
    """A generation with the small run's packages and their evidence."""
    folder = tmp_path / "generation"
    present = generation(folder, run)
    place(folder, new_evidence(run.tested, run.origin, added=run.files), present)
    return folder


def failed(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.id: check.evidence for check in checks if check.verdict is not Verdict.PASS}


def test_the_reference_library_takes_the_provenance(run: SmallRun) -> None:
    text = provenance_statement(run.tested, run.origin, run.files, evidence=PROOF).to_json()
    _reference_statement(text)
    predicate = json.loads(text)["predicate"]
    assert predicate.pop("backport_slsa")["level"] == "SLSA_BUILD_LEVEL_1"
    # Without the extension there is nothing that the specification does not know.
    parsed = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    assert parsed.run_details.metadata.started_on.ToJsonString() == "2026-11-24T03:00:00Z"
    assert parsed.run_details.builder.id == f"openpgp4fpr:{FINGERPRINT}"
    assert parsed.build_definition.external_parameters["recipe"] == "tiny"


def test_the_reference_library_takes_the_test_results(run: SmallRun) -> None:
    text = results_statement(run.tested, run.origin, run.files).to_json()
    _reference_statement(text)
    predicate = json.loads(text)["predicate"]
    known = {name: value for name, value in predicate.items() if not name.startswith("backport_")}
    parsed = json_format.ParseDict(known, test_result_pb2.TestResult())
    assert parsed.result == "WARNED"
    assert list(parsed.passed_tests) == ["starttls.after"]
    assert list(parsed.warned_tests) == ["gate.signed"]


def _reference_statement(text: str) -> None:
    data = json.loads(text)
    Statement(
        subjects=[json_format.ParseDict(subject, _descriptor()) for subject in data["subject"]],
        predicate_type=data["predicateType"],
        predicate=data["predicate"],
    ).validate()
    assert data["_type"] == "https://in-toto.io/Statement/v1"


def _descriptor() -> Any:
    from in_toto_attestation.v1 import resource_descriptor_pb2  # noqa: PLC0415

    return resource_descriptor_pb2.ResourceDescriptor()


def test_a_statement_reads_back_as_it_was(run: SmallRun) -> None:
    statement = provenance_statement(run.tested, run.origin, run.files, evidence=PROOF)
    assert read_statement(ProvenanceStatement, statement.to_json(), name="x") == statement
    results = results_statement(run.tested, run.origin, run.files)
    again = read_statement(TestStatement, results.to_json(), name="x")
    assert again.predicate.passed_tests == results.predicate.passed_tests
    assert again.predicate.transcript == results.predicate.transcript


def test_sources_patches_and_logs_are_tied_to_their_package(run: SmallRun) -> None:
    predicate = provenance_statement(run.tested, run.origin, run.files, evidence=PROOF).predicate
    source, patch, compiler, unknown = predicate.build_definition.resolved_dependencies
    assert (source.name, source.sha256) == ("tiny-1-1.fc29.src.rpm", "5" * 64)
    assert source.uri == "pkg:rpm/fedora/tiny@1-1.fc29?arch=src"
    assert source.download_location == "https://koji.example.org/tiny.src.rpm"
    assert source.annotations["signed_by"] == FEDORA_KEY
    assert (patch.name, patch.sha256) == ("tiny/fix.patch", "8" * 64)
    assert (compiler.name, compiler.sha256) == ("gcc-8.0-1.fc28.x86_64.rpm", "9" * 64)
    assert compiler.uri == "pkg:rpm/fedora/gcc@8.0-1.fc28?arch=x86_64"
    assert compiler.download_location == "https://mirror.example.org/gcc.rpm"
    assert compiler.annotations == {"package": "tiny", "role": "buildroot"}
    assert (unknown.name, unknown.sha256) == ("bash-5.2-1.fc28.x86_64.rpm", "")
    byproducts = {one.name: one for one in predicate.run_details.byproducts}
    assert "tiny/buildroot.json" not in byproducts
    assert byproducts["tiny.diff"].text == DIFF
    assert "rpm-4.14-1.fc28.x86_64" in (byproducts["tiny/installed_pkgs.log"].text or "")
    assert byproducts["tiny/build.log"].sha256 == hashlib.sha256(b"built\n").hexdigest()
    assert byproducts["tiny/build.log"].content is None
    assert byproducts["test-results.json"] == PROOF


def test_a_build_with_network_is_not_told_to_have_none(run: SmallRun) -> None:
    [built] = run.tested.signed.built
    simple = replace(built, builder="mock 6.7 (isolation=simple)")
    tested = replace(run.tested, signed=replace(run.tested.signed, built=(simple,)))
    for one, claims in ((run.tested, True), (tested, False)):
        slsa = provenance_statement(one, run.origin, run.files, evidence=PROOF).predicate.slsa
        assert ("without network" in " ".join(slsa["met"])) is claims
        assert ("host's network" in " ".join(slsa["not_met"])) is not claims


def test_a_large_change_stands_by_its_digest_alone(tmp_path: Path) -> None:
    run = small_run(tmp_path, diff="+" * (INLINE_LIMIT + 1))
    predicate = provenance_statement(run.tested, run.origin, run.files, evidence=PROOF).predicate
    diff = next(one for one in predicate.run_details.byproducts if one.name == "tiny.diff")
    assert (diff.content, len(diff.sha256)) == (None, 64)


def test_content_that_is_not_what_its_digest_says_is_not_shown() -> None:
    whole = Resource.of_text("a", "text", media_type="text/plain", limit=10)
    assert whole.text == "text"
    assert whole.model_copy(update={"digest": {"sha256": "0" * 64}}).text is None
    assert whole.model_copy(update={"content": "%%%"}).text is None


def test_a_failed_check_is_no_passed_test(run: SmallRun) -> None:
    gate = Check(id="gate.abi", title="ABI", verdict=Verdict.FAIL)
    results: Results = results_statement(run.tested, replace(run.origin, gates=(gate,)), run.files)
    assert results.predicate.result == "FAILED"
    assert results.predicate.failed_tests == ("gate.abi",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
        ({"predicateType": "https://slsa.dev/provenance/v0.2"}, "predicateType"),
        ({"subject": []}, "subject"),
        ({"subject": [{"name": "a"}]}, "subject.0"),
        ({"subject": [{"name": "a", "digest": {"sha256": "XYZ"}}]}, "sha256"),
        ({"predicate": {"buildDefinition": {}}}, "predicate"),
    ],
)
def test_what_is_no_such_statement_is_told(run: SmallRun, change: dict[str, Any], told: str) -> None:
    text = provenance_statement(run.tested, run.origin, run.files, evidence=PROOF).to_json()
    with pytest.raises(PublishError, match="somewhere") as caught:
        read_statement(ProvenanceStatement, json.dumps({**json.loads(text), **change}), name="somewhere.json")
    assert told in caught.value.message


def test_purls_say_the_epoch_and_escape() -> None:
    nevra = Nevra(name="gtk+", epoch=2, version="1^git", release="1.fc28", arch="noarch")
    assert purl(nevra, "amzn").startswith("pkg:rpm/amzn/gtk%2B@")
    assert purl(nevra, "fedora") == "pkg:rpm/fedora/gtk%2B@1%5Egit-1.fc28?arch=noarch&epoch=2"


def test_a_whole_generation_passes(made: Path, key: Path) -> None:
    checks = verify_provenance(made, [key])
    assert failed(checks) == {}
    assert len(checks) == 4
    assert {path.name for path in made.iterdir()} >= {
        "provenance.json", "provenance.json.asc", "test-results.json", "sbom.cdx.json", "sbom.cdx.json.asc",
    }  # fmt: skip


def test_a_target_folder_is_led_to_what_readers_see(made: Path, key: Path) -> None:
    (made.parent / "current").symlink_to(made.name)
    assert failed(verify_provenance(made.parent, [key])) == {}


def test_another_key_does_not_do(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.asc"
    other.write_text("B" * 40)
    assert "provenance.signatures" in failed(verify_provenance(made, [other]))


def test_after_a_change_of_keys_either_does(made: Path, key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.asc"
    other.write_text("B" * 40)
    assert failed(verify_provenance(made, [other, key])) == {}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_changed_package_is_found(made: Path, key: Path) -> None:
    _flip(made / "x86_64/tiny-1-1.noarch.rpm")
    told = failed(verify_provenance(made, [key]))
    assert list(told) == ["provenance.packages"]
    assert "x86_64/tiny-1-1.noarch.rpm: is not the file" in told["provenance.packages"]


def test_a_package_that_nothing_explains_is_found(made: Path, key: Path) -> None:
    (made / "x86_64/extra-1-1.noarch.rpm").write_bytes(b"x")
    told = failed(verify_provenance(made, [key]))
    assert told == {
        "provenance.packages": "x86_64/extra-1-1.noarch.rpm: no statement says where it comes from"
    }


def test_two_statements_about_one_package_are_found(made: Path, key: Path) -> None:
    for path in list((made / FOLDER).iterdir()):
        (made / FOLDER / path.name.replace("20261124", "20261123")).write_bytes(path.read_bytes())
    assert "2 statements" in failed(verify_provenance(made, [key]))["provenance.packages"]


def test_a_changed_statement_is_found(made: Path, key: Path) -> None:
    path = next((made / FOLDER).glob("*.provenance.json"))
    path.write_text(path.read_text().replace(FEDORA_KEY, "E" * 40))
    told = failed(verify_provenance(made, [key]))
    assert path.name in told["provenance.signatures"]


def test_a_damaged_statement_is_found(made: Path, key: Path) -> None:
    path = next((made / FOLDER).glob("*.tests.json"))
    path.write_text("{")
    assert set(failed(verify_provenance(made, [key]))) == {"provenance.signatures", "provenance.form"}


def test_missing_test_results_are_found(made: Path, key: Path) -> None:
    for path in (made / FOLDER).glob("*.tests.json*"):
        path.unlink()
    assert "provenance.tests" in failed(verify_provenance(made, [key]))


def test_an_older_statement_in_the_place_of_the_newest_is_found(made: Path, key: Path) -> None:
    path = made / "provenance.json"
    content = path.read_text()
    path.unlink()
    path.write_text(content + " ")
    assert "provenance.form" in failed(verify_provenance(made, [key]))


def test_a_folder_without_evidence_is_refused(tmp_path: Path, key: Path) -> None:
    with pytest.raises(PublishError, match="holds no evidence"):
        verify_provenance(tmp_path, [key])


def test_evidence_stays_with_its_packages_and_goes_with_them(
    made: Path, run: SmallRun, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    present = generation(later, run)
    place(later, None, present, before=made)
    assert {path.name for path in (later / FOLDER).iterdir()} == {
        path.name for path in (made / FOLDER).iterdir()
    }
    assert (later / "provenance.json").read_bytes() == (made / "provenance.json").read_bytes()
    last = tmp_path / "last"
    last.mkdir()
    place(last, None, {}, before=later)
    assert list((last / FOLDER).iterdir()) == []
    assert not (last / "provenance.json").exists()


def test_tests_of_what_is_there_already_are_kept_without_another_provenance(
    made: Path, run: SmallRun, tmp_path: Path, key: Path
) -> None:
    later = tmp_path / "later"
    present = generation(later, run)
    origin = replace(run.origin, finished=run.origin.finished.replace(hour=5))
    place(later, new_evidence(run.tested, origin, added=(), others=run.files), present, before=made)
    assert failed(verify_provenance(later, [key])) == {}
    assert len(list(statements(later))) == 1
    assert len(list(results_of(later))) == 2


def test_why_tells_where_a_package_comes_from(made: Path) -> None:
    (one,) = why(made, "tiny-1-1.noarch.rpm")
    assert one.original == "tiny-1-1.fc29.src.rpm"
    assert one.original_signed_by == FEDORA_KEY
    assert one.diff == DIFF
    assert one.patches == {"tiny/fix.patch": "8" * 64}
    assert one.buildroot == ("bash-5.2-1.fc28.x86_64", "rpm-4.14-1.fc28.x86_64")
    assert one.result == "warned"
    text = "\n".join(to_text(one))
    for part in ("TLS 1.3 is spoken: TLSv1.3", "+Release: 1.bp1", "SLSA_BUILD_LEVEL_1", FEDORA_KEY, "hosted"):
        assert part in text
    assert "+Release" not in "\n".join(to_text(one, with_diff=False))


def test_why_takes_names_and_nevras(made: Path) -> None:
    assert len(why(made, "tiny")) == 2
    assert [one.path for one in why(made, "tiny-1-1.src")] == ["source/tiny-1-1.src.rpm"]


def test_why_of_an_unknown_package_names_the_nearest(made: Path) -> None:
    with pytest.raises(UsageError, match="did you mean tiny"):
        why(made, "tinny")


def test_why_says_that_a_change_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = small_run(tmp_path / "run", diff="+" * (INLINE_LIMIT + 1))
    folder = tmp_path / "generation"
    place(folder, new_evidence(run.tested, run.origin, added=run.files), generation(folder, run))
    (one,) = why(folder, "tiny-1-1.src")
    assert one.diff is None
    assert "too large" in "\n".join(to_text(one))


@pytest.mark.parametrize(
    ("release", "vendor"),
    [("1.fc29", "fedora"), ("4.el9_4.2", "redhat"), ("3.20250101gitel.amzn2023", "amzn"), ("7", "fedora")],
)
def test_a_source_is_its_own_vendors(release: str, vendor: str) -> None:
    nevra = Nevra(name="a", version="1", release=release, arch="src")
    assert source_purl(nevra) == f"pkg:rpm/{vendor}/a@1-{release}?arch=src"
