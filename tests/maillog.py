"""An Exim main log as busy servers write it, for tests and figures."""

from __future__ import annotations

import random
from collections.abc import Iterator

_HOSTS = 2000
_CIPHERS = (
    "",
    "X=TLS1.0:ECDHE-RSA-AES256-SHA:256 CV=no",
    "X=TLS1.1:ECDHE-RSA-AES256-SHA:256 CV=no",
    "X=TLSv1.2:ECDHE-RSA-AES256-GCM-SHA384:256 CV=no",
    "X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=yes",
    'X=TLSv1.3:TLS_AES_256_GCM_SHA384:256 CV=yes DN="/CN=mail.example.org"',
)
_WEIGHTS = (5, 1, 1, 20, 40, 5)


def generated_log(lines: int, *, seed: int = 1, hosts: int = _HOSTS) -> list[bytes]:
    """So many lines, always the same ones: messages in and out, local ones, rejections, queue runs."""
    log: list[str] = []
    for message in _messages(random.Random(seed), lines, hosts):
        log.extend(message)
        if len(log) >= lines:
            break
    return [line.encode() for line in log[:lines]]


def _messages(choose: random.Random, lines: int, hosts: int) -> Iterator[list[str]]:
    number = 0
    while True:
        number += 1
        # Some hosts send most of the mail.
        host = int(hosts * choose.random() ** 3)
        day = min(number * 1500 // lines, 330)
        clock = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
        time = f"2026-{1 + day // 28:02}-{1 + day % 28:02} {clock}"
        start = f"{time} 1{number:05}-{choose.randrange(10**6):06}-Ab"
        yield _message(choose, host, time, start)


def _message(choose: random.Random, host: int, time: str, start: str) -> list[str]:
    (cipher,) = choose.choices(_CIPHERS, _WEIGHTS)
    name, address = f"mx{host}.example{host % 97}.org", f"198.51.{host // 250}.{host % 250}"
    protocol = "esmtps" if cipher else "esmtp"
    port = choose.randrange(1024, 65536)
    arrival = (
        f"{start} <= bounce+{port}@example{host}.org H={name} (helo{host}.example.net) [{address}]:{port} "
        f"P={protocol} {cipher} S={choose.randrange(500, 90000)} id={choose.random()}@example.org "
        f'T="Re: the {port}th (last) \\"offer\\" = [{host}]" for user{port}@example.com'
    ).replace("  ", " ")
    delivery = (
        f"{start} => user{port}@d.example <info@a.example> R=dnslookup T=remote_smtp H={name} [{address}]:25 "
        f'{cipher} C="250 2.0.0 Ok: queued as {choose.random()}"'
    ).replace("  ", " ")
    return [
        f"{time} H=(user) [{address}]:{port} F=<a@b.example> rejected RCPT <c@d.example>: No such user",
        arrival,
        choose.choice(
            (f"{start} => user{port} <user{port}@example.com> R=localuser T=local_delivery", delivery)
        ),
        f"{start} Completed",
        f"{time} TLS error on connection from (x) [{address}]:{port} (SSL_accept): error:1408F10B",
        f"{time} Start queue run: pid={port}",
    ][: choose.randrange(4, 7)]
