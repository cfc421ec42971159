"""Old versions and weak suites, asked by ClientHellos of our own making: no TLS library speaks them any more.

A version counts as refused where the server says so (alert 70, protocol_version), picks another one, or takes
none of all suites that there are (alert 40); or where it closes the connection although it speaks TLS else.
Whatever else comes proves nothing, and is told as not examined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from cryptography.hazmat.primitives.serialization import Encoding

from backport.artifacts import Finding, Verdict
from backport.probe.errors import HandshakeFailed
from backport.probe.hello import (
    GROUP_NAMES,
    MLKEM,
    PROTOCOL_VERSION,
    SSL2,
    SSL3,
    TLS1,
    TLS1_1,
    TLS1_2,
    TLS1_3,
    VERSION_NAMES,
    Answer,
    Hello,
)  # fmt: skip
from backport.probe.ledger import Ledger
from backport.probe.questions import Question
from backport.probe.smtp import Contact
from backport.probe.suites import (
    STRONG_DHE,
    STRONG_ECDSA,
    STRONG_RSA,
    TLS13,
    WEAK,
    all_suites,
    name_of,
    weakness,
)
from backport.probe.tls import ALERTS, Offer, Session
from backport.probe.transport import old_versions_advice, older_advice, refusal_id

SERVES = "transport.serves-tlsv1.2"
WEAK_SUITES = "transport.weak-suites"
DHE = "transport.dhe-group"
SECOND = "certificate.second"
KEY_EXCHANGE = "transport.key-exchange"
DHE_BITS = 2048
"""Bits of a finite field that are enough (RFC 9325 section 4.5)."""

TITLES = {
    **{
        refusal_id(VERSION_NAMES[version]): f"{VERSION_NAMES[version]} is refused"
        for version in (SSL2, SSL3, TLS1, TLS1_1)
    },
    SERVES: "a client that has no more than TLSv1.2 is served",
    WEAK_SUITES: "a client that has weak suites alone is refused",
    DHE: "DHE, where it is taken, has a large group",
}

_MILD = ("3DES", "no authentication")
"""What is weak but better than nothing to an opportunistic client (RFC 7435): a warning."""
_WORDS = {WEAK_SUITES: "weak suites", DHE: "DHE", SECOND: "suites of the other kind of key"}
_NOT_EXAMINED = "not examined"
_RSA_ALONE = "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512"
_ECDSA_ALONE = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:RSA+SHA256:RSA+SHA384:RSA+SHA512"


class Outcome(Enum):
    """What a server's answer to a hello proves."""

    ACCEPTED = auto()
    NO_VERSION = auto()
    """It refuses the version."""
    NO_SUITE = auto()
    """It takes none of what was offered, which says nothing about other suites."""
    UNKNOWN = auto()


_BY_ALERT = {
    PROTOCOL_VERSION: Outcome.NO_VERSION,
    40: Outcome.NO_SUITE,
    71: Outcome.NO_SUITE,
    # OpenSSL's answer where its security level leaves a version without any signature.
    80: Outcome.NO_SUITE,
}


@dataclass
class Known:
    """What is known of the server so far, from all its connections."""

    servername: str | None = None
    speaks: bool = False
    """Whether any handshake was begun by the server: else a closed connection says nothing."""
    leaf: bytes = b""
    """The certificate that a default client gets, in DER."""
    leaf_is_ecdsa: bool = False
    answers: list[Answer] = field(default_factory=list)
    """Those by which the server accepted a hello of ours."""
    second: Answer | Session | None = None
    """What has another certificate than the default client's."""

    def hear(self, contact: Contact) -> None:
        """Take what a connection showed."""
        answer = contact.answer
        self.speaks |= contact.session is not None or (answer is not None and answer.accepted)
        if answer and answer.accepted:
            self.answers.append(answer)
            if answer.chain and self.leaf and answer.chain[0] != self.leaf:
                self.second = self.second or answer


