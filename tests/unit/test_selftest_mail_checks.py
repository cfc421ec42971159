from __future__ import annotations

import re
from dataclasses import replace

import pytest

from backport.artifacts import Check, Verdict
from backport.probe.errors import NoAnswer
from backport.probe.ledger import Ledger
from backport.probe.smtp import Reply
from backport.recipe import Handshake
from backport.selftest import mail, mail_checks
from backport.selftest.mail import COARSE, LOCAL, REFINED, Dialogue, SenderRule, Transfer
from backport.selftest.sink import Behaviour, Sink

AFTER = Handshake(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")
SUITE = "TLS_AES_256_GCM_SHA384:256"
TIME = "2026-11-24 04:17:46"
HELO_LINE = f"{TIME} H=[127.0.0.1] rejected EHLO or HELO ylmf-pc: identified as ylmf-pc Botnet\n"
RECEIVED = {
    "4.91": f"with esmtps (TLSv1.3:{SUITE})\n\t(Exim 4.91)",
    "4.96": "with esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384\n\t(Exim 4.96)",
    "4.100": "with esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384\n\t(Exim 4.100.1)",
}
X = {"4.91": f"TLSv1.3:{SUITE}", "4.96": f"TLS1.3:{SUITE}", "4.100": f"TLS1.3:{SUITE}:x25519"}
"""With OpenSSL 3.2 or later, 4.100 adds the key exchange's group."""
DEFER = {
    "4.91": ("(-38)", "(0)", "(-37)"),
    "4.96": ("(-38) H=s [127.0.0.11]", "(0) H=s [127.0.0.12]", "(-37) H=s [127.0.0.13]"),
    "4.100": ("H=s [127.0.0.11]", "H=s [127.0.0.12]", "H=s [127.0.0.13]"),
}
"""How a deferral is written: where TLS is not offered, where it is refused for now, where it fails."""


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(mail_checks.PLAN)


def result(ledger: Ledger, check_id: str) -> Check:
    return next(check for check in ledger.checks() if check.id == check_id)


def reply(text: str) -> Reply:
    return Reply(code=int(text[:3]), lines=(text,))


def test_a_botnet_that_is_dropped_passes(ledger: Ledger) -> None:
    dialogue = Dialogue(replies={"EHLO": reply("550 no")}, closed={"EHLO"}, log=HELO_LINE)
    mail_checks.judge_helo(ledger, dialogue)
    assert result(ledger, "mail.helo-botnet").verdict is Verdict.PASS


def test_a_connection_that_ends_before_the_reply_is_read_passes(ledger: Ledger) -> None:
    mail_checks.judge_helo(ledger, Dialogue(closed={"EHLO"}, log=HELO_LINE))
    assert result(ledger, "mail.helo-botnet").verdict is Verdict.PASS


@pytest.mark.parametrize(
    "dialogue",
    [
        Dialogue(replies={"EHLO": reply("250 hello")}, closed={"EHLO"}, log=HELO_LINE),
        Dialogue(replies={"EHLO": reply("550 no")}, log=HELO_LINE),
        Dialogue(replies={"EHLO": reply("550 no")}, closed={"EHLO"}, log=""),
        Dialogue(log=HELO_LINE),
    ],
    ids=["welcomed", "not dropped", "not logged", "silent"],
)
def test_a_botnet_that_is_not_dropped_fails(ledger: Ledger, dialogue: Dialogue) -> None:
    mail_checks.judge_helo(ledger, dialogue)
    found = result(ledger, "mail.helo-botnet")
    assert found.verdict is Verdict.FAIL
    assert "--policy helo-botnet" in found.advice


def test_a_dialogue_that_broke_off_proves_nothing(ledger: Ledger) -> None:
    broken = Dialogue(trouble=NoAnswer("no answer within 5 s"))
    mail_checks.judge_helo(ledger, broken)
    mail_checks.judge_senders(ledger, "mail.sender-botnet.coarse", COARSE, broken)
    mail_checks.judge_greeting(ledger, broken)
    mail_checks.judge_recipients(ledger, broken, Dialogue())
    mail_checks.judge_unknown(ledger, broken)
    mail_checks.judge_transfer(ledger, Transfer(dialogue=broken), AFTER)
    expected = dict.fromkeys(mail_checks.PLAN, Verdict.ERROR)
    assert {check.id: check.verdict for check in ledger.checks()} == expected
    assert result(ledger, "mail.outbound.delivered").found == "no answer within 5 s"


def senders(rule: SenderRule, *, log: bool = True) -> Dialogue:
    lines = [
        f"{TIME} H=(x) [127.0.0.1] F=<{mail.address(one)}> rejected MAIL <{mail.address(one)}>: "
        "identified as Anastasia Botnet\n"
        for one in rule.refused
    ]
    replies = {one: reply("550 no") for one in rule.refused} | {one: reply("250 OK") for one in rule.passed}
    return Dialogue(replies=replies, closed=set(rule.refused), log="".join(lines) if log else "")


RULES = pytest.mark.parametrize(
    ("check_id", "rule"), [("mail.sender-botnet.coarse", COARSE), ("mail.sender-botnet.refined", REFINED)]
)


@RULES
def test_senders_as_the_rule_has_it_pass(ledger: Ledger, check_id: str, rule: SenderRule) -> None:
    mail_checks.judge_senders(ledger, check_id, rule, senders(rule))
    assert result(ledger, check_id).verdict is Verdict.PASS


@RULES
def test_every_wrong_reply_fails(check_id: str, rule: SenderRule) -> None:
    for one in (*rule.refused, *rule.passed):
        dialogue = senders(rule)
        dialogue.replies[one] = reply("250 OK" if one in rule.refused else "550 no")
        ledger = Ledger(mail_checks.PLAN)
        mail_checks.judge_senders(ledger, check_id, rule, dialogue)
        found = result(ledger, check_id)
        assert found.verdict is Verdict.FAIL
        assert found.found.startswith(f"{one}: ")


@RULES
def test_a_sender_who_may_try_another_address_fails(check_id: str, rule: SenderRule) -> None:
    for one in rule.refused:
        dialogue, ledger = senders(rule), Ledger(mail_checks.PLAN)
        dialogue.closed.remove(one)
        mail_checks.judge_senders(ledger, check_id, rule, dialogue)
        assert result(ledger, check_id).found.startswith(f"{one}: ")


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("503 no", Verdict.PASS),
        ("550 no", Verdict.PASS),
        ("250 OK", Verdict.FAIL),
        ("451 later", Verdict.FAIL),
    ],
)
def test_greetings_and_unknown_recipients(ledger: Ledger, said: str, verdict: Verdict) -> None:
    mail_checks.judge_greeting(ledger, Dialogue(replies={"MAIL": reply(said)}))
    mail_checks.judge_unknown(ledger, Dialogue(replies={mail.UNKNOWN: reply(said)}))
    for check_id in ("mail.requires-helo", "mail.unknown-recipient"):
        assert result(ledger, check_id).verdict is verdict


