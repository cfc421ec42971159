"""Who a detached OpenPGP signature says it is from.

This only reads the claim, to choose the key that must then verify and to explain a refusal; whether
the signature is good is decided by rpm or gpg alone.
"""

from __future__ import annotations

from collections.abc import Iterator

_SIGNATURE_PACKET = 2
_ISSUER_KEY_ID = 16
_ISSUER_FINGERPRINT = 33


def issuers(signature: bytes) -> tuple[str, ...]:
    """The fingerprints and key ids (upper-case hex) that a signature packet names as its maker's.

    Fingerprints come first. A signature of an unknown form names nobody. RFC 4880, sections 4.2
    (packet headers), 5.2.2 (version 3) and 5.2.3 (version 4); RFC 9580, section 5.2.3.35 (issuer
    fingerprint).
    """
    try:
        body = _packet_body(signature)
        if body[0] == 3:
            return (body[7:15].hex().upper(),)
        if body[0] == 4:
            return tuple(sorted(_named_in_version_4(body), key=len, reverse=True))
    except IndexError:
        pass
    return ()


def _packet_body(packet: bytes) -> bytes:
    first = packet[0]
    if not first & 0x80:
        raise IndexError("not a packet")
    if first & 0x40:
        tag, (start, length) = first & 0x3F, _length(packet, 1)
    else:
        tag, width = (first >> 2) & 0x0F, 1 << (first & 3)
        start, length = 1 + width, int.from_bytes(packet[1 : 1 + width], "big")
    if tag != _SIGNATURE_PACKET or start + length > len(packet):
        raise IndexError("not a whole signature packet")
    return packet[start : start + length]


def _named_in_version_4(body: bytes) -> Iterator[str]:
    hashed = int.from_bytes(body[4:6], "big")
    unhashed = int.from_bytes(body[6 + hashed : 8 + hashed], "big")
    for area in (body[6 : 6 + hashed], body[8 + hashed : 8 + hashed + unhashed]):
        for kind, content in _subpackets(area):
            if kind == _ISSUER_KEY_ID and len(content) == 8:
                yield content.hex().upper()
            elif kind == _ISSUER_FINGERPRINT and len(content) in (21, 33):
                yield content[1:].hex().upper()


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(area):
        start, length = _length(area, position)
        if not length or start + length > len(area):
            raise IndexError("not a whole subpacket")
        yield area[start] & 0x7F, area[start + 1 : start + length]
        position = start + length


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Where the content begins, and its length, for a length in one, two or five octets."""
    first = data[position]
    if first < 192:
        return position + 1, first
    if first < 255:
        return position + 2, ((first - 192) << 8) + data[position + 1] + 192
    return position + 5, int.from_bytes(data[position + 1 : position + 5], "big")
