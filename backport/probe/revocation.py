"""Whether a certificate has been revoked: revocation lists (RFC 5280 sections 5 and 6.3) and OCSP
responses (RFC 6960), each trusted only after its signer, signature and dates. Everything here is pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from backport.probe.chain import is_authority, is_issuer, name_of

CLOCK_SKEW = dt.timedelta(minutes=5)
"""How far the clocks of signer and client may be apart."""
UNDATED_LIFE = dt.timedelta(days=7)
"""How long an answer that names no next update is believed."""

_CRL_FLAGS = {"only_contains_attribute_certs", "indirect_crl"}


class State(Enum):
    """What an answer about a certificate is worth."""

    GOOD = "not revoked"
    REVOKED = "revoked"
    STALE = "out of date"
    FOREIGN = "about another certificate, or by another issuer"
    FORGED = "not signed by whom it must be"
    BROKEN = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a revocation list or an OCSP response says about a certificate, and why it counts or not."""

    state: State
    words: str


def by_crl(
    certificate: x509.Certificate,
    issuer: x509.Certificate | None,
    lists: Sequence[x509.CertificateRevocationList],
    now: dt.datetime,
) -> Answer:
    """What the lists say about the certificate: by the first that its issuer made and that is fresh."""
    own = [one for one in lists if one.issuer == certificate.issuer]
    if not own:
        makers = ", ".join(name_of(one.issuer) for one in lists)
        return _answer(State.FOREIGN, f"the CRL is by {makers}, not by {name_of(certificate.issuer)}")
    if issuer is None:
        return _answer(State.FORGED, "the issuer's certificate is missing: the CRL cannot be verified")
    answers = [_by_own_crl(certificate, issuer, one, now) for one in own]
    return next((one for one in answers if one.state in {State.REVOKED, State.GOOD}), answers[0])


def _by_own_crl(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    crl: x509.CertificateRevocationList,
    now: dt.datetime,
) -> Answer:
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return _answer(State.FORGED, "the issuer's key is of a kind that signs no CRL")
    if not crl.is_signature_valid(key):
        return _answer(State.FORGED, f"the CRL's signature is not by {name_of(issuer.subject)}")
    if unfit := _unfit(crl, certificate):
        return _answer(State.FOREIGN, unfit)
    if late := _outdated("the CRL", crl.last_update_utc, crl.next_update_utc, now):
        return _answer(State.STALE, late)
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        return _answer(State.GOOD, f"CRL of {crl.last_update_utc:%Y-%m-%d %H:%M} UTC")
    return _answer(State.REVOKED, f"revoked by CRL on {entry.revocation_date_utc:%Y-%m-%d %H:%M} UTC")


