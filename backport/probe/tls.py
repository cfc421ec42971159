"""TLS as a client: what is offered, and what a handshake came to.

It is spoken by the OpenSSL that comes with ``cryptography``, never by the library under test.
Rests on RFC 8446; section 4.1.3 names the random value that makes a ServerHello a HelloRetryRequest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from backport.probe.errors import CannotOffer, HandshakeFailed, WireError

PROTOCOLS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
"""The protocol versions by OpenSSL's names, oldest first."""

ALERTS = {
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    47: "illegal_parameter",
    48: "unknown_ca",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""Descriptions of fatal TLS alerts (RFC 8446 section 6.2)."""

_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_HELLO_LENGTH = 5 + 4 + 2 + len(_RETRY)


TLS13_SUITES = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
"""The suites of TLS 1.3 (RFC 8446 appendix B.4)."""


def suites(protocol: str) -> tuple[str, ...]:
    """OpenSSL's names of the suites that a protocol version may have, as far as this library knows them."""
    if protocol == "TLSv1.3":
        return TLS13_SUITES
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    return tuple(name for name in SSL.Connection(context, None).get_cipher_list() if name not in TLS13_SUITES)


@dataclass(frozen=True, kw_only=True)
class Resumable:
    """A session that its server may take up again, and the settings that it belongs to."""

    session: SSL.Session
    context: SSL.Context


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the client offers in its ClientHello, and what it trusts.

    Without limits it is the default client of its TLS library. ``trust`` is a PEM file of root
    certificates; ``system_trust`` adds the system's store. ``ciphers`` (TLS 1.2 and older), ``suites``
    (TLS 1.3) are OpenSSL lists. So are ``groups``, of which the first list that the client's library
    knows counts; the key share of the list's first is sent. ``resume`` is an earlier session with the
    same server, whose settings then count.
    """

    servername: str | None = None
    trust: Path | None = None
    oldest: str | None = None
    newest: str | None = None
    ciphers: str | None = None
    suites: str | None = None
    groups: tuple[str, ...] = ()
    resume: Resumable | None = None
    system_trust: bool = False

    @classmethod
    def only(cls, protocol: str, *, oldest: str | None = None, servername: str | None = None) -> Offer:
        """One protocol version, or those from ``oldest`` on, and every cipher at security level 0.

        Above that level the client itself refuses TLS 1.0 and 1.1.
        """
        return cls(
            servername=servername, oldest=oldest or protocol, newest=protocol, ciphers="ALL:@SECLEVEL=0"
        )


@dataclass(frozen=True, kw_only=True)
class VerifyError:
    """One complaint of OpenSSL's about a certificate: X509_V_ERR code, depth (0: the leaf), subject."""

    code: int
    depth: int
    subject: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a handshake came to."""

    protocol: str
    """OpenSSL's name, such as ``TLSv1.3``."""
    cipher: str
    """OpenSSL's name of the suite."""
    chain: tuple[x509.Certificate, ...]
    """The certificates as the server sent them."""
    errors: tuple[VerifyError, ...]
    """Every complaint about the chain; none when it completes to ``Offer.trust``."""
    built: tuple[x509.Certificate, ...] = ()
    """The chain as the client completed it, with what it found in its trust store."""
    staple: bytes = b""
    """The OCSP response that came with the handshake (RFC 6066 section 8), in DER."""
    group: str = ""
    """The key exchange's group, where the client's library tells it."""
    retried: bool = False
    """Whether the server sent a HelloRetryRequest first."""
    resumed: bool = False
    """Whether the server took up ``Offer.resume``: then it sent no certificate."""


@dataclass
class Handshake:
    """A client connection on memory buffers, and what its callbacks heard.

    Raises CannotOffer where the client's TLS library cannot make the offer.
    """

    offer: Offer
    alerts: list[int] = field(default_factory=list)
    errors: list[VerifyError] = field(default_factory=list)
    offered: bool = False
    """Whether the ClientHello has been made."""
    staple: bytes = b""
    hello: bytes = b""
    """The beginning of what the server sent."""
    authenticated: bool = False
    """Whether a certificate was looked at: not where a session is resumed."""

    def __post_init__(self) -> None:
        try:
            self.connection = SSL.Connection(self._context(), None)
            if self.offer.groups:
                _set_groups(self.connection, self.offer.groups)
        except (SSL.Error, ValueError) as problem:
            raise CannotOffer(f"the client cannot offer this: {problem}") from None
        self.connection.set_app_data(self)
        if self.offer.servername:
            self.connection.set_tlsext_host_name(self.offer.servername.encode("ascii"))
        if self.offer.resume:
            self.connection.set_session(self.offer.resume.session)
        self.connection.request_ocsp()
        self.connection.set_connect_state()

    def hear(self, data: bytes) -> None:
        """Take what the server sent."""
        self.hello += data[: _HELLO_LENGTH - len(self.hello)]
        self.connection.bio_write(data)

    def session(self) -> Session:
        """What the finished handshake came to. Raises HandshakeFailed for unreadable certificates."""
        try:
            return self._session()
        except ValueError as problem:
            raise HandshakeFailed(f"the server's certificate cannot be read: {problem}") from None

    def _session(self) -> Session:
        chain = self.connection.get_peer_cert_chain(as_cryptography=True) or []
        built = self.connection.get_verified_chain(as_cryptography=True) if self.authenticated else None
        return Session(
            protocol=self.connection.get_protocol_version_name(),
            cipher=self.connection.get_cipher_name() or "none",
            chain=tuple(chain),
            errors=tuple(self.errors),
            built=tuple(built or ()),
            staple=self.staple,
            group=self.connection.get_group_name() or "",
            retried=is_retry(self.hello),
            resumed=self.offer.resume is not None and not self.authenticated,
        )

    def explain(self, problem: SSL.Error) -> WireError:
        """Why the handshake failed: by the server's alert, by the client, or before it began."""
        retried = is_retry(self.hello)
        if self.alerts:
            alert = self.alerts[-1]
            words = f"alert {alert}, {ALERTS.get(alert, 'an alert')}"
            return HandshakeFailed(f"the server refused the handshake: {words}", alert=alert, retried=retried)
        if not self.offered:
            return CannotOffer(f"the client cannot offer this: {reason(problem)}")
        return HandshakeFailed(f"the client broke the handshake off: {reason(problem)}", retried=retried)

    def _context(self) -> SSL.Context:
        return self.offer.resume.context if self.offer.resume else _new_context(self.offer)


def _new_context(offer: Offer) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if offer.oldest:
        context.set_min_proto_version(PROTOCOLS[offer.oldest])
    if offer.newest:
        context.set_max_proto_version(PROTOCOLS[offer.newest])
    if offer.ciphers:
        context.set_cipher_list(offer.ciphers.encode())
    if offer.suites:
        context.set_tls13_ciphersuites(offer.suites.encode())
    if offer.trust:
        context.load_verify_locations(str(offer.trust))
    if offer.system_trust:
        context.set_default_verify_paths()
    # A context outlives its connection where a session is resumed: each callback finds its own handshake.
    context.set_ocsp_client_callback(_on_staple)
    context.set_verify(SSL.VERIFY_PEER, _on_certificate)
    context.set_info_callback(_on_event)
    return context


def _handshake(connection: SSL.Connection) -> Handshake:
    handshake = connection.get_app_data()
    assert isinstance(handshake, Handshake)  # noqa: S101  # for the type checker: set when it was made
    return handshake


def _on_certificate(connection: SSL.Connection, certificate: object, code: int, depth: int, _ok: int) -> bool:
    handshake = _handshake(connection)
    handshake.authenticated = True
    if code:
        handshake.errors.append(VerifyError(code=code, depth=depth, subject=_subject(certificate)))
    return True


def _on_staple(connection: SSL.Connection, answer: bytes, _data: object) -> bool:
    _handshake(connection).staple = answer
    return True


def _on_event(connection: SSL.Connection, where: int, value: int) -> None:
    fatal = value >> 8 == 2
    if where & SSL.SSL_CB_READ_ALERT == SSL.SSL_CB_READ_ALERT and fatal:
        _handshake(connection).alerts.append(value & 0xFF)


def is_retry(hello: bytes) -> bool:
    """Whether a server's first record holds a HelloRetryRequest (RFC 8446 sections 4.1.3, 4.1.4, 5.1).

    Its first octets are enough: record header, handshake header, version, random.
    """
    return len(hello) >= _HELLO_LENGTH and hello[0] == 22 and hello[5] == 2 and hello[11:] == _RETRY


def _set_groups(connection: SSL.Connection, lists: Sequence[str]) -> None:
    """Offer these groups (RFC 8446 section 4.2.7), which pyOpenSSL itself has no way to say."""
    library = Binding.lib
    # The wrapped pointer has no public name, and set_tmp_ecdh takes one curve only.
    pointer = connection._ssl  # noqa: SLF001
    for groups in lists:
        if library.SSL_set1_curves_list(pointer, groups.encode()):
            return
        library.ERR_clear_error()
    raise ValueError(f"none of the groups {' or '.join(lists)}")


def reason(problem: SSL.Error) -> str:
    """OpenSSL's own words, from the queue of its errors."""
    queue = problem.args[0] if problem.args else []
    reasons = [entry[-1] for entry in queue if entry and entry[-1]] if isinstance(queue, list) else []
    return "; ".join(reasons) or type(problem).__name__


def _subject(certificate: object) -> str:
    convert = getattr(certificate, "to_cryptography", None)
    try:
        return convert().subject.rfc4514_string() if convert else ""
    except ValueError:
        return "a name that cannot be read"
