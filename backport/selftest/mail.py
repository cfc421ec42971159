"""Mail through the server under test: the dialogues that its rules must end, and messages that it passes on.

What is said is data; what came of it is returned to be judged, and nothing is raised for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from backport.probe.errors import Closed, Deadline, WireError
from backport.probe.smtp import TIMEOUT, Refused, Reply, SmtpClient
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.probe.wire import Wire
from backport.selftest.configuration import Policy, Trial
from backport.selftest.exim import DOMAIN, HOST, Exim, new_sinks
from backport.selftest.sink import Behaviour, Sink, listening

HELO = f"client.{DOMAIN}"
BOTNET_HELO = "ylmf-pc"
SENDER_DOMAIN = "sender.example"
LOCAL = f"postmaster@{HOST}"
UNKNOWN = f"nobody.here@{HOST}"
SENDER = f"sender@{HOST}"
"""A local address, so that what bounces comes back here."""
LOG_TIMEOUT = 10.0
"""Seconds until the log must tell what came of a message; it usually takes a tenth of one."""

_DROP_TIMEOUT = 5.0
_MESSAGE_ID = re.compile(r"\bid=(\S+)")
_COARSE_PORT = 26


@dataclass(frozen=True, kw_only=True)
class SenderRule:
    """One form of the rule about botnet senders: local parts that it refuses, and others that pass."""

    policy: Policy
    refused: tuple[str, ...]
    passed: tuple[str, ...]


REFINED = SenderRule(
    policy=Policy.SENDER_BOTNET,
    refused=("Anastasia12", "Anastasia123", '"Anastasia123"', "Anastasiaabcde"),
    passed=("Anastasia", "Anastasia1", "Anastasia123456", "Anastasia.Kulikovwa", "anastasia123"),
)
COARSE = SenderRule(
    policy=Policy.SENDER_BOTNET_COARSE,
    refused=("Anastasia", "Anastasia123", "Anastasia.Kulikovwa"),
    passed=("anastasia123", "Maria.Anastasia123"),
)


def address(local_part: str) -> str:
    """The whole address of a sender."""
    return f"{local_part}@{SENDER_DOMAIN}"


@dataclass
class Dialogue:
    """What was said for one question, the server's log afterwards, and what ended it early, if anything."""

    transcript: Transcript = field(default_factory=Transcript)
    replies: dict[str, Reply] = field(default_factory=dict)
    """The replies that matter, by what they answer."""
    closed: set[str] = field(default_factory=set)
    """The commands, by the same names, after which the server closed the connection by itself."""
    session: Session | None = None
    log: str = ""
    trouble: WireError | None = None


@dataclass(kw_only=True)
class Transfer:
    """Messages handed to the server over TLS, and what came of them."""

    dialogue: Dialogue = field(default_factory=Dialogue)
    ids: dict[str, str] = field(default_factory=dict)
    """Exim's id of each accepted message, by its recipient."""
    sinks: Mapping[Behaviour, Sink] = field(default_factory=dict)
    mailbox: str = ""
    queued: frozenset[str] = frozenset()
    """The ids of the messages that are still in the queue."""


def coarse_trial(trial: Trial) -> Trial:
    """A second server beside another one, on a port and with a spool of its own."""
    return replace(trial, port=_COARSE_PORT, spool=f"{trial.spool}-coarse")


def recipient(behaviour: Behaviour) -> str:
    """Whom mail for a sink is addressed to."""
    return f"postmaster@{behaviour}.{DOMAIN}"


def greet_as_botnet(exim: Exim) -> Dialogue:
    """Greet with the botnet's name, and see whether the server closes the connection."""
    dialogue = Dialogue()

    _speak(exim, dialogue, partial(_say_last, dialogue, "EHLO", f"EHLO {BOTNET_HELO}"), timeout=_DROP_TIMEOUT)
    _read_log(exim, dialogue, f"rejected EHLO or HELO {BOTNET_HELO}")
    return dialogue


def offer_senders(exim: Exim, rule: SenderRule) -> Dialogue:
    """Offer every sender of a rule, in clear, on a connection of its own."""
    dialogue = Dialogue()

    def say(local_part: str, client: SmtpClient) -> None:
        _greet(client)
        _say_last(dialogue, local_part, f"MAIL FROM:<{address(local_part)}>", client)

    for local_part in (*rule.refused, *rule.passed):
        _speak(exim, dialogue, partial(say, local_part), timeout=_DROP_TIMEOUT)
    _read_log(exim, dialogue, f"rejected MAIL <{re.escape(address(rule.refused[-1]))}>")
    return dialogue


