"""The grammar of those lines in Exim's main log that tell with whom it spoke TLS, and which.

It is that of the Exim specification's chapter "Log files" and of Exim's receive.c, deliver.c, host.c
and tls-*.c, from 4.60 on. Exim writes a line's fields in a fixed order, and so a line is read from its
beginning and only as far as the ``X=`` field. What strangers choose (subject, message id, certificate
names, confirmations) comes later and cannot imitate a field. Where their words can stand before it (a
HELO name that ``helo_accept_junk_hosts`` let through, an RFC 1413 identity, a command line of a pipe),
a line that can be read in two ways is UNCLEAR and credited to nobody.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

Connection = tuple[bytes, bytes]
"""A peer (its name if Exim knew one, else its address) and the value of ``X=``, or one of these:"""
NO_TLS = b""
UNKNOWN_TLS = b"?"

UNCLEAR: Connection = (b"", b"")
"""A line that can be read in two ways."""

Failure = tuple[bytes, bytes | None, bytes]
"""Time, id of the message that was to be delivered, and peer."""

LOOSE_LIMIT = 16_384
"""Bytes of a line that is not of the usual form beyond which it is not looked at closely."""

PLAIN, SYSLOG = 1, 2
"""The forms of a log: Exim's own, and with the prefix of a syslog daemon."""

_TIME = rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{3})?( [+-]\d{4})?(?: \[\d+\])? "
_MESSAGE = rb"([0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}) "
_QUOTED = rb'"(?:[^"\\]++|\\.)*+"'
_WORD = rb'(?:[^\s"]++|' + _QUOTED + rb")++"
_ANGLED = rb'<(?:[^<>"]++|' + _QUOTED + rb")*+>"
_ADDRESS = rb"\[([0-9A-Fa-f.:]+)\](?::\d+)?"
_HOST = rb"(?:([^\s()\[\]]+) )?(\([^()]*+\) )?" + _ADDRESS
_INTERFACE = rb"(?: I=\[[^\]\s]*+\](?::\d+)?)?(?: TFO\*?)?"
_PROXY = rb"\*?(?: PRX=\[[^\]\s]*+\](?::\d+)?)?"
_CIPHER = rb"(?: X=(\S++))?"
_RECIPIENT = (
    rb"(?![|/>])" + _WORD + rb"(?: \([^()]*+\))?(?: " + _ANGLED + rb")?(?: F=" + _ANGLED +
    rb")?(?: Q=\S++)?(?: P=" + _ANGLED + rb")?(?: R=\S++)? T=\S++"
)  # fmt: skip

CONNECTED = re.compile(_TIME + _MESSAGE + rb"(<=|[=\->]>) ")
"""Time, zone, message id and flag of a line about an arrival or a delivery."""

_ARRIVAL = re.compile(
    rb"<= " + _WORD + rb"(?: R=\S++)?(?: DS)? H=" + _HOST + _INTERFACE +
    rb"( U=\S++)?(?: Ci=\S++)? P=(\S++)(?: L[*.]?-?)?" + _CIPHER
)  # fmt: skip
_DELIVERY = re.compile(
    rb"[=\->]> " + _RECIPIENT + rb"(?: S=\d++)? H=(\S++)(?: DS)? " + _ADDRESS + _PROXY +
    _INTERFACE + rb"(?: PS=\S++)?" + _CIPHER
)  # fmt: skip
_LOOSE_ARRIVAL = re.compile(
    rb" H=(?:([^\s()\[\]]+) )?(?:\(.*\) )?" + _ADDRESS + rb"(?: .*)? P=(\S++)(?:.* X=(\S++))?"
)
_LOOSE_DELIVERY = re.compile(rb" T=\S++(?: S=\d++)? H=(\S++)(?: DS)? " + _ADDRESS + rb"(?:.* X=(\S++))?")
_LOOSE_HOST = re.compile(rb" H=\S++(?: DS)? \[")
_LATER_CIPHER = re.compile(rb" (?:X=(\S++)|CV=)")
_TLS_PROTOCOL = re.compile(rb"(?:local-)?(?:utf8)?(?:e?smtpsa?|e?ssmtpa?|lmtpsa?)")
_QUOTED_STRING = re.compile(_QUOTED)

