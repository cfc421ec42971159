"""How a conversation with a server ends early, and the deadline that it is held under."""

from __future__ import annotations

import time

from backport.errors import SelfTestError


class WireError(SelfTestError):
    """The conversation could not go on; the message says at what point and why."""


class Unreachable(WireError):
    """No connection came about."""


class NoAddress(Unreachable):
    """The name's address could not be had."""


class NoAnswer(WireError):
    """The server kept silent until the deadline."""


class Closed(WireError):
    """The server closed or reset the connection where more was due."""


class HandshakeFailed(WireError):
    """The TLS handshake failed; ``alert`` is the number of the server's alert where it sent one.

    ``retried`` tells that the server had sent a HelloRetryRequest before, ``received`` is the beginning of
    what came from it.
    """

    def __init__(
        self, message: str, *, alert: int | None = None, retried: bool = False, received: bytes = b""
    ) -> None:
        super().__init__(message)
        self.alert = alert
        self.retried = retried
        self.received = received


class CannotOffer(WireError):
    """The client's own TLS library cannot make this offer: nothing was learnt about the server."""


class Deadline:
    """A point in time that every wait of a conversation, or of a whole examination, respects."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left. Raises NoAnswer when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise NoAnswer(f"no answer within {self.seconds:g} s")
        return left

    def at_most(self, seconds: float) -> Deadline:
        """A deadline that many seconds from now, or this one where it comes before."""
        return Deadline(max(0.0, min(seconds, self._end - time.monotonic())))
