"""An SMTP client as far as STARTTLS: it waits for every reply and reads each one whole.

Rests on RFC 5321 (replies, EHLO) and RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from backport.probe.certificates import describe
from backport.probe.errors import Closed, Deadline, NoAnswer, WireError
from backport.probe.hello import Answer, Hello, Reader
from backport.probe.tls import Offer, Resumable, Session
from backport.probe.transcript import Transcript, printable
from backport.probe.wire import Dial, Wire

LINE_LIMIT = 4096
"""Octets of one reply line; RFC 5321 section 4.5.3.1.5 allows 512."""
REPLY_LIMIT = 64 * 1024
"""Octets of one whole reply."""
TIMEOUT = 15.0
"""Seconds for a whole conversation."""

PATIENCE = 5.0
"""Seconds that a server gets for what it may owe nobody: the answer to an odd ClientHello."""
QUIT_REPLY = 221

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

    def command(self, line: str, *smuggled: str) -> Reply:
        """Send a command line and read its reply. Raises WireError.

        ``smuggled`` lines go in the same write, and their replies are not waited for.
        """
        self._transcript.sent(" / ".join((line, *smuggled)))
        self._wire.send("".join(f"{one}\r\n" for one in (line, *smuggled)).encode("ascii"))
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
        """Turn the connection into a TLS one. Raises WireError, as `require_silence` does."""
        self.require_silence()
        return self._wire.start_tls(offer)

    def require_silence(self) -> None:
        """Raise NotSmtp where the server said more in clear than its reply: inside TLS that would be taken
        for its answer.
        """
        if self._buffer:
            raise NotSmtp("the server sent more in clear after its reply to STARTTLS")

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


class Stage(StrEnum):
    """The steps of a conversation with STARTTLS, in order."""

    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    OFFERED = "starttls-offered"
    ACCEPTED = "starttls-accepted"
    HANDSHAKE = "handshake"
    INSIDE = "inside"
    DONE = "done"


@dataclass(kw_only=True)
class Contact:
    """What one connection showed, as far as it came."""

    stage: Stage = Stage.CONNECT
    """The step that it came to; where there is ``trouble``, the one that failed."""
    banner: Reply | None = None
    plain: Reply | None = None
    """The reply to EHLO in clear."""
    started: Reply | None = None
    """The reply to STARTTLS."""
    session: Session | None = None
    inside: Reply | None = None
    """The reply to EHLO inside TLS: proof that the server, too, takes the handshake for done."""
    resumable: Resumable | None = None
    answer: Answer | None = None
    """What came back to a ClientHello of our own making."""
    more: Reply | None = None
    """Where a command was smuggled: a second reply to the only command given inside TLS."""
    trouble: WireError | None = None
    details: list[str] = field(default_factory=list)
    """The transcript's lines about the session; more may be added."""


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """How a client presents itself: its name, and whether TLS comes before SMTP (RFC 8314)."""

    helo: str
    direct_tls: bool = False


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Everything that a whole conversation with STARTTLS showed."""

    banner: Reply
    plain: Reply
    session: Session
    inside: Reply


def converse(
    dial: Dial, offer: Offer, *, helo: str, transcript: Transcript, timeout: float = TIMEOUT
) -> Conversation:
    """Connect, greet, STARTTLS, greet again, quit: what a mail client does before it sends.

    ``timeout`` is in seconds and bounds the whole conversation. Raises WireError: Refused where the
    server said no, NotSmtp, Closed, NoAnswer, Unreachable, HandshakeFailed, CannotOffer.
    """
    call = Call(dial=dial, greeting=Greeting(helo=helo), transcript=transcript, deadline=Deadline(timeout))
    contact = call.meet(offer)
    banner, plain, session, inside = contact.banner, contact.plain, contact.session, contact.inside
    if contact.trouble or not (banner and plain and session and inside):
        raise contact.trouble or WireError("the conversation did not come to its end")
    return Conversation(banner=banner, plain=plain, session=session, inside=inside)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One connection to be made: where to, how the client presents itself, and until when.

    What happens is told as far as it came; what ended it early is the contact's ``trouble``.
    """

    dial: Dial
    greeting: Greeting
    transcript: Transcript
    deadline: Deadline

    def meet(self, offer: Offer) -> Contact:
        """A whole conversation with STARTTLS, or inside TLS from the beginning."""
        return self._told(lambda talk: talk.whole(offer))

    def inject(self, offer: Offer) -> Contact:
        """STARTTLS with a command behind it in the same write, as somebody on the way could add it.

        A server must forget what came in clear (RFC 3207 section 4.2). ``started`` is what it says to
        STARTTLS. Where it goes on, ``inside`` is its first reply to QUIT, all that is asked inside TLS.
        """
        return self._told(lambda talk: talk.smuggle(offer))

    def ask(self, hello: Hello) -> Contact:
        """STARTTLS, then a ClientHello of our own making: ``answer`` is what came back."""
        return self._told(lambda talk: talk.ask(hello))

    def _told(self, say: Callable[[_Talk], None]) -> Contact:
        contact = Contact()
        try:
            with Wire(self.dial(self.deadline), self.deadline) as wire:
                self.transcript.note("Connected to server")
                say(_Talk(wire, self.greeting, self.transcript, contact))
        except WireError as problem:
            contact.trouble = problem
            self.transcript.note(problem.message)
        return contact


