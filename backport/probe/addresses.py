"""Ways to a server over TCP: a name's addresses, the first of which answers is kept for all connections.

Several addresses are tried as RFC 8305 has it, so that a dead one hides no working one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
import selectors
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from backport.errors import UsageError
from backport.probe.errors import Deadline, NoAddress, NoAnswer, Unreachable

ATTEMPT_DELAY = 0.25
"""Seconds after which the next address is tried beside the one before (RFC 8305 section 5)."""

_NAME = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*", re.IGNORECASE)


def host_and_port(text: str, *, port: int) -> tuple[str, int]:
    """``HOST[:PORT]``, where HOST is a name or an address, one of IPv6 with or without brackets.

    Names come back in ASCII. ``port`` is the default. Raises UsageError.

    >>> host_and_port("[2001:db8::1]:465", port=25), host_and_port("Mail.Example.org.", port=25)
    (('2001:db8::1', 465), ('mail.example.org', 25))
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text)), port
    if "://" in text:
        raise UsageError(f"no host: {text!r}", hint="HOST or HOST:PORT, without a scheme")
    bracketed = re.fullmatch(r"\[(?P<host>[^]]*)\](:(?P<port>.*))?", text)
    plain = re.fullmatch(r"(?P<host>[^:\[\]]*)(:(?P<port>.*))?", text)
    if not (parts := bracketed or plain):
        raise UsageError(f"no host: {text!r}", hint="HOST, HOST:PORT, or [ADDRESS]:PORT for IPv6")
    number = parts["port"] if parts["port"] is not None else str(port)
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 0 < int(number) < 65536:
        raise UsageError(f"no port: {number!r} in {text!r}", hint="ports are from 1 to 65535")
    return _address(parts["host"], text) if bracketed else host_name(parts["host"]), int(number)


def host_name(text: str) -> str:
    """A host's name in ASCII (RFC 5890), in lower case, or an address as it is. Raises UsageError."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    try:
        name = text.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no host name: {text!r}", hint="give a name such as mail.example.org, or an address"
        )
    return name


def is_address(host: str) -> bool:
    """Whether the host is given by its address."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def is_global(address: str) -> bool:
    """Whether an address, also one with a zone, is of the Internet and not of some private network."""
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def _address(host: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise UsageError(f"no IPv6 address: {text!r}", hint="in brackets, as in [2001:db8::1]:25") from None


@dataclass
class Place:
    """A server by host name or address, and port. Thread-safe once a connection has been made."""

    host: str
    port: int
    address: str = ""
    """The address that answered; empty before the first connection."""
    _family: int = field(default=socket.AF_UNSPEC, repr=False)
    found: tuple[tuple[int, str], ...] = ()
    """Families and addresses, where they are known already: then the host's resolver is not asked."""

    def __call__(self, deadline: Deadline) -> socket.socket:
        """A connection to it. Raises Unreachable or NoAnswer."""
        connection = _first_of(self._candidates(), self.port, deadline)
        self._family, self.address = connection.family, str(connection.getpeername()[0])
        return connection

    def known(self) -> tuple[str, ...]:
        """All addresses of the name, as far as they can be found."""
        with contextlib.suppress(Unreachable):
            return tuple(address for _, address in self._all())
        return ()

    def each(self) -> list[Place]:
        """The same server at each of its addresses. Raises Unreachable."""
        return [replace(self, address=address, _family=family) for family, address in self._all()]

    def is_public(self) -> bool:
        """Whether the Internet knows its addresses, as far as they can be found now.

        Raises UsageError for a name that does not exist.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as problem:
            if problem.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
                raise UsageError(
                    f"{self.host} has no address: {problem.strerror}", hint="check how the name is written"
                ) from None
            return True
        return all(is_global(str(where[0])) for _, _, _, _, where in found)

    def _candidates(self) -> list[tuple[int, str]]:
        return [(self._family, self.address)] if self.address else self._all()

    def _all(self) -> list[tuple[int, str]]:
        return _interleaved(self.found) if self.found else _resolved(self.host, self.port)


def _resolved(host: str, port: int) -> list[tuple[int, str]]:
    """Families and addresses, in the order in which they are tried. Raises NoAddress."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as problem:
        raise NoAddress(f"{host} has no address: {problem.strerror}") from None
    return _interleaved(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))


def _interleaved(found: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Addresses of both families by turns, as the resolver orders them (RFC 8305 section 4)."""
    families: dict[int, list[tuple[int, str]]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for row in itertools.zip_longest(*families.values()) for one in row if one]


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to a host. Raises Unreachable or NoAnswer."""
    return Place(host, port)(deadline)


def _first_of(candidates: Sequence[tuple[int, str]], port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address that answers. Raises Unreachable or NoAnswer."""
    with _Attempts(port) as attempts:
        left = list(candidates)
        while left or attempts.waiting:
            if left:
                attempts.begin(*left.pop(0))
            with contextlib.suppress(NoAnswer):
                patience = deadline.remaining()
                if connection := attempts.wait(min(patience, ATTEMPT_DELAY) if left else patience):
                    return connection
                continue
            break
        silent = ", ".join(attempts.waiting.values())
        raise attempts.problem or NoAnswer(f"{silent} does not answer within {deadline.seconds:g} s")


class _Attempts:
    """Connections that are being made; those still waiting are given up at the end of the block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self.waiting: dict[socket.socket, str] = {}
        self.problem: Unreachable | None = None

    def __enter__(self) -> _Attempts:
        return self

    def __exit__(self, *_exception: object) -> None:
        for connection in self.waiting:
            connection.close()
        self._selector.close()

    def begin(self, family: int, address: str) -> None:
        where = f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"
        try:
            connection = _begin(family, address, self._port)
        except OSError as trouble:
            self.problem = Unreachable(f"cannot connect to {where}: {trouble.strerror}")
            return
        self.waiting[connection] = where
        self._selector.register(connection, selectors.EVENT_WRITE)

    def wait(self, seconds: float) -> socket.socket | None:
        """The first connection that came about within that time."""
        ready = {key.fd for key, _ in self._selector.select(seconds)} if self.waiting else set()
        for connection in [one for one in self.waiting if one.fileno() in ready]:
            where = self.waiting.pop(connection)
            self._selector.unregister(connection)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return connection
            connection.close()
            self.problem = Unreachable(f"cannot connect to {where}: {os.strerror(error)}")
        return None


def _begin(family: int, address: str, port: int) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(0)
    try:
        with contextlib.suppress(BlockingIOError):
            connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection
