"""The certificates as a server sends them, judged: each function turns them into one finding.

Rests on RFC 5280 (validity, path), RFC 8446 section 4.4.2 (order), RFC 6125 (names) and RFC 9325
section 4.5 (key sizes and digests). Everything here is pure.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from backport.artifacts import Finding, Verdict
from backport.probe.certificates import explain, is_named, san_names
from backport.probe.tls import Session

RSA_BITS = 2048
CURVE_BITS = 256
DAYS_AHEAD = 14
"""Days before the end of a certificate that its renewal is overdue; for short-lived ones, a third of
their lifetime."""

_WEAK_DIGESTS = {"md5", "sha1"}
_NO_ISSUER = {2, 20, 21}
"""OpenSSL's codes where the issuer of a certificate was not found (x509_vfy.h)."""
_BAD_SIGNATURE, _SELF_SIGNED_LEAF, _UNKNOWN_ROOT = 7, 18, 19
_OTHER_CHECKS = {9, 10, 66, 67, 68}
"""Codes that the checks of validity and strength are about."""


def intermediates(session: Session) -> Finding:
    """Whether the issuer of the leaf is there: without it only clients that know it by chance go on."""
    top = issuing_path(session.chain)[-1]
    missing = bool(_codes(session) & _NO_ISSUER) and not is_authority(top)
    issuer = name_of(top.issuer)
    place = next(iter(_urls(top, AuthorityInformationAccessOID.CA_ISSUERS)), "its issuer's web site")
    return Finding(
        verdict=Verdict.FAIL if missing else Verdict.PASS,
        expected="every intermediate is sent",
        found=f"{issuer} is neither sent nor trusted" if missing else f"{len(session.chain)} sent",
        evidence=" < ".join(names_of(session.chain)),
        advice=(
            f"Put the certificate of {issuer} (from {place}) behind the leaf's in the certificate's "
            "file: clients that have not met it elsewhere (phones, mail programs) refuse the chain."
        ),
    )


def trust(session: Session) -> Finding:
    """Whether the chain completes to a trusted root (RFC 5280 section 6)."""
    relevant = [error for error in session.errors if error.code not in _OTHER_CHECKS]
    words = list(dict.fromkeys([*_bad_signatures(session), *map(explain, relevant)]))
    return Finding(
        verdict=Verdict.FAIL if words else Verdict.PASS,
        expected="the chain completes to a trusted root",
        found="; ".join(words) or f"trusted by {name_of((session.built or session.chain)[-1].subject)}",
        evidence=" < ".join(names_of(session.built or session.chain)),
        advice=_trust_advice({error.code for error in relevant}),
    )


def _trust_advice(codes: set[int]) -> str:
    if _BAD_SIGNATURE in codes:
        return "Put the certificates in place again as the authority gave them: one has been altered."
    if _SELF_SIGNED_LEAF in codes:
        return "Have the certificate issued by an authority that other mail servers trust."
    if _UNKNOWN_ROOT in codes:
        return "Get a certificate of a public authority, or give a private one's root by --ca."
    if codes & _NO_ISSUER:
        return (
            "Put every certificate between leaf and root into the file of tls_certificate, or, where the "
            "root is a private one, give it by --ca."
        )
    return "Have the certificate issued anew, for a server (extended key usage serverAuth)."


def _bad_signatures(session: Session) -> Iterator[str]:
    """Certificates that name an issuer among those sent, whose key did not sign them."""
    path = issuing_path(session.chain)
    for number, (certificate, issuer) in enumerate(itertools.pairwise(path), start=1):
        if is_issuer(issuer, certificate) is False:
            names = (name_of(one.subject) for one in (certificate, issuer))
            yield "certificate {} ({}): its signature is not by the key of {}".format(number, *names)


