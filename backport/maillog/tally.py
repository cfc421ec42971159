"""The count: messages by direction, peer and TLS, in a memory that does not grow with the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from itertools import groupby, islice
from operator import itemgetter
from typing import Literal

from backport.maillog import lines as grammar

RECORD_LIMIT = 10_000
"""Pairs of peer and TLS kept apart in a direction, half of them for weak TLS, which is what is looked for;
what comes on top is summed up. Each takes up to 1.5 kB until it is printed."""

_NAME_LIMIT = 255
"""Bytes of a host's name (RFC 1035, section 2.3.4) and of a suite's that are kept."""
_CIPHERS_SHARED = 1000
_RECENT = 8000
"""Messages after half of which another failure of one of them counts once more."""
_AHEAD = b"!"
"""Marks a time of the future, which says nothing about what was last: it sorts before all others."""


class Direction(StrEnum):
    """Whether the peer connected to this Exim, or this Exim to it."""

    IN = "in"
    OUT = "out"


class Tls(StrEnum):
    """The protocol version of a message's connection, in the names of OpenSSL, weakest first."""

    NONE = "none"
    UNKNOWN = "unknown"
    """TLS whose version the log does not tell, as without the log selector ``tls_cipher``."""
    SSL3 = "SSLv3"
    TLS1 = "TLSv1"
    TLS1_1 = "TLSv1.1"
    TLS1_2 = "TLSv1.2"
    TLS1_3 = "TLSv1.3"

    @property
    def strength(self) -> int:
        """Greater for better; what is unknown is better than nothing only."""
        return _STRENGTHS[self]


