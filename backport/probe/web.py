"""Revocation lists and OCSP responses by plain HTTP, as certificates point to them.

The address is the server's word, and the answer anybody's: scheme, size, time and the place that is
connected to are bounded. What comes back is trusted by its signature alone (RFC 5280 section 8).
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urljoin, urlsplit

from backport.probe.addresses import is_global
from backport.probe.errors import Closed, Deadline, WireError
from backport.probe.wire import Wire

TIMEOUT = 10.0
"""Seconds for one request with its answer."""
SIZE_LIMIT = 16 * 1024 * 1024
"""Octets of an answer."""
REDIRECTS = 3

Connect = Callable[[str, int, Deadline], socket.socket]
"""Opens a connection to a host and port, or raises WireError."""


class WebError(WireError):
    """Nothing usable came back; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Web:
    """An HTTP client for small things.

    ``private`` lets it connect to addresses that the Internet does not know: a stranger's certificate
    must not make it talk to the inside of our network.
    """

    connect: Connect
    private: bool = False
    timeout: float = TIMEOUT

    def get(self, url: str) -> bytes:
        """What lies at the URL. Raises WireError."""
        deadline = Deadline(self.timeout)
        for _ in range(REDIRECTS + 1):
            response, body = self._exchange(url, b"", "", deadline)
            target = response.getheader("Location")
            if response.status not in {301, 302, 303, 307, 308} or not target:
                return _body_of(response, body)
            url = urljoin(url, target)
        raise WebError(f"more than {REDIRECTS} redirections")

    def post(self, url: str, content: bytes, content_type: str) -> bytes:
        """What the URL answers to ``content``. Raises WireError."""
        return _body_of(*self._exchange(url, content, content_type, Deadline(self.timeout)))

    def _exchange(
        self, url: str, content: bytes, content_type: str, deadline: Deadline
    ) -> tuple[http.client.HTTPResponse, bytes]:
        host, port, path = _parts(url)
        connection = self.connect(host, port, deadline)
        with Wire(connection, deadline) as wire:
            if not (self.private or _is_public(connection)):
                raise WebError(f"{host} is an address inside a private network")
            name = f"[{host}]" if ":" in host else host
            name += "" if port == 80 else f":{port}"
            return exchange(wire, name, path, content=content, content_type=content_type)


def exchange(
    wire: Wire, host: str, path: str, *, content: bytes = b"", content_type: str = "", limit: int = SIZE_LIMIT
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request and its answer on a connection, of ``limit`` octets at most. Raises WireError."""
    wire.send(_head(host, path, content, content_type) + content)
    raw = bytearray()
    while received := wire.receive():
        raw += received
        if len(raw) > limit:
            raise WebError(f"the answer is longer than {limit} octets")
    try:
        response = http.client.HTTPResponse(cast("socket.socket", _Received(bytes(raw))))
        response.begin()
        return response, response.read()
    except (http.client.HTTPException, ValueError) as problem:
        raise WebError(f"no HTTP answer: {type(problem).__name__}") from None


class _Received:
    """An answer that has been read already, in the place of a socket."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_mode: object, **_options: object) -> io.BytesIO:
        """The answer as a file."""
        return io.BytesIO(self._content)


def _parts(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise WebError(f"no usable address: {url!r}") from None
    if parts.scheme != "http" or not host:
        raise WebError(f"not an http address: {url!r}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise WebError(f"no usable address: {url!r}")
    return host, port, path


def _head(host: str, path: str, content: bytes, content_type: str) -> bytes:
    lines = [
        f"{'POST' if content else 'GET'} {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: backport",
        "Connection: close",
    ]
    if content:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def _is_public(connection: socket.socket) -> bool:
    try:
        return is_global(str(connection.getpeername()[0]))
    except (OSError, ValueError):
        raise Closed("the server closed the connection") from None


def _body_of(response: http.client.HTTPResponse, body: bytes) -> bytes:
    if response.status != 200:
        raise WebError(f"the server answers {response.status}")
    return body
