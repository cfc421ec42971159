"""TLS as a client: what is offered, and what a handshake came to.

It is spoken by the OpenSSL that comes with ``cryptography``, never by the library under test.
Rests on RFC 8446; section 4.1.3 names the random value that makes a ServerHello a HelloRetryRequest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL, crypto

from backport.probe.errors import CannotOffer, HandshakeFailed, WireError
from backport.probe.transcript import printable

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
    schemes: str | None = None
    """The signature schemes, an OpenSSL list: what kinds of certificates the server may show."""
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
    """The certificates as the server sent them, as far as they can be read; none where the leaf cannot."""
    errors: tuple[VerifyError, ...]
    """Every complaint about the chain; none when it completes to ``Offer.trust``."""
    unreadable: tuple[str, ...] = ()
    """Which of the certificates sent cannot be read at all, and why."""
    built: tuple[x509.Certificate, ...] = ()
    """The chain as the client completed it, with what it found in its trust store."""
    staple: bytes = b""
    """The OCSP response that came with the handshake (RFC 6066 section 8), in DER."""
    group: str = ""
    """The key exchange's group, where the client's library tells it."""
    retried: bool = False
    """Whether the server sent a HelloRetryRequest first."""
    hello_octets: int = 0
    """The size of the first ClientHello, with its record's head."""
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
    hello_octets: int = 0
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
        """What the finished handshake came to."""
        chain, unreadable = read_certificates(map(_der, self.connection.get_peer_cert_chain() or ()))
        built = (self.connection.get_verified_chain() if self.authenticated else None) or ()
        return Session(
            protocol=self.connection.get_protocol_version_name(),
            cipher=self.connection.get_cipher_name() or "none",
            chain=chain,
            unreadable=unreadable,
            errors=tuple(self.errors),
            built=read_certificates(map(_der, built))[0],
            staple=self.staple,
            group=self.connection.get_group_name() or "",
            retried=is_retry(self.hello),
            hello_octets=self.hello_octets,
            resumed=self.offer.resume is not None and not self.authenticated,
        )

    def explain(self, problem: SSL.Error) -> WireError:
        """Why the handshake failed: by the server's alert, by the client, or before it began."""
        retried = is_retry(self.hello)
        if self.alerts:
            alert = self.alerts[-1]
            words = f"alert {alert}, {ALERTS.get(alert, 'an alert')}"
            return HandshakeFailed(
                f"the server refused the handshake: {words}",
                alert=alert,
                retried=retried,
                received=self.hello,
            )
        if not self.offered:
            return CannotOffer(f"the client cannot offer this: {reason(problem)}")
        return HandshakeFailed(
            f"the client broke the handshake off: {reason(problem)}", retried=retried, received=self.hello
        )

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
    if offer.schemes:
        _set_schemes(context, offer.schemes)
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


def _on_certificate(
    connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, _ok: int
) -> bool:
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
    return len(hello) >= _HELLO_LENGTH and hello[0] == 22 and hello[5] == 2 and hello[11:43] == _RETRY


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


def _set_schemes(context: SSL.Context, schemes: str) -> None:
    # As with groups, pyOpenSSL has no way to say it.
    if not Binding.lib.SSL_CTX_set1_sigalgs_list(context._context, schemes.encode()):  # noqa: SLF001
        Binding.lib.ERR_clear_error()
        raise ValueError(f"none of the schemes {schemes}")


def knows_group(name: str) -> bool:
    """Whether the client's library has the group, and offers it by default (OpenSSL since 3.5)."""
    try:
        _set_groups(SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None), [name])
    except ValueError:
        return False
    return True


def verified(
    sent: Sequence[bytes], *, trust: Path | None
) -> tuple[tuple[VerifyError, ...], tuple[x509.Certificate, ...]]:
    """A chain without a session, by ``trust`` or the system's store: the first complaint, or the path."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if trust:
        context.load_verify_locations(str(trust))
    else:
        context.set_default_verify_paths()
    try:
        leaf, *others = (crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in sent)
        store = context.get_cert_store() or crypto.X509Store()
        checked = crypto.X509StoreContext(store, leaf, others).get_verified_chain()
    except crypto.X509StoreContextError as problem:
        code, depth = problem.errors[:2]
        return (VerifyError(code=code, depth=depth, subject=_subject(problem.certificate)),), ()
    except crypto.Error:
        return (VerifyError(code=21, depth=0, subject=""),), ()
    return (), read_certificates(map(_der, checked))[0]


def reason(problem: SSL.Error) -> str:
    """OpenSSL's own words, from the queue of its errors."""
    queue = problem.args[0] if problem.args else []
    reasons = [entry[-1] for entry in queue if entry and entry[-1]] if isinstance(queue, list) else []
    return "; ".join(reasons) or type(problem).__name__


def _subject(certificate: crypto.X509) -> str:
    found, _ = read_certificates([_der(certificate)])
    try:
        return found[0].subject.rfc4514_string()
    except Exception:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
        return "a name that cannot be read"


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def read_certificates(sent: Iterable[bytes]) -> tuple[tuple[x509.Certificate, ...], tuple[str, ...]]:
    """Those that can be read, in order, and which cannot and why. Without the leaf the others say nothing."""
    found, unreadable = [], []
    for number, der in enumerate(sent, start=1):
        try:
            found.append(x509.load_der_x509_certificate(der))
        except Exception as problem:  # noqa: BLE001  # as above
            unreadable.append((number, f"certificate {number} cannot be read: {printable(str(problem))}"))
    leaf = not unreadable or unreadable[0][0] != 1
    return tuple(found) if leaf else (), tuple(words for _, words in unreadable)
