"""The artifacts: names as rpm and Koji write them, and a wrong order of stages made impossible."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path

import pytest

from backport import artifacts
from backport.artifacts import (
    BuildOptions,
    Check,
    Finding,
    GatedRpms,
    Nevra,
    Rpm,
    SignedRpms,
    TestedRpms,
    Verdict,
)
from backport.errors import PublishError


@pytest.mark.parametrize(
    ("nvr", "name", "version", "release"),
    [
        ("openssl-1.1.1a-1.fc29", "openssl", "1.1.1a", "1.fc29"),
        ("crypto-policies-20181026-1.gitd42aaa6.fc29", "crypto-policies", "20181026", "1.gitd42aaa6.fc29"),
        ("gcc-c++-8.3.1-2.fc28", "gcc-c++", "8.3.1", "2.fc28"),
        ("a-b-c-1~rc1^git2-0.1", "a-b-c", "1~rc1^git2", "0.1"),
        ("0ad-0.0.23b-1.fc29", "0ad", "0.0.23b", "1.fc29"),
    ],
)
def test_an_nvr_is_split_from_its_end(nvr: str, name: str, version: str, release: str) -> None:
    nevra = Nevra.from_nvr(nvr)
    assert (nevra.name, nevra.version, nevra.release) == (name, version, release)
    assert nevra.nvr == nvr
    assert nevra.filename == f"{nvr}.src.rpm"


@pytest.mark.parametrize(
    "nvr", ["", "openssl", "openssl-1", "openssl--1", "a-1-1/x", "a-1-1 ", "a b-1-1", "../a-1-1", "a-1-1\n"]
)
def test_what_is_no_nvr_is_refused(nvr: str) -> None:
    with pytest.raises(ValueError, match="is not a name-version-release"):
        Nevra.from_nvr(nvr)


def test_the_epoch_is_in_names_for_people_not_for_files() -> None:
    nevra = Nevra.from_nvr("openssl-1.1.1-1.fc28", arch="x86_64", epoch=1)
    assert str(nevra) == "openssl-1:1.1.1-1.fc28.x86_64"
    assert nevra.evr == "1:1.1.1-1.fc28"
    assert nevra.filename == "openssl-1.1.1-1.fc28.x86_64.rpm"
    assert str(Nevra.from_nvr("bash-5-1", arch="noarch")) == "bash-5-1.noarch"


def test_build_options_as_arguments_are_in_a_stable_order() -> None:
    options = BuildOptions(with_=("a",), without=("b", "c"), macros={"z": "1", "d": "x y"})
    assert options.arguments() == (
        *("--with", "a", "--without", "b", "--without", "c"),
        *("--define", "d x y", "--define", "z 1"),
    )
    assert BuildOptions().arguments() == ()


def signed() -> SignedRpms:
    return SignedRpms(built=(), srpms=(), rpms=(), fingerprint="A" * 40, public_key=Path("key.asc"))


def check(verdict: Verdict) -> Check:
    return Check(id="x", title="x", verdict=verdict)


def after_self_test(*checks: Check) -> TestedRpms:
    return TestedRpms(signed=signed(), checks=checks)


def after_gates(*checks: Check) -> GatedRpms:
    return GatedRpms(tested=after_self_test(check(Verdict.PASS)), checks=checks)


@pytest.mark.parametrize(
    ("verdict", "stops"),
    [
        (Verdict.PASS, False),
        (Verdict.WARN, False),
        (Verdict.SKIPPED, False),
        (Verdict.FAIL, True),
        (Verdict.ERROR, True),
    ],
)
def test_only_failures_and_errors_stop_publishing(verdict: Verdict, *, stops: bool) -> None:
    assert check(verdict).stops is stops
    if stops:
        for make in (after_self_test, after_gates):
            with pytest.raises(ValueError, match="checks failed: x"):
                make(check(Verdict.PASS), check(verdict))
    else:
        assert after_self_test(check(verdict)).signed == signed()
        assert after_gates(check(verdict)).tested == after_self_test(check(Verdict.PASS))


def test_nothing_untested_counts_as_tested() -> None:
    for make in (after_self_test, after_gates):
        with pytest.raises(ValueError, match="without a check nothing is proved"):
            make()


def test_artifacts_do_not_change() -> None:
    rpm = Rpm(nevra=Nevra.from_nvr("a-1-1"), path=Path("a"), sha256="0")
    with pytest.raises(FrozenInstanceError):
        rpm.sha256 = "1"  # type: ignore[misc]  # that it is refused is the point


@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        ("PatchedSrpm", "SourceRpm"),
        ("BuiltRpms", "PatchedSrpm"),
        ("SignedRpms", "BuiltRpms"),
        ("TestedRpms", "SignedRpms"),
        ("GatedRpms", "TestedRpms"),
        ("PublishedRepo", "GatedRpms"),
    ],
)
def test_every_artifact_is_made_from_the_one_before(later: str, earlier: str) -> None:
    assert any(earlier in str(field.type) for field in fields(getattr(artifacts, later)))


def test_a_finding_names_some_problems_and_keeps_all_as_evidence() -> None:
    problems = [f"problem {number}" for number in range(7)]
    finding = Finding.unless(problems, expected="none", found="none", advice="mend it")
    assert finding.found == "problem 0; problem 1; problem 2; problem 3; problem 4, and 2 more"
    assert finding.evidence.splitlines() == problems
    assert (finding.verdict, finding.advice) == (Verdict.FAIL, "mend it")


def test_a_check_that_passes_advises_nothing_and_is_harmless_for_a_terminal() -> None:
    said = ["it\x1b[31m is", "so\x9b"]
    finding = Finding.unless([], expected="none", found="no\nne", evidence=said, advice="mend it")
    check = Check.of("gate.x", "X", finding)
    assert (check.verdict, check.found, check.advice) == (Verdict.PASS, "no ne", "")
    assert check.evidence == "it\\x1b[31m is\nso\\x9b"


def test_a_check_is_bounded_whatever_was_said() -> None:
    finding = Finding.judged(
        good=False, expected="", found="x" * 10**6, evidence="y\n" * 10**6, advice="mend"
    )
    check = Check.of("x", "X", finding)
    assert len(check.found) + len(check.evidence) < 50_000


def test_a_problem_brings_its_own_hint_evidence_and_log() -> None:
    problem = PublishError("no way", hint="go round", evidence=("a wall",), log=Path("/log"))
    finding = Finding.of_problem(problem, advice="mend it")
    assert (finding.verdict, finding.found, finding.advice) == (Verdict.FAIL, "no way", "go round")
    assert finding.evidence == "a wall\nlog: /log"


def test_a_check_is_read_as_it_was_written_and_an_unknown_verdict_is_no_pass() -> None:
    check = Check(id="x", title="X", verdict=Verdict.WARN, expected="e", found="f", evidence="v", advice="a")
    assert Check.read(asdict(check)) == check
    assert Check.read({"id": "x", "verdict": "fine"}).verdict is Verdict.ERROR