def skip_the_greeting(exim: Exim) -> Dialogue:
    """Name a sender without a greeting; where that is refused, after one that is rejected, too."""
    dialogue = Dialogue()

    def say(client: SmtpClient) -> None:
        reply = client.command(f"MAIL FROM:<{SENDER}>")
        if reply.code != 250:
            _greet(client)
            client.command("EHLO not a name")
            reply = client.command(f"MAIL FROM:<{SENDER}>")
        dialogue.replies["MAIL"] = reply
        client.command("QUIT")

    _speak(exim, dialogue, say)
    return dialogue


def ask_in_clear(exim: Exim) -> Dialogue:
    """Name a recipient without TLS."""
    dialogue = Dialogue()

    def say(client: SmtpClient) -> None:
        _greet(client)
        client.command(f"MAIL FROM:<{SENDER}>")
        dialogue.replies["RCPT"] = client.command(f"RCPT TO:<{LOCAL}>")
        client.command("QUIT")

    _speak(exim, dialogue, say)
    _read_log(exim, dialogue, f"rejected RCPT <{re.escape(LOCAL)}>")
    return dialogue


def transfer(exim: Exim) -> Transfer:
    """Hand in over TLS one message for the server itself and one for each sink, and wait for their fate."""
    found = Transfer(sinks={sink.behaviour: sink for sink in new_sinks()})
    recipients = [LOCAL, *map(recipient, found.sinks)]
    with listening(tuple(found.sinks.values()), exim.network, exim.files.folder / "sink.pem"):
        _speak(exim, found.dialogue, lambda client: _submit(client, found, recipients))
        for message_id in found.ids.values():
            # A deferred message stays; all others are done with, a bounced one after its bounce is made.
            found.dialogue.log = exim.wait_for_log(_settled(message_id), timeout=LOG_TIMEOUT)
    found.mailbox = exim.mailbox()
    found.queued = frozenset(filter(exim.queues, found.ids.values()))
    return found


def _settled(message_id: str) -> str:
    """The line after which no more is to come: where TLS is wanting, Exim bounces the message after it.

    Exim up to 4.99 tells that by numbers (ERRNO_TLSREQUIRED, ERRNO_TLSFAILURE), 4.100 in words alone.
    """
    return rf" {message_id} (Completed|== .* defer(?! \(-3[78]\)| .*: (?:a )?TLS session))"


def _submit(client: SmtpClient, found: Transfer, recipients: Sequence[str]) -> None:
    _greet(client)
    _demand(220, client.command("STARTTLS"))
    found.dialogue.session = client.start_tls(Offer(servername=HOST))
    _demand(250, client.command(f"EHLO {HELO}"))
    for one in recipients:
        _demand(250, client.command(f"MAIL FROM:<{SENDER}>"))
        found.dialogue.replies[one] = client.command(f"RCPT TO:<{one}>")
        if found.dialogue.replies[one].code == 250:
            _demand(354, client.command("DATA"))
            done = _demand(
                250, client.command(f"Subject: self-test for {one}", "", "Nothing but a test.", ".")
            )
            if match := _MESSAGE_ID.search(str(done)):
                found.ids[one] = match[1]
        else:
            client.command("RSET")
    _demand(250, client.command(f"MAIL FROM:<{SENDER}>"))
    found.dialogue.replies[UNKNOWN] = client.command(f"RCPT TO:<{UNKNOWN}>")
    client.command("QUIT")


def _say_last(dialogue: Dialogue, name: str, command: str, client: SmtpClient) -> None:
    """Say a command; after a refusal, see whether the server closes the connection."""
    try:
        reply = dialogue.replies[name] = client.command(command)
        client.command("QUIT") if reply.code == 250 else client.reply("anything more")
    except WireError as problem:
        if isinstance(problem, Closed):
            dialogue.closed.add(name)
        dialogue.transcript.note(problem.message)


def _speak(
    exim: Exim, dialogue: Dialogue, say: Callable[[SmtpClient], None], *, timeout: float = TIMEOUT
) -> None:
    """Connect and, once welcomed, ``say`` something; what goes wrong is the dialogue's trouble."""
    deadline = Deadline(timeout)
    try:
        with Wire(exim.dial(deadline), deadline) as wire:
            client = SmtpClient(wire, dialogue.transcript)
            _demand(220, client.reply("the banner"))
            say(client)
    except WireError as problem:
        dialogue.trouble = problem
        dialogue.transcript.note(problem.message)


def _read_log(exim: Exim, dialogue: Dialogue, pattern: str) -> None:
    """Keep the server's log; where the dialogue came to its end, once it holds ``pattern``."""
    dialogue.log = exim.wait_for_log(pattern, timeout=0 if dialogue.trouble else LOG_TIMEOUT)


def _greet(client: SmtpClient) -> None:
    _demand(250, client.command(f"EHLO {HELO}"))


def _demand(code: int, reply: Reply) -> Reply:
    if reply.code != code:
        raise Refused(f"the server said {reply} where {code} was due", reply)
    return reply
