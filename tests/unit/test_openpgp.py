from __future__ import annotations

import pytest

from backport.trust import issuers

FINGERPRINT = bytes(range(20))
KEY_ID = FINGERPRINT[-8:]


def subpacket(kind: int, content: bytes) -> bytes:
    return bytes([len(content) + 1, kind]) + content


def version_4(hashed: bytes, unhashed: bytes = b"") -> bytes:
    areas = b"".join(len(area).to_bytes(2, "big") + area for area in (hashed, unhashed))
    return bytes([4, 0, 1, 8]) + areas + b"\x12\x34" + b"signature"


def old_packet(body: bytes) -> bytes:
    return bytes([0x80 | 2 << 2 | 1]) + len(body).to_bytes(2, "big") + body


def new_packet(body: bytes) -> bytes:
    return bytes([0xC0 | 2, len(body)]) + body


ISSUER = subpacket(16, KEY_ID)
ISSUER_FINGERPRINT = subpacket(33, b"\x04" + FINGERPRINT)


@pytest.mark.parametrize("packet", [old_packet, new_packet])
def test_version_4_names_fingerprint_and_key_id(packet: type) -> None:
    body = version_4(subpacket(2, b"time") + ISSUER_FINGERPRINT, ISSUER)
    assert issuers(packet(body)) == (FINGERPRINT.hex().upper(), KEY_ID.hex().upper())


def test_version_3_names_the_key_id() -> None:
    body = bytes([3, 5, 0]) + b"time" + KEY_ID + b"\x01\x08signature"
    assert issuers(old_packet(body)) == (KEY_ID.hex().upper(),)


def test_critical_and_long_subpackets_are_understood() -> None:
    notation = b"x" * 300
    length = len(notation) + 1
    long = bytes([192 + (length - 192 >> 8), (length - 192) & 0xFF, 20]) + notation
    critical = bytes([9, 16 | 0x80]) + KEY_ID
    assert issuers(old_packet(version_4(long + critical))) == (KEY_ID.hex().upper(),)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x89",
        b"not a packet",
        old_packet(version_4(ISSUER))[:-12],
        old_packet(bytes([6]) + bytes(40)),
        bytes([0x80 | 6 << 2 | 1, 0, 1, 4]),
        old_packet(bytes([4, 0, 1, 8, 0, 4, 9, 16])),
        old_packet(version_4(b"\x00" * 8)),
        old_packet(b""),
    ],
    ids=range(9),
)
def test_what_is_no_known_signature_names_nobody(junk: bytes) -> None:
    assert issuers(junk) == ()


@pytest.mark.parametrize("cut", range(60))
def test_no_truncation_is_more_than_nobody_or_somebody_named(cut: int) -> None:
    whole = old_packet(version_4(ISSUER_FINGERPRINT, ISSUER))
    assert issuers(whole[:cut]) in ((), issuers(whole))
