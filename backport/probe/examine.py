"""The examination from outside: a default client first, then one connection for each question that is
left, as many as are allowed.
"""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509

from backport.artifacts import Check
from backport.probe import certificate_checks, transport
from backport.probe.certificates import describe, summarize
from backport.probe.errors import HandshakeFailed
from backport.probe.ledger import Finding, Ledger
from backport.probe.questions import Question, questions, titles
from backport.probe.smtp import TIMEOUT, Contact, Greeting, inject, meet
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.probe.transport import Expectation
from backport.probe.web import Web
from backport.probe.wire import Dial

CONNECTIONS = 5
"""How many connections a live server is asked for at most."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The server to be examined, what it is to show, and how far the examination goes."""

    dial: Dial
    host: str
    """The name (in ASCII) or address that the certificate must bear."""
    servername: str | None
    """What the client names in its ClientHello (RFC 6066 section 3); no address."""
    helo: str
    expectation: Expectation = field(default_factory=Expectation)
    trust: Path | None = None
    """PEM file of trusted roots; None for the system's store."""
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    direct_tls: bool = False
    staple: bool = False
    """Whether an OCSP response must be stapled; a certificate may demand it all the same (RFC 7633)."""
    web: Web | None = None
    """How revocation lists and OCSP responders are reached; None leaves them out."""
    connections: int | None = CONNECTIONS
    """Connections to the server at most; None for as many as there are questions."""
    workers: int = 1
    """How many of them at a time, after the first."""
    timeout: float = TIMEOUT
    """Seconds for each of them."""

    def __post_init__(self) -> None:
        if self.connections is not None and self.connections < 1:
            raise ValueError("an examination takes one connection at least")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an examination came to."""

    checks: tuple[Check, ...]
    first: Contact
    """What the default client saw."""
    transcript: str
    """Every connection under its heading; times in seconds since each one's beginning."""
    connections: int


def plan(*, direct_tls: bool = False) -> dict[str, str]:
    """Every check, id to title, in the order of the report."""
    steps = transport.steps(direct_tls=direct_tls)
    return {
        **{transport.STEPS[stage][0]: transport.TITLES[stage] for stage in steps},
        "transport.protocol": "protocol of a default client",
        "transport.cipher": "suite of a default client",
        **titles(direct_tls=direct_tls),
        **certificate_checks.TITLES,
    }


def examine(subject: Subject) -> Report:
    """Examine a server. What goes wrong on the way is in the checks; nothing is raised for it."""
    ledger, transcript = Ledger(plan(direct_tls=subject.direct_tls)), Transcript()
    first = _meet(subject, Offer(), transcript)
    pages = [("a default client", transcript)]
    whole = transport.judge_steps(ledger, first, direct_tls=subject.direct_tls)
    if first.session:
        _judge_session(ledger, subject, first, first.session)
    if whole or isinstance(first.trouble, HandshakeFailed):
        pages += _ask(ledger, subject, first)
    if not whole:
        ledger.bar(("",), f"{transport.STEPS[first.stage][0]}: {first.trouble}")
    return Report(
        checks=ledger.checks(),
        first=first,
        transcript="\n".join(f"{title}\n{page.text()}" for title, page in pages),
        connections=len(pages),
    )


def _judge_session(ledger: Ledger, subject: Subject, first: Contact, session: Session) -> None:
    ledger.record("transport.protocol", transport.protocol(session, subject.expectation))
    ledger.record("transport.cipher", transport.cipher(session, subject.expectation))
    inquiry = certificate_checks.Inquiry(
        host=subject.host,
        crls=subject.crls,
        staple=subject.staple,
        web=subject.web,
        now=dt.datetime.now(dt.UTC),
    )
    lines = list(certificate_checks.judge(ledger, session, inquiry))
    first.details[:] = describe(session, subject.host, lines)


def _ask(ledger: Ledger, subject: Subject, first: Contact) -> list[tuple[str, Transcript]]:
    """Ask the questions, the most telling first, as far as connections are left for them."""
    left = list(questions(ledger, first, subject.expectation, direct_tls=subject.direct_tls))
    room = len(left) if subject.connections is None else subject.connections - 1
    for check_id in (check_id for question in left[room:] for check_id in question.checks):
        reason = f"left to the self-test: it would take more than {subject.connections} connections"
        ledger.record(check_id, Finding.skipped(reason))
    with ThreadPoolExecutor(max_workers=subject.workers) as pool:
        outcomes = list(pool.map(lambda question: _put(subject, question), left[:room]))
    for question, (contact, _) in zip(left, outcomes, strict=False):
        question.judge(ledger, contact)
    return [(question.title, page) for question, (_, page) in zip(left, outcomes, strict=False)]


def _put(subject: Subject, question: Question) -> tuple[Contact, Transcript]:
    transcript = Transcript()
    if question.injects:
        greeting, offer = Greeting(helo=subject.helo), _completed(subject, question.offer)
        contact = inject(subject.dial, offer, greeting, transcript=transcript, timeout=subject.timeout)
    else:
        contact = _meet(subject, question.offer, transcript)
    if contact.session:
        contact.details[:] = summarize(contact.session)
    return contact, transcript


def _meet(subject: Subject, offer: Offer, transcript: Transcript) -> Contact:
    greeting = Greeting(helo=subject.helo, direct_tls=subject.direct_tls)
    offer = _completed(subject, offer)
    return meet(subject.dial, offer, greeting, transcript=transcript, timeout=subject.timeout)


def _completed(subject: Subject, offer: Offer) -> Offer:
    return replace(
        offer, servername=subject.servername, trust=subject.trust, system_trust=subject.trust is None
    )
