"""What connections showed, judged: SMTP as far as STARTTLS (RFC 3207), versions, suites and the ways of
a TLS handshake (RFC 8446). Each function turns one contact into findings; nothing here connects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backport.artifacts import Finding, Verdict
from backport.probe.errors import (
    CannotOffer,
    Closed,
    HandshakeFailed,
    NoAddress,
    NoAnswer,
    Unreachable,
    WireError,
)
from backport.probe.ledger import Ledger
from backport.probe.smtp import QUIT_REPLY, Contact, NotSmtp, Refused, Stage
from backport.probe.suites import is_dhe_name
from backport.probe.tls import Session

BEST = "TLSv1.3"
OLD_PROTOCOLS = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")
"""What RFC 6176, RFC 7568 and RFC 8996 forbid, oldest first."""
SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""The suites of TLS 1.3 that OpenSSL offers (RFC 8446 appendix B.4)."""
MANDATORY_SUITE = "TLS_AES_128_GCM_SHA256"
"""What every implementation has (RFC 8446 section 9.1)."""

HYBRID = "X25519MLKEM768"
PACKET = 1500
"""Octets of an Ethernet packet: a larger ClientHello comes in two."""
_TAKEN = f"a ClientHello of more than {PACKET} octets is taken"

_FORWARD_AEAD = re.compile(r"(ECDHE|DHE)-.*(GCM|CHACHA20|CCM)")
_A_SESSION = "a TLS session"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a default client is to get; None where the best that there is does."""

    protocol: str | None = None
    cipher: str | None = None


STEPS: dict[Stage, tuple[str, str]] = {
    Stage.CONNECT: ("transport.connect", "a TCP connection"),
    Stage.BANNER: ("transport.banner", "220"),
    Stage.EHLO: ("transport.ehlo", "250"),
    Stage.OFFERED: ("transport.starttls-offered", "STARTTLS in the reply to EHLO"),
    Stage.ACCEPTED: ("transport.starttls-accepted", "220"),
    Stage.HANDSHAKE: ("transport.handshake", _A_SESSION),
    Stage.INSIDE: ("transport.starttls-inside", "EHLO is answered inside TLS, without STARTTLS"),
}
"""The steps of a conversation: each one's check, and what it expects."""
TITLES = {
    Stage.CONNECT: "connects",
    Stage.BANNER: "the banner welcomes us",
    Stage.EHLO: "EHLO is answered",
    Stage.OFFERED: "STARTTLS is offered",
    Stage.ACCEPTED: "STARTTLS is accepted",
    Stage.HANDSHAKE: "TLS handshake of a default client",
    Stage.INSIDE: "EHLO inside TLS no longer offers STARTTLS",
}
_DIRECT = (Stage.CONNECT, Stage.HANDSHAKE, Stage.BANNER, Stage.INSIDE)

_SILENT = (
    "Find out what the server waits for: look-ups by DNS or ident (host_lookup, rfc1413_query_timeout), or a "
    "delay in an ACL, are the usual reasons."
)
_NO_SMTP = "Find out what listens on this port (ss -ltnp): it does not talk SMTP."
_CLOSED = "Find out from Exim's main log and panic log why it closes the connection."
_RESTART = (
    "Restart Exim if OpenSSL has been updated since it was started: a running daemon keeps the old "
    "library; else check tls_require_ciphers, openssl_options, openssl.cnf and the crypto policy."
)
_NEWER = "Correct --expect, unless newer versions are to be kept from clients: the server does better."
_ADVICE: dict[tuple[Stage, type[WireError]], str] = {
    (Stage.CONNECT, Unreachable): (
        "Start the mail server (systemctl status exim, its panic log), and open the port in the firewall."
    ),
    (Stage.CONNECT, NoAddress): (
        "Ask again later, and check the resolver (/etc/resolv.conf) and the name's DNS zone: "
        "nothing has been learnt about the server."
    ),
    (
        Stage.CONNECT,
        NoAnswer,
    ): "Open the port in the firewall; some providers bar port 25 for their customers.",
    (Stage.BANNER, Refused): "Read in Exim's reject log why it turns this client away.",
    (Stage.EHLO, Refused): "Read in Exim's reject log why acl_smtp_helo refuses this client.",
    (Stage.OFFERED, Refused): (
        "Set tls_advertise_hosts = * and tls_certificate in Exim's configuration, and check that no firewall "
        "on the way takes STARTTLS out of the reply."
    ),
    (Stage.ACCEPTED, Refused): (
        "Read Exim's main log: usually tls_certificate or tls_privatekey is missing or not readable for Exim."
    ),
    (
        Stage.HANDSHAKE,
        NoAnswer,
    ): "Restart Exim; find out with a debugger or strace what its process waits for.",
    (Stage.HANDSHAKE, HandshakeFailed): (
        "Check tls_require_ciphers, openssl.cnf and the crypto policy: client and server share no protocol, "
        "suite or group."
    ),
    (Stage.HANDSHAKE, CannotOffer): "Install a current pyOpenSSL and cryptography for this tool.",
}
_GENERAL: tuple[tuple[type[WireError], str], ...] = (
    (NoAnswer, _SILENT),
    (NotSmtp, _NO_SMTP),
    (Closed, _CLOSED),
    (WireError, "Read Exim's main log and panic log of this time."),
)


