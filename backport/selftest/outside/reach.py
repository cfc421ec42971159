"""Ways to a server over TCP: a name's addresses, the first of which answers is kept for all connections."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from backport.selftest.trouble import Deadline, NoAnswer, Unreachable


@dataclass
class Place:
    """A server by host name or address, and port. Thread-safe once a connection has been made."""

    host: str
    port: int
    address: str = ""
    """The address that answered; empty before the first connection."""
    _family: int = field(default=socket.AF_UNSPEC, repr=False)

    def __call__(self, deadline: Deadline) -> socket.socket:
        """A connection to it. Raises Unreachable or NoAnswer."""
        problem: Unreachable | NoAnswer = Unreachable(f"{self.host} has no address")
        for family, address in self._candidates():
            try:
                connection = _connect(family, address, self.port, deadline)
            except (Unreachable, NoAnswer) as trouble:
                problem = trouble
                continue
            self.address, self._family = address, family
            return connection
        raise problem

    def _candidates(self) -> list[tuple[int, str]]:
        if self.address:
            return [(self._family, self.address)]
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as problem:
            raise Unreachable(f"{self.host} has no address: {problem.strerror}") from None
        return list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to a host. Raises Unreachable or NoAnswer."""
    return Place(host, port)(deadline)


def _connect(family: int, address: str, port: int, deadline: Deadline) -> socket.socket:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:
        raise Unreachable(f"cannot connect to {where}: {problem.strerror}") from None
    try:
        connection.settimeout(deadline.remaining())
        connection.connect((address, port))
    except TimeoutError:
        connection.close()
        raise NoAnswer(f"{where} does not answer within {deadline.seconds:g} s") from None
    except OSError as problem:
        connection.close()
        raise Unreachable(f"cannot connect to {where}: {problem.strerror}") from None
    except BaseException:
        connection.close()
        raise
    return connection
