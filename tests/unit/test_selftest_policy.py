from __future__ import annotations

from dataclasses import replace

import pytest

from backport.artifacts import Check, Verdict
from backport.probe import transport
from backport.probe.ledger import Ledger
from backport.probe.tls import Session
from backport.recipe import Handshake, SelfTest, Starttls
from backport.selftest import checks, plan
from backport.selftest.policy import OPENSSL_CNF, CryptoPolicy, judge_policy, read_policy

INCLUDE = "/etc/crypto-policies/back-ends/opensslcnf.config"
HEAD = """\
openssl_conf = default_modules   # how OpenSSL finds its way
[ default_modules ]
ssl_conf = ssl_module
[ ssl_module ]
system_default = crypto_policy
[ crypto_policy ]
"""
DEFAULTS = "MinProtocol = TLSv1.2\n"
TAIL = "\n[ req ]\ndefault_bits = 2048\n"


def read(own: str, included: str | None, head: str = HEAD) -> CryptoPolicy:
    files = {OPENSSL_CNF: f"{head}{own}{TAIL}"}
    if included is not None:
        files[INCLUDE] = included
    policy = read_policy(files.get)
    assert policy is not None
    return policy


def including(included: str | None, own: str = DEFAULTS) -> CryptoPolicy:
    return read(f"{own}.include {INCLUDE}", included)


@pytest.mark.parametrize("form", [".include {}", ".include = {}", ".include={}"])
def test_what_the_included_file_sets_replaces_the_defaults(form: str) -> None:
    policy = read(DEFAULTS + form.format(INCLUDE), "Ciphersuites = A:\\\nB\nMinProtocol = TLSv1\n")
    assert policy.minimum
    assert (policy.minimum.value, policy.minimum.file) == ("TLSv1", INCLUDE)
    assert policy.block["Ciphersuites"].value == "A:B"
    assert "default_bits" in policy.sections["req"]


def test_newer_policies_name_tls_apart_from_dtls() -> None:
    policy = including("DTLS.MinProtocol = DTLSv1.2\nTLS.MinProtocol = TLSv1.2\n", own="")
    assert policy.minimum
    assert policy.minimum.value == "TLSv1.2"


@pytest.mark.parametrize(
    ("minimum", "permitted"),
    [
        ("TLSv1.2", {"TLSv1.2", "TLSv1.3"}),
        ("TLSv1", {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}),
        ("None", {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}),
        ("nonsense", set()),
    ],
)
def test_what_a_policy_permits(minimum: str, permitted: set[str]) -> None:
    policy = including(f"MinProtocol = {minimum}\n")
    versions = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    assert {version for version in versions if policy.permits(version)} == permitted


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace("openssl_conf", "# openssl_conf"),
        HEAD.replace("ssl_module\n[", "other\n["),
        HEAD.replace("[ crypto_policy ]", "[ other ]"),
    ],
)
def test_a_block_that_openssl_does_not_reach_is_not_in_force(head: str) -> None:
    policy = read(DEFAULTS, None, head)
    assert not policy.is_reached
    assert policy.minimum is None
    assert not policy.permits("TLSv1")


def planned() -> Ledger:
    tls = Starttls(
        before=Handshake(protocol="TLSv1.2"),
        after=Handshake(protocol="TLSv1.3"),
        refused=("TLSv1", "TLSv1.1"),
    )
    return Ledger(plan(SelfTest(starttls=tls)))


def verdicts(ledger: Ledger) -> dict[str, Verdict]:
    return {check.id: check.verdict for check in ledger.checks()}


@pytest.mark.parametrize(
    ("policy", "block", "include"),
    [
        (including("MinProtocol = TLSv1\n", own=""), Verdict.PASS, Verdict.PASS),
        (including(None), Verdict.PASS, Verdict.WARN),
        (including(None, own=""), Verdict.PASS, Verdict.FAIL),
        (read(DEFAULTS, None), Verdict.PASS, Verdict.WARN),
        (read("", None), Verdict.PASS, Verdict.FAIL),
        (read("", None, "[ req ]\n"), Verdict.FAIL, Verdict.SKIPPED),
        (None, Verdict.FAIL, Verdict.SKIPPED),
    ],
    ids=["whole", "file missing", "and no defaults", "no include", "empty", "no block", "no openssl.cnf"],
)
def test_block_and_include(policy: CryptoPolicy | None, block: Verdict, include: Verdict) -> None:
    ledger = planned()
    judge_policy(ledger, policy)
    found = verdicts(ledger)
    assert (found["policy.block"], found["policy.include"]) == (block, include)


ACCEPTED = Session(protocol="TLSv1", cipher="ECDHE-RSA-AES256-SHA", chain=(), errors=())


@pytest.mark.parametrize(
    ("policy", "verdict", "words"),
    [
        (including("MinProtocol = TLSv1\n"), Verdict.WARN, f"MinProtocol = TLSv1 in {INCLUDE}"),
        (including("MinProtocol = TLSv1.2\n"), Verdict.FAIL, f"MinProtocol = TLSv1.2 in {INCLUDE}"),
        (including(None), Verdict.FAIL, f"MinProtocol = TLSv1.2 in {OPENSSL_CNF}"),
        (including(None, own=""), Verdict.FAIL, "no policy is in force"),
        (None, Verdict.FAIL, "no policy is in force"),
    ],
)
def test_an_old_protocol_that_is_accepted_is_judged_by_the_policy(
    policy: CryptoPolicy | None, verdict: Verdict, words: str
) -> None:
    ledger = planned()
    checks.judge_refusal(ledger, "TLSv1", ACCEPTED, policy)
    found = next(check for check in ledger.checks() if check.id == "after.refuses-tlsv1")
    assert found.verdict is verdict
    assert words in found.found
    assert found.advice


def test_what_was_seen_from_outside_is_judged_by_the_policy_too() -> None:
    old = Check(id=transport.refusal_id("TLSv1"), title="", verdict=Verdict.FAIL, found="accepted")
    seen = (old, replace(old, id="transport.injection"))
    ledger = planned()
    checks.adopt_probe(ledger, seen, including("MinProtocol = TLSv1\n"))
    found = verdicts(ledger)
    assert (found[old.id], found["transport.injection"]) == (Verdict.WARN, Verdict.FAIL)
    checks.adopt_probe(ledger, seen, including(None))
    assert verdicts(ledger)[old.id] is Verdict.FAIL
