"""ClientHellos of our own making, and servers' answers to them, octet by octet."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest

from backport.probe.hello import SSL2, SSL3, TLS1, TLS1_1, TLS1_2, TLS1_3, Hello, Reader
from backport.probe.suites import NAMES, STRONG_DHE, WEAK, all_suites, name_of, weakness


def record(content: bytes, *, kind: int = 22) -> bytes:
    return bytes([kind, 3, 3]) + len(content).to_bytes(2) + content


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3) + body


def server_hello(version: int, suite: int, extensions: bytes = b"") -> bytes:
    body = min(version, TLS1_2).to_bytes(2) + bytes(32) + b"\0" + suite.to_bytes(2) + b"\0"
    if version == TLS1_3:
        extensions = b"\0\x2b\0\2\3\4" + extensions
    return message(2, body + len(extensions).to_bytes(2) + extensions)


def server_flight(
    chain: Sequence[bytes], *, version: int = TLS1_2, suite: int = 0x0033, bits: int = 1024
) -> bytes:
    """What a server sends first, with DHE in a field of so many bits."""
    certificates = b"".join(len(der).to_bytes(3) + der for der in chain)
    prime = (1 << (bits - 1)).to_bytes((bits + 7) // 8)
    exchange = len(prime).to_bytes(2) + prime + b"\0\1\2\0\1\2"
    parts = (
        server_hello(version, suite),
        message(11, len(certificates).to_bytes(3) + certificates),
        message(12, exchange),
        message(14, b""),
    )
    return b"".join(map(record, parts))


def heard(*pieces: bytes) -> Reader:
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def test_a_whole_flight_is_read_however_it_is_cut() -> None:
    flight = server_flight([b"one", b"two"])
    for reader in (heard(flight), heard(*(flight[at : at + 1] for at in range(len(flight))))):
        assert reader.done
        answer = reader.answer
        assert (answer.version, answer.suite, answer.dh_bits) == (TLS1_2, 0x0033, 1024)
        assert answer.chain == (b"one", b"two")
        assert answer.accepted


def test_messages_may_share_a_record_or_be_cut_by_one() -> None:
    whole = server_hello(TLS1, 5) + message(14, b"")
    assert heard(record(whole)).done
    assert heard(record(whole[:9]), record(whole[9:])).answer.suite == 5


def test_alerts() -> None:
    answer = heard(record(b"\2\x46", kind=21)).answer
    assert (answer.alert, answer.accepted) == (70, False)
    warned = heard(record(b"\1\x70", kind=21), record(server_hello(TLS1, 5)))
    assert warned.answer.accepted


def test_a_hello_retry_request_and_its_group() -> None:
    body = TLS1_2.to_bytes(2) + bytes.fromhex(
        "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
    )
    extensions = b"\0\x2b\0\2\3\4" + b"\0\x33\0\2\x11\xec"
    body += b"\0\x13\1\0" + len(extensions).to_bytes(2) + extensions
    answer = heard(record(message(2, body))).answer
    assert (answer.version, answer.retried, answer.group) == (TLS1_3, True, 0x11EC)


def test_the_hello_of_sslv2_and_its_answers() -> None:
    assert Hello(versions=(SSL2,)).octets()[2:5] == b"\x01\x00\x02"
    body = (
        b"\x04\0\1\0\2"
        + (3).to_bytes(2)
        + (3).to_bytes(2)
        + (16).to_bytes(2)
        + b"DER"
        + b"\x01\0\x80"
        + bytes(16)
    )
    answer = heard((0x8000 | len(body)).to_bytes(2) + body).answer
    assert (answer.version, answer.chain, answer.suite) == (SSL2, (b"DER",), 0x010080)
    assert heard(b"\x80\x03\0\0\1").answer.version == SSL2


@pytest.mark.parametrize(
    "content", [b"220 mail ESMTP\r\n", b"HTTP/1.0 400 Bad\r\n", b"\0\0\0\0\0\0", b"\x16\x03\x03\xff\xff"]
)
def test_what_is_no_tls_is_told(content: bytes) -> None:
    reader = heard(content)
    assert reader.done
    assert "cannot be read" in reader.answer.problem
    assert not reader.answer.accepted


@pytest.mark.parametrize("version", [SSL3, TLS1, TLS1_1, TLS1_2, TLS1_3])
def test_openssl_reads_the_hellos(version: int) -> None:
    """The library's server says what it misses, which is never the hello's form."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    incoming.write(Hello(versions=(version,), suites=all_suites(), servername="a.example").octets())
    with pytest.raises(
        ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|NO_SHARED_CIPHER|NO_SUITABLE|VERSION_TOO_LOW"
    ):
        context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()


def test_the_table_of_suites() -> None:
    assert {name_of(number) for number in (0x0005, 0x000A, 0xC02F)} == {
        "RC4-SHA", "DES-CBC3-SHA", "ECDHE-RSA-AES128-GCM-SHA256",
    }  # fmt: skip
    assert len(set(NAMES.values())) == len(NAMES)
    assert set(all_suites()) >= {*WEAK, *STRONG_DHE}
    assert weakness("EXP-ADH-RC4-MD5")
    assert not weakness("ECDHE-ECDSA-CHACHA20-POLY1305")
    assert name_of(0xABCD) == "0xABCD"
