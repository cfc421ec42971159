"""What mail came to, judged: each rule by its dialogue and its log line. Everything here is pure.

Log lines are those of Exim's main log (specification, chapter "Log files"); the versions differ in how
they write TLS: ``X=TLSv1.3:SUITE:BITS`` up to 4.93, ``X=TLS1.3:SUITE:BITS`` since, to which 4.100 adds
the key exchange's group where the TLS library tells it.
"""

from __future__ import annotations

import email
import re
from collections.abc import Callable, Iterator

from backport.artifacts import Finding, Verdict
from backport.probe.ledger import Ledger, tail
from backport.recipe import Handshake
from backport.selftest import mail
from backport.selftest.mail import Dialogue, SenderRule, Transfer
from backport.selftest.sink import Behaviour

PLAN = {
    "mail.helo-botnet": "a client that greets as a botnet is sent away",
    "mail.sender-botnet.coarse": "botnet senders are refused by the coarse rule",
    "mail.sender-botnet.refined": "botnet senders are refused by the refined rule, and no others",
    "mail.requires-helo": "nobody sends who has not greeted",
    "mail.rcpt-requires-tls": "recipients are accepted over TLS only",
    "mail.unknown-recipient": "an unknown recipient is refused at RCPT",
    "mail.outbound.no-starttls": "mail to a server without STARTTLS comes back at once",
    "mail.outbound.refused-starttls": "mail to a server that answers STARTTLS by 454 waits in the queue",
    "mail.outbound.failed-handshake": "mail to a server whose TLS handshake fails is not sent in clear",
    "mail.outbound.delivered": "mail to a good server is delivered over TLS",
    "mail.inbound.log": "the log names the TLS of incoming mail",
    "mail.inbound.received": "the Received header names the TLS of incoming mail",
}
NEED_TLS = ("mail.rcpt-requires-tls", "mail.unknown-recipient", "mail.outbound.", "mail.inbound.")
"""Prefixes of the checks that take a server which does STARTTLS."""

BOTNET = "identified as Anastasia Botnet"
NO_TLS = "Sender did not use TLS secured connection."
_NOTHING_IN_CLEAR = "nothing of the message in clear"
_HARMLESS = frozenset({b"EHLO", b"HELO", b"STARTTLS", b"QUIT", b"RSET", b"NOOP"})
"""What a client may say in clear without giving anything of a message away."""
_SHOW_RULE = "Compare Exim's configuration with the rule that `backport exim-config --policy {}` prints."


def judge_helo(ledger: Ledger, dialogue: Dialogue) -> None:
    """The botnet's greeting: 550, or at once the end of the connection, and the log line."""
    reply = dialogue.replies.get("EHLO")
    closed = "EHLO" in dialogue.closed
    logged = _logged(dialogue.log, f"rejected EHLO or HELO {mail.BOTNET_HELO}")
    if _unfinished(ledger, "mail.helo-botnet", dialogue):
        return
    said = str(reply) if reply else "no reply"
    ledger.record(
        "mail.helo-botnet",
        Finding.judged(
            good=closed and (reply is None or reply.code == 550) and bool(logged),
            expected="550, the connection closed, a log line",
            found=f"{said}, {'closed' if closed else 'not closed'}, {_or_no_line(logged)}",
            evidence=logged,
            advice=_SHOW_RULE.format("helo-botnet"),
        ),
    )


def judge_senders(ledger: Ledger, check_id: str, rule: SenderRule, dialogue: Dialogue) -> None:
    """Every sender of a rule: refused with a log line, or passed."""
    if _unfinished(ledger, check_id, dialogue):
        return
    wrong = [*_wrong_replies(rule, dialogue), *_wrong_lines(rule, dialogue.log)]
    expected = f"{len(rule.refused)} of {len(dialogue.replies)} senders refused, logged as '{BOTNET}'"
    ledger.record(
        check_id,
        Finding.judged(
            good=not wrong,
            expected=expected,
            found="; ".join(wrong) or expected,
            evidence="; ".join(f"{local_part}: {reply}" for local_part, reply in dialogue.replies.items()),
            advice=_SHOW_RULE.format(rule.policy),
        ),
    )