ADVICE = (*_ADVICE.values(), *(text for _, text in _GENERAL), _RESTART)
"""Every piece of advice about the steps, as it is written for Exim."""


def advice(contact: Contact) -> str:
    """What to do about a contact's trouble."""
    trouble = contact.trouble
    if special := _ADVICE.get((contact.stage, type(trouble) if trouble else WireError)):
        return special
    return next(text for kind, text in _GENERAL if isinstance(trouble, kind))


def steps(*, direct_tls: bool) -> tuple[Stage, ...]:
    """The steps in the order in which they are taken; RFC 8314 section 3.3 puts TLS first."""
    return _DIRECT if direct_tls else tuple(STEPS)


def judge_steps(ledger: Ledger, contact: Contact, *, direct_tls: bool) -> bool:
    """The steps of the first conversation: those that went well, and the one that did not.

    False where one did not.
    """
    for stage in steps(direct_tls=direct_tls):
        check_id, expected = STEPS[stage]
        if stage is contact.stage and contact.trouble:
            ledger.record(check_id, failed_step(contact, expected=expected, found=contact.trouble.message))
            return False
        finding = inside(contact) if stage is Stage.INSIDE else _step_passed(stage, contact, expected)
        ledger.record(check_id, finding)
    return True


def failed_step(contact: Contact, *, expected: str, found: str) -> Finding:
    """A step that a conversation did not get past."""
    return Finding(verdict=Verdict.FAIL, expected=expected, found=found, advice=advice(contact))


def _step_passed(stage: Stage, contact: Contact, expected: str) -> Finding:
    said = {Stage.BANNER: contact.banner, Stage.EHLO: contact.plain or contact.inside}.get(stage)
    found = said.lines[0] if said else expected
    return Finding(verdict=Verdict.PASS, expected=expected, found=found, evidence=str(said or ""))


def key_exchange(session: Session, *, offered: bool) -> Finding:
    """The group of the key exchange, and whether it is the one that a quantum computer does not break.

    ``offered`` tells whether the client's library offers that (draft-ietf-tls-ecdhe-mlkem).
    """
    group = session.group or ("DHE" if is_dhe_name(session.cipher) else "RSA key transport")
    hybrid = group.upper() == HYBRID.upper()
    asked = "offered, not chosen" if offered else "not offered: this client's library does not have it"
    note = "" if hybrid or session.protocol != BEST else f"{HYBRID} {asked}"
    return Finding(
        verdict=Verdict.PASS,
        expected="a group that is named",
        found="; ".join(filter(None, (group, note))),
        evidence=f"{session.protocol} {session.cipher}",
    )


def large_hello(session: Session) -> Finding:
    """Whether a ClientHello of more than one packet is taken, as key shares of today make it."""
    size = session.hello_octets
    if size <= PACKET:
        return Finding.skipped(f"this client's ClientHello has {size} octets")
    return Finding(verdict=Verdict.PASS, expected=_TAKEN, found=f"{size} octets taken")


def large_hello_breaks(first: Contact, small: Contact) -> Finding:
    """A default client got no session. Is it for the size of its ClientHello alone?"""
    if not small.session:
        return Finding.skipped(f"a smaller ClientHello does not help: {small.trouble}")
    return Finding(
        verdict=Verdict.FAIL,
        expected=_TAKEN,
        found=f"{first.trouble}; with {small.session.hello_octets} octets: {small.session.protocol}",
        advice=(
            "Update the TLS library, and look for a firewall or proxy that reads the ClientHello from one "
            "packet: clients since OpenSSL 3.5 send two, and get no session."
        ),
    )


