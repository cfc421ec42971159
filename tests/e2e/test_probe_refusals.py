"""Servers whose answers prove nothing, or only look like a refusal: what may be said of them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from backport.artifacts import Verdict
from backport.probe import Report, Subject, examine
from backport.selftest.authority import Authority, Lifetime
from tests.e2e.smtp_stub import Peer, context, serving
from tests.unit.test_probe_hello import record, server_flight, server_hello
from tests.unit.test_probe_mutations import mutated

HOST = "mail.selftest.example"


def until_starttls(peer: Peer) -> bytes:
    """The dialogue before TLS; gives what came behind STARTTLS in the same write."""
    peer.say("220 mail.selftest.example\r\n")
    peer.hear()
    peer.say("250-mail.selftest.example\r\n250 STARTTLS\r\n")
    smuggled = peer.hear_all().removeprefix(b"STARTTLS\r\n")
    peer.say("220 go ahead\r\n")
    return smuggled


def hello_of(peer: Peer) -> bytes:
    """The client's hello, looked at and left to be read again."""
    return peer.connection.recv(4096, 2)  # MSG_PEEK


def version_of(hello: bytes) -> int:
    return int.from_bytes(hello[9:11]) if hello[:1] == b"\x16" else 2


def old_alone(hello: bytes) -> bool:
    """Whether it offers nothing but an old version: no TLS 1.2 at all."""
    return version_of(hello) < 0x0303


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def probe(
    script: Callable[[Peer], None],
    authority: Authority,
    folder: Path,
    *,
    tls: SSL.Context | None = None,
    connections: int | None = 8,
) -> Report:
    leaf = authority.issue([HOST], lifetime=Lifetime.days(30))
    (folder / "root.pem").write_bytes(authority.root.pem)
    tls = tls or context(leaf, leaf.pem + authority.intermediate.pem, folder)
    with serving(script, tls) as dial:
        return examine(
            Subject(
                dial=dial,
                host=HOST,
                servername=HOST,
                helo="client.example",
                trust=folder / "root.pem",
                connections=connections,
                timeout=16,
            )
        )


def verdict(report: Report, check_id: str) -> tuple[Verdict, str]:
    check = next(check for check in report.checks if check.id == check_id)
    return check.verdict, check.found or check.advice


