"""What a chain of certificates says: its names against the host's (RFC 6125), OpenSSL's complaints
in words (RFC 5280 section 6), and the lines that describe it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from cryptography import x509

from backport.probe.tls import Session, VerifyError
from backport.probe.transcript import Style

VERIFY_ERRORS = {
    2: "issuer's certificate is not in the chain",
    3: "no CRL for it",
    7: "signature does not verify",
    9: "not yet valid",
    10: "expired",
    12: "CRL has expired",
    18: "self-signed",
    19: "root is not trusted",
    20: "issuer is neither sent nor trusted",
    21: "first certificate cannot be verified",
    23: "revoked by CRL",
    24: "issuer is no certificate authority",
    25: "too many intermediates",
    26: "not meant for a server",
    66: "key is too weak",
    67: "issuer's key is too weak",
    68: "signature's digest is too weak",
}
"""OpenSSL's X509_V_ERR codes (x509_vfy.h) in words."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)


def host_matches(host: str, pattern: str) -> bool:
    """Whether a DNS name of a certificate stands for ``host`` (RFC 6125 section 6.4.3).

    A wildcard is the whole left-most label, stands for exactly one label, and needs at least two
    labels to its right. Case does not matter, nor a final dot of the host's; a certificate's name has none
    (RFC 5280 section 4.2.1.6).

    >>> host_matches("mail.example.org", "*.example.org"), host_matches("example.org", "*.example.org")
    (True, False)
    """
    labels, wanted = host.removesuffix(".").lower().split("."), pattern.lower().split(".")
    if len(labels) != len(wanted) or not all(map(_LABEL.fullmatch, labels)):
        return False
    if wanted[0] == "*":
        return len(wanted) > 2 and labels[1:] == wanted[1:]
    return labels == wanted


def dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The certificate's DNS subject alternative names; its CN does not count (RFC 6125 section 6.4.4)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def san_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every name that a host is looked for in: DNS names, then IP addresses."""
    return (*dns_names(certificate), *map(str, _addresses(certificate)))


def is_named(certificate: x509.Certificate, host: str) -> bool:
    """Whether one of the certificate's subject alternative names stands for ``host``.

    An IP address is compared with the addresses alone (RFC 5280 section 4.2.1.6).
    """
    try:
        return ipaddress.ip_address(host) in _addresses(certificate)
    except ValueError:
        return any(host_matches(host, name) for name in dns_names(certificate))


def _addresses(certificate: x509.Certificate) -> list[object]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.get_values_for_type(x509.IPAddress))


def explain(error: VerifyError) -> str:
    """One of OpenSSL's complaints, such as ``certificate 1 (CN=mail): expired (verify code 10)``."""
    words = VERIFY_ERRORS.get(error.code, "does not verify")
    return f"certificate {error.depth + 1} ({error.subject}): {words} (verify code {error.code})"


def describe(
    session: Session, host: str | None, revocation: Sequence[str] = (), *, style: Style = Style.COMPACT
) -> Iterator[str]:
    """The handshake and every certificate as sent, in lines for the transcript.

    ``revocation`` is what is known about the leaf's.
    """
    yield from summarize(session)
    for number, certificate in enumerate(session.chain, start=1):
        errors = [error for error in session.errors if error.depth == number - 1]
        verdict = "; ".join(map(explain, errors)) or "ok"
        state = "NOT VALIDATED" if errors else "VALIDATED"
        yield f"Certificate {number} of {len(session.chain)} in chain: Cert {state}: {verdict}"
        try:
            if number == 1 and host is not None:
                yield _names_against(host, certificate)
            yield from revocation if number == 1 else ()
            yield from _in_full(certificate) if style is Style.CHECKTLS else (_identity(certificate),)
        except Exception as problem:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
            yield f"cannot be read: {problem}"
    yield from session.unreadable


def summarize(session: Session) -> Iterator[str]:
    """The handshake alone, in lines for the transcript."""
    yield f"SSLVersion in use: {session.protocol.replace('.', '_')}"
    yield f"Cipher in use: {session.cipher}"
    if session.retried:
        yield "The server asked for another key share (HelloRetryRequest)"
    if session.resumed:
        yield "The server resumed the session"


def _names_against(host: str, certificate: x509.Certificate) -> str:
    state = "VERIFIED" if is_named(certificate, host) else "NOT VERIFIED"
    return f"Cert Hostname {state} ({host} = {_common_name(certificate)}{_listed(certificate)})"


def _listed(certificate: x509.Certificate) -> str:
    domains = [f" | DNS:{name}" for name in dns_names(certificate)]
    return "".join([*domains, *(f" | IP:{address}" for address in _addresses(certificate))])


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    return str(found[0].value) if found else "no CN"


def _in_full(certificate: x509.Certificate) -> Iterator[str]:
    """Dates, serial and names as CheckTLS and ``openssl x509 -nameopt compat`` write them."""
    serial = f"{certificate.serial_number:x}"
    octets = serial.zfill(len(serial) + len(serial) % 2)
    yield f"Not Valid Before: {certificate.not_valid_before_utc:%b %e %H:%M:%S %Y GMT}"
    yield f"Not Valid After: {certificate.not_valid_after_utc:%b %e %H:%M:%S %Y GMT}"
    yield f"serialNumber={':'.join(re.findall('..', octets))}"
    yield f"subject= {_with_slashes(certificate.subject)}"
    yield f"issuer= {_with_slashes(certificate.issuer)}"


def _with_slashes(name: x509.Name) -> str:
    return "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)


def _identity(certificate: x509.Certificate) -> str:
    subject, issuer = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
    return f"serialNumber={certificate.serial_number:x} / subject={subject} / issuer={issuer}"