def order(session: Session) -> Finding:
    """Whether each certificate is of the issuer that the one before it names.

    RFC 5246 section 7.4.2 demands it; RFC 8446 section 4.4.2 allows what no path needs, leaf first. A
    root that is sent, and another certificate of an authority that is in the path, do no harm.
    """
    path, sent = issuing_path(session.chain), session.chain
    needless = [one for one in sent if one not in path]
    disordered = [one for one in sent if one in path] != list(path)
    others = [one for one in needless if not any(one.subject == other.subject for other in path)]
    notes = [f"{name_of(one.subject)} is sent, which no path needs" for one in needless]
    if len(path) > 1 and path[-1].subject == path[-1].issuer:
        notes.append("the root is sent, which no client needs")
    return Finding(
        verdict=Verdict.FAIL if disordered else Verdict.WARN if others else Verdict.PASS,
        expected=" < ".join(names_of(path)),
        found="; ".join([" < ".join(names_of(sent)), *notes]),
        advice="Put leaf, then its issuer, then that one's, and nothing else, into the certificate's file.",
    )


def validity(session: Session, now: dt.datetime) -> Finding:
    """Whether every certificate is valid now (RFC 5280 section 4.1.2.5), and for how many days yet.

    One that no path needs, such as an old root's cross-signed certificate, is but a note.
    """
    needed = _needed(session)
    notes = [
        f"{name_of(one.subject)} expired, which no path needs"
        for one in session.chain
        if one not in needed and one.not_valid_after_utc < now
    ]
    problems = []
    for certificate in needed:
        name, start, end = _period(certificate)
        if now < start:
            problems.append(f"{name}: not yet valid, from {start:%Y-%m-%d %H:%M} UTC")
        elif now > end:
            problems.append(f"{name}: expired {(now - end).days} days ago, on {end:%Y-%m-%d %H:%M} UTC")
    first = min(needed, key=lambda certificate: certificate.not_valid_after_utc)
    name, start, end = _period(first)
    soon = min(dt.timedelta(days=DAYS_AHEAD), (end - start) / 3)
    late = end - now < soon
    return Finding(
        verdict=Verdict.FAIL if problems else Verdict.WARN if late else Verdict.PASS,
        expected=f"valid, for {soon / dt.timedelta(days=1):.0f} days more",
        found="; ".join([*(problems or [f"{(end - now).days} days left ({name})"]), *notes]),
        evidence="; ".join(_period_text(certificate) for certificate in session.chain),
        advice="Renew the certificate, and check server's and client's clocks."
        if problems
        else "Renew the certificate; find out why that has not happened by itself.",
    )


def _needed(session: Session) -> list[x509.Certificate]:
    """The certificates of the path that the client took; where there is none, of the one that they make."""
    whole = session.built and not _codes(session) - _OTHER_CHECKS
    path = session.built if whole else issuing_path(session.chain)
    return [one for one in session.chain if one in path]


def hostname(session: Session, host: str) -> Finding:
    """The host against the leaf's subject alternative names (RFC 6125 section 6.4); CN does not count."""
    leaf = session.chain[0]
    names = ", ".join(san_names(leaf))
    return Finding(
        verdict=Verdict.PASS if is_named(leaf, host) else Verdict.FAIL,
        expected=host,
        found=names or "no subject alternative name",
        evidence=f"subject {leaf.subject.rfc4514_string()}",
        advice=f"Have the certificate issued with {host} as a subject alternative name.",
    )


def key_size(session: Session) -> Finding:
    """The keys of every certificate: RSA of 2048 bits, a curve of 256, or Edwards curves (RFC 9325 4.5)."""
    weak = [text for certificate in session.chain if (text := _weakness(certificate))]
    return Finding(
        verdict=Verdict.FAIL if weak else Verdict.PASS,
        expected=f"RSA of at least {RSA_BITS} bits, or a curve of {CURVE_BITS}",
        found="; ".join(weak) or ", ".join(_key_text(certificate) for certificate in session.chain),
        advice="Make a new key, RSA of 2048 bits or P-256, and have a certificate issued for it.",
    )