def test_a_server_that_refuses_by_closing(authority: Authority, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        until_starttls(peer)
        if not old_alone(hello_of(peer)):
            peer.tls()

    report = probe(script, authority, tmp_path)
    for version in ("sslv3", "tlsv1", "tlsv1.1"):
        found = verdict(report, f"transport.refuses-{version}")
        assert found[0] is Verdict.PASS
        assert "refused by closing" in found[1]
    assert not [check.id for check in report.checks if check.stops]


def test_an_old_version_with_export_suites_alone(authority: Authority, tmp_path: Path) -> None:
    """EXP-RC4-MD5 (0x0003), which no library of today can offer."""

    def script(peer: Peer) -> None:
        until_starttls(peer)
        hello = hello_of(peer)
        if version_of(hello) == 0x0301:
            peer.connection.sendall(record(server_hello(0x0301, 3)))
        elif b"\x00\x03" in hello and version_of(hello) == 0x0303 and len(hello) < 700:
            peer.connection.sendall(record(server_hello(0x0303, 3)))
        elif old_alone(hello):
            peer.connection.sendall(record(b"\2\x46", kind=21))
        else:
            peer.tls()

    report = probe(script, authority, tmp_path)
    assert verdict(report, "transport.refuses-tlsv1") == (Verdict.FAIL, "accepted: TLSv1 EXP-RC4-MD5")
    assert verdict(report, "transport.refuses-tlsv1.1")[0] is Verdict.PASS
    found = verdict(report, "transport.weak-suites")
    assert found == (Verdict.FAIL, "accepted: TLSv1.2 EXP-RC4-MD5: export-grade keys")


@pytest.mark.parametrize("alert", [10, 50, 112])
def test_an_alert_that_proves_nothing_is_no_pass(authority: Authority, tmp_path: Path, alert: int) -> None:
    def script(peer: Peer) -> None:
        until_starttls(peer)
        if old_alone(hello_of(peer)):
            peer.connection.sendall(record(bytes([2, alert]), kind=21))
        else:
            peer.tls()

    report = probe(script, authority, tmp_path)
    for version in ("sslv3", "tlsv1", "tlsv1.1"):
        found = verdict(report, f"transport.refuses-{version}")
        assert found[0] is Verdict.ERROR
        assert found[1].startswith("not examined")


def test_the_hello_of_sslv2_is_answered(authority: Authority, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        until_starttls(peer)
        if hello_of(peer)[0] & 0x80:
            body = b"\x04\0\1\0\2\0\0\0\3\0\x10" + b"\x01\0\x80" + bytes(16)
            peer.connection.sendall((0x8000 | len(body)).to_bytes(2) + body)
        else:
            peer.tls()

    report = probe(script, authority, tmp_path, tls=_tls12(authority, tmp_path))
    assert verdict(report, "transport.refuses-sslv2") == (Verdict.FAIL, "accepted: SSLv2")


def _tls12(authority: Authority, folder: Path) -> SSL.Context:
    leaf = authority.issue([HOST], lifetime=Lifetime.days(30))
    return context(leaf, leaf.pem + authority.intermediate.pem, folder, newest="TLSv1.2")


def _fake_tls(peer: Peer) -> None:
    until_starttls(peer)
    hello_of(peer)
    peer.connection.sendall(record(server_hello(0x0304, 0x1301)) + record(bytes(50), kind=23))
    peer.hang()


def _garbage(peer: Peer) -> None:
    until_starttls(peer)
    hello_of(peer)
    peer.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 20)


def _flood(peer: Peer) -> None:
    until_starttls(peer)
    hello_of(peer)
    peer.connection.sendall(record(b"\1\x64", kind=21) * 2000)


def _always_closes(peer: Peer) -> None:
    until_starttls(peer)


def _always_alerts(peer: Peer) -> None:
    until_starttls(peer)
    hello_of(peer)
    peer.connection.sendall(record(b"\2\x28", kind=21))


@pytest.mark.parametrize("script", [_garbage, _flood, _always_closes, _always_alerts])
def test_where_no_handshake_works_nothing_is_said_of_what_is_refused(
    authority: Authority, tmp_path: Path, script: Callable[[Peer], None]
) -> None:
    report = probe(script, authority, tmp_path)
    assert {check.id for check in report.checks if check.stops} == {"transport.handshake"}
    for check_id in ("injection", "refuses-tlsv1", "refuses-sslv3", "weak-suites"):
        assert verdict(report, f"transport.{check_id}")[0] is Verdict.SKIPPED


def test_a_smuggled_command_is_not_judged_where_the_handshake_fails(
    authority: Authority, tmp_path: Path
) -> None:
    found = verdict(probe(_fake_tls, authority, tmp_path), "transport.injection")
    assert found[0] is Verdict.SKIPPED
    assert found[1].startswith("not examined")


def test_an_old_server_that_keeps_what_came_in_clear(authority: Authority, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        smuggled = until_starttls(peer)
        peer.tls(before=smuggled)

    leaf = authority.issue([HOST], lifetime=Lifetime.days(30))
    tls = context(leaf, leaf.pem + authority.intermediate.pem, tmp_path, oldest="TLSv1", newest="TLSv1")
    report = probe(script, authority, tmp_path, tls=tls)
    assert verdict(report, "transport.refuses-tlsv1")[0] is Verdict.FAIL
    found = verdict(report, "transport.injection")
    assert found[0] is Verdict.FAIL
    assert "answered inside TLS" in found[1]


def test_certificates_of_a_server_that_nobody_can_talk_to(authority: Authority, tmp_path: Path) -> None:
    """Its ServerHello is for RC4 and TLS 1.0, its certificate for another host."""
    leaf = authority.issue(["other.example"], lifetime=Lifetime.days(30))
    chain = [leaf.certificate, authority.intermediate.certificate]

    def script(peer: Peer) -> None:
        until_starttls(peer)
        if version_of(hello_of(peer)) >= 0x0301:
            flight = server_flight([one.public_bytes(Encoding.DER) for one in chain], version=0x0301, suite=5)
            peer.connection.sendall(flight)
        else:
            peer.connection.sendall(record(b"\2\x46", kind=21))
        peer.hang()

    report = probe(script, authority, tmp_path)
    assert verdict(report, "certificate.hostname") == (Verdict.FAIL, "other.example")
    assert verdict(report, "certificate.chain")[0] is Verdict.PASS
    assert verdict(report, "transport.refuses-tlsv1") == (Verdict.FAIL, "accepted: TLSv1 RC4-SHA")


def test_a_hello_of_two_packets_that_is_not_taken(authority: Authority, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        until_starttls(peer)
        if len(hello_of(peer)) < 1500:
            peer.tls()

    report = probe(script, authority, tmp_path)
    found = verdict(report, "transport.large-hello")
    assert found[0] is Verdict.FAIL
    assert "octets: TLSv1.3" in found[1]


@pytest.mark.parametrize("taken", [True, False])
def test_a_group_that_the_library_does_not_have_is_asked_by_our_own_hello(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """A server that takes it answers with a HelloRetryRequest that names it."""
    monkeypatch.setattr(sys.modules["backport.probe.examine"], "knows_group", lambda _: False)

    def script(peer: Peer) -> None:
        until_starttls(peer)
        hello = hello_of(peer)
        if b"\0\x33\0\2\0\0" not in hello:  # an empty key share
            peer.tls()
        elif taken:
            retry = server_hello(0x0304, 0x1301, b"\0\x33\0\2\x11\xec")
            peer.connection.sendall(record(retry))
        else:
            peer.connection.sendall(record(b"\2\x28", kind=21))

    report = probe(script, authority, tmp_path, connections=None)
    words = "X25519MLKEM768 is taken" if taken else "X25519MLKEM768 is refused"
    assert words in verdict(report, "transport.key-exchange")[1]


def test_flights_with_octets_altered_end_no_examination(authority: Authority, tmp_path: Path) -> None:
    """The whole examination over sockets; `BACKPORT_MUTATIONS` makes more of them."""
    leaf = authority.issue([HOST], lifetime=Lifetime.days(30)).certificate
    chain = [one.public_bytes(Encoding.DER) for one in (leaf, authority.intermediate.certificate)]
    flights = [
        server_flight(chain, version=version, suite=suite)
        for version in (0x0301, 0x0303)
        for suite in (5, 0x33)
    ]
    for number in range(int(os.environ.get("BACKPORT_MUTATIONS", "15")) // 5 + 5):
        chance = random.Random(f"flight {number}")

        def script(peer: Peer, chance: random.Random = chance) -> None:
            until_starttls(peer)
            hello_of(peer)
            peer.connection.sendall(mutated(chance.choice(flights), chance))

        report = probe(script, authority, tmp_path)
        assert {check.id for check in report.checks if check.stops} >= {"transport.handshake"}
