"""The checks of certificates, together: the chain as sent, and whether any of it has been revoked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from backport.artifacts import Finding, Verdict
from backport.probe import chain
from backport.probe.errors import WireError
from backport.probe.ledger import Ledger
from backport.probe.revocation import Answer, State, by_crl, by_ocsp, load_crls, ocsp_request
from backport.probe.tls import Session
from backport.probe.web import Web

INTERMEDIATES = "certificate.intermediates"
TRUST = "certificate.chain"
CRL_FILE = "certificate.crl-file"
CRL = "certificate.crl"
STAPLE = "certificate.ocsp-staple"
OCSP = "certificate.ocsp"
SECOND = "certificate.second"

TITLES = {
    "certificate.readable": "every certificate can be read",
    INTERMEDIATES: "every intermediate is sent",
    TRUST: "the chain completes to a trusted root",
    "certificate.order": "the chain is in order",
    "certificate.validity": "every certificate is valid now",
    "certificate.hostname": "the certificate names the host",
    "certificate.key": "keys are long enough",
    "certificate.signature": "signatures use good digests",
    CRL_FILE: "not revoked by the given CRL",
    CRL: "not revoked by the CRL that the certificate points to",
    STAPLE: "the stapled OCSP response says good",
    OCSP: "the OCSP responder says good",
    SECOND: "the certificate of the other kind of key",
}

_RIGHT_TOO = "as right as the first"
_SECOND_ADVICE = "Renew or correct this certificate too: clients that prefer its kind of key get it."
_EXPECTED = "good, fresh, by the issuer"
_REVOKED = "Have a new certificate issued with a new key, and put it in place of the revoked one at once."


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """What is known beside the session: lists, whether a staple is due, the way to the web, the time."""

    host: str
    crls: tuple[x509.CertificateRevocationList, ...]
    staple: bool
    web: Web | None
    now: dt.datetime


def judge(ledger: Ledger, session: Session, inquiry: Inquiry) -> Iterator[str]:
    """Record every check of TITLES; gives the transcript's lines about revocation."""
    broken = [*session.unreadable, *_unreadable(session.chain)]
    ledger.record(
        "certificate.readable",
        Finding(
            verdict=Verdict.PASS if session.chain and not broken else Verdict.FAIL,
            expected="certificates by RFC 5280",
            found="; ".join(broken) or f"{len(session.chain)} sent",
            advice="Have the certificate issued anew, by an authority that keeps to RFC 5280.",
        ),
    )
    if not session.chain:
        ledger.bar(("certificate.",), "certificate.readable: no certificate is sent, or it cannot be read")
        return iter(())
    _judge_chain(ledger, session, inquiry)
    findings = _revocation(session, inquiry)
    for check_id, finding in findings.items():
        ledger.record(check_id, finding)
    return _lines(findings)


def _judge_chain(ledger: Ledger, session: Session, inquiry: Inquiry) -> None:
    for check_id, finding in judge_chain(session, inquiry.host, inquiry.now).items():
        ledger.record(check_id, finding)


def judge_chain(session: Session, host: str, now: dt.datetime) -> dict[str, Finding]:
    """Every check of the chain as it was sent, revocation aside."""
    complete = _guarded(lambda: chain.intermediates(session))
    missing = complete.verdict is Verdict.FAIL
    return {
        INTERMEDIATES: complete,
        TRUST: Finding.skipped(f"{INTERMEDIATES}: {complete.found}")
        if missing
        else _guarded(lambda: chain.trust(session)),
        "certificate.order": _guarded(lambda: chain.order(session)),
        "certificate.validity": _guarded(lambda: chain.validity(session, now)),
        "certificate.hostname": _guarded(lambda: chain.hostname(session, host)),
        "certificate.key": _guarded(lambda: chain.key_size(session)),
        "certificate.signature": _guarded(lambda: chain.signature(session)),
    }