def _wrong_replies(rule: SenderRule, dialogue: Dialogue) -> Iterator[str]:
    for local_part, reply in dialogue.replies.items():
        if reply.code != (550 if local_part in rule.refused else 250):
            yield f"{local_part}: {reply}"
        elif local_part in rule.refused and local_part not in dialogue.closed:
            yield f"{local_part}: may try another sender, the connection was not closed"


def _wrong_lines(rule: SenderRule, log: str) -> Iterator[str]:
    for local_part in rule.refused:
        if not _logged(log, f"rejected MAIL <{mail.address(local_part)}>: {BOTNET}"):
            yield f"{local_part}: no log line '{BOTNET}'"
    for local_part in rule.passed:
        if _logged(log, f"rejected MAIL <{mail.address(local_part)}>"):
            yield f"{local_part}: in the log as rejected"


def judge_greeting(ledger: Ledger, dialogue: Dialogue) -> None:
    """A sender without a greeting before it: refused, in whatever words."""
    _judge_refusal(ledger, "mail.requires-helo", dialogue, "MAIL", _SHOW_RULE.format("require-helo"))


def judge_unknown(ledger: Ledger, dialogue: Dialogue) -> None:
    """A recipient whom the server does not know: refused, and not bounced later to a forged sender."""
    advice = "Put `!verify = recipient` into acl_smtp_rcpt, as `backport exim-config` prints it."
    _judge_refusal(ledger, "mail.unknown-recipient", dialogue, mail.UNKNOWN, advice)


def _judge_refusal(ledger: Ledger, check_id: str, dialogue: Dialogue, said: str, advice: str) -> None:
    reply = dialogue.replies.get(said)
    if reply is None:
        _unfinished(ledger, check_id, dialogue)
    else:
        ledger.record(
            check_id,
            Finding.judged(
                good=reply.code in (503, 550), expected="503 or 550", found=str(reply), advice=advice
            ),
        )


def judge_recipients(ledger: Ledger, clear: Dialogue, secure: Dialogue) -> None:
    """A recipient in clear, refused in the rule's words and logged, and the same over TLS, accepted."""
    check_id = "mail.rcpt-requires-tls"
    if _unfinished(ledger, check_id, clear) or (
        mail.LOCAL not in secure.replies and _unfinished(ledger, check_id, secure)
    ):
        return
    refusal, acceptance = clear.replies["RCPT"], secure.replies[mail.LOCAL]
    logged = _logged(clear.log, f"rejected RCPT <{mail.LOCAL}>: {NO_TLS}")
    ledger.record(
        check_id,
        Finding.judged(
            good=str(refusal) == f"550 {NO_TLS}" and acceptance.code == 250 and bool(logged),
            expected=f"in clear 550 {NO_TLS}, with a log line; over TLS 250",
            found=f"in clear {refusal}, {_or_no_line(logged)}; over TLS {acceptance}",
            evidence=logged,
            advice=_SHOW_RULE.format("require-tls-inbound"),
        ),
    )


def judge_transfer(ledger: Ledger, transfer: Transfer, expected: Handshake) -> None:
    """What came of every message that was handed in."""
    _judge_outbound(ledger, transfer, Behaviour.NO_STARTTLS, "bounced at once", _is_bounced)
    _judge_outbound(ledger, transfer, Behaviour.REFUSED_STARTTLS, "queued", _is_queued)
    _judge_outbound(ledger, transfer, Behaviour.FAILED_HANDSHAKE, "bounced or queued", _is_kept)
    _judge_delivery(ledger, transfer, expected)
    _judge_inbound_log(ledger, transfer, expected)
    _judge_received(ledger, transfer, expected)


