"""What `probe` was asked for, checked before anything is connected to."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from backport.probe.domain import Domain
    from backport.probe.resolver import Resolver

_FILE_LIMIT = 64 * 1024 * 1024
"""Octets of a file that is given; the largest authorities' lists are smaller."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The words of the command line."""

    server: str = ""
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
        web = Web(connect=connect, private=not place.is_public()) if self.revocation else None
        return replace(
            self._pattern(), dial=place, host=name, servername=None if is_address(name) else name, web=web
        )

    def domain(self, name: str, resolver: str | None) -> Domain:
        """A domain whose servers are to be examined. Raises UsageError."""
        from backport.probe.domain import Domain  # its library costs a probe of one server too much time

        if self.servername or self.direct_tls:
            option = "--servername" if self.servername else "--direct-tls"
            raise UsageError(f"{option} is for one server, not for a domain", hint="leave it out")
        if is_address(domain := host_name(name)):
            raise UsageError(f"no domain: {name!r}", hint="a name such as example.org")
        pattern = replace(self._pattern(), web=Web(connect=connect) if self.revocation else None)
        return Domain(name=domain, resolver=chosen_resolver(resolver), server=pattern)

    def _pattern(self) -> Subject:
        """What is asked of any server."""
        return Subject(
            dial=Place("", 25),
            host="",
            servername=None,
            helo=host_name(self.helo) if self.helo else own_name(socket.gethostname()),
            expectation=expectation(self.expect),
            trust=trust(self.ca) if self.ca else None,
            crls=lists(self.crl) if self.crl else (),
            direct_tls=self.direct_tls,
            staple=self.staple,
            style=self.style,
            timeout=self.timeout,
        )


def chosen_resolver(text: str | None) -> Resolver:
    """The resolver ``ADDRESS[:PORT]``, or the system's first. Raises UsageError."""
    from backport.probe.resolver import Resolver  # as above

    if text is None:
        return Resolver.of_system()
    address, port = host_and_port(text, port=53)
    if not is_address(address):
        raise UsageError(f"no address: {address!r}", hint="--resolver takes an address, such as 127.0.0.1:53")
    return Resolver(address, port, named=True)


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
