"""Certificates, answers and streams with octets altered at random: none may end in a traceback.

``BACKPORT_MUTATIONS=5000`` makes as many of each kind; the seed is fixed, so that a failure comes again.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import socket
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from backport.artifacts import Check, Finding, Verdict
from backport.commands.probe_view import certificate_part
from backport.probe import certificate_checks
from backport.probe.certificates import describe
from backport.probe.errors import Deadline, WireError
from backport.probe.hello import SSL3, TLS1_2, TLS1_3, Answer, Hello, Reader
from backport.probe.ledger import Ledger
from backport.probe.revocation import load_crls
from backport.probe.suites import all_suites
from backport.probe.tls import Session, read_certificates, verified
from backport.probe.web import Web
from backport.selftest.authority import Authority, Services
from tests.unit.test_probe_hello import server_flight

COUNT = int(os.environ.get("BACKPORT_MUTATIONS", "300"))
DER = serialization.Encoding.DER
HOST = "mail.example.org"


class World:
    """A right chain, its list and its OCSP response, in DER."""

    def __init__(self) -> None:
        self.authority = Authority.create()
        services = Services(crl_url="http://ca.example/crl", ocsp_url="http://ca.example/ocsp")
        leaf = self.authority.issue([HOST], services=services)
        identities = (leaf, self.authority.intermediate, self.authority.root)
        self.chain = [one.certificate.public_bytes(DER) for one in identities]
        self.crl = x509.load_pem_x509_crl(self.authority.crl()).public_bytes(DER)
        self.staple = self.authority.ocsp_answer(leaf)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Answering(Web):
    """A web that has one answer to everything."""

    def __init__(self, content: bytes) -> None:
        super().__init__(connect=_no_connection)
        object.__setattr__(self, "content", content)

    def get(self, url: str) -> bytes:
        return bytes(self.__dict__["content"])

    def post(self, url: str, content: bytes, content_type: str) -> bytes:
        return bytes(self.__dict__["content"])


def _no_connection(_host: str, _port: int, _deadline: Deadline) -> socket.socket:
    raise WireError("none here")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to three octets altered, sometimes a piece left out or doubled."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] = chance.choice(
            (0, 1, 3, 10, 127, 255, chance.randrange(256))
        )
    if chance.random() < 0.1:
        at = chance.randrange(len(changed))
        changed[at : at + chance.randint(1, 9)] = changed[:1] * chance.randint(0, 5)
    return bytes(changed)


def judged(
    chain: list[bytes], *, staple: bytes = b"", web: bytes = b"", crls: bytes = b""
) -> tuple[Check, ...]:
    """Everything that is said of a chain, as the terminal, the transcript and the document say it."""
    certificates, unreadable = read_certificates(chain)
    errors, built = verified(chain, trust=None)
    session = Session(
        protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", chain=certificates, unreadable=unreadable,
        errors=errors, built=built, staple=staple,
    )  # fmt: skip
    try:
        lists = load_crls(crls) if crls else ()
    except ValueError:
        lists = ()
    inquiry = certificate_checks.Inquiry(
        host=HOST, crls=lists, staple=False, web=Answering(web), now=dt.datetime.now(dt.UTC)
    )
    ledger = Ledger(certificate_checks.TITLES)
    lines = list(certificate_checks.judge(ledger, session, inquiry))
    ledger.record(certificate_checks.SECOND, Finding.skipped("not asked"))
    assert list(describe(session, HOST, lines))
    for certificate in certificates:
        certificate_part(certificate).model_dump_json()
    assert certificate_checks.second(session, HOST, inquiry.now).found
    return ledger.checks()


def each(seed: int) -> Iterator[random.Random]:
    for number in range(COUNT):
        yield random.Random(f"{seed}/{number}")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 10])
def test_a_version_that_no_certificate_has_is_told_and_the_rest_is_judged(
    world: World, place: int, version: int
) -> None:
    mark = bytes.fromhex("a003020102")  # [0] { INTEGER 2 }: version 3
    chain = list(world.chain)
    assert chain[place].count(mark) == 1
    chain[place] = chain[place].replace(mark, mark[:-1] + bytes([version]))
    verdicts = {check.id: check for check in judged(chain)}
    readable = verdicts["certificate.readable"]
    assert readable.verdict is Verdict.FAIL
    assert f"certificate {place + 1} cannot be read" in readable.found
    assert (verdicts["certificate.hostname"].verdict is Verdict.PASS) == (place != 0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_mutated_certificates(world: World, place: int) -> None:
    for chance in each(place):
        chain = list(world.chain)
        chain[place] = mutated(chain[place], chance)
        assert all(check.verdict for check in judged(chain))


def test_mutated_staples_lists_and_responses(world: World) -> None:
    for chance in each(3):
        staple, crl = mutated(world.staple, chance), mutated(world.crl, chance)
        judged(world.chain, staple=staple, web=chance.choice((staple, crl)), crls=crl)


def test_mutated_answers_to_a_hello_of_ours(world: World) -> None:
    flights = [server_flight(world.chain, version=version) for version in (TLS1_2, SSL3, TLS1_3)]
    for chance in each(4):
        reader = Reader()
        content = mutated(chance.choice(flights), chance)
        while content and not reader.done:
            size = chance.randint(1, 3000)
            reader.feed(content[:size])
            content = content[size:]
        assert isinstance(reader.answer, Answer)


def test_noise_and_floods() -> None:
    for chance in each(5):
        reader = Reader()
        reader.feed(chance.randbytes(chance.randint(1, 200)))
    flood = Reader()
    flood.feed(bytes.fromhex("15030300020164") * 1000)
    assert flood.done
    assert "warnings" in flood.answer.problem
    endless = Reader()
    for _ in range(100):
        endless.feed(bytes.fromhex("16030340ff") + bytes(0x40FF))
    assert endless.done


def test_every_hello_is_one_record() -> None:
    for versions in ((SSL3,), (TLS1_2,), (TLS1_3,)):
        octets = Hello(versions=versions, suites=all_suites(), servername="mail.example.org").octets()
        assert len(octets) == 5 + int.from_bytes(octets[3:5])