def _judge_outbound(
    ledger: Ledger,
    transfer: Transfer,
    behaviour: Behaviour,
    fate: str,
    is_so: Callable[[Transfer, str], bool],
) -> None:
    check_id, recipient = f"mail.outbound.{behaviour}", mail.recipient(behaviour)
    message_id = transfer.ids.get(recipient)
    if message_id is None:
        return _not_taken(ledger, check_id, transfer, recipient)
    sink = transfer.sinks[behaviour]
    leaked = _leak(b"".join(sink.clear))
    found = [
        _fate(transfer, message_id),
        *([] if sink.connections else ["the server was never connected to"]),
        f"sent in clear: {leaked}" if leaked else _NOTHING_IN_CLEAR,
    ]
    return ledger.record(
        check_id,
        Finding.judged(
            good=bool(sink.connections) and not leaked and is_so(transfer, message_id),
            expected=f"{fate}, {_NOTHING_IN_CLEAR}",
            found=", ".join(found),
            evidence=_lines_of(transfer, message_id),
            advice=_SHOW_RULE.format("require-tls-outbound"),
        ),
    )


def _judge_delivery(ledger: Ledger, transfer: Transfer, expected: Handshake) -> None:
    check_id, recipient = "mail.outbound.delivered", mail.recipient(Behaviour.GOOD)
    message_id = transfer.ids.get(recipient)
    if message_id is None:
        return _not_taken(ledger, check_id, transfer, recipient)
    line = _logged(transfer.dialogue.log, f"{message_id} => {recipient}")
    field = _tls_field(line)
    sink = transfer.sinks[Behaviour.GOOD]
    leaked = _leak(b"".join(sink.clear))
    taken = any(recipient.encode() in message for message in sink.messages)
    return ledger.record(
        check_id,
        Finding.judged(
            good=taken and not leaked and field.startswith(f"{expected.protocol}:"),
            expected=f"delivered with X={expected.protocol} in the log, {_NOTHING_IN_CLEAR}",
            found=", ".join(
                [
                    _fate(transfer, message_id) + (f" with X={field}" if field else ", no X= in the log"),
                    f"sent in clear: {leaked}" if leaked else _NOTHING_IN_CLEAR,
                ]
            ),
            evidence=_lines_of(transfer, message_id),
            advice="Check the transport's tls_require_ciphers and hosts_require_tls against the line's X=.",
        ),
    )


def _judge_inbound_log(ledger: Ledger, transfer: Transfer, expected: Handshake) -> None:
    message_id = transfer.ids.get(mail.LOCAL)
    if message_id is None:
        return _not_taken(ledger, "mail.inbound.log", transfer, mail.LOCAL)
    line = _logged(transfer.dialogue.log, f"{message_id} <= ")
    field = _tls_field(line)
    wanted = _named(expected)
    return ledger.record(
        "mail.inbound.log",
        Finding.judged(
            good=f"{field}:".startswith(f"{wanted}:"),
            expected=f"X={wanted}",
            found=f"X={field}" if field else "no X= in the line" if line else "no line",
            evidence=line,
            advice="Put +tls_cipher into log_selector; for another version or suite see after.protocol.",
        ),
    )


def _judge_received(ledger: Ledger, transfer: Transfer, expected: Handshake) -> None:
    message_id = transfer.ids.get(mail.LOCAL)
    if message_id is None:
        return _not_taken(ledger, "mail.inbound.received", transfer, mail.LOCAL)
    header = received_header(transfer.mailbox, message_id)
    words = re.split(r"[\s():]+", header.replace("TLSv1", "TLS1"))
    wanted = [expected.protocol.replace("TLSv1", "TLS1"), *_common_names(expected)]
    return ledger.record(
        "mail.inbound.received",
        Finding.judged(
            good=all(word in words for word in wanted),
            expected=_named(expected).replace(":", " and "),
            found=_protocol_of(header) or "the message was not delivered",
            evidence=header,
            advice="Leave received_header_text at its default, which names the TLS that a message came over.",
        ),
    )


