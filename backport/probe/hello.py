"""A ClientHello of our own making, and what a server answers to it: for versions and suites that no
TLS library speaks any more. The answer is read as far as it comes in clear; no handshake is completed.

Rests on RFC 5246 (section 7.4: messages of SSLv3 to TLS 1.2), RFC 8446 (sections 4.1 and 4.2), RFC 6101
(SSLv3) and, for SSLv2's hello, RFC 5246 appendix E.2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from backport.probe.suites import is_dhe, is_ecdhe
from backport.probe.tls import is_retry

SSL2, SSL3, TLS1, TLS1_1, TLS1_2, TLS1_3 = 0x0002, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304

VERSION_NAMES = {
    SSL2: "SSLv2",
    SSL3: "SSLv3",
    TLS1: "TLSv1",
    TLS1_1: "TLSv1.1",
    TLS1_2: "TLSv1.2",
    TLS1_3: "TLSv1.3",
}
"""OpenSSL's names of the versions."""

ANSWER_LIMIT = 512 * 1024
"""Octets of an answer."""
MESSAGE_LIMIT = 256 * 1024
"""Octets of one handshake message."""
ALERT_LIMIT = 16
"""Warnings after which a server is taken to flood."""

PROTOCOL_VERSION = 70
"""The alert of a server that refuses the version (RFC 8446 section 6.2)."""
_ALERT, _HANDSHAKE = 21, 22
_SERVER_HELLO, _CERTIFICATE, _SERVER_KEY_EXCHANGE, _HELLO_DONE = 2, 11, 12, 14
_SUPPORTED_VERSIONS, _KEY_SHARE = 43, 51
_SSL2_SUITES = (0x010080, 0x020080, 0x030080, 0x040080, 0x050080, 0x060040, 0x0700C0)

MLKEM = 0x11EC
GROUPS = (MLKEM, 0x001D, 0x0017, 0x0018, 0x0019, 0x001E, 0x0016, 0x001A, 0x001B, 0x001C, 0x0100, 0x0101)
"""X25519MLKEM768, X25519, the NIST and brainpool curves, X448, finite fields (IANA: TLS Supported Groups)."""
GROUP_NAMES = {
    MLKEM: "X25519MLKEM768",
    0x001D: "X25519",
    0x001E: "X448",
    0x0017: "P-256",
    0x0018: "P-384",
    0x0019: "P-521",
    0x0016: "secp256k1",
    0x001A: "brainpoolP256r1",
    0x001B: "brainpoolP384r1",
    0x001C: "brainpoolP512r1",
    0x0100: "ffdhe2048",
    0x0101: "ffdhe3072",
}
ECDSA_SCHEMES = (0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0203)
RSA_SCHEMES = (0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x0401, 0x0501, 0x0601, 0x0201, 0x0101)
DSA_SCHEMES = (0x0402, 0x0202)
"""Signature schemes by the kind of key that makes them (RFC 8446 section 4.2.3; RFC 5246 7.4.1.4.1)."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a ClientHello of ours offers: the newest version is ``versions[0]``; suites by IANA's numbers."""

    versions: tuple[int, ...]
    suites: tuple[int, ...] = ()
    servername: str | None = None
    groups: tuple[int, ...] = GROUPS
    schemes: tuple[int, ...] = (*ECDSA_SCHEMES, *RSA_SCHEMES, *DSA_SCHEMES)

    def octets(self) -> bytes:
        """The hello in its record."""
        if self.versions == (SSL2,):
            return _ssl2_hello()
        newest = self.versions[0]
        suites = b"".join(_number(suite, 2) for suite in (*self.suites, 0x00FF))
        body = _number(min(newest, TLS1_2), 2) + os.urandom(32) + _vector(os.urandom(32), 1)
        body += _vector(suites, 2) + _vector(b"\0", 1)
        if newest != SSL3:  # SSLv3 has no extensions (RFC 6101)
            body += _vector(self._extensions(), 2)
        message = b"\x01" + _vector(body, 3)
        record_version = SSL3 if newest == SSL3 else TLS1
        return bytes([_HANDSHAKE]) + _number(record_version, 2) + _vector(message, 2)

    def _extensions(self) -> bytes:
        found: list[tuple[int, bytes]] = []
        if self.servername:
            found.append((0, _vector(b"\0" + _vector(self.servername.encode("ascii"), 2), 2)))
        found += [
            (10, _vector(_numbers(self.groups), 2)),
            (11, b"\x01\x00"),
            (23, b""),
        ]
        if self.versions[0] >= TLS1_2:
            found.append((13, _vector(_numbers(self.schemes), 2)))
        if len(self.versions) > 1 or self.versions[0] == TLS1_3:
            found.append((_SUPPORTED_VERSIONS, _vector(_numbers(self.versions), 1)))
        if self.versions[0] == TLS1_3:
            # Without a key share the server names the group that it wants (RFC 8446 section 4.2.8).
            found += [(45, b"\x01\x01"), (_KEY_SHARE, b"\0\0")]
        return b"".join(_number(kind, 2) + _vector(content, 2) for kind, content in found)