def _unfit(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> str:
    """Why a list does not cover the certificate (RFC 5280 section 5.2.5); no delta or indirect lists."""
    for extension in crl.extensions:
        scope = extension.value
        if isinstance(scope, x509.IssuingDistributionPoint):
            authority = is_authority(certificate)
            if scope.only_contains_ca_certs and not authority:
                return "the CRL is about authorities only"
            if scope.only_contains_user_certs and authority:
                return "the CRL is not about authorities"
            if any(getattr(scope, flag) for flag in _CRL_FLAGS) or scope.only_some_reasons:
                return "the CRL covers only a part"
        elif extension.critical:
            return f"the CRL has an extension that this tool does not know: {extension.oid.dotted_string}"
    return ""


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """A request about the certificate (RFC 6960 section 4.1), in DER."""
    # SHA-1 only names the issuer here, and is the one digest that every responder knows (RFC 5019).
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    return builder.build().public_bytes(serialization.Encoding.DER)


def by_ocsp(
    der: bytes, certificate: x509.Certificate, issuer: x509.Certificate | None, now: dt.datetime
) -> Answer:
    """What an OCSP response says about the certificate (RFC 6960 section 3.2)."""
    if issuer is None:
        return _answer(State.FORGED, "the issuer's certificate is missing: the response cannot be verified")
    try:
        return _by_response(ocsp.load_der_ocsp_response(der), certificate, issuer, now)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        return _answer(State.BROKEN, f"the response cannot be read: {problem}")


def _by_response(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: dt.datetime
) -> Answer:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return _answer(State.BROKEN, f"the responder answers {response.response_status.name.lower()}")
    signer = _signer(response, issuer, now)
    if isinstance(signer, str):
        return _answer(State.FORGED, signer)
    if not _is_signed_by(response, signer):
        return _answer(State.FORGED, f"the response's signature is not by {name_of(signer.subject)}")
    singles = list(response.responses)
    single = next((one for one in singles if _is_about(one, certificate, issuer)), None)
    if single is None:
        serials = ", ".join(f"{one.serial_number:x}" for one in singles)
        return _answer(
            State.FOREIGN, f"the response is about {serials}, not about {certificate.serial_number:x}"
        )
    return _by_single(single, now)


def _by_single(single: ocsp.OCSPSingleResponse, now: dt.datetime) -> Answer:
    if late := _outdated("the response", single.this_update_utc, single.next_update_utc, now):
        return _answer(State.STALE, late)
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return _answer(State.GOOD, f"OCSP response of {single.this_update_utc:%Y-%m-%d %H:%M} UTC")
        case ocsp.OCSPCertStatus.REVOKED:
            when = single.revocation_time_utc
            return _answer(State.REVOKED, f"revoked by OCSP on {when:%Y-%m-%d %H:%M} UTC")
        case _:
            return _answer(State.FOREIGN, "the responder does not know the certificate")


def _signer(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, now: dt.datetime
) -> x509.Certificate | str:
    """Who signed: the issuer, or whom it delegated that to (RFC 6960 section 4.2.2.2); or why nobody may."""
    if _is_responder(response, issuer):
        return issuer
    enclosed = [one for one in response.certificates if _is_responder(response, one)]
    if not enclosed:
        return "the response is signed by a stranger whose certificate is not enclosed"
    signer = enclosed[0]
    name = name_of(signer.subject)
    if not is_issuer(issuer, signer):
        return f"the response is signed by a stranger: {name} is not certified by {name_of(issuer.subject)}"
    if not _may_sign(signer):
        return f"the response is signed by {name}, whose certificate lacks OCSP_SIGNING"
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        return f"the response is signed by {name}, whose certificate is out of date"
    return signer


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    # The key's hash is SHA-1 by definition (RFC 6960 section 4.2.1).
    key = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return response.responder_key_hash == key


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _is_signed_by(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    digest = response.signature_hash_algorithm
    try:
        if isinstance(key, rsa.RSAPublicKey) and digest:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _is_about(
    single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> bool:
    """Whether the response's CertID is the certificate's (RFC 6960 section 4.1.1)."""
    if single.serial_number != certificate.serial_number:
        return False
    wanted = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (single.issuer_name_hash, single.issuer_key_hash) == (
        wanted.issuer_name_hash,
        wanted.issuer_key_hash,
    )


def _outdated(what: str, begin: dt.datetime, end: dt.datetime | None, now: dt.datetime) -> str:
    last = end or begin + UNDATED_LIFE
    if begin > now + CLOCK_SKEW:
        return f"{what} is from the future: {begin:%Y-%m-%d %H:%M} UTC"
    if last < now - CLOCK_SKEW:
        return f"{what} was to be renewed by {last:%Y-%m-%d %H:%M} UTC"
    return ""


def _answer(state: State, words: str) -> Answer:
    return Answer(state=state, words=words)


def load_crls(content: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file: one in DER, or any number in PEM. Raises ValueError."""
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    blocks = [begin + block.partition(end)[0] + end for block in content.split(begin)[1:]]
    try:
        return tuple(map(x509.load_pem_x509_crl, blocks)) or (x509.load_der_x509_crl(content),)
    except Exception as problem:  # noqa: BLE001  # a hostile list may make the parser raise anything
        raise ValueError(str(problem)) from None