class _Talk:
    """One conversation in progress: its contact is told each step before it is taken."""

    def __init__(self, wire: Wire, greeting: Greeting, transcript: Transcript, contact: Contact) -> None:
        self._wire, self._greeting = wire, greeting
        self._transcript, self._contact = transcript, contact
        self._client = SmtpClient(wire, transcript)

    def whole(self, offer: Offer) -> None:
        if self._greeting.direct_tls:
            self._secure(offer)
            self._welcome()
        else:
            self._until_started()
            self._secure(offer)
        contact, client = self._contact, self._client
        contact.stage = Stage.INSIDE
        contact.inside = _expect(
            250, client.command(f"EHLO {self._greeting.helo}"), "the server refuses EHLO inside TLS"
        )
        contact.stage = Stage.DONE
        with contextlib.suppress(WireError):
            client.command("QUIT")
        contact.resumable = self._wire.resumable()

    def smuggle(self, offer: Offer) -> None:
        contact, client = self._contact, self._client
        self._welcome()
        self._hello()
        contact.stage = Stage.ACCEPTED
        contact.started = client.command("STARTTLS", "NOOP")
        if contact.started.code != 220:
            return
        self._secure(offer)
        contact.stage = Stage.INSIDE
        contact.inside = client.command("QUIT")
        contact.stage = Stage.DONE
        if contact.inside.code != QUIT_REPLY:
            self._wire.limit(PATIENCE)
            contact.more = client.reply("a second reply to QUIT")

    def ask(self, hello: Hello) -> None:
        if not self._greeting.direct_tls:
            self._until_started()
        self._contact.stage = Stage.HANDSHAKE
        self._client.require_silence()
        self._contact.answer = _hear(self._wire, hello)
        self._contact.stage = Stage.DONE

    def _until_started(self) -> None:
        self._welcome()
        self._hello()
        self._contact.stage = Stage.ACCEPTED
        self._contact.started = _expect(220, self._client.command("STARTTLS"), "the server refuses STARTTLS")
        self._transcript.note("STARTTLS command works on this server")

    def _welcome(self) -> None:
        self._contact.stage = Stage.BANNER
        self._contact.banner = _expect(
            220, self._client.reply("the banner"), "the server does not welcome us"
        )
        self._transcript.note("We are allowed to connect")

    def _hello(self) -> None:
        contact = self._contact
        contact.stage = Stage.EHLO
        contact.plain = _expect(
            250, self._client.command(f"EHLO {self._greeting.helo}"), "the server refuses EHLO"
        )
        self._transcript.note("We can use this server")
        contact.stage = Stage.OFFERED
        if "STARTTLS" not in contact.plain.features:
            raise Refused("the server does not offer STARTTLS", contact.plain)
        self._transcript.note("TLS is an option on this server")

    def _secure(self, offer: Offer) -> None:
        self._contact.stage = Stage.HANDSHAKE
        self._contact.session = session = self._client.start_tls(offer)
        self._contact.details = self._transcript.note(
            "Connection converted to SSL",
            describe(session, offer.servername, style=self._transcript.style),
        )


def _hear(wire: Wire, hello: Hello) -> Answer:
    """What comes back to a ClientHello of our own making. Raises WireError."""
    reader = Reader()
    wire.limit(PATIENCE)
    try:
        wire.send(hello.octets())
        while not reader.done:
            if received := wire.receive():
                reader.feed(received)
            else:
                raise Closed("the server closed the connection")
    except Closed:
        reader.answer.closed = True
    except NoAnswer as problem:
        if not reader.answer.octets:
            raise
        reader.answer.problem = problem.message
    return reader.answer


def _expect(code: int, reply: Reply, otherwise: str) -> Reply:
    if reply.code != code:
        raise Refused(f"{otherwise}: {reply}", reply)
    return reply
