"""What was observed, judged: each function turns one observation into one recorded check.

Everything here is pure; the observations come from the client, the daemon and the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backport import probe
from backport.artifacts import Check, Finding, Verdict
from backport.probe import transport
from backport.probe.certificates import dns_names, explain, is_named
from backport.probe.errors import CannotOffer, Closed, HandshakeFailed, NoAnswer, Unreachable, WireError
from backport.probe.ledger import Ledger, tail
from backport.probe.smtp import Conversation, NotSmtp, Refused
from backport.probe.tls import PROTOCOLS, Session
from backport.recipe import Handshake, Starttls
from backport.selftest import mail_checks
from backport.selftest.policy import CryptoPolicy

CHAIN_LENGTH = 3
"""Leaf, intermediate and root: what the test's server is given to send."""

_REFUSED = "refused by an alert"
_TROUBLE_ADVICE: tuple[tuple[type[WireError], str], ...] = (
    (Unreachable, "Mend what Exim's log names: it does not listen."),
    (NoAnswer, "Find out what Exim waits for: look-ups by DNS or ident are the usual reason."),
    (Closed, "Mend what Exim's log, main or panic, names: it closed the connection."),
    (NotSmtp, "Find out what answers on this port: it is no SMTP server."),
    (Refused, "Check tls_advertise_hosts, tls_certificate and tls_privatekey, and Exim's log."),
    (
        HandshakeFailed,
        "Check the crypto policy and openssl.cnf: client and server share no protocol or suite.",
    ),
    (CannotOffer, "Install a current pyOpenSSL and cryptography for this tool."),
)


def plan_before(tls: Starttls) -> dict[str, str]:
    """What is asked of the target's own packages, id to title, in the order in which it is done."""
    return _handshake_plan("before", tls.before, "with the target's own packages")


def plan_after(tls: Starttls) -> dict[str, str]:
    """What is asked after the update."""
    return {
        "policy.block": "openssl.cnf holds the block of the crypto policy",
        "policy.include": "the policy file that the block includes is there",
        **_handshake_plan("after", tls.after, "after the update"),
        "after.chain": "the chain is complete and validates to the test's root",
        "after.hostname": "the certificate names the host",
        **{refusal_id(version): f"{version} is refused, as the policy has it" for version in tls.refused},
        "library.maps": "the daemon has mapped the library that is on disk",
        "library.owner": "the mapped library belongs to the candidate's package",
        "library.runtime-version": "Exim runs with the candidate's version of the library",
        "after.s-client": "the updated openssl s_client agrees",
        **probe.plan(),
        **mail_checks.PLAN,
    }


def _handshake_plan(stage: str, expected: Handshake, when: str) -> dict[str, str]:
    planned = {
        f"{stage}.exim": f"Exim starts {when}",
        f"{stage}.starttls": f"STARTTLS works {when}",
        f"{stage}.protocol": f"protocol of a default client {when}",
    }
    return planned | ({f"{stage}.cipher": f"suite of a default client {when}"} if expected.cipher else {})


def refusal_id(protocol: str) -> str:
    """The id of the check that a protocol version is refused, such as ``after.refuses-tlsv1``."""
    return f"after.refuses-{protocol.lower()}"


def judge_trouble(ledger: Ledger, stage: str, trouble: WireError, *, log: str = "") -> None:
    """A conversation that did not come to its end; everything that needed it is barred. ``log`` is Exim's."""
    advice = next(text for kind, text in _TROUBLE_ADVICE if isinstance(trouble, kind))
    finding = Finding.judged(
        good=False, expected="a TLS session", found=trouble.message, evidence=tail(log), advice=advice
    )
    ledger.record(f"{stage}.starttls", finding)
    ledger.bar((f"{stage}.",), f"{stage}.starttls: {trouble.message}")


def judge_handshake(ledger: Ledger, stage: str, conversation: Conversation, expected: Handshake) -> None:
    """What a default client negotiated, against what the recipe says."""
    session = conversation.session
    ledger.record(
        f"{stage}.starttls",
        Finding.passed(expected="a TLS session", found="a TLS session", evidence=str(conversation.banner)),
    )
    evidence = f"{session.protocol} {session.cipher}"
    ledger.record(
        f"{stage}.protocol",
        Finding.judged(
            good=session.protocol == expected.protocol,
            expected=expected.protocol,
            found=session.protocol,
            evidence=evidence,
            advice=_protocol_advice(stage),
        ),
    )
    if expected.cipher:
        ledger.record(
            f"{stage}.cipher",
            Finding.judged(
                good=session.cipher == expected.cipher,
                expected=expected.cipher,
                found=session.cipher,
                evidence=evidence,
                advice="Put the suite first in Ciphersuites, in openssl.cnf's block or the crypto policy.",
            ),
        )