def _common_names(expected: Handshake) -> Iterator[str]:
    """The suite, where OpenSSL and the standards call it alike: since 4.93 Exim uses the standards' name."""
    if expected.cipher and expected.cipher.startswith("TLS_"):
        yield expected.cipher


def received_header(mailbox: str, message_id: str) -> str:
    """The newest Received header of the message with Exim's ``message_id`` in a file of type mbox."""
    for text in re.split(r"^From .*\n", mailbox, flags=re.MULTILINE):
        headers = email.message_from_string(text).get_all("Received", [])
        newest = " ".join(str(headers[0]).split()) if headers else ""
        if f"id {message_id}" in newest:
            return newest
    return ""


def _protocol_of(header: str) -> str:
    """What a Received header says of how the message came."""
    match = re.search(r"\bwith (.*?) \(Exim ", header)
    return match[1] if match else header


def _is_bounced(transfer: Transfer, message_id: str) -> bool:
    reason = "a TLS session is required, but the server did not offer TLS support"
    log = transfer.dialogue.log
    return all(_logged(log, text) for text in (f"{message_id} ** ", f"<= <> R={message_id}", reason))


def _is_queued(transfer: Transfer, message_id: str) -> bool:
    return message_id in transfer.queued and bool(_logged(transfer.dialogue.log, f"{message_id} == "))


def _is_kept(transfer: Transfer, message_id: str) -> bool:
    log = transfer.dialogue.log
    return bool(_logged(log, f"{message_id} ** ")) or _is_queued(transfer, message_id)


def _fate(transfer: Transfer, message_id: str) -> str:
    log = transfer.dialogue.log
    for mark, fate in ((" ** ", "bounced"), (" => ", "delivered"), (" == ", "queued")):
        if _logged(log, f"{message_id}{mark}"):
            return fate
    return "not tried"


def _leak(clear: bytes) -> str:
    """The first line in clear that is more than a greeting or a question for TLS."""
    for line in clear.splitlines():
        if line.split(b" ", 1)[0].upper() not in _HARMLESS:
            return tail(line.decode("latin-1"))
    return ""


def _tls_field(line: str) -> str:
    """The log line's field X=, its version as OpenSSL writes it: ``TLSv1.3:SUITE:256``."""
    match = re.search(r" X=TLSv?(1[.\d]*:\S+)", line)
    return f"TLSv{match[1]}" if match else ""


def _named(expected: Handshake) -> str:
    return f"{expected.protocol}:{expected.cipher}" if expected.cipher else expected.protocol


def _logged(log: str, text: str) -> str:
    """The log's first line with ``text`` in it."""
    return tail(next((line for line in log.splitlines() if text in line), ""))


def _or_no_line(logged: str) -> str:
    return "logged" if logged else "no log line"


def _lines_of(transfer: Transfer, message_id: str) -> str:
    return tail("\n".join(line for line in transfer.dialogue.log.splitlines() if message_id in line))


def _not_taken(ledger: Ledger, check_id: str, transfer: Transfer, recipient: str) -> None:
    """Nothing can be said of a message that the server did not take."""
    reply, trouble = transfer.dialogue.replies.get(recipient), transfer.dialogue.trouble
    found = trouble.message if trouble else f"the server did not take the message: {reply}"
    ledger.record(
        check_id,
        Finding(
            verdict=Verdict.ERROR,
            expected="a message handed in over TLS",
            found=found,
            evidence=tail(transfer.dialogue.log),
            advice="Mend what Exim's log, the evidence, names: it does not take mail over TLS.",
        ),
    )


def _unfinished(ledger: Ledger, check_id: str, dialogue: Dialogue) -> bool:
    """Record an error where the dialogue did not come to its end."""
    if dialogue.trouble is None:
        return False
    ledger.record(
        check_id,
        Finding(
            verdict=Verdict.ERROR,
            expected="a dialogue with the server",
            found=dialogue.trouble.message,
            evidence=tail(dialogue.log),
            advice="Mend what Exim's log, the evidence, names: the dialogue ended early.",
        ),
    )
    return True
