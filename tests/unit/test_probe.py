from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from jsonschema import ValidationError

from backport.artifacts import Check, Verdict
from backport.commands.probe_input import expectation, lists, own_name, trust
from backport.commands.probe_view import Probe, advice_lines, as_document, as_junit
from backport.errors import UsageError
from backport.probe import Report, transport
from backport.probe.addresses import Place, host_and_port
from backport.probe.revocation import State, by_ocsp
from backport.probe.smtp import Contact, Reply
from backport.probe.software import Software, in_its_words, software_of
from backport.probe.tls import Session, is_retry
from backport.selftest.authority import Authority
from tests.conformity import check_document


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mail.example.org", "mail.example.org", 25),
        ("Mail.Example.ORG.:587", "mail.example.org", 587),
        ("bücher.example", "xn--bcher-kva.example", 25),
        ("192.0.2.1:26", "192.0.2.1", 26),
        ("2001:db8::1", "2001:db8::1", 25),
        ("[2001:db8::1]:465", "2001:db8::1", 465),
    ],
)
def test_hosts_and_ports(text: str, host: str, port: int) -> None:
    assert host_and_port(text, port=25) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "http://host",
        "host:0",
        "host:65536",
        "host:x",
        "host:",
        "[::1",
        "[mail]:25",
        "-a.example",
        "a..b",
    ],
)
def test_what_is_no_host_or_port_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        host_and_port(text, port=25)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TLS1.3",
        "TLSv1.3:",
        "TLSv1.3:bad suite",
        ":TLS_AES_256_GCM_SHA384",
        "TLSv1.3:TLS_AES_256_GCM_SHA385",
        "TLSv1.2:TLS_AES_256_GCM_SHA384",
    ],
)
def test_what_is_no_expectation_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        expectation(text)


@pytest.mark.parametrize(
    "text", ["TLSv1.2", "TLSv1.2:ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.3:TLS_CHACHA20_POLY1305_SHA256"]
)
def test_what_can_be_expected(text: str) -> None:
    wanted = expectation(text)
    assert ":".join(filter(None, (wanted.protocol, wanted.cipher))) == text


def test_a_suite_with_a_slip_is_guessed() -> None:
    with pytest.raises(UsageError, match=r"did you mean TLS_AES_256_GCM_SHA384\?"):
        expectation("TLSv1.3:TLS_AES_256_GCM_SHA385")


def test_files_that_hold_something_else_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.write_bytes(b"nothing")
    for load in (trust, lists):
        with pytest.raises(UsageError, match=r"file\.pem holds no"):
            load(path)
        with pytest.raises(UsageError, match="cannot be read"):
            load(tmp_path / "missing")


def test_only_a_whole_name_greets() -> None:
    assert [own_name(name) for name in ("mail.example.org", "mail", "a b")] == [
        "mail.example.org", "localhost", "localhost"
    ]  # fmt: skip


def test_an_ocsp_response_counts_for_its_own_certificate_only() -> None:
    authority = Authority.create()
    leaf, other = authority.issue(["a.example"]), authority.issue(["b.example"])
    issuer, now = authority.intermediate.certificate, datetime.now(UTC)
    answer = authority.ocsp_answer(leaf)
    assert by_ocsp(answer, leaf.certificate, issuer, now).state is State.GOOD
    assert by_ocsp(answer, other.certificate, issuer, now).state is State.FOREIGN
    assert by_ocsp(answer, leaf.certificate, authority.root.certificate, now).state is State.FORGED
    assert by_ocsp(answer[:-5], leaf.certificate, issuer, now).state is State.BROKEN


def test_a_hello_retry_request_is_known_by_its_random() -> None:
    random = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    head = bytes([22, 3, 3, 0, 88, 2, 0, 0, 84, 3, 3])
    assert is_retry(head + random)
    assert not is_retry(head + bytes(32))
    assert not is_retry((head + random)[:-1])