@dataclass
class Answer:
    """What a server answered to a hello of ours, as far as it can be read."""

    version: int | None = None
    """The version that it chose; None where no ServerHello came."""
    suite: int | None = None
    retried: bool = False
    """Whether it was a HelloRetryRequest."""
    group: int | None = None
    """The group of the key exchange, where it has one."""
    dh_bits: int | None = None
    """The size of the finite field that DHE is done in."""
    chain: tuple[bytes, ...] = ()
    """The certificates as sent, in DER."""
    alert: int | None = None
    """The number of the fatal alert that ended it."""
    closed: bool = False
    """Whether the server closed the connection."""
    problem: str = ""
    """Why what came is no answer, or none came."""
    octets: int = 0
    """How much the server sent."""

    @property
    def accepted(self) -> bool:
        """Whether the server went on with what was offered."""
        return self.version is not None and self.alert is None


@dataclass
class Reader:
    """Reads an answer piece by piece; ``done`` where nothing more is needed."""

    answer: Answer = field(default_factory=Answer)
    done: bool = False
    _records: bytes = b""
    _messages: bytes = b""
    _warnings: int = 0

    def feed(self, data: bytes) -> None:
        """Take what the server sent next. Nothing is raised: what cannot be read is the answer's problem."""
        self.answer.octets += len(data)
        self._records += data
        try:
            while not self.done and self._record():
                pass
        except (IndexError, ValueError) as problem:
            self._stop(f"the answer cannot be read: {problem}")
        if self.answer.octets > ANSWER_LIMIT:
            self._stop(f"the answer is longer than {ANSWER_LIMIT} octets")

    def _stop(self, problem: str) -> None:
        self.answer.problem = problem
        self.done = True

    def _record(self) -> bool:
        """Take one record off; false where it is not whole yet."""
        head = self._records[:5]
        if len(head) < 3:
            return False
        if head[0] & 0x80 and head[2] in {0, 4}:
            return self._ssl2(head)
        if head[0] not in {_ALERT, _HANDSHAKE} or head[1] != 3:
            raise ValueError(f"{head[:3].hex(' ')} begins no TLS record")
        if len(head) < 5:
            return False
        length = int.from_bytes(head[3:5])
        if length > 2**14 + 2048:
            raise ValueError(f"a record of {length} octets")
        if len(self._records) < 5 + length:
            return False
        content, self._records = self._records[5 : 5 + length], self._records[5 + length :]
        if head[0] == _ALERT:
            self._alert(content)
        else:
            self._messages += content
            while not self.done and self._message():
                pass
        return True

    def _alert(self, content: bytes) -> None:
        if len(content) != 2:
            raise ValueError(f"an alert of {len(content)} octets")
        self._warnings += 1
        # SSLv3 and TLS: level 2 is fatal; the end of the connection (0) comes as a warning.
        if content[0] == 2:
            self.answer.alert = content[1]
            self.done = True
        elif content[1] == 0:
            self.answer.closed = True
            self.done = True
        elif self._warnings > ALERT_LIMIT:
            raise ValueError(f"more than {ALERT_LIMIT} warnings")

    def _message(self) -> bool:
        if len(self._messages) < 4:
            return False
        kind, length = self._messages[0], int.from_bytes(self._messages[1:4])
        if length > MESSAGE_LIMIT:
            raise ValueError(f"a message of {length} octets")
        if len(self._messages) < 4 + length:
            return False
        whole, self._messages = self._messages[: 4 + length], self._messages[4 + length :]
        body = _Fields(whole[4:])
        if kind == _SERVER_HELLO:
            self._server_hello(whole, body)
        elif self.answer.version is None:
            raise ValueError(f"message {kind} comes before the ServerHello")
        elif kind == _CERTIFICATE:
            self.answer.chain = tuple(_certificates(body))
        elif kind == _SERVER_KEY_EXCHANGE:
            self._key_exchange(body)
        elif kind == _HELLO_DONE:
            self.done = True
        return True

    def _server_hello(self, whole: bytes, body: _Fields) -> None:
        version = body.number(2)
        body.take(32)
        body.vector(1)
        suite = body.number(2)
        body.number(1)
        extensions = dict(_extensions(_Fields(body.vector(2)))) if body else {}
        if _SUPPORTED_VERSIONS in extensions:
            version = int.from_bytes(extensions[_SUPPORTED_VERSIONS])
        if version not in VERSION_NAMES:
            raise ValueError(f"version {version:#06x}")
        self.answer.version, self.answer.suite = version, suite
        self.answer.retried = is_retry(b"\x16\3\3\0\0" + whole)
        if share := extensions.get(_KEY_SHARE):
            self.answer.group = int.from_bytes(share[:2])
        self.done = version == TLS1_3

    def _key_exchange(self, body: _Fields) -> None:
        suite = self.answer.suite or 0
        if is_dhe(suite):
            self.answer.dh_bits = int.from_bytes(body.vector(2)).bit_length()
        elif is_ecdhe(suite) and body.number(1) == 3:  # named_curve (RFC 8422 section 5.4)
            self.answer.group = body.number(2)

    def _ssl2(self, head: bytes) -> bool:
        """SSLv2's SERVER-HELLO (type 4) or ERROR (type 0), in a record of two octets' head."""
        length = int.from_bytes(head[:2]) & 0x7FFF
        if len(self._records) < 2 + length:
            return False
        body = _Fields(self._records[2 : 2 + length])
        self.answer.version = SSL2
        self.done = True
        if body.number(1) == 4:
            body.take(4)
            certificate, suites = body.number(2), body.number(2)
            body.take(2)
            found = body.take(certificate)
            self.answer.chain = (found,) if found else ()
            self.answer.suite = int.from_bytes(body.take(suites)[:3]) if suites else None
        return True