def second(session: Session, host: str, now: dt.datetime) -> Finding:
    """The certificate that clients of the other kind of key get: all that is wrong with it in one finding."""
    if not session.chain:
        found = "; ".join(session.unreadable) or "no certificate was sent"
        return Finding(verdict=Verdict.FAIL, expected=_RIGHT_TOO, found=found, advice=_SECOND_ADVICE)
    findings = judge_chain(session, host, now)
    bad = {name: one for name, one in findings.items() if one.verdict in {Verdict.FAIL, Verdict.WARN}}
    words = [f"{name.removeprefix('certificate.')}: {one.found}" for name, one in bad.items()]
    worst = Verdict.FAIL if any(one.verdict is Verdict.FAIL for one in bad.values()) else Verdict.WARN
    kind = _guarded(lambda: chain.key_size(session)).found.partition(",")[0]
    return Finding(
        verdict=worst if bad else Verdict.PASS,
        expected=_RIGHT_TOO,
        found=f"{kind}: {'; '.join(words) or 'right in all respects'}",
        advice=" ".join([_SECOND_ADVICE, *(one.advice for one in list(bad.values())[:1])]),
    )


def _unreadable(certificates: Sequence[x509.Certificate]) -> Iterator[str]:
    """What of the certificates cannot be read, although their outer form can."""
    for number, one in enumerate(certificates, start=1):
        try:
            _ = one.subject, one.issuer, one.extensions, one.public_key(), one.version
            _ = one.not_valid_before_utc, one.not_valid_after_utc, one.signature_hash_algorithm
        except Exception as problem:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
            yield f"certificate {number} cannot be read: {problem}"


def _guarded(judge: Callable[[], Finding]) -> Finding:
    """What ``judge`` finds; where a certificate, list or answer cannot be read, a fail that says why."""
    try:
        return judge()
    except Exception as problem:  # noqa: BLE001  # as above
        return Finding(
            verdict=Verdict.FAIL,
            expected="something that can be read",
            found=f"cannot be read: {type(problem).__name__}: {problem}",
            advice="Have the certificate issued anew, by an authority that keeps to RFC 5280.",
        )


def _revocation(session: Session, inquiry: Inquiry) -> dict[str, Finding]:
    ways = {CRL_FILE: _crl_file, CRL: _crl, STAPLE: _staple, OCSP: _ocsp}
    return {check_id: _guarded(partial(way, session, inquiry)) for check_id, way in ways.items()}


def _crl_file(session: Session, inquiry: Inquiry) -> Finding:
    """The leaf by the given lists, and its issuers as far as the lists are about them."""
    if not inquiry.crls:
        return Finding.skipped("no list is given by --crl")
    makers = {one.issuer for one in inquiry.crls}
    asked = [
        certificate
        for number, certificate in enumerate(chain.issuing_path(session.chain))
        if number == 0 or (certificate.issuer in makers and certificate.issuer != certificate.subject)
    ]
    return _by_lists([(certificate, inquiry.crls) for certificate in asked], session, inquiry.now)


def _crl(session: Session, inquiry: Inquiry) -> Finding:
    """The leaf and its issuers by the lists that they themselves point to."""
    pointed = [
        (certificate, urls)
        for certificate in chain.issuing_path(session.chain)
        if certificate.issuer != certificate.subject and (urls := _http(chain.crl_urls(certificate)))
    ]
    if not pointed:
        return Finding.skipped("no certificate names a list that can be had by http")
    if inquiry.web is None:
        return Finding.skipped("the web is not asked in this examination")
    lists = []
    for certificate, urls in pointed:
        try:
            lists.append((certificate, load_crls(inquiry.web.get(urls[0]))))
        except (WireError, ValueError) as problem:
            return _unavailable(f"{urls[0]}: {problem}", "Ask the authority why its list cannot be had.")
    return _by_lists(lists, session, inquiry.now)