_FAILED_ARRIVAL = re.compile(
    _TIME + rb"(?:" + _MESSAGE + rb")?(?:TLS error on connection (?:Ci=\S++ )?from " + _HOST + _INTERFACE +
    # Errors after the handshake are mostly of clients that hang up; the last is of our own making.
    rb" \((?!recv|send|SSL_read|SSL_write|cert/key setup)(?!.*\) \[)"
    # What an ACL's own words are about: TLS that is missing, where the line has no X= before them.
    rb"|H=" + _HOST + _INTERFACE + rb"(?!.*\) \[)(?: DS)?(?: F=" + _ANGLED + rb"| (?![XF]=)[A-Za-z]++=\S++)*"
    rb" (?:temporarily )?rejected (?:after )?[A-Z]++(?: " + _ANGLED + rb")?:.*(?:TLS\b|\b[Ee]ncrypt))"
)  # fmt: skip
_NO_TLS = rb": (?:(?:a )?TLS session|[^:<]{1,80} (?:after|in response to) (?:pipelined )?STARTTLS)"
_FAILED_DELIVERY = re.compile(
    # Up to 4.99 a number tells the reason, too, since 4.100 its words alone.
    _TIME + _MESSAGE + rb"(?:== " + _RECIPIENT + rb" defer(?: \(-3[78]\):? H=(\S++) " + _ADDRESS +
    rb"|(?: \(-?\d++\))? H=(\S++) " + _ADDRESS + _PROXY + _INTERFACE +
    rb"(?: DSN=[a-z]++)?(?: DT=[^\s:]++)?" + _NO_TLS + rb")"
    # One host of several, where the next may have taken the message.
    rb"|H=(\S++) " + _ADDRESS + _NO_TLS +
    rb"|TLS session.* delivering unencrypted to (?:H=)?(\S++) " + _ADDRESS + rb" \(not in hosts_require_tls\)"
    rb"|TLS error on connection to (\S++) " + _ADDRESS + rb")"
)  # fmt: skip

_OTHER_LINE = (
    rb"(?:Start queue run|End queue run|exim |SMTP |TLS |H=|U=|ETRN |cwd=|daemon |unexpected disconnection"
    rb"|no host name |no IP address |rejected |temporarily rejected |Connection from )"
)
_PLAIN_LINE = re.compile(_TIME + rb"(?:" + _MESSAGE + rb"|" + _OTHER_LINE + rb")")
_SYSLOG_PREFIX = re.compile(
    rb"(?:<\d{1,3}>)?(?:([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d)"
    rb"|(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?) \S++ \S*?exim[^\s:\[]*+(?:\[\d+\])?: "
    rb"(?:\[\d+[\\/]\d+\] )?"
)
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def recognise(line: bytes) -> int | None:
    """PLAIN or SYSLOG for a line that only Exim writes, else None."""
    if _PLAIN_LINE.match(line):
        return PLAIN
    bare = without_syslog(line, date.min)
    return SYSLOG if bare is not line and _PLAIN_LINE.match(bare) else None


def without_syslog(line: bytes, today: date) -> bytes:
    """The line as Exim would have written it itself; the same object where there is no prefix.

    BSD's prefix (RFC 3164, section 4.1.2) has no year: it is taken as the last in which the day has come.
    """
    found = _SYSLOG_PREFIX.match(line)
    if found is None:
        return line
    rest = line[found.end() :]
    if re.match(_TIME, rest):
        return rest
    month, day, clock, iso_day, iso_clock, zone = found.groups()
    if iso_day:
        offset = b" +0000" if zone == b"Z" else b" " + zone.replace(b":", b"") if zone else b""
        return iso_day + b" " + iso_clock + offset + b" " + rest
    return _with_year(month, int(day), today) + clock + b" " + rest


