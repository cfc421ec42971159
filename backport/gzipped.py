"""Lists of packages in gzip files that can grow without being compressed again.

A gzip file is a series of members, which every reader takes for one (RFC 1952, section 2.2). Here the head,
which has the number of packages, the packages, and the end of a metadata file are members of their own: what
comes to the list is one more, and only the head is replaced. After `MEMBERS` of them the packages become one
member again, because small ones take more space.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

MEMBERS = 50
"""How many members the packages of a list make up at most."""
_LEVEL = 6
_GZIP = 31
"""zlib's window bits for a gzip wrapper around the largest window."""
_HEAD = re.compile(
    rb'(<\?xml version="1\.0" encoding="UTF-8"\?>\s*<(metadata|filelists|otherdata) [^>]*\bpackages=")(\d+)"'
)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The whole content of a gzip file, and what the plain text of it is."""

    content: bytes
    size: int
    """Bytes of the plain text."""
    sha256: str
    """Digest of the plain text."""


@dataclass(frozen=True, kw_only=True)
class PackageList:
    """A list of packages as it was read."""

    text: bytes
    """The whole plain text."""
    count: int
    """How many packages its head tells of."""
    beginning: bytes
    """The head up to that number."""
    start: int
    """Where in the text the packages begin."""
    end: int
    """Where they end."""
    packed: bytes
    """The members that hold the packages; empty where they share a member with other parts, or are many."""

    def extended(self, new: bytes, *, count: int) -> Packed:
        """The list with the entries ``new`` behind the others, and ``count`` packages in all."""
        head, end = _head(self.beginning, count), self.text[self.end :]
        packages = memoryview(self.text)[self.start : self.end]
        digest = hashlib.sha256(head)
        for part in (packages, new, end):
            digest.update(part)
        members = [self.packed, _member(new)] if self.packed else [_member(packages, new)]
        return Packed(
            content=b"".join((_member(head), *members, _member(end))),
            size=len(head) + len(packages) + len(new) + len(end),
            sha256=digest.hexdigest(),
        )


def read_list(path: Path) -> PackageList:
    """The list in a gzip file. Raises ValueError when it is none, OSError."""
    data = path.read_bytes()
    try:
        members = _members(data)
    except (zlib.error, ValueError) as problem:
        raise ValueError(f"{path.name}: {problem}") from None
    text = b"".join(plain for _, plain in members)
    head = _HEAD.match(text)
    end = text.rfind(b"</" + head[2]) if head else -1
    if not head or end < 0:
        raise ValueError(f"{path.name}: is no list of packages")
    (_, first), (last, final) = members[0], members[-1]
    apart = 3 <= len(members) < MEMBERS + 2 and len(first) == head.end() and len(text) - len(final) == end
    return PackageList(
        text=text, count=int(head[3]), beginning=head[1], start=head.end(), end=end,
        packed=data[members[1][0] : last] if apart else b"",
    )  # fmt: skip


def pack_list(text: bytes) -> bytes:
    """A list as a gzip file of a head, the packages and an end; any other text as one member."""
    head = _HEAD.match(text)
    end = text.rfind(b"</" + head[2]) if head else -1
    if not head or end < 0:
        return _member(text)
    parts = (text[: head.end()], memoryview(text)[head.end() : end], text[end:])
    return b"".join(_member(part) for part in parts)


def _head(beginning: bytes, count: int) -> bytes:
    return beginning + b'%d"' % count


def _member(*parts: bytes | memoryview) -> bytes:
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return b"".join((*(squeezer.compress(part) for part in parts), squeezer.flush()))


def _members(data: bytes) -> list[tuple[int, bytes]]:
    """Where each member begins, and its plain text. Raises zlib.error, ValueError."""
    found: list[tuple[int, bytes]] = []
    rest = data
    while rest:
        start = len(data) - len(rest)
        opener = zlib.decompressobj(_GZIP)
        plain = opener.decompress(rest)
        if not opener.eof:
            raise ValueError("ends too early")
        found.append((start, plain))
        rest = opener.unused_data
    return found