def inside(contact: Contact) -> Finding:
    """EHLO inside TLS must be answered, and STARTTLS not be offered again (RFC 3207 section 4.2)."""
    reply = contact.inside
    again = reply is not None and "STARTTLS" in reply.features
    return Finding(
        verdict=Verdict.FAIL if again else Verdict.PASS,
        expected=STEPS[Stage.INSIDE][1],
        found="STARTTLS is offered again" if again else "answered, without STARTTLS",
        evidence=str(reply or ""),
        advice="Look for a proxy that does TLS in the mail server's place: it must hide STARTTLS.",
    )


def protocol(session: Session, wanted: Expectation) -> Finding:
    """The version that a default client gets (RFC 8446 section 4.2.1)."""
    expected = wanted.protocol or BEST
    otherwise = Verdict.FAIL if wanted.protocol else Verdict.WARN
    return Finding(
        verdict=Verdict.PASS if session.protocol == expected else otherwise,
        expected=expected,
        found=session.protocol,
        evidence=f"{session.protocol} {session.cipher} {session.group}".strip(),
        # OpenSSL's names of the versions are in the order of their age.
        advice=_NEWER if session.protocol > expected else _RESTART,
    )


def cipher(session: Session, wanted: Expectation) -> Finding:
    """The suite that a default client gets: the one expected, or one with forward secrecy and AEAD.

    TLS 1.3 has no others (RFC 8446 section 1.2); for TLS 1.2 see RFC 9325 section 4.2.
    """
    strong = session.protocol == BEST or _FORWARD_AEAD.match(session.cipher) is not None
    good = session.cipher == wanted.cipher if wanted.cipher else strong
    otherwise = Verdict.FAIL if wanted.cipher else Verdict.WARN
    return Finding(
        verdict=Verdict.PASS if good else otherwise,
        expected=wanted.cipher or "forward secrecy and authenticated encryption",
        found=session.cipher,
        evidence=f"{session.protocol} {session.cipher}",
        advice=(
            "Put the suite first in Ciphersuites (TLS 1.3: openssl.cnf or the crypto policy) or in "
            "tls_require_ciphers (TLS 1.2)."
        ),
    )


def cipher_order(contact: Contact, wanted: Expectation) -> Finding:
    """The suite for a client that lists AES_128 first: who decides, client or server?"""
    if not contact.session:
        return unfinished(contact, expected=_A_SESSION)
    found = contact.session.cipher
    client_decides = bool(wanted.cipher) and found != wanted.cipher
    return Finding(
        verdict=Verdict.WARN if client_decides else Verdict.PASS,
        expected=wanted.cipher or "one of TLS 1.3's suites",
        found=f"{found} (the client's order decides)" if found == MANDATORY_SUITE else found,
        advice=(
            "If clients are not to choose, set openssl_options = +cipher_server_preference in Exim, or name "
            "one suite in the policy's Ciphersuites."
        ),
    )


def suite_alone(contact: Contact, suite: str, wanted: Expectation) -> Finding:
    """Whether a client that has this suite alone is served, which it must be for the expected one."""
    if not contact.session and not refusal(contact):
        return unfinished(contact, expected=f"{_A_SESSION}, or a refusal by an alert")
    served = contact.session is not None
    needed = suite == wanted.cipher
    otherwise = (
        Verdict.FAIL
        if needed
        else Verdict.WARN
        if suite == MANDATORY_SUITE and not wanted.cipher
        else Verdict.PASS
    )
    return Finding(
        verdict=Verdict.PASS if served else otherwise,
        expected="served" if needed or suite == MANDATORY_SUITE else "served, or refused by an alert",
        found="served" if served else "refused by an alert",
        evidence=str(contact.trouble or ""),
        advice=f"Add {suite} to Ciphersuites in openssl.cnf or the crypto policy.",
    )


def still_serves(contact: Contact, version: str) -> Finding:
    """Whether a client of an older version that is still good is served (RFC 9325 section 3.1.1)."""
    if not contact.session and not refusal(contact):
        return unfinished(contact, expected="served")
    return Finding(
        verdict=Verdict.PASS if contact.session else Verdict.WARN,
        expected="served",
        found=f"served: {contact.session.cipher}" if contact.session else str(contact.trouble),
        advice=older_advice(version),
    )


def older_advice(version: str) -> str:
    """What to do where a version that is still good is refused."""
    return (
        f"Allow {version} on port 25 unless that is meant: senders that have nothing newer deliver in clear "
        "or not at all."
    )


def old_versions_advice(version: str) -> str:
    """What to do where a version that is forbidden is taken."""
    return (
        f"Refuse {version}: MinProtocol = TLSv1.2 in openssl.cnf's policy block (check that the file which "
        "it includes exists: where it does not, OpenSSL says nothing and allows all); Exim 4.97 and later "
        "follow only openssl_options = +no_tlsv1 +no_tlsv1_1, one built with GnuTLS tls_require_ciphers = "
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2, Postfix smtpd_tls_protocols = >=TLSv1.2."
    )