def outcome(contact: Contact, known: Known, asked: Iterable[int]) -> tuple[Outcome, str]:
    """What an answer proves, and in words."""
    answer = contact.answer
    if answer is None:
        return Outcome.UNKNOWN, f"{_NOT_EXAMINED}: {contact.trouble}"
    if answer.alert is not None:
        words = f"refused: alert {answer.alert}, {ALERTS.get(answer.alert, 'an alert')}"
        kind = _BY_ALERT.get(answer.alert, Outcome.UNKNOWN)
        return kind, words if kind is not Outcome.UNKNOWN else f"{_NOT_EXAMINED}: {words}"
    if answer.version is not None:
        chosen = f"{VERSION_NAMES[answer.version]} {name_of(answer.suite)}"
        kind = Outcome.NO_VERSION if answer.version < min(asked) else Outcome.UNKNOWN
        accepted = answer.version in asked
        return (Outcome.ACCEPTED, f"accepted: {chosen}") if accepted else (kind, f"the server picks {chosen}")
    if answer.closed and known.speaks and (not answer.octets):
        return Outcome.NO_SUITE, "refused by closing"
    return Outcome.UNKNOWN, f"{_NOT_EXAMINED}: {answer.problem or 'the server closed the connection'}"


def old_question(known: Known, version: int) -> Question:
    """One hello for this version alone, with every suite.

    Two versions in one hello would prove nothing about the older one: GnuTLS refuses both where it has the
    older alone.
    """
    name = VERSION_NAMES[version]
    check_id = refusal_id(name)

    def judge(ledger: Ledger, contact: Contact) -> None:
        kind, words = outcome(contact, known, (version,))
        if kind is Outcome.UNKNOWN:
            ledger.record(check_id, unknown(words, f"{name} is refused"))
        else:
            every = ", though every suite was offered" if kind is Outcome.NO_SUITE else ""
            good = kind is not Outcome.ACCEPTED
            ledger.record(check_id, _refusal(words + every, good=good, name=name))

    return Question(
        title=f"a client that offers {name} alone, with every suite",
        checks=(check_id,),
        hello=Hello(versions=(version,), suites=all_suites(), servername=known.servername),
        judge=judge,
    )


def ssl2_question(known: Known) -> Question:
    """SSLv2's hello (RFC 6176 forbids to take it); a server owes it no answer at all."""
    check_id, name = refusal_id("SSLv2"), "SSLv2"

    def judge(ledger: Ledger, contact: Contact) -> None:
        answer = contact.answer
        if answer and answer.version == SSL2:
            chosen = "" if answer.suite else ", though none of its suites"
            ledger.record(check_id, _refusal(f"accepted: SSLv2{chosen}", good=False, name=name))
        elif answer is not None and known.speaks and (answer.alert is not None or answer.closed):
            words = "refused by closing" if answer.alert is None else f"refused: alert {answer.alert}"
            ledger.record(check_id, _refusal(words, good=True, name=name))
        else:
            reason = answer.problem if answer else str(contact.trouble)
            ledger.record(check_id, Finding.skipped(f"{_NOT_EXAMINED}: {reason}"))

    hello = Hello(versions=(SSL2,))
    return Question(title="a client that speaks SSLv2", checks=(check_id,), hello=hello, judge=judge)


def _refusal(found: str, *, good: bool, name: str) -> Finding:
    return Finding(
        verdict=Verdict.PASS if good else Verdict.FAIL,
        expected="refused",
        found=found,
        advice=old_versions_advice(name),
    )