def _certificates(body: _Fields) -> list[bytes]:
    inside, found = _Fields(body.vector(3)), []
    while inside:
        found.append(inside.vector(3))
    return found


def _extensions(body: _Fields) -> list[tuple[int, bytes]]:
    found = []
    while body:
        found.append((body.number(2), body.vector(2)))
    return found


class _Fields:
    """Numbers and vectors (RFC 8446 section 3) taken from the front of some octets.

    Raises ValueError where there are not enough.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def __bool__(self) -> bool:
        return self._at < len(self._content)

    def take(self, length: int) -> bytes:
        part = self._content[self._at : self._at + length]
        if len(part) < length:
            raise ValueError("it ends too early")
        self._at += length
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size)


def _numbers(values: Sequence[int]) -> bytes:
    return b"".join(_number(value, 2) for value in values)


def _vector(content: bytes, size: int) -> bytes:
    return _number(len(content), size) + content


def _ssl2_hello() -> bytes:
    suites = b"".join(_number(suite, 3) for suite in _SSL2_SUITES)
    challenge = os.urandom(16)
    body = b"\x01" + _number(SSL2, 2) + _number(len(suites), 2) + _number(0, 2) + _number(16, 2)
    body += suites + challenge
    return _number(0x8000 | len(body), 2) + body