@RULES
def test_a_missing_log_line_fails(ledger: Ledger, check_id: str, rule: SenderRule) -> None:
    mail_checks.judge_senders(ledger, check_id, rule, senders(rule, log=False))
    assert "no log line" in result(ledger, check_id).found


REFUSED = Dialogue(
    replies={"RCPT": reply("550 Sender did not use TLS secured connection.")},
    log=f"{TIME} H=x [127.0.0.1] rejected RCPT <{LOCAL}>: Sender did not use TLS secured connection.\n",
)
ACCEPTED = Dialogue(replies={LOCAL: reply("250 Accepted")})


def test_recipients_over_tls_only_pass(ledger: Ledger) -> None:
    mail_checks.judge_recipients(ledger, REFUSED, ACCEPTED)
    assert result(ledger, "mail.rcpt-requires-tls").verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("clear", "secure"),
    [
        (replace(REFUSED, replies={"RCPT": reply("250 Accepted")}), ACCEPTED),
        (replace(REFUSED, replies={"RCPT": reply("550 relay not permitted")}), ACCEPTED),
        (replace(REFUSED, log=""), ACCEPTED),
        (REFUSED, Dialogue(replies={LOCAL: reply("550 no")})),
    ],
    ids=["accepted in clear", "refused for another reason", "not logged", "refused over TLS"],
)
def test_recipients_otherwise_fail(ledger: Ledger, clear: Dialogue, secure: Dialogue) -> None:
    mail_checks.judge_recipients(ledger, clear, secure)
    assert result(ledger, "mail.rcpt-requires-tls").verdict is Verdict.FAIL


def transfer(version: str = "4.96", *, clear: bytes = b"EHLO x\r\nSTARTTLS\r\nQUIT\r\n") -> Transfer:
    """A transfer in which everything came as it should, as that version of Exim logs it."""
    not_offered, not_now, failed = DEFER[version]
    ids = {LOCAL: "1-local", **{mail.recipient(one): f"1-{one}" for one in Behaviour}}
    refused = mail.recipient(Behaviour.REFUSED_STARTTLS)
    good = mail.recipient(Behaviour.GOOD)
    log = (
        f"{TIME} 1-local <= {mail.SENDER} H=x [127.0.0.1] P=esmtps X={X[version]} CV=no S=300\n"
        f"{TIME} 1-no-starttls == x R=a T=b defer {not_offered}: a TLS session is required, but the server "
        "did not offer TLS support\n"
        f"{TIME} 1-no-starttls ** x: retry timeout exceeded\n"
        f"{TIME} 1-bounce <= <> R=1-no-starttls U=exim P=local S=1659\n"
        f"{TIME} 1-refused-starttls == {refused} R=a T=b defer {not_now}: SMTP error from remote mail "
        "server after STARTTLS: 454 TLS not available\n"
        f"{TIME} 1-failed-handshake == x R=a T=b defer {failed}: TLS session: (SSL_connect): error:1\n"
        f"{TIME} 1-failed-handshake ** x: retry timeout exceeded\n"
        f"{TIME} 1-good => {good} R=a T=b H=x [127.0.0.14] X={X[version]} CV=no\n"
    )
    received = RECEIVED[version]
    return Transfer(
        dialogue=Dialogue(replies={LOCAL: reply("250 Accepted")}, log=log),
        ids=ids,
        sinks={
            one: Sink(
                behaviour=one,
                address="127.0.0.11",
                clear=[clear],
                connections=1,
                messages=[f"for {good}".encode()] if one is Behaviour.GOOD else [],
            )
            for one in Behaviour
        },
        mailbox=f"From a@b Tue\nReceived: from x\n\tby y {received}\n\tid 1-local\n\nbody\n",
        queued=frozenset({"1-refused-starttls"}),
    )