def hybrid_question(known: Known, session: Session) -> Question:
    """X25519MLKEM768, where the client's library does not have it: who takes it asks for its share."""

    def judge(ledger: Ledger, contact: Contact) -> None:
        kind, words = outcome(contact, known, (TLS1_3,))
        taken = kind is Outcome.ACCEPTED and contact.answer is not None and contact.answer.group == MLKEM
        said = "taken where it is offered" if taken else words if kind is Outcome.UNKNOWN else "refused"
        found = f"{session.group}; {GROUP_NAMES[MLKEM]} is {said}"
        ledger.record(
            KEY_EXCHANGE, Finding(verdict=Verdict.PASS, expected="a group that is named", found=found)
        )

    hello = Hello(versions=(TLS1_3,), suites=TLS13, servername=known.servername, groups=(MLKEM,))
    title = f"a client that has the group {GROUP_NAMES[MLKEM]} alone"
    return Question(title=title, checks=(), hello=hello, judge=judge)


def unknown(words: str, expected: str) -> Finding:
    """A question that the server gave no answer to which proves anything."""
    return Finding(
        verdict=Verdict.ERROR,
        expected=expected,
        found=words,
        advice="Probe again; where it stays so, look into the server's log for these connections.",
    )


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Suites that are asked for together, by the check that they are about."""

    left: Mapping[str, tuple[int, ...]]
    served: bool = False
    """Whether it is known already whether a usual client of TLS 1.2 is served."""


def kinds(known: Known, *, served: bool) -> Kinds:
    """Weak suites, DHE, and the suites of the kind of key that the default client's certificate is not of."""
    other = STRONG_RSA if known.leaf_is_ecdsa else STRONG_ECDSA
    return Kinds(left={WEAK_SUITES: WEAK, DHE: STRONG_DHE, SECOND: other}, served=served)


def suites_question(known: Known, asked: Kinds) -> Question:
    """All of these at once; what the server takes is judged, and the rest asked again without it.

    So a server that takes none answers everything on one connection.
    """
    offered = tuple(suite for suites in asked.left.values() for suite in suites)

    def judge(ledger: Ledger, contact: Contact) -> list[Question]:
        kind, words = outcome(contact, known, (TLS1_2, TLS1_1, TLS1, SSL3))
        answer = contact.answer
        if kind is Outcome.ACCEPTED and answer and answer.version and answer.suite in offered:
            chosen = next(name for name, suites in asked.left.items() if answer.suite in suites)
            served = asked.served or (answer.version == TLS1_2 and chosen != WEAK_SUITES)
            if served and not asked.served:
                ledger.record(SERVES, _served(words))
            elif answer.version < TLS1_2:
                served = True
                ledger.record(SERVES, not_served(f"the server picks {VERSION_NAMES[answer.version]}"))
            _judge_chosen(ledger, chosen, answer, words)
            left = {name: suites for name, suites in asked.left.items() if name != chosen}
            following = Kinds(left=left, served=served)
            return [suites_question(known, following)] if left else _usual(known, served=served)
        return _nothing_taken(ledger, known, asked, kind, words)

    return Question(
        title=f"a client of TLSv1.2 that has {', '.join(_WORDS[name] for name in asked.left)} alone",
        checks=(*asked.left, *(() if asked.served else (SERVES,))),
        hello=Hello(versions=(TLS1_2,), suites=offered, servername=known.servername),
        judge=judge,
        more=len(asked.left) - 1,
    )


def _nothing_taken(ledger: Ledger, known: Known, asked: Kinds, kind: Outcome, words: str) -> list[Question]:
    if kind is Outcome.NO_VERSION:
        for name in [name for name in asked.left if name != SECOND]:
            ledger.record(name, Finding.skipped(f"TLS 1.2 and older are refused: {words}"))
        ledger.record(SERVES, not_served(words))
        return [_second_question(known)] if SECOND in asked.left else []
    for name in asked.left:
        if kind is Outcome.NO_SUITE:
            _judge_refused(ledger, name, words)
        elif name == SECOND:
            ledger.record(name, Finding.skipped(words))
        else:
            ledger.record(name, unknown(words, TITLES[name]))
    return _usual(known, served=asked.served)


