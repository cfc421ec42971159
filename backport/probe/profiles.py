"""Profiles: what a published recommendation asks for, check by check, with its paragraph.

RFC 9325 (BCP 195); Mozilla's Server Side TLS 5.7, modern and intermediate; the guidance of the United
Kingdom's NCSC, "Using TLS to protect data", as of 2025. All are written for clients that insist on TLS. Port
25 is opportunistic (RFC 7435, and section 5.2 of RFC 9325): what keeps an old sender from TLS has its mail
sent in clear, and each verdict that asks for it there says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backport.artifacts import Check, Verdict


class Profile(StrEnum):
    """The recommendations that a server can be held against."""

    MODERN = "modern"
    INTERMEDIATE = "intermediate"
    NCSC_2025 = "ncsc-2025"
    BCP195 = "bcp195"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One check under a profile: the verdict where the server is not as it asks, and where that stands."""

    verdict: Verdict
    paragraph: str
    old_senders: bool = False
    """Whether keeping to it takes TLS from old senders, which then deliver in clear."""


_MODERN = "Mozilla Server Side TLS, modern"
_INTERMEDIATE = "Mozilla Server Side TLS, intermediate"
_NCSC = "NCSC, Using TLS to protect data"
_RFC = "RFC 9325 section"
_OLD = ("sslv2", "sslv3", "tlsv1", "tlsv1.1")


def _old(paragraph: str) -> dict[str, Rule]:
    rule = Rule(verdict=Verdict.FAIL, paragraph=paragraph, old_senders=True)
    return {f"transport.refuses-{version}": rule for version in _OLD}


def _fail(paragraph: str, *, old_senders: bool = False) -> Rule:
    return Rule(verdict=Verdict.FAIL, paragraph=paragraph, old_senders=old_senders)


def _warn(paragraph: str) -> Rule:
    return Rule(verdict=Verdict.WARN, paragraph=paragraph)


_RULES: Mapping[Profile, Mapping[str, Rule]] = {
    Profile.MODERN: {
        **_old(f"{_MODERN}: TLS 1.3 alone"),
        "transport.protocol": _fail(f"{_MODERN}: TLS 1.3", old_senders=True),
        "transport.cipher": _fail(f"{_MODERN}: the suites of TLS 1.3"),
        "transport.weak-suites": _fail(f"{_MODERN}: the suites of TLS 1.3", old_senders=True),
        "transport.dhe-group": _fail(f"{_MODERN}: X25519, P-256 and P-384 alone"),
        "certificate.key": _fail(f"{_MODERN}: ECDSA on P-256"),
        "certificate.signature": _fail(f"{_MODERN}: SHA-256 or better"),
    },
    Profile.INTERMEDIATE: {
        **_old(f"{_INTERMEDIATE}: TLS 1.2 and 1.3"),
        "transport.protocol": _warn(f"{_INTERMEDIATE}: TLS 1.3 besides 1.2"),
        "transport.serves-tlsv1.2": _warn(f"{_INTERMEDIATE}: TLS 1.2 besides 1.3"),
        "transport.cipher": _fail(f"{_INTERMEDIATE}: forward secrecy and authenticated encryption"),
        "transport.weak-suites": _fail(
            f"{_INTERMEDIATE}: ECDHE or DHE with AES-GCM or ChaCha20", old_senders=True
        ),
        "transport.dhe-group": _fail(f"{_INTERMEDIATE}: DHE of 2048 bits (ffdhe2048)"),
        "certificate.key": _fail(f"{_INTERMEDIATE}: RSA of 2048 bits, or ECDSA on P-256"),
        "certificate.signature": _fail(f"{_INTERMEDIATE}: SHA-256 or better"),
    },
    Profile.NCSC_2025: {
        **_old(f"{_NCSC}: TLS 1.1 and older are not to be used"),
        "transport.protocol": _warn(f"{_NCSC}: TLS 1.3 is recommended"),
        "transport.cipher": _fail(f"{_NCSC}: recommended profiles for TLS 1.2 and 1.3"),
        "transport.weak-suites": _fail(f"{_NCSC}: suites that are not to be used", old_senders=True),
        "transport.dhe-group": _fail(f"{_NCSC}: finite-field groups of 2048 bits or more"),
        "certificate.key": _fail(f"{_NCSC}: RSA of 2048 bits, or ECDSA on P-256"),
        "certificate.signature": _fail(f"{_NCSC}: SHA-256 or better"),
    },
    Profile.BCP195: {
        **_old(f"{_RFC} 3.1.1: MUST NOT negotiate"),
        "transport.protocol": _warn(f"{_RFC} 3.1.1: SHOULD support TLS 1.3"),
        "transport.serves-tlsv1.2": _fail(f"{_RFC} 3.1.1: MUST support TLS 1.2"),
        "transport.cipher": _warn(
            f"{_RFC} 4.2: forward secrecy and authenticated encryption are RECOMMENDED"
        ),
        "transport.weak-suites": _fail(f"{_RFC} 4.1: MUST NOT or SHOULD NOT negotiate", old_senders=True),
        "transport.dhe-group": _fail(f"{_RFC} 4.5: 2048 bits or more"),
        "transport.resumption": _warn(f"{_RFC} 3.4: session resumption"),
        "certificate.key": _fail(f"{_RFC} 4.5: RSA of 2048 bits or more, or an elliptic curve of 224"),
        "certificate.signature": _fail(f"{_RFC} 4.5: SHA-256 or better; MUST NOT be SHA-1"),
        "certificate.hostname": _fail(f"{_RFC} 6.1: host name validation"),
        "certificate.ocsp-staple": _warn(f"{_RFC} 6.5: OCSP and its stapling SHOULD be supported"),
    },
}
_RFC7435 = (
    "Port 25 is opportunistic (RFC 7435): a sender that has nothing better delivers in clear where this is "
    "refused, so that keeping to the profile protects those alone that insist on TLS."
)


