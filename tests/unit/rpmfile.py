"""Writes RPM files byte by byte, so that a package can hold what rpmbuild would never put there."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SPECFILE = 1 << 5
GHOST = 1 << 6
CHANGELOG_TIME = 1540555200
"""26 October 2018, 12:00 UTC."""

_INT16, _INT32, _STRING, _BIN, _STRINGS = 3, 4, 6, 7, 8
_ALIGNMENT = {_INT16: 2, _INT32: 4}
_IMMUTABLE, _SIGNATURES = 63, 62
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
}


@dataclass
class File:
    """One file of a package: what the header says, and what the archive holds."""

    name: str
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    flags: int = 0
    folder: str = ""
    inode: int = 0
    linkto: str = ""
    archived: bytes | None = None
    """What the archive holds instead of ``content``."""
    archived_name: str | None = None
    left_out: bool = False


@dataclass
class Package:
    """A package file; the defaults make a source package."""

    files: Sequence[File]
    name: str = "tiny"
    source: bool = True
    compressor: str = "gzip"
    changelog_time: int = CHANGELOG_TIME
    build_time: int = CHANGELOG_TIME + 86400
    more_archived: Sequence[File] = field(default_factory=tuple)

    def to_bytes(self) -> bytes:
        """The whole file."""
        lead = struct.pack(">4sBBhh66shh16x", b"\xed\xab\xee\xdb", 3, 0, int(self.source), 1, b"tiny", 1, 5)
        header = _header(self._tags(), _IMMUTABLE)
        payload = _COMPRESSORS[self.compressor](_cpio([*self.files, *self.more_archived]))
        digest = hashlib.sha256(header).hexdigest()
        signatures = _header(
            [(273, _STRING, digest), (1000, _INT32, [len(header) + len(payload)])], _SIGNATURES
        )
        padding = b"\0" * (-len(signatures) % 8)
        return lead + signatures + padding + header + payload

    def _tags(self) -> list[tuple[int, int, object]]:
        files = self.files
        folders = sorted({file.folder for file in files})
        tags: list[tuple[int, int, object]] = [
            (1000, _STRING, self.name),
            (1001, _STRING, "1"),
            (1002, _STRING, "1"),
            (1004, _STRING, "A small package"),
            (1006, _INT32, [self.build_time]),
            (1021, _STRING, "linux"),
            (1022, _STRING, "noarch"),
            (1124, _STRING, "cpio"),
            (1125, _STRING, self.compressor),
            (5011, _INT32, [8]),
        ]
        if self.source:
            tags.append((1106, _INT32, [1]))
        else:
            tags.append((1044, _STRING, "tiny-1-1.src.rpm"))
        if self.changelog_time:
            tags += [
                (1080, _INT32, [self.changelog_time]),
                (1081, _STRINGS, ["A <a@example.org> - 1-1"]),
                (1082, _STRINGS, ["- first"]),
            ]
        if files:
            tags += [
                (1028, _INT32, [len(file.content) for file in files]),
                (1030, _INT16, [file.mode for file in files]),
                (1033, _INT16, [0 for _ in files]),
                (1034, _INT32, [self.build_time for _ in files]),
                (1035, _STRINGS, [_digest(file) for file in files]),
                (1036, _STRINGS, [file.linkto for file in files]),
                (1037, _INT32, [file.flags for file in files]),
                (1039, _STRINGS, ["root" for _ in files]),
                (1040, _STRINGS, ["root" for _ in files]),
                (1045, _INT32, [0 for _ in files]),
                (1095, _INT32, [1 for _ in files]),
                (1096, _INT32, [file.inode or number for number, file in enumerate(files, 1)]),
                (1097, _STRINGS, ["" for _ in files]),
                (1116, _INT32, [folders.index(file.folder) for file in files]),
                (1117, _STRINGS, [file.name for file in files]),
                (1118, _STRINGS, folders),
            ]
        return sorted(tags)


def _digest(file: File) -> str:
    return hashlib.sha256(file.content).hexdigest() if stat.S_ISREG(file.mode) else ""


def _header(tags: Sequence[tuple[int, int, object]], region: int) -> bytes:
    """A header with its region (RPM V4 format, "Header")."""
    index, store = b"", b""
    for tag, kind, value in tags:
        store += b"\0" * (-len(store) % _ALIGNMENT.get(kind, 1))
        data, count = _encode(kind, value)
        index += struct.pack(">iiii", tag, kind, len(store), count)
        store += data
    entries = len(tags) + 1
    trailer = struct.pack(">iiii", region, _BIN, -entries * 16, 16)
    index = struct.pack(">iiii", region, _BIN, len(store), 16) + index
    store += trailer
    return struct.pack(">4s4xii", b"\x8e\xad\xe8\x01", entries, len(store)) + index + store


def _encode(kind: int, value: object) -> tuple[bytes, int]:
    if isinstance(value, str):
        return value.encode() + b"\0", 1
    assert isinstance(value, list)
    if kind == _STRINGS:
        return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in value), len(value)
    return struct.pack(f">{len(value)}{'H' if kind == _INT16 else 'I'}", *value), len(value)


def _cpio(files: Sequence[File]) -> bytes:
    """An archive in the "new ASCII" format that rpm uses."""
    members = b""
    for number, file in enumerate(files, 1):
        if not file.left_out:
            content = file.content if file.archived is None else file.archived
            name = file.folder + file.name if file.archived_name is None else file.archived_name
            members += _member(name, content, file.mode, file.inode or number)
    return members + _member("TRAILER!!!", b"", 0, 0)


def _member(name: str, content: bytes, mode: int, inode: int) -> bytes:
    raw = name.encode("utf-8", "surrogateescape") + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 1, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in fields) + raw
    head += b"\0" * (-len(head) % 4)
    return head + content + b"\0" * (-len(content) % 4)