def _protocol_advice(stage: str) -> str:
    if stage == "before":
        return "Correct the recipe's starttls.before: what the target has already, the update cannot prove."
    return "See library.owner and library.maps: the daemon must run with the candidate's library."


def judge_chain(ledger: Ledger, session: Session) -> None:
    """The certificates as sent, and OpenSSL's complaints about them (RFC 5280 section 6)."""
    problems = [explain(error) for error in session.errors]
    if not problems and len(session.chain) != CHAIN_LENGTH:
        problems = [f"{len(session.chain)} certificates sent"]
    ledger.record(
        "after.chain",
        Finding.judged(
            good=not problems,
            expected=f"{CHAIN_LENGTH} certificates, each valid",
            found="; ".join(problems) or f"{CHAIN_LENGTH} certificates, each valid",
            evidence=" < ".join(certificate.subject.rfc4514_string() for certificate in session.chain),
            advice=_chain_advice({error.code for error in session.errors}),
        ),
    )


def _chain_advice(codes: set[int]) -> str:
    if codes & {9, 10}:
        return "Renew the certificate, and check the clock of server and client."
    if codes & {2, 20, 21}:
        return "Put the intermediate's certificate behind the leaf's in the file of tls_certificate."
    return "Put leaf, intermediate and root, in this order, into the file of tls_certificate."


def judge_hostname(ledger: Ledger, session: Session, host: str) -> None:
    """The host's name against the leaf's subject alternative names (RFC 6125)."""
    leaf = session.chain[0] if session.chain else None
    names = ", ".join(dns_names(leaf)) if leaf else ""
    ledger.record(
        "after.hostname",
        Finding.judged(
            good=leaf is not None and is_named(leaf, host),
            expected=host,
            found=names or "no DNS name",
            evidence=leaf.subject.rfc4514_string() if leaf else "no certificate",
            advice="Have the certificate issued for this name as a subject alternative name.",
        ),
    )


def judge_refusal(
    ledger: Ledger, protocol: str, outcome: Session | WireError, policy: CryptoPolicy | None
) -> None:
    """Whether an offer of one old protocol alone was refused, which takes a fatal alert by the server.

    What the crypto policy in force permits is but a warning when it is accepted; what it forbids, or
    nothing permits, a fail. Where the conversation ended in another way nothing is proven: an error,
    never a pass. A server that answers protocol_version (RFC 8446 section 6.2) says it best; OpenSSL also
    says other things.
    """
    check_id = refusal_id(protocol)
    if isinstance(outcome, Session):
        ledger.record(check_id, _accepted(protocol, outcome, policy))
    elif isinstance(outcome, HandshakeFailed) and outcome.alert is not None:
        ledger.record(check_id, Finding.passed(expected=_REFUSED, found=_REFUSED, evidence=outcome.message))
    else:
        advice = next(text for kind, text in _TROUBLE_ADVICE if isinstance(outcome, kind))
        ledger.record(
            check_id, Finding(verdict=Verdict.ERROR, expected=_REFUSED, found=outcome.message, advice=advice)
        )


def adopt_probe(ledger: Ledger, found: Sequence[Check], policy: CryptoPolicy | None) -> None:
    """What was seen from outside, where nobody can tell which policy is in force.

    An old protocol that the policy permits is but a warning there, too.
    """
    permitted = {
        transport.refusal_id(version)
        for version in transport.OLD_PROTOCOLS
        if version in PROTOCOLS and policy and policy.permits(version)
    }
    for check in found:
        excused = check.verdict is Verdict.FAIL and check.id in permitted
        ledger.adopt(replace(check, verdict=Verdict.WARN) if excused else check)


def _accepted(protocol: str, session: Session, policy: CryptoPolicy | None) -> Finding:
    minimum = policy.minimum if policy else None
    rule = f"MinProtocol = {minimum.value} in {minimum.file}" if minimum else "no policy is in force"
    found = f"accepted: {session.protocol} {session.cipher}; {rule}"
    if policy and policy.permits(protocol):
        return Finding(
            verdict=Verdict.WARN,
            expected=f"{_REFUSED}, or accepted as the policy has it",
            found=found,
            advice="Set a stricter policy, such as `update-crypto-policies --set NEXT`, or have Exim itself "
            "refuse it by openssl_options = +no_tlsv1 +no_tlsv1_1.",
        )
    return Finding(
        verdict=Verdict.FAIL,
        expected=_REFUSED,
        found=found,
        advice="Set MinProtocol in openssl.cnf's policy block, and check that the file it includes exists; "
        "Exim 4.97 and later follow only openssl_options = +no_tlsv1 +no_tlsv1_1.",
    )