def judged(found: Transfer) -> dict[str, Verdict]:
    ledger = Ledger(mail_checks.PLAN)
    mail_checks.judge_transfer(ledger, found, AFTER)
    return {
        check.id: check.verdict
        for check in ledger.checks()
        if check.id.startswith(("mail.outbound.", "mail.inbound."))
    }


@pytest.mark.parametrize("version", RECEIVED)
def test_a_transfer_as_it_should_be_passes_whatever_exim_calls_tls(version: str) -> None:
    assert set(judged(transfer(version)).values()) == {Verdict.PASS}


@pytest.mark.parametrize("version", RECEIVED)
def test_the_line_is_known_after_which_no_more_is_to_come(version: str) -> None:
    log = transfer(version).dialogue.log
    settled = {one for one in Behaviour if re.search(mail._settled(f"1-{one}"), log)}
    assert settled == {Behaviour.REFUSED_STARTTLS}
    bounced = f"{log}{TIME} 1-no-starttls Completed\n"
    assert re.search(mail._settled("1-no-starttls"), bounced)


def failing(found: Transfer) -> set[str]:
    return {check_id for check_id, verdict in judged(found).items() if verdict is not Verdict.PASS}


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_any_part_of_a_message_in_clear_fails(behaviour: Behaviour) -> None:
    found = transfer()
    found.sinks[behaviour].clear = [b"EHLO x\r\nMAIL", b" FROM:<a@b>\r\n"]
    check = "delivered" if behaviour is Behaviour.GOOD else behaviour
    assert failing(found) == {f"mail.outbound.{check}"}


@pytest.mark.parametrize(
    ("old", "new", "check_id"),
    [
        ("1-no-starttls **", "1-no-starttls ==", "mail.outbound.no-starttls"),
        ("<= <> R=1-no-starttls", "", "mail.outbound.no-starttls"),
        ("1-refused-starttls ==", "1-refused-starttls **", "mail.outbound.refused-starttls"),
        ("1-failed-handshake **", "1-failed-handshake", "mail.outbound.failed-handshake"),
        ("[127.0.0.14] X=TLS1.3", "[127.0.0.14] X=TLS1.2", "mail.outbound.delivered"),
        ("[127.0.0.14] X=TLS1.3:TLS", "[127.0.0.14] TLS", "mail.outbound.delivered"),
        ("P=esmtps X=TLS1.3:TLS_AES_256", "P=esmtps X=TLS1.3:TLS_AES_128", "mail.inbound.log"),
        ("P=esmtps X=TLS1.3:", "P=esmtp Y=", "mail.inbound.log"),
    ],
)
def test_another_log_line_fails_its_own_check(old: str, new: str, check_id: str) -> None:
    found = transfer()
    assert old in found.dialogue.log
    found.dialogue.log = found.dialogue.log.replace(old, new)
    assert failing(found) == {check_id}


@pytest.mark.parametrize(
    ("old", "new"),
    [("TLS1.3", "TLS1.2"), ("AES_256", "AES_128"), ("1-local", "1-other"), ("Received", "Subject")],
)
def test_another_received_header_fails(old: str, new: str) -> None:
    found = transfer()
    found.mailbox = found.mailbox.replace(old, new)
    assert failing(found) == {"mail.inbound.received"}


def test_a_sink_that_nobody_came_to_proves_nothing() -> None:
    found = transfer()
    found.sinks[Behaviour.REFUSED_STARTTLS].connections = 0
    assert failing(found) == {"mail.outbound.refused-starttls"}


def test_a_message_that_has_left_the_queue_is_not_queued() -> None:
    assert failing(replace(transfer(), queued=frozenset())) == {"mail.outbound.refused-starttls"}


def test_a_message_that_was_not_taken_is_an_error_of_its_check_alone() -> None:
    found = transfer()
    del found.ids[LOCAL]
    assert failing(found) == {"mail.inbound.log", "mail.inbound.received"}
