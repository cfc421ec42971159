"""TLSA records of a mail exchanger (RFC 6698), judged as a sender that honours DANE does (RFC 7672, 7671).

Everything here is pure: records and certificates become findings.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from backport.artifacts import Finding, Verdict
from backport.probe.certificates import is_named
from backport.probe.chain import is_authority, is_issuer, issuing_path, name_of
from backport.probe.resolver import Answer, State

TA, EE = 2, 3
_DIGESTS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: lambda content: hashlib.sha256(content).digest(),
    2: lambda content: hashlib.sha512(content).digest(),
}
_LENGTHS = {1: 32, 2: 64}
_EXPECTED = "signed TLSA records that a sender can use"
_MATCH = "a certificate that a TLSA record names"
_PUBLISH = (
    "Publish `3 1 1` with the SHA-256 of the certificate's public key, and a second record for the next key "
    "before it is used (RFC 7671 section 8.1)."
)


@dataclass(frozen=True, kw_only=True)
class Tlsa:
    """One TLSA record (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        digest = self.data.hex()
        short = digest if len(digest) <= 16 else f"{digest[:12]}…"
        return f"{self.usage} {self.selector} {self.matching} {short}"

    @property
    def unusable(self) -> str:
        """Why a sender of mail makes nothing of it; empty where it does."""
        if self.usage in {0, 1}:
            return f"usage {self.usage} is not for SMTP (RFC 7672 section 3.1.3)"
        if self.usage not in {TA, EE} or self.selector not in {0, 1} or self.matching not in _DIGESTS:
            return "unknown parameters (RFC 6698 section 4.1)"
        if not self.data or len(self.data) != _LENGTHS.get(self.matching, len(self.data)):
            return f"{len(self.data)} octets are no digest of its kind (RFC 6698 section 2.1.3)"
        return ""

    def names(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate, or its public key, is the one."""
        try:
            content = (
                certificate.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
                if self.selector
                else certificate.public_bytes(serialization.Encoding.DER)
            )
        except Exception:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
            return False
        return _DIGESTS[self.matching](content) == self.data


def records_of(answer: Answer) -> tuple[Tlsa, ...]:
    """The TLSA records of an answer."""
    return tuple(
        Tlsa(usage=one.usage, selector=one.selector, matching=one.mtype, data=bytes(one.cert))
        for one in answer.records
    )


def binding(answer: Answer, addresses: Sequence[Answer]) -> tuple[Tlsa, ...]:
    """The records that bind a sender: those that it understands, where they and the addresses are signed."""
    looked_at = answer.secure and all(one.secure for one in addresses if one.state is State.FOUND)
    return tuple(one for one in records_of(answer) if looked_at and not one.unusable)


def published(answer: Answer, *, mx: Answer, addresses: Sequence[Answer]) -> Finding:
    """What a host's TLSA records are worth to a sender, by what is signed on the way to them."""
    found = [one for one in addresses if one.state is State.FOUND]
    if found and not all(one.secure for one in found):
        if answer.state is not State.FOUND:
            return Finding.skipped(
                "none; the host's addresses are not signed, so that no sender looks for any"
            )
        return _warning(
            "the host's addresses are not signed: no sender looks at them (RFC 7672 section 2.2.2)",
            "Sign the zone of the host's addresses, too.",
        )
    if answer.state is State.FAILED:
        return Finding(
            verdict=Verdict.FAIL,
            expected=_EXPECTED,
            found=f"{answer.words}: "
            + (
                "senders can use none of them (RFC 6698 section 2.1.3)"
                if answer.malformed
                else "a sender that honours DANE sends nothing here (RFC 7672 section 2.1.3)"
            ),
            advice="Mend the zone of the TLSA records and its name servers: an answer is due, be it none.",
        )
    if answer.state is not State.FOUND:
        return Finding.skipped("none: senders encrypt where they can, and verify nothing (RFC 7435)")
    if not answer.secure:
        return _warning(
            "they are not signed: no sender looks at them (RFC 7672 section 2.1.1)",
            "Sign the zone, and have its DS record put into the one above.",
        )
    return _usability(records_of(answer), mx)


def _usability(records: Sequence[Tlsa], mx: Answer) -> Finding:
    good = [one for one in records if not one.unusable]
    words = [f"{one}: {one.unusable}" for one in records if one.unusable]
    if not good:
        lost = "a sender demands TLS, and verifies nothing (RFC 7672 section 2.2)"
        return Finding(
            verdict=Verdict.FAIL, expected=_EXPECTED, found="; ".join([*words, lost]), advice=_PUBLISH
        )
    unsigned = not mx.secure and mx.state is State.FOUND
    if unsigned:
        words.append("the MX records are not signed: a sender need not look (RFC 7672 section 2.2.1)")
    brittle = all(one.usage == EE and one.selector == 0 for one in good)
    if brittle:
        words.append("each renewal of the certificate changes them")
    return Finding(
        verdict=Verdict.WARN if words else Verdict.PASS,
        expected=_EXPECTED,
        found="; ".join([", ".join(map(str, good)), *words]),
        advice="Sign the domain's zone." if unsigned else _PUBLISH,
    )


def delivery(
    records: Sequence[Tlsa],
    chains: Sequence[Sequence[x509.Certificate]],
    names: Sequence[str],
    now: dt.datetime,
) -> Finding:
    """Whether a sender that honours DANE delivers to a server that shows these chains, one a kind of key.

    ``records`` are usable ones; ``names`` are those that a certificate under usage 2 may bear (RFC 7672
    section 3.2.2).
    """
    outcomes = [_matching(records, chain, names, now) for chain in chains if chain]
    refused = [why for matched, why in outcomes if not matched]
    if not outcomes or refused:
        why = "; ".join(dict.fromkeys(refused)) or "no certificate is sent"
        return _refused(f"{why} (RFC 7672 section 2.2)")
    matched = list(dict.fromkeys(one for found, _ in outcomes for one in found))
    waiting = [one for one in records if one not in matched]
    weaker = _weaker(matched, records)
    found = f"{', '.join(map(str, matched))} matches"
    if waiting:
        found += f"; for another certificate, such as the next: {', '.join(map(str, waiting))}"
    if weaker:
        return _warning(
            f"{found}; {weaker}", "Publish every digest of the same key, or one kind alone.", _MATCH
        )
    return Finding(verdict=Verdict.PASS, expected=_MATCH, found=found)


def no_tls(words: str) -> Finding:
    """A server with usable records that gives a sender no TLS session."""
    return _refused(f"{words} (RFC 7672 section 2.2)")


def by_key(records: Iterable[Tlsa], leaf: x509.Certificate) -> bool:
    """Whether a record names the leaf itself: its names, dates and issuer count for nothing then."""
    return any(one.usage == EE and one.names(leaf) for one in records)


def _matching(
    records: Sequence[Tlsa], chain: Sequence[x509.Certificate], names: Sequence[str], now: dt.datetime
) -> tuple[list[Tlsa], str]:
    """The records that a chain fits; where there is none, why."""
    leaf, problems = chain[0], []
    matched = [one for one in records if one.usage == EE and one.names(leaf)]
    for one in (one for one in records if one.usage == TA):
        problem = _below(one, chain, names, now)
        if problem:
            problems.append(f"{one}: {problem}")
        else:
            matched.append(one)
    listed = ", ".join(str(one) for one in records if one.usage == EE)
    if listed:
        problems.insert(0, f"{listed}: not the certificate of {name_of(leaf.subject)}")
    return matched, "; ".join(problems)


def _below(record: Tlsa, chain: Sequence[x509.Certificate], names: Sequence[str], now: dt.datetime) -> str:
    """Why a chain does not hang on the authority that the record names (RFC 7672 section 3.1.2)."""
    path = issuing_path(chain)
    place = next((number for number, one in enumerate(path) if number and record.names(one)), None)
    if place is None:
        return "no such authority is in the chain that is sent"
    if not is_authority(path[place]):
        return f"{name_of(path[place].subject)} is no authority"
    for lower, upper in itertools.pairwise(path[: place + 1]):
        if not is_issuer(upper, lower):
            return f"{name_of(lower.subject)} is not signed by it"
        if not lower.not_valid_before_utc <= now <= lower.not_valid_after_utc:
            return f"the certificate of {name_of(lower.subject)} is out of date"
    if not any(is_named(chain[0], name) for name in names):
        return f"the certificate bears none of the names {', '.join(names)}"
    return ""


def _weaker(matched: Sequence[Tlsa], records: Sequence[Tlsa]) -> str:
    """Whether a SHA-512 that does not match stands beside a SHA-256 that does (RFC 7671 section 9)."""
    for kind in {(one.usage, one.selector) for one in matched}:
        digests = [one.matching for one in matched if (one.usage, one.selector) == kind]
        published = [one.matching for one in records if (one.usage, one.selector) == kind]
        if digests == [1] and 2 in published:
            return "SHA-512 is preferred to it, and does not match (RFC 7671 section 9)"
    return ""


def _refused(words: str) -> Finding:
    return Finding(
        verdict=Verdict.FAIL,
        expected=_MATCH,
        found=f"a sender that honours DANE refuses this MX: {words}",
        advice=f"Publish a record for the certificate that is in place, or put the old one back. {_PUBLISH}",
    )


def _warning(found: str, advice: str, expected: str = _EXPECTED) -> Finding:
    return Finding(verdict=Verdict.WARN, expected=expected, found=found, advice=advice)