def arrival(line: bytes, start: int) -> Connection | None:
    """The connection of a ``<=`` line whose flag is at ``start``; None for a local submission."""
    found = _ARRIVAL.match(line, start)
    if found is None:
        return _loose_arrival(line) if b" H=" in line else None
    name, helo, address, identity, protocol, cipher = found.groups()
    end = found.end()
    if (helo and line.find(b") [", end) >= 0) or identity:
        rest = _QUOTED_STRING.sub(b"", line[end:])
        if b") [" in rest or b" P=" in rest:
            return UNCLEAR
    return name or address, cipher or _later_cipher(line, end) or _by_protocol(protocol)


def delivery(line: bytes, start: int) -> Connection | None:
    """The connection of a delivery's line whose flag is at ``start``; None for a local delivery."""
    found = _DELIVERY.match(line, start)
    if found is None:
        return _loose_delivery(line) if b" H=" in line else None
    name, _address, cipher = found.groups()
    return name, cipher or _later_cipher(line, found.end())


def failed_arrival(line: bytes) -> Failure | None:
    """A line that tells of a handshake as a server that failed, or of a client refused for lack of TLS."""
    found = _FAILED_ARRIVAL.match(line)
    if found is None:
        return None
    time, zone, _message, *hosts = found.groups()
    return time + (zone or b""), None, next(filter(None, (hosts[0], hosts[2], hosts[3], hosts[5])))


def failed_delivery(line: bytes) -> Failure | None:
    """A line that tells of TLS as a client that did not come about."""
    found = _FAILED_DELIVERY.match(line)
    if found is None:
        return None
    time, zone, message, *peers = found.groups()
    return time + (zone or b""), message, next(filter(None, peers))


def _loose_arrival(line: bytes) -> Connection | None:
    found = _LOOSE_ARRIVAL.search(line) if len(line) <= LOOSE_LIMIT else None
    if found is None or not _once(line, b" H=", b" P=", b" X=", b") ["):
        return UNCLEAR
    name, address, protocol, cipher = found.groups()
    return name or address, cipher or _by_protocol(protocol)


def _loose_delivery(line: bytes) -> Connection | None:
    if not _LOOSE_HOST.search(line):
        return None
    found = _LOOSE_DELIVERY.search(line) if len(line) <= LOOSE_LIMIT else None
    if found is None or not _once(line, b" H=", b" T=", b" X="):
        return UNCLEAR
    name, _address, cipher = found.groups()
    return name, cipher or NO_TLS


def _once(line: bytes, *fields: bytes) -> bool:
    return all(line.count(field) <= 1 for field in fields)


def _later_cipher(line: bytes, end: int) -> bytes:
    """``X=`` behind fields that this grammar does not know; such lines are few."""
    if line.find(b" X=", end) < 0 and line.find(b" CV=", end) < 0:
        return NO_TLS
    found = _LATER_CIPHER.search(_QUOTED_STRING.sub(b"", line[end:]))
    return (found[1] or UNKNOWN_TLS) if found else NO_TLS


def _by_protocol(protocol: bytes) -> bytes:
    """What ``P=`` tells where ``X=`` is not logged (RFC 3848; ``essmtp`` is Exim's, for direct TLS)."""
    return UNKNOWN_TLS if _TLS_PROTOCOL.fullmatch(protocol) else NO_TLS


def _with_year(month: bytes, day: int, today: date) -> bytes:
    number = _MONTHS.index(month) + 1 if month in _MONTHS else 1
    tomorrow = today + timedelta(days=1)
    year = today.year - ((number, day) > (tomorrow.month, tomorrow.day) and tomorrow.year == today.year)
    return b"%04d-%02d-%02d " % (year, number, day)
