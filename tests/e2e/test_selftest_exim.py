"""The self-test with the lab's Exim and the backported OpenSSL, whole and in every state to be caught."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from backport import selftest
from backport.artifacts import Verdict
from backport.errors import SelfTestError
from backport.progress import Silent
from backport.roots.root import Root
from backport.selftest.authority import Authority, Identity, Lifetime
from backport.selftest.exim import HOST, running_exim
from tests.e2e import candidates
from tests.e2e.examined import POLICY, Parts, by_id, stock_root, stopping, updated_root


@pytest.fixture
def stock(parts: Parts, tmp_path: Path) -> Iterator[Root]:
    """A root with the target's own packages."""
    with stock_root(parts, tmp_path) as root:
        yield root


@pytest.fixture(scope="module")
def updated(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root that has been updated from the candidate repository; tests leave it as it was."""
    with updated_root(parts, tmp_path_factory.mktemp("updated")) as root:
        yield root


def test_the_backport_passes_and_the_lines_tell_the_story(parts: Parts, tmp_path: Path) -> None:
    examination = selftest.examine(
        parts.candidate.signed,
        parts.self_test,
        parts.target,
        candidate=parts.candidate.folder,
        cache=parts.cache,
        workspace=tmp_path,
        progress=Silent(),
    )
    assert {check.id: check.found for check in examination.checks if check.stops} == {}
    others = {check.id: check.verdict for check in examination.checks if check.verdict is not Verdict.PASS}
    assert others == {
        "transport.cipher-order": Verdict.WARN,
        "transport.weak-suites": Verdict.WARN,
        "certificate.crl": Verdict.SKIPPED,
        "certificate.ocsp": Verdict.SKIPPED,
        "certificate.second": Verdict.SKIPPED,
    }
    before, after = examination.headline
    assert before.startswith("before: TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 (openssl-libs-1:")
    assert after.startswith("after: TLSv1.3 TLS_AES_256_GCM_SHA384 (openssl-libs-1:")
    assert after.endswith(".bp1)")
    assert "Certificate 3 of 3 in chain: Cert VALIDATED: ok" in examination.transcript
    tested = selftest.passed(parts.candidate.signed, examination)
    assert tested.headline == examination.headline


def test_the_stock_library_is_caught(parts: Parts, stock: Root, tmp_path: Path) -> None:
    examiner = parts.examiner(stock, tmp_path)
    examiner.after()
    found = examiner.ledger.checks()
    named = {"library.owner", "library.runtime-version"} & stopping(found)
    assert named
    assert stopping(found) == named | {
        "policy.block",
        "after.protocol",
        "after.cipher",
        "after.refuses-tlsv1",
        "after.refuses-tlsv1.1",
        "after.s-client",
        "transport.protocol",
        "transport.cipher",
        "transport.refuses-tlsv1",
        "transport.refuses-tlsv1.1",
        "mail.outbound.delivered",
        "mail.inbound.log",
        "mail.inbound.received",
    }
    assert by_id(found, "after.protocol").found == "TLSv1.2"


def test_a_daemon_that_still_holds_the_old_library_is_caught(
    parts: Parts, stock: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(stock, tmp_path)
    with running_exim(stock, examiner.files, log=tmp_path / "exim.log") as exim:
        assert examiner.update()
        examiner._library(exim, parts.tls.library)
    found = by_id(examiner.ledger.checks(), "library.maps")
    assert found.verdict is Verdict.FAIL
    assert found.found.endswith("(deleted)")
    assert by_id(examiner.ledger.checks(), "library.runtime-version").verdict is Verdict.PASS
    assert "Restart Exim" in found.advice


def test_an_exim_that_does_not_start_loses_nothing_and_says_why(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(updated, tmp_path, {"exim.conf": b"no_such_option = true\n"})
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {"after.exim"}
    started = by_id(found, "after.exim")
    assert started.verdict is Verdict.ERROR
    assert "no_such_option" in started.evidence
    skipped = by_id(found, "after.protocol")
    assert skipped.verdict is Verdict.SKIPPED
    assert "exim did not start" in skipped.advice.lower()


def test_an_exim_whose_key_is_missing_is_told_at_starttls(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(updated, tmp_path, {"key.pem": b""})
    examiner.after()
    assert stopping(examiner.ledger.checks()) == {"after.starttls", "transport.starttls-accepted"}


@pytest.fixture
def without_policy(updated: Root) -> Iterator[Root]:
    """The updated root whose openssl.cnf includes a file that is not there, and sets nothing itself."""
    policy = updated.locate(POLICY)
    settings = updated.locate("/etc/pki/tls/openssl.cnf")
    kept = policy.read_bytes(), settings.read_bytes()
    policy.unlink()
    lines = kept[1].splitlines(keepends=True)
    own = (b"CipherString", b"Ciphersuites", b"MinProtocol")
    settings.write_bytes(b"".join(line for line in lines if not line.startswith(own)))
    try:
        yield updated
    finally:
        policy.write_bytes(kept[0])
        settings.write_bytes(kept[1])


def test_a_policy_that_is_missing_is_caught_by_what_the_server_accepts(
    parts: Parts, without_policy: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(without_policy, tmp_path)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {
        "policy.include",
        "after.refuses-tlsv1",
        "after.refuses-tlsv1.1",
        "transport.refuses-tlsv1",
        "transport.refuses-tlsv1.1",
    }
    assert by_id(found, "after.refuses-tlsv1").found.startswith("accepted: TLSv1 ")


def test_the_patched_defaults_hold_where_the_policy_alone_is_missing(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    policy = updated.locate(POLICY)
    kept = policy.read_bytes()
    policy.unlink()
    try:
        examiner = parts.examiner(updated, tmp_path)
        examiner.after()
        assert stopping(examiner.ledger.checks()) == set()
    finally:
        policy.write_bytes(kept)


def files_of(authority: Authority, leaf: Identity) -> dict[str, bytes]:
    """A leaf as a server is given it."""
    return {
        "chain.pem": authority.chain(leaf),
        "key.pem": leaf.key_pem,
        "ocsp.der": authority.ocsp_answer(leaf),
    }


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """Certificates that are wrong in one way, and the checks that must say so."""

    words: str
    """What the first of the checks finds."""
    failing: tuple[str, ...]
    names: tuple[str, ...] = (HOST,)
    lifetime: Lifetime | None = None
    chain: Callable[[Authority, Identity], bytes] = Authority.chain

    def contents(self, authority: Authority) -> Mapping[str, bytes]:
        leaf = authority.issue(self.names, lifetime=self.lifetime)
        return {**files_of(authority, leaf), "chain.pem": self.chain(authority, leaf)}


def leaf_alone(_authority: Authority, leaf: Identity) -> bytes:
    return leaf.pem


def root_in_the_middle(authority: Authority, leaf: Identity) -> bytes:
    return leaf.pem + authority.root.pem + authority.intermediate.pem


SECOND_OPINION = "after.s-client"
UNVERIFIABLE = ("certificate.crl-file", "certificate.ocsp-staple")
"""What nobody can verify without the issuer's certificate."""


@pytest.mark.parametrize(
    "spoilt",
    [
        Spoilt(
            words="expired",
            failing=("after.chain", SECOND_OPINION, "certificate.validity"),
            lifetime=Lifetime.days(1, since=-3),
        ),
        Spoilt(
            words="not yet valid",
            failing=("after.chain", SECOND_OPINION, "certificate.validity"),
            lifetime=Lifetime.days(1, since=3),
        ),
        Spoilt(
            words="neither sent nor trusted",
            failing=("after.chain", SECOND_OPINION, "certificate.intermediates", *UNVERIFIABLE),
            chain=leaf_alone,
        ),
        Spoilt(
            words="other.selftest.example",
            failing=("after.hostname", SECOND_OPINION, "certificate.hostname"),
            names=("other.selftest.example",),
        ),
        Spoilt(words="root <", failing=("certificate.order",), chain=root_in_the_middle),
    ],
    ids=["expired", "not yet valid", "no intermediate", "other host", "wrong order"],
)
def test_a_wrong_certificate_fails_its_own_checks(
    parts: Parts, updated: Root, tmp_path: Path, spoilt: Spoilt
) -> None:
    examiner = parts.examiner(updated, tmp_path, spoilt.contents(parts.authority))
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == set(spoilt.failing)
    assert spoilt.words in by_id(found, spoilt.failing[0]).found


def test_a_chain_of_a_stranger_fails_its_own_checks(parts: Parts, updated: Root, tmp_path: Path) -> None:
    stranger = Authority.create("stranger")
    examiner = parts.examiner(updated, tmp_path, files_of(stranger, stranger.issue([HOST])))
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {"after.chain", SECOND_OPINION, "certificate.chain", "certificate.crl-file"}
    assert "verify code" in by_id(found, "after.chain").found


Answer = Callable[[Authority, Identity], bytes]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda authority, leaf: authority.ocsp_answer(leaf, revoked=True), "nothing is stapled"),
        (
            lambda authority, leaf: authority.ocsp_answer(leaf, lifetime=Lifetime.days(1, since=-3)),
            "nothing is stapled",
        ),
        (lambda authority, leaf: authority.ocsp_answer(authority.issue([HOST])), "nothing is stapled"),
        (
            lambda authority, leaf: authority.ocsp_answer(leaf, responder=Authority.create().issue(["x"])),
            "not signed by whom it must be",
        ),
        (lambda authority, leaf: b"no response", "nothing is stapled"),
    ],
    ids=["revoked", "stale", "another certificate", "stranger", "broken"],
)
def test_a_staple_that_does_not_clear_the_certificate_fails_its_own_check(
    parts: Parts, updated: Root, tmp_path: Path, *, answer: Answer, words: str
) -> None:
    """An Exim with OpenSSL leaves most of them out without a word; who may sign them it cannot tell."""
    leaf = parts.authority.issue([HOST])
    contents = {**files_of(parts.authority, leaf), "ocsp.der": answer(parts.authority, leaf)}
    examiner = parts.examiner(updated, tmp_path, contents)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {"certificate.ocsp-staple"}
    assert words in by_id(found, "certificate.ocsp-staple").found