def held_against(checks: Sequence[Check], profile: Profile, *, opportunistic: bool) -> tuple[Check, ...]:
    """The checks with their verdicts under the profile, each with its paragraph.

    A check that passed, or was not done, stays as it is, except that modern wants TLS 1.2 refused. With
    ``opportunistic``, harm to old senders is told wherever a verdict asks for it.
    """
    rules = _RULES[profile]
    return tuple(
        _judged(check, rules.get(check.id), profile, opportunistic=opportunistic) for check in checks
    )


def _judged(check: Check, rule: Rule | None, profile: Profile, *, opportunistic: bool) -> Check:
    if profile is Profile.MODERN and check.id == "transport.serves-tlsv1.2":
        return _served_under_modern(check, opportunistic=opportunistic)
    if rule is None:
        return check
    told = replace(check, evidence="; ".join(filter(None, (check.evidence, rule.paragraph))))
    if check.verdict not in {Verdict.FAIL, Verdict.WARN}:
        return told
    harm = f" {_RFC7435}" if opportunistic and rule.old_senders else ""
    return replace(told, verdict=rule.verdict, advice=f"{check.advice} ({rule.paragraph}){harm}")


def _served_under_modern(check: Check, *, opportunistic: bool) -> Check:
    """Modern is TLS 1.3 alone: on port 25 serving TLS 1.2 is but a warning."""
    paragraph = f"{_MODERN}: TLS 1.3 alone"
    if check.verdict is Verdict.WARN:
        return replace(check, verdict=Verdict.PASS, evidence=paragraph, advice="")
    if check.verdict is not Verdict.PASS:
        return check
    verdict = Verdict.WARN if opportunistic else Verdict.FAIL
    harm = f" {_RFC7435}" if opportunistic else ""
    advice = f"Refuse TLS 1.2 ({paragraph}).{harm}"
    return replace(check, verdict=verdict, expected="refused", evidence=paragraph, advice=advice)