def refusal_id(version: str) -> str:
    """The id of the check that a version is refused, such as ``transport.refuses-tlsv1``."""
    return f"transport.refuses-{version.lower()}"


def hello_retry(contact: Contact) -> Finding:
    """A client whose first key share the server does not take is asked for another (RFC 8446 4.1.4)."""
    expected = "a HelloRetryRequest, and then a session"
    trouble = contact.trouble
    if contact.session and not contact.session.retried:
        return Finding.skipped(f"the server takes even the client's odd group, {contact.session.group}")
    if not contact.session and not isinstance(trouble, HandshakeFailed | Closed | NoAnswer):
        return unfinished(contact, expected=expected)
    if not contact.session and contact.stage is not Stage.HANDSHAKE:
        return unfinished(contact, expected=expected)
    return Finding(
        verdict=Verdict.PASS if contact.session else Verdict.FAIL,
        expected=expected,
        found=f"retried, then {contact.session.group}" if contact.session else str(trouble),
        advice=(
            "Allow the groups X25519 and P-256 (Groups in openssl.cnf, tls_eccurve in Exim), and look for a "
            "firewall on the way that breaks the second ClientHello."
        ),
    )


def resumption(contact: Contact, first: Session) -> Finding:
    """A client that comes back with its session is served, by it or anew, and not worse than before.

    RFC 8446 section 2.2: a server may decline; then the handshake is a whole one.
    """
    expected = f"{first.protocol}, resumed or anew"
    if not contact.session:
        return unfinished(contact, expected=expected, verdict=Verdict.FAIL)
    session = contact.session
    same = session.protocol == first.protocol
    return Finding(
        verdict=Verdict.PASS if same else Verdict.FAIL,
        expected=expected,
        found=f"{session.protocol}, {'resumed' if session.resumed else 'anew'}",
        advice="Restart all of Exim's processes: they do not agree on what they offer.",
    )


def injection(contact: Contact) -> Finding:
    """A command in the same write as STARTTLS must be refused or forgotten (RFC 3207 section 4.2).

    It is asked only where the same handshake works without: only then a refusal says anything.
    """
    expected = "refused, or forgotten"
    if answered := _answer_to_smuggled(contact):
        return _injected(expected, answered, good=False)
    if contact.stage is Stage.DONE and contact.inside and contact.inside.code == QUIT_REPLY:
        return _injected(expected, "forgotten", good=True)
    closed = isinstance(contact.trouble, Closed)
    if contact.stage is Stage.ACCEPTED and (closed or (contact.started and contact.started.code >= 500)):
        return _injected(expected, f"refused: {contact.started or contact.trouble}", good=True)
    if contact.stage is Stage.HANDSHAKE and (refusal(contact) or closed):
        return _injected(expected, f"refused: {contact.trouble}", good=True)
    return unfinished(contact, expected=expected)


def _answer_to_smuggled(contact: Contact) -> str:
    """The reply to the smuggled command, where one came: in clear, or inside TLS before QUIT's."""
    trouble = contact.trouble
    if contact.more:
        return f"answered inside TLS: {contact.inside}"
    in_clear = isinstance(trouble, HandshakeFailed) and re.match(rb"[2-5][0-9]{2}[ -]", trouble.received)
    if contact.stage is Stage.HANDSHAKE and (isinstance(trouble, NotSmtp) or in_clear):
        return f"answered in clear: {trouble}"
    return ""


def _injected(expected: str, found: str, *, good: bool) -> Finding:
    return Finding(
        verdict=Verdict.PASS if good else Verdict.FAIL,
        expected=expected,
        found=found,
        advice=(
            "Update the mail server: it takes commands that came in clear for the client's own inside TLS "
            "(CVE-2011-0411), so that anybody on the way can add some."
        ),
    )


def refusal(contact: Contact) -> bool:
    """Whether the server itself refused the handshake, by a fatal alert (RFC 8446 section 6.2)."""
    return isinstance(contact.trouble, HandshakeFailed) and contact.trouble.alert is not None


def unfinished(contact: Contact, *, expected: str, verdict: Verdict = Verdict.ERROR) -> Finding:
    """A conversation that ended before it could show anything."""
    if isinstance(contact.trouble, CannotOffer):
        return Finding.skipped(contact.trouble.message)
    found = contact.trouble.message if contact.trouble else "the conversation did not come to its end"
    return Finding(verdict=verdict, expected=expected, found=found, advice=advice(contact))