def signature(session: Session) -> Finding:
    """The digests that certificates are signed with; a root's own signature is checked by nobody."""
    digests = {
        name_of(certificate.subject): _digest(certificate)
        for certificate in session.chain
        if certificate.subject != certificate.issuer or len(session.chain) == 1
    }
    weak = [f"{name}: {digest}" for name, digest in digests.items() if digest in _WEAK_DIGESTS]
    return Finding(
        verdict=Verdict.FAIL if weak else Verdict.PASS,
        expected="SHA-2 or better",
        found="; ".join(weak) or ", ".join(dict.fromkeys(digests.values())),
        advice="Have the certificate issued anew: digests such as SHA-1 can be forged.",
    )


def issuing_path(sent: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The leaf, its issuer, that one's issuer and so on, as far as they are among those sent.

    An issuer is known by its name; of several with that name, the one counts whose key signed.
    """
    path = [sent[0]]
    while path[-1].subject != path[-1].issuer:
        named = [other for other in sent if other not in path and other.subject == path[-1].issuer]
        if not named:
            break
        path.append(next((other for other in named if is_issuer(other, path[-1])), named[0]))
    return tuple(path)


def is_issuer(issuer: x509.Certificate, certificate: x509.Certificate) -> bool | None:
    """Whether ``issuer`` bears the name and the key that signed ``certificate``.

    None where the signature is by an algorithm that this tool does not know.
    """
    if issuer.subject != certificate.issuer:
        return False
    try:
        _verify(issuer.public_key(), certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    except UnsupportedAlgorithm:
        return None
    return True


def _verify(key: object, certificate: x509.Certificate) -> None:
    """Raises InvalidSignature. Digests that are weak are another check's matter."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    parameters, digest = certificate.signature_algorithm_parameters, certificate.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.AsymmetricPadding) and digest:
        key.verify(signature, signed, parameters, digest)
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
        key.verify(signature, signed, parameters)
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    else:
        raise UnsupportedAlgorithm("a kind of signature that is not known here")


def issuer_of(certificate: x509.Certificate, session: Session) -> x509.Certificate | None:
    """The certificate's issuer among those sent and those that the client completed the chain with."""
    known = (*session.chain, *session.built)
    return next((other for other in known if is_issuer(other, certificate)), None)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate may issue others (RFC 5280 section 4.2.1.9)."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def ocsp_urls(certificate: x509.Certificate) -> list[str]:
    """Where the certificate's status can be asked for (RFC 5280 section 4.2.2.1)."""
    return _urls(certificate, AuthorityInformationAccessOID.OCSP)


def crl_urls(certificate: x509.Certificate) -> list[str]:
    """Where the certificate's revocation list lies (RFC 5280 section 4.2.1.13)."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    names = [name for point in points for name in point.full_name or ()]
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


def must_staple(certificate: x509.Certificate) -> bool:
    """Whether the certificate obliges its server to staple an OCSP response (RFC 7633)."""
    try:
        features = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False
    return x509.TLSFeatureType.status_request in features


def name_of(name: x509.Name) -> str:
    """A name in a few words: its CN, or all of it."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def names_of(certificates: Sequence[x509.Certificate]) -> list[str]:
    """The subjects, in a few words each."""
    return [name_of(certificate.subject) for certificate in certificates]


def _codes(session: Session) -> set[int]:
    return {error.code for error in session.errors}


def _urls(certificate: x509.Certificate, method: x509.ObjectIdentifier) -> list[str]:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return []
    places = (entry.access_location for entry in access if entry.access_method == method)
    return [place.value for place in places if isinstance(place, x509.UniformResourceIdentifier)]


def _period(certificate: x509.Certificate) -> tuple[str, dt.datetime, dt.datetime]:
    return name_of(certificate.subject), certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _period_text(certificate: x509.Certificate) -> str:
    name, start, end = _period(certificate)
    return f"{name}: {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def _key_text(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return str(key.curve.name)
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


def _weakness(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    strong = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= CURVE_BITS)
        or isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    )
    return "" if strong else f"{name_of(certificate.subject)}: {_key_text(certificate)}"


def _digest(certificate: x509.Certificate) -> str:
    algorithm = certificate.signature_hash_algorithm
    return algorithm.name if algorithm else "part of the signature"
