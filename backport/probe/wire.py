"""One connection to a server: bytes in clear or inside TLS, with a deadline over everything.

TLS works on memory buffers, so that the only waits are those of this module.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable

from OpenSSL import SSL

from backport.probe.errors import Closed, Deadline, WireError
from backport.probe.tls import Handshake, Offer, Resumable, Session, reason

_CHUNK = 16 * 1024

Dial = Callable[[Deadline], socket.socket]
"""Opens a connection to the server under test, or raises Unreachable or NoAnswer."""


class Wire:
    """A connected socket with a deadline; closes it when the ``with`` block ends."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._socket = connection
        self._deadline = deadline
        self._tls: SSL.Connection | None = None
        connection.settimeout(0)
        # Small writes follow each other: none is to wait for the other side's delayed acknowledgement.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit(self, seconds: float) -> None:
        """Wait that many seconds more at most."""
        self._deadline = self._deadline.at_most(seconds)

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
            try:
                self._tls.sendall(data)
            except SSL.Error as problem:
                raise Closed(f"TLS broke: {reason(problem)}") from None
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
                raise Closed(f"TLS broke: {reason(problem)}") from None

    def start_tls(self, offer: Offer) -> Session:
        """Do a TLS handshake; from here on everything goes inside TLS.

        A certificate that does not verify is no failure: all complaints are in the session.
        Raises HandshakeFailed, Closed, NoAnswer, CannotOffer.
        """
        handshake = Handshake(offer)
        connection = handshake.connection
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                size = self._flush(connection)
                if not handshake.offered:
                    handshake.offered, handshake.hello_octets = True, size
                if data := self._receive():
                    handshake.hear(data)
                else:
                    raise Closed("the server closed the connection in the TLS handshake") from None
            except SSL.Error as problem:
                with contextlib.suppress(WireError):
                    self._flush(connection)
                raise handshake.explain(problem) from None
        self._flush(connection)
        self._tls = connection
        return handshake.session()

    def resumable(self) -> Resumable | None:
        """What a later connection may resume, as far as the server has given it (RFC 8446 section 4.6.1)."""
        session = self._tls.get_session() if self._tls else None
        return Resumable(session=session, context=self._tls.get_context()) if self._tls and session else None

    def _flush(self, connection: SSL.Connection) -> int:
        """Send what the TLS library has made; gives the number of octets."""
        size = 0
        with contextlib.suppress(SSL.WantReadError):
            while True:
                made = connection.bio_read(_CHUNK)
                self._send(made)
                size += len(made)
        return size

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
