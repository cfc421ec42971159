"""Small mail servers that mail is sent to, each with one way to treat TLS; they keep every byte in clear.

They listen on addresses of the loopback that the server under test has, and talk just enough SMTP
(RFC 5321, RFC 3207) for one message.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from backport.selftest.daemon import NetworkNamespace

PORT = 25
_PATIENCE = 15.0
_CHUNK = 4096
_LIMIT = 256 * 1024
_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
"""A record with the fatal alert handshake_failure (RFC 5246 section 7.2)."""


class Behaviour(StrEnum):
    """How a sink treats STARTTLS."""

    NO_STARTTLS = "no-starttls"
    REFUSED_STARTTLS = "refused-starttls"
    FAILED_HANDSHAKE = "failed-handshake"
    GOOD = "good"


@dataclass
class Sink:
    """One server: what it was sent in clear, command by command, and how often it was connected to."""

    behaviour: Behaviour
    address: str
    clear: list[bytes] = field(default_factory=list)
    """Everything that came outside TLS, in the order in which it came."""
    connections: int = 0
    messages: list[bytes] = field(default_factory=list)
    """The messages that it accepted."""


@contextlib.contextmanager
def listening(sinks: Sequence[Sink], network: NetworkNamespace, identity: Path) -> Iterator[None]:
    """Have the sinks listen inside ``network`` while the block lasts.

    ``identity`` is a PEM file with the certificate chain and the key of those that speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(_listening(sink, network, context))
        yield


@contextlib.contextmanager
def _listening(sink: Sink, network: NetworkNamespace, context: ssl.SSLContext) -> Iterator[None]:
    listener = network.inside(lambda: socket.create_server((sink.address, PORT)))
    thread = threading.Thread(target=_serve, args=(sink, listener, context), name=f"sink {sink.behaviour}")
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _serve(sink: Sink, listener: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _address = listener.accept()
            sink.connections += 1
            with contextlib.suppress(OSError):
                _Session(sink, connection, context).run()


class _Session:
    """One client's connection to a sink."""

    def __init__(self, sink: Sink, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._sink = sink
        self._connection = connection
        self._context = context
        self._secure = False
        self._buffer = b""
        connection.settimeout(_PATIENCE)

    def run(self) -> None:
        """Talk until the client quits or is sent away."""
        try:
            self._say("220 sink.selftest.example ESMTP")
            while command := self._line():
                if not self._obey(command.split(b" ", 1)[0].strip().upper()):
                    return
        finally:
            self._connection.close()

    def _obey(self, verb: bytes) -> bool:
        """Answer a command; whether the conversation goes on."""
        if verb == b"EHLO":
            offered = self._sink.behaviour is not Behaviour.NO_STARTTLS and not self._secure
            self._say("250-sink.selftest.example", *(["250-STARTTLS"] if offered else []), "250 HELP")
        elif verb == b"STARTTLS":
            return self._start_tls()
        elif verb == b"DATA":
            self._say("354 go ahead")
            self._sink.messages.append(self._message())
            self._say("250 OK")
        elif verb == b"QUIT":
            self._say("221 bye")
            return False
        else:
            self._say("250 OK")
        return True

    def _start_tls(self) -> bool:
        if self._sink.behaviour is Behaviour.REFUSED_STARTTLS:
            self._say("454 TLS not available due to temporary reason")
            return True
        self._say("220 TLS go ahead")
        if self._sink.behaviour is Behaviour.FAILED_HANDSHAKE:
            self._connection.recv(_CHUNK)
            self._connection.sendall(_HANDSHAKE_FAILURE)
            # What still comes is in clear, should the client go on without TLS.
            return True
        self._connection = self._context.wrap_socket(self._connection, server_side=True)
        self._secure = True
        return True

    def _message(self) -> bytes:
        lines = []
        while (line := self._line()) and line.rstrip(b"\r\n") != b".":
            lines.append(line)
        return b"".join(lines)

    def _line(self) -> bytes:
        while b"\n" not in self._buffer and len(self._buffer) < _LIMIT:
            received = self._connection.recv(_CHUNK)
            if not received:
                break
            if not self._secure:
                self._sink.clear.append(received)
            self._buffer += received
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line + newline

    def _say(self, *lines: str) -> None:
        self._connection.sendall("".join(f"{line}\r\n" for line in lines).encode("ascii"))