def _second_question(known: Known) -> Question:
    """The certificate of the other kind of key, where TLS 1.3 alone is served: it comes encrypted, so that a
    whole handshake is needed.

    No server may sign that with RSA's PKCS #1 (RFC 8446 section 4.2.3), which is for the chain's signatures.
    """
    kind, schemes = ("RSA", _RSA_ALONE) if known.leaf_is_ecdsa else ("ECDSA", _ECDSA_ALONE)

    def judge(ledger: Ledger, contact: Contact) -> None:
        session, trouble = contact.session, contact.trouble
        if session and session.chain:
            known.second = session if session.chain[0].public_bytes(Encoding.DER) != known.leaf else None
        if known.second:
            return  # judged where its trust is known
        refused = isinstance(trouble, HandshakeFailed) and trouble.alert is not None
        none = (
            f"there is none: a client of {kind} alone is refused"
            if refused
            else f"{_NOT_EXAMINED}: {trouble}"
        )
        ledger.record(SECOND, Finding.skipped("there is none" if session else none))

    title = f"a client of TLSv1.3 that takes certificates with {kind} alone"
    offer = Offer(oldest="TLSv1.3", schemes=schemes)
    return Question(title=title, checks=(SECOND,), offer=offer, judge=judge)


def _judge_chosen(ledger: Ledger, chosen: str, answer: Answer, words: str) -> None:
    if chosen == WEAK_SUITES:
        why = weakness(name_of(answer.suite))
        ledger.record(
            WEAK_SUITES,
            Finding(
                verdict=Verdict.WARN if why.startswith(_MILD) else Verdict.FAIL,
                expected="refused",
                found=f"{words}: {why}",
                advice="Take NULL, export, RC4, DES, 3DES and anonymous suites out of the server's list "
                "(tls_require_ciphers in Exim, smtpd_tls_exclude_ciphers in Postfix).",
            ),
        )
    elif chosen == DHE:
        bits = answer.dh_bits
        found = f"{words}, {bits} bits" if bits else f"{words}, of a group that cannot be read"
        ledger.record(
            DHE,
            Finding(
                verdict=Verdict.ERROR if bits is None else Verdict.PASS if bits >= DHE_BITS else Verdict.FAIL,
                expected=f"{DHE_BITS} bits or more, or no DHE",
                found=found,
                advice="Use the group ffdhe2048 or a larger one (tls_dhparam in Exim, "
                "smtpd_tls_dh1024_param_file in Postfix), or take DHE out: clients of today refuse it.",
            ),
        )


def _judge_refused(ledger: Ledger, name: str, words: str) -> None:
    if name == SECOND:
        ledger.record(SECOND, Finding.skipped("there is none: suites of the other kind of key are refused"))
    else:
        ledger.record(name, Finding(verdict=Verdict.PASS, expected="refused", found=words))


def _usual(known: Known, *, served: bool) -> list[Question]:
    """Where nothing has shown yet whether a usual client of TLS 1.2 is served: its suites."""
    if served:
        return []
    suites = tuple(suite for suite in all_suites() if suite not in WEAK)

    def judge(ledger: Ledger, contact: Contact) -> None:
        kind, words = outcome(contact, known, (TLS1_2,))
        if kind is Outcome.ACCEPTED:
            ledger.record(SERVES, _served(words))
        elif kind is Outcome.UNKNOWN:
            ledger.record(SERVES, unknown(words, "served"))
        else:
            ledger.record(SERVES, not_served(words))

    hello = Hello(versions=(TLS1_2,), suites=suites, servername=known.servername)
    return [Question(title="a client that offers TLSv1.2 alone", checks=(SERVES,), hello=hello, judge=judge)]


def _served(words: str) -> Finding:
    return Finding(verdict=Verdict.PASS, expected="served", found=words.replace("accepted", "served", 1))


def not_served(words: str) -> Finding:
    """A client that has no more than TLS 1.2 is refused: a warning, since port 25 loses old senders."""
    return Finding(verdict=Verdict.WARN, expected="served", found=words, advice=older_advice("TLSv1.2"))
