"""What `probe` was asked for, checked before anything is connected to."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from backport.errors import UsageError
from backport.probe import Expectation, Subject
from backport.probe.addresses import Place, connect, host_and_port, host_name, is_address
from backport.probe.profiles import Profile
from backport.probe.revocation import load_crls
from backport.probe.tls import PROTOCOLS, suites
from backport.probe.transcript import Style
from backport.probe.web import Web
from backport.settings import did_you_mean

_FILE_LIMIT = 64 * 1024 * 1024
"""Octets of a file that is given; the largest authorities' lists are smaller."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The words of the command line."""

    server: str
    servername: str | None = None
    ca: Path | None = None
    crl: Path | None = None
    direct_tls: bool = False
    expect: str | None = None
    staple: bool = False
    revocation: bool = True
    helo: str | None = None
    style: Style = Style.COMPACT
    profile: Profile | None = None
    timeout: float = 60

    def place(self) -> Place:
        """The server. Raises UsageError."""
        host, port = host_and_port(self.server, port=465 if self.direct_tls else 25)
        return Place(host, port)

    def subject(self, place: Place) -> Subject:
        """What is to be examined. Raises UsageError for whatever is wrong in names or files."""
        name = host_name(self.servername) if self.servername else place.host
        private = not place.is_public()
        return Subject(
            dial=place,
            host=name,
            servername=None if is_address(name) else name,
            helo=host_name(self.helo) if self.helo else own_name(socket.gethostname()),
            expectation=expectation(self.expect),
            trust=trust(self.ca) if self.ca else None,
            crls=lists(self.crl) if self.crl else (),
            direct_tls=self.direct_tls,
            staple=self.staple,
            style=self.style,
            web=Web(connect=connect, private=private) if self.revocation else None,
            timeout=self.timeout,
        )


def expectation(text: str | None) -> Expectation:
    """``PROTOCOL[:SUITE]`` in OpenSSL's names. Raises UsageError.

    >>> expectation("TLSv1.3:TLS_AES_256_GCM_SHA384")
    Expectation(protocol='TLSv1.3', cipher='TLS_AES_256_GCM_SHA384')
    """
    if text is None:
        return Expectation()
    protocol, colon, cipher = text.partition(":")
    if protocol not in PROTOCOLS:
        hint = f"one of {', '.join(PROTOCOLS)}, then perhaps a colon and a suite"
        raise UsageError(f"no protocol: {protocol!r}{did_you_mean(protocol, PROTOCOLS)}", hint=hint)
    known = suites(protocol)
    if colon and cipher not in known:
        raise UsageError(
            f"no suite of {protocol}: {cipher!r}{did_you_mean(cipher, known)}",
            hint=f"OpenSSL's name, such as {known[0]}",
        )
    return Expectation(protocol=protocol, cipher=cipher or None)


def trust(path: Path) -> Path:
    """A file of trusted certificates in PEM. Raises UsageError."""
    content = _content(path)
    try:
        x509.load_pem_x509_certificates(content)
    except Exception:  # noqa: BLE001  # a version that no certificate has is no ValueError
        hint = "lines from -----BEGIN CERTIFICATE----- on; `openssl x509 -inform DER` converts from DER"
        raise UsageError(f"{path} holds no certificate in PEM", hint=hint) from None
    return path


def lists(path: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file. Raises UsageError."""
    try:
        return load_crls(_content(path))
    except ValueError:
        hint = "in PEM, lines from -----BEGIN X509 CRL----- on, or one list in DER"
        raise UsageError(f"{path} holds no revocation list", hint=hint) from None


def own_name(host: str) -> str:
    """How this host greets: its name where that is a whole one (RFC 5321 section 4.1.4)."""
    try:
        name = host_name(host)
    except UsageError:
        return "localhost"
    return name if "." in name and not is_address(name) else "localhost"


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(_FILE_LIMIT + 1)
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}") from None
    if len(content) > _FILE_LIMIT:
        raise UsageError(f"{path} is larger than {_FILE_LIMIT} octets")
    return content
