"""The count: messages by direction, peer and TLS, in a memory that does not grow with the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from backport.maillog import lines as grammar

RECORD_LIMIT = 200_000
"""Pairs of peer and TLS kept apart in a direction; what comes on top is summed up. Each takes up to 1 kB."""

_CIPHERS_SHARED = 1000


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
_CIPHER = re.compile(rb"(SSL|TLS)[v-]?(\d)(?:\.(\d))?:([^\s:*]+)")


@dataclass(frozen=True, kw_only=True)
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


class _Record:
    """Messages of one peer with one value of ``X=``."""

    __slots__ = ("last_message", "last_seen", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.last_seen = b""
        self.last_message: bytes | None = None

    def add(self, time: bytes, message: bytes | None) -> None:
        # Several recipients of a message are several lines, one after the other.
        if message is None or message != self.last_message:
            self.messages += 1
            self.last_message = message
        if time > self.last_seen:  # noqa: PLR1730  # max() is a call, and this is done for each message
            self.last_seen = time


_Records = dict[tuple[bytes, bytes], _Record]


class Tally:
    """Counts lines as they come; the other methods tell what was counted so far.

    A message counts once for a peer and a version, however many recipients it had there. Lines from
    before ``since`` (local time of the log) are left out. ``today`` dates lines whose time has no year.
    """

    def __init__(
        self, *, since: date | None = None, today: date | None = None, limit: int = RECORD_LIMIT
    ) -> None:
        self.lines = 0
        self.unclear = 0
        self.first_unclear: Place | None = None
        self.unlisted_failures = 0
        self._since = since.isoformat().encode() if since else b""
        self._today = today or date.today()  # noqa: DTZ011  # logs are in local time
        self._limit = limit
        self._records: dict[Direction, _Records] = {direction: {} for direction in Direction}
        self._failures: dict[Direction, _Records] = {direction: {} for direction in Direction}
        self._ciphers: dict[bytes, bytes] = {}
        self._unlisted: dict[tuple[Direction, Tls], _Record] = {}
        self._place = Place(file="", line=0)

    def begin(self, file: str) -> None:
        """The lines that come next are the first ones of this file."""
        self._place = Place(file=file, line=0)

    def add(self, lines: list[bytes], *, syslog: bool = False) -> None:
        """Count lines; ``syslog`` says that they have a syslog daemon's prefix."""
        if syslog:
            lines = [grammar.without_syslog(line, self._today) for line in lines]
        # The loop that every line goes through: few calls, and names that are local.
        connected, arrival, delivery = grammar.CONNECTED.match, grammar.arrival, grammar.delivery
        since, arrivals, deliveries = self._since, self._records[Direction.IN], self._records[Direction.OUT]
        for line in lines:
            found = connected(line)
            if found is None:
                if b"TLS" in line:
                    self._add_failure(line)
                continue
            time, zone, message, flag = found.groups()
            if time < since:
                continue
            if flag == b"<=":
                records, connection = arrivals, arrival(line, found.start(4))
            else:
                records, connection = deliveries, delivery(line, found.start(4))
            if connection is None:
                continue
            if connection is grammar.UNCLEAR:
                self._note_unclear(lines, line)
                continue
            record = records.get(connection) or self._new_record(records, connection)
            record.add(time + zone if zone else time, message)
        self.lines += len(lines)
        self._place = Place(file=self._place.file, line=self._place.line + len(lines))

    def totals(self, direction: Direction) -> Iterator[Total]:
        """What was counted in a direction, weakest first; versions that nobody used are left out."""
        records = self._records[direction]
        peers = Counter(tls for _, tls in {(_text(key[0]).lower(), version(key)[0]) for key in records})
        messages: Counter[Tls] = Counter()
        for key, record in records.items():
            messages[version(key)[0]] += record.messages
        for tls in Tls:
            rest = self._unlisted.get((direction, tls), _Record()).messages
            if messages[tls] or rest:
                yield Total(
                    direction=direction,
                    tls=tls,
                    peers=peers[tls],
                    messages=messages[tls] + rest,
                    unlisted=rest,
                )

    def usages(self, direction: Direction, *, below: Tls | None = None) -> Iterator[Usage]:
        """What each peer used in a direction, in no order; ``below``: only versions weaker than it."""
        records = self._records[direction]
        newest = _newest(records)
        merged: dict[tuple[str, Tls], _Merged] = {}
        for key, record in records.items():
            tls, suite = version(key)
            if below is None or tls.strength < below.strength:
                merged.setdefault((_text(key[0]).lower(), tls), _Merged()).add(record, suite)
        for (peer, tls), found in merged.items():
            yield Usage(
                direction=direction,
                peer=peer,
                tls=tls,
                messages=found.messages,
                last_seen=_time(found.last_seen),
                current=newest[peer] == (found.last_seen, -tls.strength),
                suites=dict(found.suites.most_common()),
            )

    def failures(self, direction: Direction) -> Iterator[Failures]:
        """The peers with whom TLS did not come about, in no order."""
        for (peer, _), record in self._failures[direction].items():
            yield Failures(
                direction=direction,
                peer=_text(peer),
                count=record.messages,
                last_seen=_time(record.last_seen),
            )

    def _add_failure(self, line: bytes) -> None:
        direction, failure = Direction.IN, grammar.failed_arrival(line)
        if failure is None:
            direction, failure = Direction.OUT, grammar.failed_delivery(line)
        if failure is None or failure[0] < self._since:
            return
        time, message, peer = failure
        records = self._failures[direction]
        key = (peer.lower(), grammar.NO_TLS)
        if key in records or len(records) < self._limit:
            records.setdefault(key, _Record()).add(time, message)
        else:
            self.unlisted_failures += 1

    def _new_record(self, records: _Records, connection: grammar.Connection) -> _Record:
        """A record for a connection seen for the first time, or the sum of those that are too many."""
        if len(records) < self._limit:
            peer, cipher = connection
            if len(self._ciphers) < _CIPHERS_SHARED:
                cipher = self._ciphers.setdefault(cipher, cipher)
            return records.setdefault((peer, cipher), _Record())
        direction = Direction.IN if records is self._records[Direction.IN] else Direction.OUT
        return self._unlisted.setdefault((direction, version(connection)[0]), _Record())

    def _note_unclear(self, lines: list[bytes], line: bytes) -> None:
        self.unclear += 1
        if self.first_unclear is None:
            number = self._place.line + lines.index(line) + 1
            self.first_unclear = Place(file=self._place.file, line=number)


class _Merged:
    """The records of one peer and version, put together."""

    __slots__ = ("last_seen", "messages", "suites")

    def __init__(self) -> None:
        self.messages = 0
        self.last_seen = b""
        self.suites: Counter[str] = Counter()

    def add(self, record: _Record, suite: str) -> None:
        self.messages += record.messages
        self.last_seen = max(self.last_seen, record.last_seen)
        if suite:
            self.suites[suite] += record.messages


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


def _newest(records: _Records) -> dict[str, tuple[bytes, int]]:
    """When each peer was seen last, and how weak its TLS then was at worst."""
    newest: dict[str, tuple[bytes, int]] = {}
    for key, record in records.items():
        seen = (record.last_seen, -version(key)[0].strength)
        name = _text(key[0]).lower()
        newest[name] = max(newest.get(name, seen), seen)
    return newest


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _time(raw: bytes) -> str:
    """A log's time as ISO 8601 has it.

    >>> _time(b"2019-01-28 22:49:51 +0100")
    '2019-01-28T22:49:51+01:00'
    """
    day, clock, *zone = raw.decode().split(" ")
    return f"{day}T{clock}" + "".join(f"{offset[:3]}:{offset[3:]}" for offset in zone)