_STRENGTHS = {version: number for number, version in enumerate(Tls)}
# Exim has written "TLSv1.2" and "TLS1.2" with OpenSSL, "TLS-1.0" and "TLS1.2" with GnuTLS.
_VERSIONS = {
    (b"SSL", b"3", b"0"): Tls.SSL3,
    (b"TLS", b"1", b"0"): Tls.TLS1,
    (b"TLS", b"1", b"1"): Tls.TLS1_1,
    (b"TLS", b"1", b"2"): Tls.TLS1_2,
    (b"TLS", b"1", b"3"): Tls.TLS1_3,
}
_WEAK = frozenset({Tls.NONE, Tls.UNKNOWN, Tls.SSL3, Tls.TLS1, Tls.TLS1_1})
_CIPHER = re.compile(rb"(SSL|TLS)[v-]?(\d)(?:\.(\d))?:([^\s:*]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What one peer used in one direction of one version of TLS."""

    direction: Direction
    peer: str
    """The host's name where Exim had verified or looked it up, else its address; in lower case, and otherwise
    as strangers made it."""
    tls: Tls
    messages: int
    last_seen: str
    """ISO 8601 in the log's own time, with its offset where the log has one."""
    current: bool
    """Whether no later message came or went another way."""
    suites: dict[str, int]
    """Messages by cipher suite, in the names of the TLS library that Exim used."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How often TLS with a peer was tried or demanded and did not come about."""

    direction: Direction
    peer: str
    count: int
    last_seen: str


@dataclass(frozen=True, kw_only=True)
class Total:
    """All messages of one direction and version."""

    direction: Direction
    """Whether the peers connected to this Exim, or this Exim to them."""
    tls: Tls
    """OpenSSL's name of the version; `unknown`: TLS whose version the log does not tell."""
    peers: int
    messages: int
    unlisted: int
    """How many of the messages are of peers beyond the number that is kept apart."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Unclear:
    """The lines that can be read in two ways, and are not counted."""

    lines: int
    first: Place | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `backport maillog --json` prints: ``lines`` is how many were read."""

    version: Literal[1] = 1
    lines: int
    totals: Sequence[Total]
    peers: Sequence[Usage]
    failures: Sequence[Failures]
    unlisted_failures: int
    """Failures with peers beyond the number that is kept apart."""
    unclear: Unclear
    unread: Sequence[str] = ()
    """What kept files from being read, or from being read to their end."""


class _Record:
    """Messages of one peer with one value of ``X=``."""

    __slots__ = ("last_message", "last_seen", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.last_seen = b""
        self.last_message = b""


_Records = dict[grammar.Connection, _Record]


class Tally:
    """Counts lines as they come; `report` tells what was counted so far.

    A message counts once for a peer and a version, however many recipients it had there. Lines from
    before ``since`` (local time of the log) are left out. ``today`` dates lines whose time has no year, and
    what lies more than a day ahead of it is not taken for the newest.
    """

    def __init__(
        self, *, since: date | None = None, today: date | None = None, limit: int = RECORD_LIMIT
    ) -> None:
        self.lines = 0
        self._unclear = 0
        self._first_unclear: Place | None = None
        self._since = since.isoformat().encode() if since else b""
        self._today = today or date.today()  # noqa: DTZ011  # logs are in local time
        self._latest = (self._today + timedelta(days=2)).isoformat().encode()
        self._limit = limit
        self._records: dict[Direction, _Records] = {direction: {} for direction in Direction}
        self._failures: dict[Direction, _Records] = {direction: {} for direction in Direction}
        self._unlisted: dict[tuple[Direction, Tls], _Record] = {}
        self._unlisted_failures: Counter[Direction] = Counter()
        self._ciphers: dict[bytes, bytes] = {}
        self._weak: set[bytes] = set()
        self._failed: dict[bytes, _Record] = {}
        self._place = Place(file="", line=0)

    @property
    def has_counted(self) -> bool:
        """Whether there was any line that counts."""
        return any(map(len, (*self._records.values(), *self._failures.values()))) or self._unclear > 0

    def begin(self, file: str) -> None:
        """The lines that come next are the first ones of this file."""
        self._place = Place(file=file, line=0)

    def add(self, lines: list[bytes], *, syslog: bool = False) -> None:  # a call costs too much
        """Count lines; ``syslog`` says that they have a syslog daemon's prefix."""
        if syslog:
            lines = [grammar.without_syslog(line, self._today) for line in lines]
        # The loop that every line goes through: few calls, and names that are local.
        connected, arrival, delivery = grammar.CONNECTED.match, grammar.arrival, grammar.delivery
        since, latest, arrivals, deliveries = self._since, self._latest, *self._records.values()
        for line in lines:
            found = connected(line)
            if found is None:
                if b"TLS" in line or b"ncrypt" in line:
                    self._add_failure(line)
                continue
            time, zone, message, flag = found.groups()
            if not since <= time < latest and not (time := self._outside(time)):
                continue
            if flag == b"<=":
                records, connection = arrivals, arrival(line, found.start(4))
            else:
                records, connection = deliveries, delivery(line, found.start(4))
            if connection is None or connection is grammar.UNCLEAR:
                self._leave_out(connection, lines, line)
                continue
            record = records.get(connection) or self._new_record(records, connection)
            # Several recipients of a message are several lines, one after the other.
            if message != record.last_message:
                record.messages += 1
                record.last_message = message
            time = time + zone if zone else time
            if time > record.last_seen:  # noqa: PLR1730  # max() is a call, and this is done for each message
                record.last_seen = time
        self.lines += len(lines)
        self._place = Place(file=self._place.file, line=self._place.line + len(lines))

    def report(
        self,
        *,
        directions: Sequence[Direction] = tuple(Direction),
        below: Tls | None = None,
        current: bool = False,
    ) -> Report:
        """What was counted in some directions; the peers in the order of their names.

        ``below`` leaves out, of the totals too, that version and all better ones; ``current`` leaves out what
        a peer has stopped using since.
        """
        usages = [
            usage
            for direction in directions
            for usage in _usages(direction, self._records[direction])
            if (below is None or usage.tls.strength < below.strength) and (usage.current or not current)
        ]
        shown = [tls for tls in Tls if below is None or tls.strength < below.strength]
        peers = Counter((usage.direction, usage.tls) for usage in usages)
        messages: Counter[tuple[Direction, Tls]] = Counter()
        for usage in usages:
            messages[usage.direction, usage.tls] += usage.messages
        return Report(
            lines=self.lines,
            totals=[
                Total(
                    direction=direction,
                    tls=tls,
                    peers=peers[direction, tls],
                    messages=messages[direction, tls] + unlisted,
                    unlisted=unlisted,
                )
                for direction in directions
                for tls in shown
                if (unlisted := self._unlisted.get((direction, tls), _Record()).messages)
                or peers[direction, tls]
            ],
            peers=usages,
            failures=[
                Failures(
                    direction=direction,
                    peer=_text(peer),
                    count=record.messages,
                    last_seen=_time(record.last_seen),
                )
                for direction in directions
                for (peer, _), record in self._failures[direction].items()
            ],
            unlisted_failures=sum(self._unlisted_failures[direction] for direction in directions),
            unclear=Unclear(lines=self._unclear, first=self._first_unclear),
        )

    def _outside(self, time: bytes) -> bytes:
        """A time outside the usual as it is to be counted; empty for one that is too old."""
        return _AHEAD + time if time >= self._latest else b"" if time < self._since else time

    def _add_failure(self, line: bytes) -> None:
        direction, failure = Direction.IN, grammar.failed_arrival(line)
        if failure is None:
            direction, failure = Direction.OUT, grammar.failed_delivery(line)
        if failure is None or not (time := self._outside(failure[0])):
            return
        _, message, peer = failure
        records, key = self._failures[direction], (peer.lower()[:_NAME_LIMIT], grammar.NO_TLS)
        if key not in records and len(records) >= self._limit // 4:
            self._unlisted_failures[direction] += 1
            return
        record = records.setdefault(key, _Record())
        record.last_seen = max(record.last_seen, time)
        # Exim tells of a host that it gives up, and of each recipient that has to wait for it.
        if message is None:
            record.messages += 1
        elif self._failed.get(message) is not record:
            record.messages += 1
            if len(self._failed) > _RECENT:
                self._failed = dict(islice(self._failed.items(), _RECENT // 2, None))
            self._failed[message] = record

    def _new_record(self, records: _Records, connection: grammar.Connection) -> _Record:
        """A record for a connection seen for the first time, or the sum of those that are too many.

        A peer of weak TLS has all its records, so that it is known whether it still uses that.
        """
        (peer, cipher), tls = connection, version(connection)[0]
        is_weak = tls in _WEAK or any((peer, other) in records for other in self._weak)
        if len(records) >= (self._limit if is_weak else self._limit // 2):
            direction = Direction.IN if records is self._records[Direction.IN] else Direction.OUT
            return self._unlisted.setdefault((direction, tls), _Record())
        peer, cipher = peer[:_NAME_LIMIT], cipher[:_NAME_LIMIT]
        if len(self._ciphers) < _CIPHERS_SHARED:
            cipher = self._ciphers.setdefault(cipher, cipher)
            if tls in _WEAK:
                self._weak.add(cipher)
        return records.setdefault((peer, cipher), _Record())

    def _leave_out(self, connection: grammar.Connection | None, lines: list[bytes], line: bytes) -> None:
        if connection is not None:
            self._unclear += 1
            number = self._place.line + lines.index(line) + 1
            self._first_unclear = self._first_unclear or Place(file=self._place.file, line=number)


def version(connection: grammar.Connection) -> tuple[Tls, str]:
    """Version and cipher suite of a connection; the suite is empty where the log tells none.

    >>> version((b"mail.example.org", b"TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256"))
    (<Tls.TLS1_3: 'TLSv1.3'>, 'ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM')
    """
    cipher = connection[1]
    if not cipher:
        return Tls.NONE, ""
    found = _CIPHER.match(cipher)
    if found is None:
        return Tls.UNKNOWN, ""
    family, major, minor, suite = found.groups()
    return _VERSIONS.get((family, major, minor or b"0"), Tls.UNKNOWN), _text(suite)


def _usages(direction: Direction, records: _Records) -> Iterator[Usage]:
    """The records of a direction, those of each peer and version put together."""
    named = sorted((_text(key[0]).lower(), version(key)[0].strength, *key) for key in records)
    for peer, rows in groupby(named, key=itemgetter(0)):
        found = [
            (tls, [(version(key)[1], records[key]) for key in (row[2:] for row in same)])
            for tls, same in groupby(rows, key=lambda row: version((row[2], row[3]))[0])
        ]
        last_seen = {tls: max(record.last_seen for _, record in same) for tls, same in found}
        newest = max(last_seen.values())
        current = next(tls for tls, seen in last_seen.items() if seen == newest)
        for tls, same in found:
            suites: Counter[str] = Counter()
            for suite, record in same:
                suites[suite] += record.messages
            yield Usage(
                direction=direction,
                peer=peer,
                tls=tls,
                messages=suites.total(),
                last_seen=_time(last_seen[tls]),
                current=tls is current,
                suites={suite: messages for suite, messages in suites.most_common() if suite},
            )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _time(raw: bytes) -> str:
    """A log's time as ISO 8601 has it.

    >>> _time(b"2019-01-28 22:49:51 +0100")
    '2019-01-28T22:49:51+01:00'
    """
    day, clock, *zone = raw.lstrip(_AHEAD).decode().split(" ")
    return f"{day}T{clock}" + "".join(f"{offset[:3]}:{offset[3:]}" for offset in zone)
