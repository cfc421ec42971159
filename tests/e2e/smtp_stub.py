"""A small STARTTLS server on loopback for states that no real mail server can be brought into."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from backport.probe.errors import Deadline
from backport.probe.tls import PROTOCOLS
from backport.probe.wire import Dial
from backport.selftest.authority import Authority, Identity

Script = Callable[["Peer"], None]


@dataclass
class Peer:
    """The server's end of one connection."""

    connection: socket.socket
    context: SSL.Context | None
    done: threading.Event
    heard: list[bytes] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode("latin-1"))

    def hear(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            received = self.connection.recv(1)
            if not received:
                break
            line += received
        self.heard.append(line)
        return line

    def hang(self) -> None:
        self.done.wait(30)

    def hear_all(self) -> bytes:
        """What has come in one piece, be it several lines."""
        piece = self.connection.recv(4096)
        self.heard.append(piece)
        return piece

    def tls(self, *, reply: bytes = b"250 mail.example.org\r\n", before: bytes = b"") -> None:
        """Handshake, then answer every line inside TLS, those of ``before`` first."""
        assert self.context is not None
        self.connection.settimeout(None)  # pyOpenSSL takes a socket with a time-out for a non-blocking one
        inside = SSL.Connection(self.context, self.connection)
        inside.set_accept_state()
        with contextlib.suppress(SSL.Error):
            inside.do_handshake()
            inside.sendall(b"250 OK\r\n" * before.count(b"\n"))
            while line := inside.recv(4096):
                self.heard.append(line)
                inside.sendall(b"221 bye\r\n" if line.startswith(b"QUIT") else reply)


def good(peer: Peer) -> None:
    peer.say("220 mail.example.org ESMTP\r\n")
    peer.hear()
    peer.say("250-mail.example.org Hello\r\n250-SIZE 52428800\r\n250-STARTTLS\r\n250 HELP\r\n")
    peer.hear()
    peer.say("220 TLS go ahead\r\n")
    peer.tls()


def context(
    identity: Identity, chain: bytes, folder: Path, *, oldest: str = "TLSv1.2", newest: str = "TLSv1.3"
) -> SSL.Context:
    """A server's TLS: its certificate with the chain as it is to be sent, and its protocol versions."""
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(identity.key_pem)
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.set_cipher_list(b"ALL:@SECLEVEL=0")
    made.use_certificate_chain_file(str(folder / "chain.pem"))
    made.use_privatekey_file(str(folder / "key.pem"))
    made.set_min_proto_version(PROTOCOLS[oldest])
    made.set_max_proto_version(PROTOCOLS[newest])
    return made


def simple_context(authority: Authority, folder: Path, name: str = "mail.example.org") -> SSL.Context:
    leaf = authority.issue([name])
    return context(leaf, authority.chain(leaf), folder)


@contextlib.contextmanager
def serving(
    script: Script, tls: SSL.Context | None = None, *, where: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[Dial]:
    """Serve every connection by ``script`` in a thread of its own; gives the way to connect."""
    done = threading.Event()
    listener = socket.create_server(where)
    threads: list[threading.Thread] = []

    def attend(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            script(Peer(connection=connection, context=tls, done=done))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                thread = threading.Thread(target=attend, args=(connection,))
                threads.append(thread)
                thread.start()

    def dial(deadline: Deadline) -> socket.socket:
        return socket.create_connection(listener.getsockname(), timeout=deadline.remaining())

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield dial
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join(30)
