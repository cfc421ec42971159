"""An SMTP client as far as STARTTLS: it waits for every reply and reads each one whole.

Rests on RFC 5321 (replies, EHLO) and RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backport.selftest.certificates import describe
from backport.selftest.tls import Offer, Session
from backport.selftest.transcript import Transcript, printable
from backport.selftest.trouble import Closed, Deadline, WireError
from backport.selftest.wire import Dial, Wire

LINE_LIMIT = 4096
"""Octets of one reply line; RFC 5321 section 4.5.3.1.5 allows 512."""
REPLY_LIMIT = 64 * 1024
"""Octets of one whole reply."""
TIMEOUT = 15.0
"""Seconds for a whole conversation."""

_REPLY_LINE = re.compile(rb"(?P<code>[2-5][0-9]{2})(?P<more>[ -]|$)(?P<text>.*)", re.DOTALL)


class NotSmtp(WireError):
    """What the server sent is no SMTP reply."""


class Refused(WireError):
    """The server said no; ``reply`` is what it said."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One SMTP reply: its code, and its lines as they came, without line ends."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return " / ".join(printable(line) for line in self.lines)

    @property
    def features(self) -> frozenset[str]:
        """The extension keywords of an EHLO reply (RFC 5321 section 4.1.1.1), in upper case."""
        words = (line[4:].split() for line in self.lines[1:])
        return frozenset(found[0].upper() for found in words if found)


class SmtpClient:
    """One command at a time, one whole reply for each."""

    def __init__(self, wire: Wire, transcript: Transcript) -> None:
        self._wire = wire
        self._transcript = transcript
        self._buffer = b""

    @property
    def unread(self) -> bytes:
        """What the server sent beyond its last reply, as far as it has been received."""
        return self._buffer

    def command(self, line: str) -> Reply:
        """Send a command line and read its reply. Raises WireError."""
        self._transcript.sent(line)
        self._wire.send(line.encode("ascii") + b"\r\n")
        return self.reply(f"the reply to {line.split(maxsplit=1)[0]}")

    def reply(self, what: str) -> Reply:
        """Read one whole reply, at most REPLY_LIMIT octets. Raises NotSmtp, Closed, NoAnswer."""
        lines: list[str] = []
        code, size = 0, 0
        while True:
            raw = self._line(what)
            size += len(raw)
            if size > REPLY_LIMIT:
                raise NotSmtp(f"{what} is longer than {REPLY_LIMIT} octets")
            match = _REPLY_LINE.fullmatch(raw)
            if not match or (code and int(match["code"]) != code):
                raise NotSmtp(f"{what} is no SMTP reply: {printable(raw.decode('latin-1'), 80)}")
            code = int(match["code"])
            lines.append(raw.decode("utf-8", "replace"))
            if match["more"] != b"-":
                self._transcript.received(lines)
                return Reply(code=code, lines=tuple(lines))

    def start_tls(self, offer: Offer) -> Session:
        """Turn the connection into a TLS one.

        Raises NotSmtp when the server said more in clear than its reply: inside TLS that would be
        taken for its answer.
        """
        if self._buffer:
            raise NotSmtp("the server sent more in clear after its reply to STARTTLS")
        return self._wire.start_tls(offer)

    def _line(self, what: str) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_LIMIT:
                raise NotSmtp(f"{what} has a line of more than {LINE_LIMIT} octets")
            try:
                received = self._wire.receive()
            except WireError as problem:
                raise type(problem)(f"{what}: {problem.message}") from None
            if not received:
                raise Closed(f"{what} did not come: the server closed the connection")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        if len(line) > LINE_LIMIT:
            raise NotSmtp(f"{what} has a line of more than {LINE_LIMIT} octets")
        return line.removesuffix(b"\r")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Everything that a conversation with STARTTLS showed."""

    banner: Reply
    plain: Reply
    """The reply to EHLO in clear."""
    session: Session
    inside: Reply
    """The reply to EHLO inside TLS: proof that the server, too, takes the handshake for done."""


def converse(
    dial: Dial, offer: Offer, *, helo: str, transcript: Transcript, timeout: float = TIMEOUT
) -> Conversation:
    """Connect, greet, STARTTLS, greet again, quit: what a mail client does before it sends.

    ``timeout`` is in seconds and bounds the whole conversation. Raises WireError: Refused where the
    server said no, NotSmtp, Closed, NoAnswer, Unreachable, HandshakeFailed, CannotOffer.
    """
    deadline = Deadline(timeout)
    with Wire(dial(deadline), deadline) as wire:
        transcript.note("Connected to server")
        client = SmtpClient(wire, transcript)
        try:
            return _dialogue(client, offer, helo, transcript)
        except WireError as problem:
            transcript.note(problem.message)
            raise


def _dialogue(client: SmtpClient, offer: Offer, helo: str, transcript: Transcript) -> Conversation:
    banner = _expect(220, client.reply("the banner"), "the server does not welcome us")
    transcript.note("We are allowed to connect")
    plain = _expect(250, client.command(f"EHLO {helo}"), "the server refuses EHLO")
    transcript.note("We can use this server")
    if "STARTTLS" not in plain.features:
        raise Refused("the server does not offer STARTTLS", plain)
    transcript.note("TLS is an option on this server")
    _expect(220, client.command("STARTTLS"), "the server refuses STARTTLS")
    transcript.note("STARTTLS command works on this server")
    session = client.start_tls(offer)
    transcript.note("Connection converted to SSL", describe(session, offer.servername))
    inside = _expect(250, client.command(f"EHLO {helo}"), "the server refuses EHLO inside TLS")
    client.command("QUIT")
    return Conversation(banner=banner, plain=plain, session=session, inside=inside)


def _expect(code: int, reply: Reply, otherwise: str) -> Reply:
    if reply.code != code:
        raise Refused(f"{otherwise}: {reply}", reply)
    return reply