@pytest.fixture(scope="module")
def probe() -> Probe:
    authority = Authority.create()
    leaf = authority.issue(["mail.example.org"]).certificate
    session = Session(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", chain=(leaf,), errors=())
    checks = (
        Check(id="transport.connect", title="connects", verdict=Verdict.PASS, expected="a", found="a"),
        Check(id="certificate.key", title="key", verdict=Verdict.FAIL, found="\x07", advice="Make one."),
        Check(id="certificate.crl", title="CRL", verdict=Verdict.SKIPPED, advice="no list"),
    )
    report = Report(
        checks=checks, first=Contact(session=session), transcript="one\ntwo\n", connections=5,
        started=datetime(2026, 1, 1, tzinfo=UTC), seconds=0.5,
    )  # fmt: skip
    place = Place("mail.example.org", 25, address="192.0.2.1", found=((socket.AF_INET, "192.0.2.1"),))
    return Probe(place=place, servername="mail.example.org", direct_tls=False, report=report)


def test_the_document_keeps_to_its_schema(probe: Probe) -> None:
    document = json.loads(as_document(probe).model_dump_json())
    check_document("probe", document)
    assert (document["version"], document["passed"]) == (1, False)
    assert document["certificates"][0]["names"] == ["mail.example.org"]
    assert document["started"] == "2026-01-01T00:00:00Z"


def test_where_nothing_answers_the_document_keeps_to_its_schema(probe: Probe) -> None:
    report = replace(probe.report, first=Contact(), transcript="", connections=1)
    place = replace(probe.place, address="")
    document = as_document(replace(probe, place=place, servername=None, report=report))
    check_document("probe", json.loads(document.model_dump_json()))


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"passed": None}, {"more": 1}, {"checks": [{"id": "x.y"}]}]
)
def test_the_schema_finds_what_a_document_must_not_be(probe: Probe, change: Mapping[str, object]) -> None:
    document = json.loads(as_document(probe).model_dump_json())
    with pytest.raises(ValidationError):
        check_document("probe", {**document, **change})


def test_a_fail_is_a_failure_with_advice(probe: Probe) -> None:
    suite = ET.fromstring(as_junit([probe])).find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    assert list(advice_lines(probe.report.checks)) == ["certificate.key: Make one."]
    assert "not passed: certificate.key" in probe.summary()


def banner(text: str) -> Contact:
    return Contact(banner=Reply(code=220, lines=(text,)))


def test_a_server_is_known_by_its_banner() -> None:
    for text in ("Exim 4.96", "Postfix (Debian)"):
        assert software_of(banner(f"220 mx ESMTP {text}")).value == text.split()[0]
    assert software_of(banner("220 mx ESMTP")) is Software.OTHER
    assert software_of(Contact()) is Software.EXIM


@pytest.mark.parametrize("software", [Software.POSTFIX, Software.OTHER])
def test_no_other_server_gets_advice_for_exim(software: Software) -> None:
    for text in (*transport.ADVICE, transport.old_versions_advice("TLSv1")):
        told = in_its_words(text, software)
        assert told.endswith(".")
        for word in ("Exim", "tls_advertise", "tls_certificate", "tls_require_ciphers", "openssl_options"):
            assert word not in told


def test_files_whose_version_does_not_exist_are_told(tmp_path: Path) -> None:
    authority, path = Authority.create(), tmp_path / "file"
    crl = x509.load_pem_x509_crl(authority.crl()).public_bytes(serialization.Encoding.DER)
    path.write_bytes(crl.replace(b"\x02\x01\x01\x30", b"\x02\x01\x0a\x30", 1))
    with pytest.raises(UsageError, match="holds no revocation list"):
        lists(path)
    der = authority.root.certificate.public_bytes(serialization.Encoding.DER)
    spoilt = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a00302010a"), 1)
    path.write_bytes(ssl.DER_cert_to_PEM_cert(spoilt).encode())
    with pytest.raises(UsageError, match="holds no certificate"):
        trust(path)
