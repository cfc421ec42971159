"""The examination from outside: a default client first, then one connection for each question that is
left, as many as are allowed.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backport.artifacts import Check, Finding, Verdict
from backport.probe import certificate_checks, clients, legacy, transport
from backport.probe.certificates import describe, summarize
from backport.probe.errors import Closed, Deadline, HandshakeFailed, NoAnswer
from backport.probe.hello import PROTOCOL_VERSION, SSL3, TLS1, TLS1_1, VERSION_NAMES, Answer
from backport.probe.ledger import Ledger
from backport.probe.questions import (
    GROUP,
    INJECTION,
    LARGE,
    LENIENT,
    Question,
    injection,
    later_questions,
    odd_injection,
    small_hello,
    titles,
)  # fmt: skip
from backport.probe.smtp import Call, Contact, Greeting, Stage
from backport.probe.software import in_its_words, software_of
from backport.probe.suites import name_of
from backport.probe.tls import Offer, Session, knows_group, read_certificates, verified
from backport.probe.transcript import Style, Transcript
from backport.probe.transport import HYBRID, Expectation
from backport.probe.web import Web
from backport.probe.wire import Dial

CONNECTIONS = 8
"""How many connections a live server is asked for at most."""
WORKERS = 4
"""How many of them at a time, after the first."""
TIMEOUT = 60.0
"""Seconds for the whole examination."""
_SHARE = 0.5
"""How much of what is left of them one connection may take."""


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
    style: Style = Style.COMPACT
    """How the transcript is written."""
    web: Web | None = None
    """How revocation lists and OCSP responders are reached; None leaves them out."""
    connections: int | None = CONNECTIONS
    """Connections to the server at most; None for as many as there are questions."""
    workers: int = WORKERS
    """How many of them at a time, after the first."""
    timeout: float = TIMEOUT
    """Seconds for the whole examination; the web's answers have a limit of their own."""

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
    second: Session | None = None
    """What a client gets that takes the other kind of key, where its certificate is another."""
    clients: tuple[clients.Row, ...] = ()
    """Who can still talk to it; none where no handshake works."""
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    seconds: float = 0.0
    """Wall time."""


def plan(*, direct_tls: bool = False) -> dict[str, str]:
    """Every check, id to title, in the order of the report."""
    steps = transport.steps(direct_tls=direct_tls)
    return {
        **{transport.STEPS[stage][0]: transport.TITLES[stage] for stage in steps},
        "transport.protocol": "protocol of a default client",
        "transport.cipher": "suite of a default client",
        GROUP: "group of the key exchange",
        **legacy.TITLES,
        **titles(direct_tls=direct_tls),
        **certificate_checks.TITLES,
    }


def examine(subject: Subject) -> Report:
    """Examine a server. What goes wrong on the way is in the checks; nothing is raised for it."""
    started, begin = dt.datetime.now(dt.UTC), time.monotonic()
    report = _Examination(subject).report()
    return replace(report, started=started, seconds=time.monotonic() - begin)


