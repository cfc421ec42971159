"""Lines of Exim's main log: what each says, what none may pretend, and the count of them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from backport.commands.maillog_view import arranged, shown
from backport.commands.terminal import output
from backport.errors import UsageError
from backport.maillog import files, read
from backport.maillog import lines as grammar
from backport.maillog.tally import Direction, Place, Report, Tally, Tls, Usage, version
from backport.progress import Silent
from tests.conformity import check_document

IN, OUT = Direction.IN, Direction.OUT
TIME = "2019-01-28 22:49:51"
ID = "1goEaD-0001Xy-Ab"
NEW_ID = "1xVlcd-0000000000G-0mh2"
"""As Exim makes them since 4.97."""
DEFERRED = f"{NEW_ID} == r@example.com R=r T=t defer H=mx.example.com"
"""As Exim writes it since 4.100: without a number."""
WAITS = f"{ID} == r@example.com R=r T=t"
CLOSED = "Remote host closed connection in response to"
ARRIVED = f"{TIME} {ID} <= sender@example.org "
DELIVERED = f"{TIME} {ID} => rcpt@example.com R=dnslookup T=remote_smtp "
TLS12 = "X=TLSv1.2:ECDHE-RSA-AES256-GCM-SHA384:256"
TLS13 = "X=TLSv1.3:TLS_AES_256_GCM_SHA384:256"


def counted(*lines: str | bytes, syslog: bool = False, **options: object) -> Tally:
    tally = Tally(today=date(2026, 3, 10), **options)  # type: ignore[arg-type]  # each test's own
    tally.begin("main.log")
    tally.add([line.encode() if isinstance(line, str) else line for line in lines], syslog=syslog)
    return tally


def found(tally: Tally) -> list[tuple[str, str, str, int]]:
    """Direction, peer, version and messages of all that was counted."""
    return sorted(
        (usage.direction.value, usage.peer, usage.tls.value, usage.messages) for usage in tally.report().peers
    )


def the_one(line: str | bytes) -> Usage:
    tally = counted(line)
    assert tally.report().unclear.lines == 0
    (usage,) = tally.report().peers
    return usage


@pytest.mark.parametrize(
    ("fields", "peer", "tls", "suite"),
    [
        (f"H=mx.example.org [192.0.2.1] P=esmtps {TLS13} CV=no S=1", "mx.example.org", "TLSv1.3",
         "TLS_AES_256_GCM_SHA384"),
        ("H=mx.example.org [192.0.2.1] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 S=1", "mx.example.org",
         "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("H=mx.example.org [192.0.2.1] P=esmtps X=TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256",
         "mx.example.org", "TLSv1.3", "ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM"),
        ("H=[192.0.2.1] P=smtps X=TLS1.0:RSA_AES_256_CBC_SHA1:32 S=1", "192.0.2.1", "TLSv1",
         "RSA_AES_256_CBC_SHA1"),
        ("H=[192.0.2.1] P=smtps X=TLS-1.0:RSA_AES_256_CBC_SHA1:32 S=1", "192.0.2.1", "TLSv1",
         "RSA_AES_256_CBC_SHA1"),
        ("H=[192.0.2.1] P=esmtps X=TLSv1:DHE-RSA-AES256-SHA:256 S=1", "192.0.2.1", "TLSv1",
         "DHE-RSA-AES256-SHA"),
        ("H=[192.0.2.1] P=esmtps X=TLSv1.1:AES256-SHA:256* S=1", "192.0.2.1", "TLSv1.1", "AES256-SHA"),
        ("H=[192.0.2.1] P=esmtps X=SSLv3:DES-CBC3-SHA:168 S=1", "192.0.2.1", "SSLv3", "DES-CBC3-SHA"),
        ("H=[192.0.2.1] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256:x25519 S=1", "192.0.2.1", "TLSv1.3",
         "TLS_AES_256_GCM_SHA384"),
        ("H=[192.0.2.1] P=esmtps X=unknown:SOMETHING:256 S=1", "192.0.2.1", "unknown", ""),
        (f"H=(pc) [2001:db8::1]:4711 I=[2001:db8::25]:25 P=esmtpsa {TLS12} A=plain:me S=1", "2001:db8::1",
         "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("H=mx.example.org (helo.example.net) [192.0.2.1]:25 P=esmtp S=1", "mx.example.org", "none", ""),
        ("H=([192.0.2.9]) [192.0.2.1] P=smtp S=1", "192.0.2.1", "none", ""),
        ("DS H=MX.Example.ORG [192.0.2.1] TFO* Ci=12345 P=esmtp L. S=1", "mx.example.org", "none", ""),
        (f"H=mx.example.org [192.0.2.1] U=nobody P=esmtps L {TLS12} S=1", "mx.example.org", "TLSv1.2",
         "ECDHE-RSA-AES256-GCM-SHA384"),
        (f"H=mx.example.org [192.0.2.1] U=two words P=esmtps {TLS12} S=1", "mx.example.org", "TLSv1.2",
         "ECDHE-RSA-AES256-GCM-SHA384"),
        (f"H=(my own pc) [192.0.2.1] P=esmtps {TLS12} S=1", "192.0.2.1", "TLSv1.2",
         "ECDHE-RSA-AES256-GCM-SHA384"),
        (f"H=(my (old) pc) [192.0.2.1] P=esmtps {TLS12} S=1", "192.0.2.1", "TLSv1.2",
         "ECDHE-RSA-AES256-GCM-SHA384"),
        (f"H=[192.0.2.1] P=esmtps NEW=field {TLS12} S=1", "192.0.2.1", "TLSv1.2",
         "ECDHE-RSA-AES256-GCM-SHA384"),
        ("H=[192.0.2.1] P=esmtps S=1", "192.0.2.1", "unknown", ""),
        ("H=[192.0.2.1] P=utf8esmtpsa S=1", "192.0.2.1", "unknown", ""),
        ("H=[192.0.2.1] P=essmtp S=1", "192.0.2.1", "unknown", ""),
    ],
)  # fmt: skip
def test_arrivals(fields: str, peer: str, tls: str, suite: str) -> None:
    usage = the_one(ARRIVED + fields)
    assert (usage.direction, usage.peer, usage.tls) == (IN, peer, tls)
    assert usage.suites == ({suite: 1} if suite else {})
    assert usage.last_seen == "2019-01-28T22:49:51"
    assert usage.current


WRITTEN = {
    "4.91, OpenSSL": "1grEaD-0001Xy-Ab <= a@x.example H=(c.example) [127.0.0.1] P=esmtps "
    "X=TLSv1.3:TLS_AES_256_GCM_SHA384:256 CV=no SNI=mail.example S=373",
    "4.98, OpenSSL": "1xVlcY-0000000000K-0eVI <= a@x.example H=(c.example) [127.0.0.1] P=esmtps "
    "X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no SNI=mail.example S=373",
    "4.98, GnuTLS": "1xVlfa-00000000004-3f9Y <= a@x.example H=([127.0.0.1]) [127.0.0.1] P=esmtps "
    "X=TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256 CV=no S=268",
    "4.100, OpenSSL": "1xVlcd-0000000000G-0g14 <= a@x.example H=(c.example) [127.0.0.1] P=esmtps "
    "X=TLS1.3:TLS_AES_256_GCM_SHA384:256 SNI=mail.example S=374",
    "4.100, GnuTLS": "1xVlfZ-00000000004-34nH <= a@x.example H=([127.0.0.1]) [127.0.0.1] P=esmtps "
    "X=TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256:X25519 S=269",
}


@pytest.mark.parametrize("line", WRITTEN.values(), ids=WRITTEN)
def test_arrivals_as_each_version_writes_them(line: str) -> None:
    usage = the_one(f"{TIME} {line}")
    assert (usage.peer, usage.tls) == ("127.0.0.1", "TLSv1.3")
    assert list(usage.suites) == [line.partition(" X=TLS")[2].split(":")[1]]


@pytest.mark.parametrize(
    ("fields", "peer", "tls"),
    [
        (f'H=mx.example.com [192.0.2.2] {TLS13} CV=yes C="250 ok"', "mx.example.com", "TLSv1.3"),
        (f'S=812 H=mx.example.com DS [192.0.2.2]:25* I=[192.0.2.9]:4 {TLS12} C="250 ok"', "mx.example.com",
         "TLSv1.2"),
        (f'H=mx.example.com [192.0.2.2]:25 PRX=[127.0.0.1]:1080 TFO PS=x {TLS12} A=plain L K C="250 ok"',
         "mx.example.com", "TLSv1.2"),
        ('H=192.0.2.2 [192.0.2.2] C="250 ok"', "192.0.2.2", "none"),
        ('H=mx.example.com [2001:db8::2] CV=no C="250 ok"', "mx.example.com", "unknown"),
        ('H=mx.example.com [192.0.2.2] C="250 said X=TLSv1.3:FAKE:256 CV=yes" QT=1s DT=0s', "mx.example.com",
         "none"),
        (r'H=mx.example.com [192.0.2.2] C="250 \" X=TLSv1.3:FAKE:256 \\" QT=1s', "mx.example.com", "none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("flag", ["=>", "->", ">>"])
def test_deliveries(flag: str, fields: str, peer: str, tls: str) -> None:
    usage = the_one((DELIVERED + fields).replace("=>", flag, 1))
    assert (usage.direction, usage.peer, usage.tls, usage.messages) == (OUT, peer, tls, 1)


@pytest.mark.parametrize(
    "recipient",
    [
        "rcpt@example.com <alias@example.org>",
        "rcpt@example.com (middle@example.org) <alias@example.org>",
        'rcpt@example.com F=<sender@example.org> Q=slow P=<"a > b"@example.org>',
        '"two words T=x H=mx.fake [192.0.2.66]"@example.com',
        'a."b c".d@example.com <"x > y"@example.org>',
    ],
)
def test_deliveries_to_addresses_of_every_kind(recipient: str) -> None:
    usage = the_one(f"{TIME} {ID} => {recipient} R=r T=t H=mx.example.com [192.0.2.2] {TLS12}")
    assert (usage.peer, usage.tls) == ("mx.example.com", Tls.TLS1_2)


@pytest.mark.parametrize(
    "start",
    [
        f"{TIME}.123 {ID}",
        f"{TIME} +0100 {ID}",
        f"{TIME}.123 -0330 [4711] {ID}",
        f"{TIME} [4711] {ID}",
        f"{TIME} 1goEaD-00000001Xyz-Ab12",
    ],
)
def test_log_selectors_of_time_and_process(start: str) -> None:
    usage = the_one(f"{start} <= <> H=[192.0.2.1] P=esmtp S=1")
    assert usage.last_seen[:19] == "2019-01-28T22:49:51"
    assert usage.last_seen[19:] == {"+": "+01:00", "-": "-03:30"}.get(start.split(" ")[2][0], "")


@pytest.mark.parametrize(
    "line",
    [
        ARRIVED + "U=root P=local S=520",
        f"{TIME} {ID} <= <> R=1goEaC-0001Xw-Aa U=exim P=local S=1900",
        f"{TIME} {ID} => user <user@example.org> R=localuser T=local_delivery",
        f"{TIME} {ID} => user@example.org R=r1 T=appendfile H=example.org",
        f"{TIME} {ID} => |/usr/bin/vacation user (user@example.org) <alias@example.org> R=f T=address_pipe",
        f"{TIME} {ID} => /var/mail/x <user@example.org> R=f T=address_file",
        f"{TIME} {ID} *> user@example.org R=r T=t H=mx.example.org [192.0.2.1]",
        f"{TIME} {ID} (= user@example.org H=[192.0.2.1] P=esmtp S=1",
        f"{TIME} {ID} Completed",
        f"{TIME} {ID} ** rcpt@example.com R=r T=t H=mx [192.0.2.2] {TLS12}: 550 no",
        f"{TIME} H=(x) [192.0.2.1] {TLS12} F=<a@example.org> rejected RCPT <b@example.org>: no",
        f'{TIME} SMTP syntax error in "{ARRIVED}H=[192.0.2.1] P=esmtp" H=[192.0.2.3] unrecognized command',
        f"{TIME} ETRN example.org received from mx.example.org [192.0.2.1]",
        "",
        "\0\xff garbage",
    ],
)
def test_lines_that_are_no_answer_to_the_question(line: str) -> None:
    tally = counted(line)
    assert found(tally) == []
    assert tally.report().unclear.lines == 0


@pytest.mark.parametrize(
    "forged",
    [
        'id=x@y T="Re: X=TLS1.0:RSA:32 H=victim [192.0.2.66] P=esmtp" for z@example.org',
        r'T="\" X=TLS1.0:RSA:32 CV=no \\\" X=TLS1.0:RSA:32"',
        'id="a X=TLS1.0:RSA:32 "@example.org',
        'id=x from <"X=TLS1.0 X=TLS1.0:R:1"@example.org> for "a X=TLS1.0:RSA:32"@example.org',
        'A=plain:me PRX=192.0.2.7 T="=> r@e R=r T=t H=victim [192.0.2.66] X=TLS1.0:RSA:32"',
        'T="(x) [192.0.2.66]"',
    ],
)
def test_what_senders_choose_imitates_no_field(forged: str) -> None:
    plain = f"H=mx.example.org (helo) [192.0.2.1] P=esmtp S=1 {forged}"
    assert found(counted(ARRIVED + plain)) == [("in", "mx.example.org", "none", 1)]
    certified = f'H=mx.example.org (helo) [192.0.2.1] P=esmtps {TLS13} DN="CN=a\\" X=TLS1.0:R:1" S=1 {forged}'
    assert found(counted(ARRIVED + certified)) == [("in", "mx.example.org", "TLSv1.3", 1)]


def test_the_senders_address_imitates_no_field() -> None:
    sender = '"x H=victim [192.0.2.66] P=esmtps X=TLS1.0:R:1 \\" "@example.org'
    line = f"{TIME} {ID} <= {sender} H=[192.0.2.1] P=esmtp"
    assert found(counted(line)) == [("in", "192.0.2.1", "none", 1)]


@pytest.mark.parametrize(
    "line",
    [
        ARRIVED + f"H=(a) [192.0.2.66] P=esmtp S=1) [192.0.2.1] P=esmtps {TLS13} S=1",
        ARRIVED + f"H=(a) [192.0.2.66]:1 P=esmtps {TLS13} (b) [192.0.2.1]:2 P=esmtp S=1",
        ARRIVED + f"H=[192.0.2.1] U=me P=esmtps {TLS13} P=esmtp S=1",
        ARRIVED + f"H=[192.0.2.1] U=me and you P=esmtps {TLS13} P=esmtp S=1",
        ARRIVED + "H=(x H=victim [192.0.2.66] P=esmtps [192.0.2.1] P=esmtp S=1",
        ARRIVED + "H=weird stuff",
        f"{TIME} {ID} => |/bin/x@y R=r T=t H=victim [192.0.2.66] X=TLS1.0:R:1 <u@e> R=f T=address_pipe",
        f"{TIME} {ID} => /x y H=victim [192.0.2.66] <u@e> R=f T=address_file",
        ARRIVED + "H=(" + "a" * 20_000 + "( ) [192.0.2.1] P=esmtp",
    ],
)
def test_what_can_be_read_in_two_ways_is_credited_to_nobody(line: str) -> None:
    tally = counted("", line)
    assert found(tally) == []
    assert tally.report().unclear.lines == 1
    assert tally.report().unclear.first == Place(file="main.log", line=2)


def test_a_message_counts_once_for_a_peer_whatever_the_number_of_recipients() -> None:
    one = DELIVERED + f"H=mx.example.com [192.0.2.2] {TLS12}"
    other = one.replace(ID, "1goEaE-0001Xy-Ab").replace(TIME, "2019-01-29 00:00:00")
    tally = counted(one, one.replace("=>", "->"), one.replace("rcpt", "second"), other)
    (usage,) = tally.report().peers
    assert usage.messages == 2
    assert usage.last_seen == "2019-01-29T00:00:00"


def arrivals(*messages: tuple[str, str]) -> list[str]:
    """Messages of one peer: a day of January, and its fields."""
    return [
        f"2026-01-{day} 00:00:00 1goE{day}-0001Xy-Ab <= a@b.example H=mx.example.org [192.0.2.1] {fields} S=1"
        for day, fields in messages
    ]


def test_current_is_what_a_peer_used_last() -> None:
    tally = counted(*arrivals(("03", f"P=esmtps {TLS13}"), ("01", "P=esmtp"), ("02", f"P=esmtps {TLS12}")))
    assert {usage.tls.value: usage.current for usage in tally.report().peers} == {
        "none": False,
        "TLSv1.2": False,
        "TLSv1.3": True,
    }
    assert {usage.tls.value for usage in tally.report(below=Tls.TLS1_2).peers} == {"none"}


def test_names_are_compared_without_case_and_suites_put_together() -> None:
    lines = arrivals(
        ("01", f"P=esmtps {TLS12}"), ("02", "P=esmtps X=TLS1.2:OTHER:128"), ("03", f"P=esmtps {TLS12}*")
    )
    (usage,) = counted(*lines[:2], lines[2].replace("mx.example", "MX.EXAMPLE")).report().peers
    assert usage.messages == 3
    assert usage.suites == {"ECDHE-RSA-AES256-GCM-SHA384": 2, "OTHER": 1}
    assert usage.last_seen.startswith("2026-01-03")


def test_since_leaves_out_what_is_older() -> None:
    lines = arrivals(("01", "P=esmtp"), ("02", "P=esmtp"), ("03", "P=esmtp"))
    failed = "2026-01-01 00:00:00 TLS error on connection from [192.0.2.1] (SSL_accept): error"
    tally = counted(*lines, failed, since=date(2026, 1, 2))
    assert found(tally) == [("in", "mx.example.org", "none", 2)]
    assert tally.report().failures == []


def test_peers_beyond_the_limit_are_summed_up() -> None:
    lines = [
        ARRIVED.replace(ID, f"1goEaD-00{number:04d}-Ab") + f"H=[192.0.2.{number}] P=esmtp S=1"
        for number in range(9)
    ]
    strong = [line.replace("P=esmtp", f"P=esmtps {TLS12}") for line in lines]
    again = [line.replace("1goEaD", "1goEaE") for line in (*strong, lines[0])]
    report = counted(*strong, *lines, *again, limit=6).report()
    # Half of the room is kept for weak TLS.
    assert [(usage.peer, usage.tls, usage.messages) for usage in report.peers] == [
        (f"192.0.2.{number}", tls, 1 + (tls is Tls.TLS1_2 or number == 0))
        for number in range(3)
        for tls in (Tls.NONE, Tls.TLS1_2)
    ]
    totals = {total.tls: (total.peers, total.messages, total.unlisted) for total in report.totals}
    assert totals == {Tls.NONE: (3, 10, 6), Tls.TLS1_2: (3, 18, 12)}
    failed = [
        f"{TIME} TLS error on connection from [192.0.2.{number}] (SSL_accept): x" for number in range(9)
    ]
    failures = counted(*failed, limit=8).report()
    assert (len(failures.failures), failures.unlisted_failures) == (2, 7)


def test_a_peer_of_weak_tls_has_room_for_what_it_uses_since() -> None:
    lines = arrivals(("01", "P=esmtp"), ("02", f"P=esmtps {TLS12}"))
    others = [lines[1].replace("mx.", f"mx{number}.").replace("1goE", f"{number}goE") for number in range(9)]
    report = counted(*others, *lines, limit=8).report(current=True)
    assert {usage.tls for usage in report.peers} == {Tls.TLS1_2}
    assert [(total.tls, total.messages) for total in report.totals] == [(Tls.TLS1_2, 10)]


def test_what_is_left_out_is_left_out_of_the_totals() -> None:
    tally = counted(
        *arrivals(("01", "P=esmtp"), ("02", f"P=esmtps {TLS12}"), ("03", f"P=esmtps {TLS13}")),
        DELIVERED + "H=mx.example.com [192.0.2.2]",
    )
    for report, expected in (
        (tally.report(below=Tls.TLS1_2), [(IN, Tls.NONE), (OUT, Tls.NONE)]),
        (tally.report(current=True), [(IN, Tls.TLS1_3), (OUT, Tls.NONE)]),
        (tally.report(directions=[OUT]), [(OUT, Tls.NONE)]),
        (tally.report(directions=[IN], below=Tls.TLS1_2, current=True), []),
    ):
        assert [(total.direction, total.tls) for total in report.totals] == expected
        assert [(usage.direction, usage.tls) for usage in report.peers] == expected


def test_a_time_of_the_future_counts_and_is_not_the_newest() -> None:
    lines = arrivals(("01", "P=esmtp"), ("02", f"P=esmtps {TLS13}"))
    forged = lines[0].replace("2026-01-01", "2999-12-31").replace("1goE01", "1goE99")
    report = counted(*lines, forged).report()
    assert [(usage.tls, usage.messages, usage.current) for usage in report.peers] == [
        (Tls.NONE, 2, False),
        (Tls.TLS1_3, 1, True),
    ]
    assert {usage.last_seen for usage in report.peers} == {"2026-01-01T00:00:00", "2026-01-02T00:00:00"}
    (alone,) = counted(forged).report().peers
    assert (alone.messages, alone.last_seen) == (1, "2999-12-31T00:00:00")


def test_names_without_end_are_cut() -> None:
    line = ARRIVED + f"H={'x' * 9000} [192.0.2.1] P=esmtps X=TLS1.2:{'C' * 9000}:1"
    (usage,) = counted(line).report().peers
    assert len(usage.peer) == 255
    assert usage.tls is Tls.TLS1_2
    assert len(next(iter(usage.suites))) < 255


@pytest.mark.parametrize(
    ("line", "direction", "peer"),
    [
        ("TLS error on connection from mx.example.org (helo) [192.0.2.1]:25 I=[::1]:25 (SSL_accept): error:1",
         IN, "mx.example.org"),
        ("TLS error on connection from (helo) [192.0.2.1] (gnutls_handshake): No supported cipher suites.",
         IN, "192.0.2.1"),
        ("TLS error on connection Ci=7 from [192.0.2.1] (tls lib accept fn): timed out", IN, "192.0.2.1"),
        (f"{ID} == r@example.com R=r T=t defer (-37) H=MX.example.com [192.0.2.2]: TLS session: (x): y",
         OUT, "mx.example.com"),
        (f"{ID} == r@example.com <a@b.c> R=r T=t defer (-38) H=mx.example.com [192.0.2.2]:25: a TLS session",
         OUT, "mx.example.com"),
        (f"{DEFERRED} [192.0.2.2]: a TLS session is required, but the server did not offer TLS support",
         OUT, "mx.example.com"),
        (f"{DEFERRED} [192.0.2.2]: SMTP error from remote mail server after STARTTLS: 454 TLS not available",
         OUT, "mx.example.com"),
        (f"{WAITS} defer (0) H=mx.example.com [192.0.2.2]: SMTP error from remote server after STARTTLS: 454",
         OUT, "mx.example.com"),
        (f"{WAITS} defer (-18) H=mx.example.com [192.0.2.2]:25 DT=0.1s: {CLOSED} pipelined STARTTLS",
         OUT, "mx.example.com"),
        (f"{ID} H=mx.example.com [192.0.2.2]:25: SMTP timeout after STARTTLS: Connection timed out",
         OUT, "mx.example.com"),
        (f"{ID} H=mx.example.com [192.0.2.2]: a TLS session is required, but an attempt to start TLS failed",
         OUT, "mx.example.com"),
        ("H=mx.example.org (helo) [192.0.2.1]:4711 I=[::1]:25 F=<> rejected RCPT <c@d.example>: use TLS",
         IN, "mx.example.org"),
        ("H=(helo) [192.0.2.1] U=x F=<a@b.example> A=plain:me temporarily rejected RCPT <c@d>: Encryption",
         IN, "192.0.2.1"),
        ("H=[192.0.2.1] rejected MAIL <a@b.example>: Must issue a STARTTLS command first", IN, "192.0.2.1"),
        ("H=(helo) [192.0.2.1] F=<a@b.example> rejected after DATA: TLS is required", IN, "192.0.2.1"),
        (f"{DEFERRED} [192.0.2.2]: TLS session: (SSL_connect): error:0A000410:SSL routines::sslv3 alert",
         OUT, "mx.example.com"),
        (f"{DEFERRED} [2001:db8::2]:25* PRX=[::1]:1080 I=[::1]:4 TFO DSN=yes DT=0.1s: TLS session: (x): y",
         OUT, "mx.example.com"),
        (f"{ID} TLS session: (x): delivering unencrypted to H=mx.example [::1] (not in hosts_require_tls)",
         OUT, "mx.example"),
        (f"{ID} TLS error on connection to mx.example.com [192.0.2.2] (SSL_connect): error:1",
         OUT, "mx.example.com"),
    ],
)  # fmt: skip
def test_failures(line: str, direction: Direction, peer: str) -> None:
    another = line.replace(ID, "1goEaE-0001Xy-Ab").replace(NEW_ID, "1xVlcd-0000000000G-0j5g")
    tally = counted(f"{TIME} {line}", f"{TIME} {another}")
    failures = [(failed.direction, failed.peer, failed.count) for failed in tally.report().failures]
    assert failures == [(direction, peer, 2)]
    assert found(tally) == []


def test_a_host_that_is_given_up_and_the_recipients_that_wait_for_it_are_one_failure() -> None:
    reason = "[192.0.2.2]: a TLS session is required, but the server did not offer TLS support"
    lines = [
        f"{TIME} {message} {text}"
        for text in (
            f"H=mx1.example.com {reason}",
            f"== r@example.com R=r T=t defer (-38) H=mx1.example.com {reason}",
            f"== s@example.com R=r T=t defer (-38) H=mx1.example.com {reason}",
        )
        for message in (ID, NEW_ID)
    ]
    # The next host takes a third message.
    third = f"{TIME} 1goEaE-0001Xy-Ab "
    lines += [
        f"{third}H=mx1.example.com {reason}",
        f"{third}=> r@example.com R=r T=t H=mx2.example.com [192.0.2.3] {TLS13}",
    ]
    tally = counted(*lines)
    assert [(failed.peer, failed.count) for failed in tally.report().failures] == [("mx1.example.com", 3)]
    assert found(tally) == [("out", "mx2.example.com", "TLSv1.3", 1)]


@pytest.mark.parametrize(
    "line",
    [
        "TLS error on connection from [192.0.2.1] (recv): The TLS connection was non-properly terminated.",
        "TLS error on connection from [192.0.2.1] (send): The specified session has been invalidated",
        "TLS error on connection from [192.0.2.1] (cert/key setup: cert=/x key=/x): Error.",
        "TLS error on connection from (a) [192.0.2.66] (x) [192.0.2.1] (SSL_accept): error",
        'H=[192.0.2.1] rejected EHLO or HELO TLS error on connection from [192.0.2.66] (SSL_accept): x',
        f"{ID} == r@example.com R=r T=t defer (0) H=mx [192.0.2.2]: defer (-37) H=victim [192.0.2.66] TLS",
        f"{DEFERRED} [192.0.2.2]: SMTP error from remote mail server after MAIL FROM:<x@STARTTLS>: 454 later",
        f"{DEFERRED} [192.0.2.2]: SMTP error from remote mail server after end of data: 451 after STARTTLS",
        f"{ID} H=mx.example.com [192.0.2.2] Connection refused",
        f"{ID} H=mx.example.com [192.0.2.2]: SMTP error from remote server after DATA: 451 after STARTTLS",
        f"H=(x) [192.0.2.1] {TLS13} CV=no F=<a@b.example> rejected RCPT <c@d.example>: TLS is too new",
        "H=(x) [192.0.2.1] F=<a@b.example> rejected RCPT <c@d.example>: relay not permitted",
        'H=(x) [192.0.2.1] F=<"a TLS: "@b.example> rejected RCPT <"x>: TLS"@d.example>: relay not permitted',
        "H=(a) [192.0.2.66] (x) [192.0.2.1] F=<> rejected RCPT <c@d.example>: use TLS",
        f"{DEFERRED} [192.0.2.2]: SMTP error after RCPT: 450 defer H=victim [192.0.2.66]: TLS session: x",
    ],
)  # fmt: skip
def test_no_failures(line: str) -> None:
    tally = counted(f"{TIME} {line}")
    assert tally.report().failures == []


@pytest.mark.parametrize(
    ("prefix", "time"),
    [
        (f"Jan 28 22:49:51 mail exim[4711]: {TIME} ", "2019-01-28T22:49:51"),
        ("Mar 11 22:49:51 mail exim4[4711]: ", "2026-03-11T22:49:51"),
        ("<22>Mar 12 22:49:51 mail exim: ", "2025-03-12T22:49:51"),
        ("Mar  1 22:49:51 mail exim[1]: [1\\2] ", "2026-03-01T22:49:51"),
        ("2026-03-01T22:49:51.123456+01:00 mail exim[1]: ", "2026-03-01T22:49:51+01:00"),
        ("2026-03-01T22:49:51Z mail /usr/sbin/exim[1]: ", "2026-03-01T22:49:51+00:00"),
    ],
)
def test_syslog(prefix: str, time: str) -> None:
    line = f"{prefix}{ID} <= a@example.org H=[192.0.2.1] P=esmtp S=1"
    assert grammar.recognise(line.encode()) == grammar.SYSLOG
    (usage,) = counted(line, syslog=True).report().peers
    assert usage.last_seen == time


@pytest.mark.parametrize(
    "line",
    [
        "Jan 28 22:49:51 mail postfix/smtpd[1]: 4XyZ: client=mx.example.org[192.0.2.1]",
        "2026-01-28 22:49:51 install openssl:amd64 <none> 3.0",
        "2026-01-28T22:49:51+0100 DEBUG Command: dnf update",
        "root:x:0:0:root:/root:/bin/bash",
        "",
    ],
)
def test_lines_of_others_are_not_recognised(line: str) -> None:
    assert grammar.recognise(line.encode()) is None


PIECES = (
    *(b'"', b"\\", b"(", b") [", b"]", b"<", b">", b":", b"\0", b"\xff"),
    *(b" H=", b" X=TLS1.0:R:1", b" P=esmtps", b" T=", b" => ", b" [::1]"),
)


def mutations(seed: int, line: bytes) -> bytes:
    choose = random.Random(seed)
    data = bytearray(line)
    for _ in range(choose.randrange(1, 8)):
        place = choose.randrange(len(data) + 1)
        piece = choose.choice([*PIECES, bytes([choose.randrange(256)])])
        if choose.random() < 0.5:
            data[place:place] = piece
        else:
            del data[place : place + choose.randrange(1, 20)]
    return bytes(data)


FUZZED = [
    ARRIVED
    + f'H=mx.example.org (helo) [192.0.2.1]:25 I=[::1]:25 U=x P=esmtps {TLS13} DN="CN=x" S=1 T="x" for a@b',
    DELIVERED + f'H=mx.example.com [192.0.2.2]:25 {TLS12} CV=no C="250 ok"',
    f"{TIME} TLS error on connection from mx.example.org (helo) [192.0.2.1]:25 (SSL_accept): error",
    f"{TIME} {ID} == r@example.com R=r T=t defer (-37) H=mx.example.com [192.0.2.2]: TLS session: x",
    f"Feb 29 22:49:51 mail exim[1]: {ID} <= a@example.org H=[192.0.2.1] P=esmtp S=1",
]


@pytest.mark.parametrize("line", FUZZED)
@pytest.mark.parametrize("syslog", [False, True])
def test_no_line_breaks_the_count(line: str, syslog: bool) -> None:
    lines = [mutations(seed, line.encode()) for seed in range(3000)]
    tally = counted(*lines, syslog=syslog)
    assert tally.lines == 3000
    for order in ("tls", "messages", "last-seen", "peer"):
        report = arranged(tally.report(), order)
    document = TypeAdapter(Report).dump_python(report, mode="json")
    check_document("maillog", document)
    assert document["version"] == 1
    assert sum(usage.messages for usage in report.peers) <= 3000


@pytest.mark.parametrize(
    "line",
    [
        "H=[192.0.2.1]" + " F=<a@b>" * 8000 + " x TLS",
        "H=[192.0.2.1]" + " A=b" * 15_000 + " x TLS",
        "H=[192.0.2.1] rejected RCPT <a>:" + " TL" * 20_000 + " TLSx",
        "TLS error on connection from " + "(" * 30_000 + ") [" * 10_000,
        f"{ID} H=x [192.0.2.1]: " + "TLS after " * 6000,
        f"{ID} == " + '"a' * 30_000 + " TLS",
        f"{ID} == x <" + '"a"' * 20_000 + " TLS",
        f"{ID} TLS session" + " delivering unencrypted to x" * 2000,
        f"{ID} <= " + "a H=(x) [" * 6000,
        f"{ID} => a T=x H=b" + " X=T" * 15_000,
    ],
)
def test_no_line_takes_long(line: str) -> None:
    began = time.process_time()
    counted(f"{TIME} {line}")
    assert time.process_time() - began < 1


def test_no_subject_changes_what_is_counted() -> None:
    """Exim escapes quotes and backslashes in a subject; whatever it is, the line says the same."""
    start = (ARRIVED + 'H=mx.example.org (helo) [192.0.2.1] P=esmtp S=1 T="').encode()
    for seed in range(1000):
        subject = mutations(seed, b"Hello X=TLS1.0:R:1 H=victim (x) [192.0.2.66] P=esmtp")
        quoted = subject.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        assert found(counted(start + quoted + b'" for a@b')) == [("in", "mx.example.org", "none", 1)], subject


def test_hostile_names_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tally = counted(
        ARRIVED + "H=\x1b[31mmx\x9b[bold]\u202e.example.org [192.0.2.1] P=esmtp S=1".replace("[31", "31")
    )
    for line in shown(tally.report(), limit=5):
        output().print(line)
    printed = capsys.readouterr().out
    assert "\\x1b31mmx" in printed or tally.report().unclear.lines
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_versions() -> None:
    assert version((b"x", b"")) == (Tls.NONE, "")
    assert version((b"x", grammar.UNKNOWN_TLS)) == (Tls.UNKNOWN, "")
    assert version((b"x", b"TLSv9.9:X:1")) == (Tls.UNKNOWN, "X")
    assert [tls.strength for tls in Tls] == sorted(tls.strength for tls in Tls)


LOG = "\n".join(
    [*arrivals(("01", "P=esmtp"), ("02", f"P=esmtps {TLS12}")), f"{TIME} {ID} Completed", ""]
).encode()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, bz2.compress], ids=["plain", "gz", "xz", "bz2"]
)
def test_files_are_known_by_their_first_bytes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "mainlog.txt"
    # Rotated logs are sometimes joined: several members in a file.
    path.write_bytes(pack(LOG[:200]) + pack(LOG[200:]) + pack(b"\n" * 3))
    tally = Tally()
    told: list[tuple[str, int, int | None]] = []

    class Told(Silent):
        def transfer(self, what: str, done: int, total: int | None) -> None:
            told.append((what, done, total))

    read([str(path)], tally, progress=Told())
    assert tally.lines == 6
    assert found(tally) == [("in", "mx.example.org", "TLSv1.2", 1), ("in", "mx.example.org", "none", 1)]
    size = path.stat().st_size
    assert told[-1] == (str(path), size, size)


def test_lines_across_blocks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mainlog"
    path.write_bytes(LOG * 50)
    expected = Tally()
    read([str(path)], expected, progress=Silent())
    for size in (1, 7, 100, 333):
        monkeypatch.setattr(files, "BLOCK_SIZE", size)
        tally = Tally()
        read([str(path)], tally, progress=Silent())
        assert found(tally) == found(expected)
        assert tally.lines == expected.lines == 150


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "mainlog"
    path.write_bytes(LOG + b"x" * (3 * files.BLOCK_SIZE) + b"\n" + LOG)
    assert max(len(line) for lines in files.line_blocks(str(path), Silent()) for line in lines) <= (
        files.BLOCK_SIZE + files.LINE_LIMIT
    )
    tally = Tally()
    read([str(path)], tally, progress=Silent())
    assert sum(messages for _, _, _, messages in found(tally)) == 2


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"\0" * 100, gzip.compress(b"not a log\n")])
def test_files_that_are_no_logs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.log"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not an Exim main log") as caught:
        read([str(path)], Tally(), progress=Silent())
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (gzip.compress(LOG)[:-9], 3),
        (gzip.compress(LOG) + b"tail", 3),
        (gzip.compress(LOG * 3)[:60], 0),
        (gzip.compress(LOG, 0)[:-90], 1),
        (b"\x1f\x8b" + LOG, 0),
        (lzma.compress(LOG)[:-40], 2),
        (bz2.compress(LOG) + bz2.compress(LOG)[:-9], 6),
        (b"BZh9" + LOG, 0),
    ],
)
def test_a_damaged_file_is_told_and_the_rest_is_read(tmp_path: Path, content: bytes, lines: int) -> None:
    damaged, whole = tmp_path / "main.log.1", tmp_path / "main.log"
    damaged.write_bytes(content)
    whole.write_bytes(LOG)
    tally = Tally()
    (problem,) = read([str(whole), str(damaged)], tally, progress=Silent())
    assert "is damaged" in problem.message
    assert str(damaged) in problem.message
    # Of a line that is cut off nothing is believed.
    assert tally.lines == 3 + lines
    assert len(found(tally)) == 2


def test_files_of_other_kinds_are_told_and_the_logs_are_read(tmp_path: Path) -> None:
    whole, other = tmp_path / "main.log", tmp_path / "main.log.swp"
    whole.write_bytes(LOG)
    other.write_bytes(b"something else\n")
    tally = Tally()
    problems = read([str(other), str(tmp_path / "missing"), str(whole)], tally, progress=Silent())
    assert len(problems) == 2
    assert len(found(tally)) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["a/main.log.12.gz", "a/main.log.02.gz", "a/main.log.1", "a/main.log"],
        ["main.log-20251231.gz", "main.log-20260101.xz", "main.log-20260102", "main.log"],
        ["b.log.1", "b.log", "a.log.1", "a.log"],
        ["-"],
        ["odd\nname.1", "odd\nname"],
    ],
)
def test_rotated_files_are_read_in_the_order_in_which_they_were_written(names: list[str]) -> None:
    choose = random.Random(1)
    for _ in range(20):
        # Sets that are given one after the other stay so.
        mixed = sorted(choose.sample(names, len(names)), key=lambda name: not name.startswith("b"))
        assert files.in_order(mixed) == names


@pytest.mark.parametrize("name", ["missing", "", "."])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read([str(tmp_path / name)], Tally(), progress=Silent())


def test_a_file_that_is_no_log_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.log"
    path.write_bytes(b"something else\n" * 300_000 + LOG)
    with pytest.raises(UsageError, match="is not an Exim main log"):
        read([str(path)], Tally(), progress=Silent())


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "mainlog"
    path.write_bytes(b"")
    tally = Tally()
    read([str(path)], tally, progress=Silent())
    assert tally.lines == 0
