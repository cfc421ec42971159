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
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
    """How many packages its head names."""
    beginning: bytes
    """The head up to that number."""
    start: int
    """Where in the text the packages begin."""
    end: int
    """Where they end."""
    packed: bytes = b""
    """The members that hold the packages; empty where they share a member with other parts, or are many."""

    def grown(self, new: bytes, *, count: int) -> tuple[bytes | memoryview, ...]:
        """The plain text, in its parts, with the entries ``new`` behind the others, ``count`` in all."""
        head = self.beginning + b'%d"' % count
        return head, memoryview(self.text)[self.start : self.end], new, self.text[self.end :]

    def extended(self, new: bytes, *, count: int) -> Packed:
        """A gzip file of the list with the entries ``new`` behind the others, ``count`` in all."""
        parts = self.grown(new, count=count)
        head, packages, _, end = parts
        members = [self.packed, _member(new)] if self.packed else [_member(packages, new)]
        size, sha256 = plain_size_and_digest(parts)
        return Packed(content=b"".join((_member(head), *members, _member(end))), size=size, sha256=sha256)


def plain_size_and_digest(parts: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """How many bytes the parts of a text have together, and their SHA-256 digest."""
    size, digest = 0, hashlib.sha256()
    for part in parts:
        size += len(part)
        digest.update(part)
    return size, digest.hexdigest()


def read_list(path: Path) -> PackageList:
    """The list in a gzip file. Raises ValueError when it is none, OSError."""
    data = path.read_bytes()
    try:
        members = _members(data)
    except (zlib.error, ValueError) as problem:
        raise ValueError(f"{path.name}: {problem}") from None
    found = plain_list(b"".join(plain for _, plain in members), name=path.name)
    (_, first), (last, final) = members[0], members[-1]
    apart = len(first) == found.start and len(found.text) - len(final) == found.end
    if apart and 3 <= len(members) < MEMBERS + 2:
        return replace(found, packed=data[members[1][0] : last])
    return found


def plain_list(text: bytes, *, name: str) -> PackageList:
    """The list that a plain text is, from the file ``name``. Raises ValueError when it is none."""
    head = _HEAD.match(text)
    end = text.rfind(b"</" + head[2]) if head else -1
    if not head or end < 0:
        raise ValueError(f"{name}: is no list of packages")
    return PackageList(text=text, count=int(head[3]), beginning=head[1], start=head.end(), end=end)


def pack_list(text: bytes) -> bytes:
    """A list as a gzip file of a head, the packages and an end; any other text as one member."""
    try:
        found = plain_list(text, name="")
    except ValueError:
        return _member(text)
    packages = memoryview(text)[found.start : found.end]
    return b"".join(_member(part) for part in (text[: found.start], packages, text[found.end :]))


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
