"""One connection to a server: bytes in clear or inside TLS, with a deadline over everything.

TLS is spoken by the OpenSSL that comes with ``cryptography``, never by the library under test. It
works on memory buffers, so that the only waits are those of this module.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL

from backport.errors import SelfTestError

_CHUNK = 16 * 1024

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


class WireError(SelfTestError):
    """The conversation could not go on; the message says at what point and why."""


class Unreachable(WireError):
    """No connection came about."""


class NoAnswer(WireError):
    """The server kept silent until the deadline."""


class Closed(WireError):
    """The server closed or reset the connection where more was due."""


class HandshakeFailed(WireError):
    """The TLS handshake failed; ``alert`` is the number of the server's alert where it sent one."""

    def __init__(self, message: str, *, alert: int | None = None) -> None:
        super().__init__(message)
        self.alert = alert


class CannotOffer(WireError):
    """The client's own TLS library cannot make this offer: nothing was learnt about the server."""


class Deadline:
    """A point in time that every wait of a conversation respects."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left. Raises NoAnswer when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise NoAnswer(f"no answer within {self.seconds:g} s")
        return left


Dial = Callable[[Deadline], socket.socket]
"""Opens a connection to the server under test, or raises Unreachable or NoAnswer."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the client offers in its ClientHello, and what it trusts.

    Without limits it is the default client of its TLS library. ``trust`` is a PEM file of root
    certificates. ``ciphers`` (TLS 1.2 and older) and ``suites`` (TLS 1.3) are OpenSSL lists.
    """

    servername: str | None = None
    trust: Path | None = None
    oldest: str | None = None
    newest: str | None = None
    ciphers: str | None = None
    suites: str | None = None

    @classmethod
    def only(cls, protocol: str, *, servername: str | None = None) -> Offer:
        """One protocol version and every cipher of it, at OpenSSL's security level 0.

        Above that level the client itself refuses TLS 1.0 and 1.1.
        """
        return cls(servername=servername, oldest=protocol, newest=protocol, ciphers="ALL:@SECLEVEL=0")


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


class Wire:
    """A connected socket with a deadline; closes it when the ``with`` block ends."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._socket = connection
        self._deadline = deadline
        self._tls: SSL.Connection | None = None
        connection.settimeout(0)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._tls is not None:
            with contextlib.suppress(SSL.Error, WireError, OSError):
                self._tls.shutdown()
                self._flush(self._tls)
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises NoAnswer or Closed."""
        if self._tls is None:
            self._send(data)
        else:
            self._tls.sendall(data)
            self._flush(self._tls)

    def receive(self) -> bytes:
        """The next bytes from the server; nothing at the end of the stream. Raises NoAnswer or Closed."""
        if self._tls is None:
            return self._receive()
        while True:
            try:
                return self._tls.recv(_CHUNK)
            except SSL.WantReadError:
                self._flush(self._tls)
                if not self._feed(self._tls):
                    return b""
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as problem:
                raise Closed(f"TLS broke: {_reason(problem)}") from None

    def start_tls(self, offer: Offer) -> Session:
        """Do a TLS handshake; from here on everything goes inside TLS.

        A certificate that does not verify is no failure: all complaints are in the session.
        Raises HandshakeFailed, Closed, NoAnswer, CannotOffer.
        """
        handshake = _Handshake(offer)
        connection = handshake.connection
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                handshake.offered = True
                self._flush(connection)
                if not self._feed(connection):
                    raise Closed("the server closed the connection in the TLS handshake") from None
            except SSL.Error as problem:
                raise self._explain(handshake, problem) from None
        self._flush(connection)
        self._tls = connection
        return handshake.session()

    def _explain(self, handshake: _Handshake, problem: SSL.Error) -> WireError:
        with contextlib.suppress(WireError):
            self._flush(handshake.connection)
        if handshake.alerts:
            alert = handshake.alerts[-1]
            name = ALERTS.get(alert, "an alert")
            return HandshakeFailed(f"the server refused the handshake: alert {alert}, {name}", alert=alert)
        if not handshake.offered:
            return CannotOffer(f"the client cannot offer this: {_reason(problem)}")
        return HandshakeFailed(f"the client broke the handshake off: {_reason(problem)}")

    def _flush(self, connection: SSL.Connection) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._send(connection.bio_read(_CHUNK))

    def _feed(self, connection: SSL.Connection) -> bool:
        if data := self._receive():
            connection.bio_write(data)
        return bool(data)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError as problem:
                raise Closed(f"the server closed the connection: {problem.strerror}") from None

    def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                self._wait(select.POLLIN)
            except OSError as problem:
                raise Closed(f"the server closed the connection: {problem.strerror}") from None

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        poll.poll(self._deadline.remaining() * 1000)


@dataclass
class _Handshake:
    """A client connection on memory buffers, and what its callbacks heard."""

    offer: Offer
    alerts: list[int] = field(default_factory=list)
    errors: list[VerifyError] = field(default_factory=list)
    offered: bool = False

    def __post_init__(self) -> None:
        try:
            self.connection = SSL.Connection(self._context(), None)
        except (SSL.Error, ValueError) as problem:
            raise CannotOffer(f"the client cannot offer this: {problem}") from None
        if self.offer.servername:
            self.connection.set_tlsext_host_name(self.offer.servername.encode("idna"))
        self.connection.set_connect_state()

    def session(self) -> Session:
        chain = self.connection.get_peer_cert_chain(as_cryptography=True) or []
        return Session(
            protocol=self.connection.get_protocol_version_name(),
            cipher=self.connection.get_cipher_name() or "none",
            chain=tuple(chain),
            errors=tuple(self.errors),
        )

    def _context(self) -> SSL.Context:
        offer = self.offer
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
        context.set_verify(SSL.VERIFY_PEER, self._on_certificate)
        context.set_info_callback(self._on_event)
        return context

    def _on_certificate(
        self, _connection: SSL.Connection, certificate: object, code: int, depth: int, _ok: int
    ) -> bool:
        if code:
            self.errors.append(VerifyError(code=code, depth=depth, subject=_subject(certificate)))
        return True

    def _on_event(self, _connection: SSL.Connection, where: int, value: int) -> None:
        fatal = value >> 8 == 2
        if where & SSL.SSL_CB_READ_ALERT == SSL.SSL_CB_READ_ALERT and fatal:
            self.alerts.append(value & 0xFF)


def _subject(certificate: object) -> str:
    convert = getattr(certificate, "to_cryptography", None)
    return convert().subject.rfc4514_string() if convert else ""


def _reason(problem: SSL.Error) -> str:
    """OpenSSL's own words, from the queue of its errors."""
    queue = problem.args[0] if problem.args else []
    reasons = [entry[-1] for entry in queue if entry and entry[-1]] if isinstance(queue, list) else []
    return "; ".join(reasons) or type(problem).__name__