def _by_lists(
    asked: Sequence[tuple[x509.Certificate, Sequence[x509.CertificateRevocationList]]],
    session: Session,
    now: dt.datetime,
) -> Finding:
    answers = []
    for certificate, lists in asked:
        try:
            answer = by_crl(certificate, chain.issuer_of(certificate, session), lists, now)
        except (ValueError, UnsupportedAlgorithm) as problem:
            answer = Answer(state=State.BROKEN, words=f"the CRL cannot be read: {problem}")
        answers.append(answer)
    worst = next((one for one in answers if one.state is not State.GOOD), answers[0])
    issuer = chain.name_of(asked[0][0].issuer)
    advice = f"Get a current list of {issuer}; where that is the current one already, ask it why."
    return _finding(worst, _REVOKED if worst.state is State.REVOKED else advice)


def _staple(session: Session, inquiry: Inquiry) -> Finding:
    leaf = session.chain[0]
    if session.staple:
        answer = by_ocsp(session.staple, leaf, chain.issuer_of(leaf, session), inquiry.now)
        return _finding(
            answer,
            _REVOKED
            if answer.state is State.REVOKED
            else "Fetch a fresh OCSP response for this certificate into the file of tls_ocsp_file.",
        )
    due, served = inquiry.staple or chain.must_staple(leaf), bool(chain.ocsp_urls(leaf))
    if not due and not served:
        return Finding.skipped("nothing is stapled, and the certificate names no responder")
    return Finding(
        verdict=Verdict.FAIL if due else Verdict.WARN,
        expected=_EXPECTED,
        found="nothing is stapled",
        advice=(
            "Put a fresh OCSP response into the file of tls_ocsp_file: Exim silently leaves out one that is "
            "missing, stale or says revoked."
        ),
    )


def _ocsp(session: Session, inquiry: Inquiry) -> Finding:
    leaf = session.chain[0]
    urls, issuer = _http(chain.ocsp_urls(leaf)), chain.issuer_of(leaf, session)
    if not urls:
        return Finding.skipped("the certificate names no responder that can be asked by http")
    if inquiry.web is None:
        return Finding.skipped("the web is not asked in this examination")
    if issuer is None:
        return Finding.skipped("the issuer's certificate is missing")
    try:
        der = inquiry.web.post(urls[0], ocsp_request(leaf, issuer), "application/ocsp-request")
    except WireError as problem:
        return _unavailable(f"{urls[0]}: {problem}", "Ask the authority why its responder does not answer.")
    answer = by_ocsp(der, leaf, issuer, inquiry.now)
    advice = "Tell the certificate's authority that its responder's answers are not valid."
    return _finding(answer, _REVOKED if answer.state is State.REVOKED else advice)


def _http(urls: Sequence[str]) -> list[str]:
    return [url for url in urls if url.lower().startswith("http://")]


def _finding(answer: Answer, advice: str) -> Finding:
    good = answer.state is State.GOOD
    return Finding(
        verdict=Verdict.PASS if good else Verdict.FAIL,
        expected=_EXPECTED,
        found=answer.state.value,
        evidence=answer.words,
        advice=advice,
    )


def _unavailable(found: str, advice: str) -> Finding:
    """Nothing came back: that says nothing about the certificate."""
    return Finding(verdict=Verdict.WARN, expected=_EXPECTED, found=found, advice=advice)


def _lines(findings: dict[str, Finding]) -> Iterator[str]:
    """What the transcript says about revocation, below the leaf's names."""
    for check_id, source in ((CRL_FILE, "CRL"), (CRL, "CRL"), (STAPLE, "OCSP"), (OCSP, "OCSP")):
        finding = findings[check_id]
        way = {STAPLE: " (stapled)", OCSP: " (asked the responder)", CRL: " (distribution point)"}.get(
            check_id, ""
        )
        if finding.verdict is Verdict.PASS:
            yield f"cert not revoked by {source}{way}"
        elif finding.verdict is not Verdict.SKIPPED:
            yield f"cert not cleared by {source}{way}: {finding.evidence or finding.found}"