def test_a_certificate_that_the_list_revokes_fails_its_own_check(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    leaf = parts.authority.issue([HOST])
    contents = {**files_of(parts.authority, leaf), "crl.pem": parts.authority.crl([leaf])}
    examiner = parts.examiner(updated, tmp_path, contents)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {"certificate.crl-file"}
    assert by_id(found, "certificate.crl-file").found == "revoked"


def test_an_update_that_brings_nothing_is_caught(parts: Parts, stock: Root, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    candidates.describe(folder, signing=parts.signing)
    examiner = parts.examiner(stock, tmp_path, folder=folder)
    assert examiner.update()
    found = by_id(examiner.ledger.checks(), "update.installed")
    assert found.verdict is Verdict.FAIL
    assert "openssl-libs-1:1.1.0" in found.found


def test_nothing_is_left_running(parts: Parts, updated: Root, tmp_path: Path) -> None:
    examiner = parts.examiner(updated, tmp_path)
    with running_exim(updated, examiner.files, log=tmp_path / "exim.log") as exim:
        pid = exim.daemon.pid
        assert Path(f"/proc/{pid}").exists()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_passed_raises_what_failed(parts: Parts, updated: Root, tmp_path: Path) -> None:
    examiner = parts.examiner(updated, tmp_path, {"exim.conf": b"nonsense\n"})
    examiner.after()
    examination = selftest.Examination(checks=examiner.ledger.checks(), headline=(), transcript="")
    with pytest.raises(SelfTestError, match=r"after\.exim"):
        selftest.passed(parts.candidate.signed, examination)