class _Examination:
    """One examination in progress: what is known, what is recorded, and what is left of its limits."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._ledger = Ledger(plan(direct_tls=subject.direct_tls))
        self._known = legacy.Known(servername=subject.servername)
        self._deadline = Deadline(subject.timeout)
        self._pages: list[tuple[str, Transcript]] = []
        self._session: Session | None = None
        self._second: Session | None = None

    def report(self) -> Report:
        call = self._call()
        self._pages.append(("a default client", call.transcript))
        first = call.meet(self._completed(Offer()))
        ledger = self._ledger
        whole = transport.judge_steps(ledger, first, direct_tls=self._subject.direct_tls)
        if first.session:
            self._judge_session(first, first.session)
        if first.session or first.stage is Stage.HANDSHAKE:
            self._known.hear(first)
            self._ask(*self._questions(first))
        if not whole:
            ledger.bar(("",), f"{transport.STEPS[first.stage][0]}: {first.trouble}")
        software = software_of(first)
        return Report(
            checks=tuple(
                replace(check, advice=in_its_words(check.advice, software)) for check in ledger.checks()
            ),
            first=first,
            transcript="\n".join(f"{title}\n{page.text()}" for title, page in self._pages),
            connections=len(self._pages),
            second=self._second,
            clients=self._clients(first),
        )

    def _clients(self, first: Contact) -> tuple[clients.Row, ...]:
        """Who can still talk to the server, by what was seen of it."""
        known, ledger = self._known, self._ledger
        if not known.speaks or not self._session:
            return ()
        refused = {
            version
            for version in transport.OLD_PROTOCOLS
            if ledger.verdict(transport.refusal_id(version)) is Verdict.PASS
        }
        if ledger.verdict(legacy.SERVES) is Verdict.WARN:
            refused.add("TLSv1.2")
        if not first.session or first.session.protocol != transport.BEST:
            refused.add(transport.BEST)
        what = clients.seen(
            self._session,
            known.answers,
            frozenset(refused),
            missing=ledger.verdict(certificate_checks.INTERMEDIATES) is Verdict.FAIL,
            trusted=ledger.verdict(certificate_checks.TRUST) is not Verdict.FAIL,
        )
        return tuple(clients.table(what))

    def _judge_session(self, contact: Contact, session: Session) -> None:
        """Everything that one session, that of the first client that got any, shows by itself."""
        ledger, subject, known = self._ledger, self._subject, self._known
        self._session = session
        ledger.record("transport.protocol", transport.protocol(session, subject.expectation))
        ledger.record("transport.cipher", transport.cipher(session, subject.expectation))
        ledger.record(GROUP, transport.key_exchange(session, offered=knows_group(HYBRID)))
        inquiry = certificate_checks.Inquiry(
            host=subject.host,
            crls=subject.crls,
            staple=subject.staple,
            web=subject.web,
            now=dt.datetime.now(dt.UTC),
        )
        lines = list(certificate_checks.judge(ledger, session, inquiry))
        contact.details[:] = describe(session, subject.host, lines, style=subject.style)
        if session.chain:
            known.leaf = session.chain[0].public_bytes(serialization.Encoding.DER)
            known.leaf_is_ecdsa = _is_ecdsa(session.chain[0])

    def _questions(self, first: Contact) -> tuple[list[Question], list[Question]]:
        """What is urgent, and what is asked where connections are left."""
        urgent = self._first_questions(first)
        later = list(later_questions(self._ledger, first, self._subject.expectation))
        if first.session and first.session.protocol == transport.BEST and not knows_group(HYBRID):
            later.insert(0, legacy.hybrid_question(self._known, first.session))
        ssl2 = legacy.ssl2_question(self._known)
        modern = first.session is not None and first.session.protocol == transport.BEST
        if modern or isinstance(first.trouble, Closed | NoAnswer):
            # No TLS library has ever had both SSLv2 and TLS 1.3. One that says nothing may choke on a hello.
            return urgent, [*later[:1], ssl2, *later[1:]]
        return [*urgent, ssl2], later

    def _first_questions(self, first: Contact) -> list[Question]:
        """What is asked of every server; for one that the default client cannot talk to, more of it."""
        known, session = self._known, first.session
        urgent = []
        if session:
            self._ledger.record(LARGE, transport.large_hello(session))
            if not self._subject.direct_tls:
                modern = session.protocol == transport.BEST
                urgent.append(odd_injection(self._subject.expectation) if modern else injection(Offer()))
        else:
            urgent.append(self._lenient(first))
        if (
            not session
            and isinstance(first.trouble, HandshakeFailed)
            and first.trouble.alert == PROTOCOL_VERSION
        ):
            # The default client offered TLS 1.2, too.
            self._ledger.record(legacy.SERVES, legacy.not_served(first.trouble.message))
        served = session is not None and session.protocol == "TLSv1.2"
        if session and served:
            self._ledger.record(legacy.SERVES, transport.still_serves(first, "TLSv1.2"))
        urgent.append(
            legacy.suites_question(known, legacy.kinds(known, served=self._ledger.has(legacy.SERVES)))
        )
        urgent += [legacy.old_question(known, version) for version in (TLS1_1, TLS1, SSL3)]
        return urgent

    def _lenient(self, first: Contact) -> Question:
        """The client's library at its most lenient, in the place of a default client that got no session."""

        def judge(ledger: Ledger, contact: Contact) -> list[Question]:
            session = contact.session
            if not session:
                return []
            step, expected = transport.STEPS[Stage.HANDSHAKE]
            found = f"{first.trouble}; a client that takes anything gets {session.protocol} {session.cipher}"
            ledger.record(step, transport.failed_step(first, expected=expected, found=found))
            self._judge_session(contact, session)
            following = [] if self._subject.direct_tls else [injection(LENIENT)]
            if session.protocol in {"TLSv1.2", "TLSv1.3"} and isinstance(
                first.trouble, HandshakeFailed | Closed | NoAnswer
            ):
                following.insert(0, small_hello(first))
            return following

        return Question(title="a client that takes anything", checks=(), offer=LENIENT, judge=judge, more=2)

    def _ask(self, urgent: list[Question], later: list[Question]) -> None:
        """Ask what is urgent and what follows from it, then the rest, as far as connections are left."""
        while urgent or later:
            room = self._room()
            batch, urgent = urgent[:room], urgent[room:]
            later = [one for one in later if not one.checks or not all(map(self._ledger.has, one.checks))]
            spare = room - len(batch) - sum(question.more for question in batch)
            if not urgent and spare > 0:
                batch, later = batch + later[:spare], later[spare:]
            if not batch:
                break
            urgent = self._put(batch) + urgent
        for check_id in (check_id for question in urgent + later for check_id in question.checks):
            reason = f"not examined: it would take more than {self._subject.connections} connections"
            if not self._ledger.has(check_id):
                self._ledger.record(check_id, Finding.skipped(reason))
        self._conclude()

    def _room(self) -> int:
        limit = self._subject.connections
        return 1000 if limit is None else limit - len(self._pages)

    def _put(self, batch: Sequence[Question]) -> list[Question]:
        """Put questions side by side, then judge them in their order; gives what follows from them."""
        with ThreadPoolExecutor(max_workers=self._subject.workers) as pool:
            outcomes = list(pool.map(self._outcome, batch))
        self._pages += [(question.title, page) for question, (_, page) in zip(batch, outcomes, strict=True)]
        contacts = [
            self._again(question, contact) for question, (contact, _) in zip(batch, outcomes, strict=True)
        ]
        for contact in contacts:
            self._known.hear(contact)
        found: list[Question] = []
        for question, contact in zip(batch, contacts, strict=True):
            if question.hello and not self._known.speaks:
                continue  # where no handshake works at all, a refusal proves nothing
            found += question.judge(self._ledger, contact) or ()
        return found

    def _again(self, question: Question, contact: Contact) -> Contact:
        """A server that took the first connection may not like several at a time: then by itself."""
        if contact.stage not in {Stage.CONNECT, Stage.BANNER, Stage.EHLO} or self._room() < 1:
            return contact
        contact, page = self._outcome(question)
        self._pages.append((f"{question.title}, again", page))
        return contact

    def _outcome(self, question: Question) -> tuple[Contact, Transcript]:
        call = self._call()
        offer = self._completed(question.offer or Offer())
        if question.hello:
            contact = call.ask(question.hello)
            if contact.answer:
                call.transcript.note(_in_words(contact.answer))
        else:
            contact = call.inject(offer) if question.injects else call.meet(offer)
        if contact.session:
            contact.details[:] = summarize(contact.session)
        return contact, call.transcript

    def _call(self) -> Call:
        """A new connection, with its share of the time that is left."""
        subject = self._subject
        return Call(
            dial=subject.dial,
            greeting=Greeting(helo=subject.helo, direct_tls=subject.direct_tls),
            transcript=Transcript(style=subject.style),
            deadline=self._deadline.at_most(subject.timeout * _SHARE),
        )

    def _completed(self, offer: Offer) -> Offer:
        subject = self._subject
        trust = subject.trust
        return replace(offer, servername=subject.servername, trust=trust, system_trust=trust is None)

    def _conclude(self) -> None:
        """What only all connections together show."""
        known, ledger, second = self._known, self._ledger, self._known.second
        self._second = self._session_of(second) if isinstance(second, Answer) else second
        if not known.leaf and (answer := next((one for one in known.answers if one.chain), None)):
            # A server that the client's library cannot talk to: its certificates came in clear.
            self._judge_session(Contact(), self._session_of(answer))
        if self._second:
            finding = certificate_checks.second(self._second, self._subject.host, dt.datetime.now(dt.UTC))
            ledger.record(certificate_checks.SECOND, finding)
        if not self._subject.direct_tls and not ledger.has(INJECTION):
            ledger.record(
                INJECTION, Finding.skipped("not examined: the handshake does not work without it either")
            )
        if not ledger.has(LARGE):
            ledger.record(LARGE, Finding.skipped("not examined: the handshake fails otherwise, too"))

    def _session_of(self, answer: Answer) -> Session:
        """What a hello of ours showed, as a session; its chain is verified now."""
        subject = self._subject
        chain, unreadable = read_certificates(answer.chain)
        errors, built = verified(answer.chain, trust=subject.trust) if chain else ((), ())
        return Session(
            protocol=VERSION_NAMES[answer.version or 0],
            cipher=name_of(answer.suite),
            chain=chain,
            unreadable=unreadable,
            errors=errors,
            built=built,
        )


def _is_ecdsa(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    except Exception:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
        return False


def _in_words(answer: Answer) -> str:
    """A hello's answer in a line for the transcript."""
    if answer.version is not None:
        size = f", DHE with {answer.dh_bits} bits" if answer.dh_bits else ""
        return f"ServerHello: {VERSION_NAMES[answer.version]} {name_of(answer.suite)}{size}"
    if answer.alert is not None:
        return f"alert {answer.alert}"
    return answer.problem or "the server closed the connection"
