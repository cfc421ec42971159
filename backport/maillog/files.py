"""Log files as blocks of lines: plain or compressed, whatever their names say, in constant memory."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from backport.errors import UsageError
from backport.progress import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN = "-"
"""The name that stands for standard input."""

BLOCK_SIZE = 1 << 18
"""Bytes, after decompression, that are read at a time."""

LINE_LIMIT = 1 << 16
"""Bytes; longer lines lose what is in the middle. Exim's own limit is 8,192 (LOG_BUFFER_SIZE)."""

_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


def line_blocks(name: str, progress: Progress) -> Iterator[list[bytes]]:
    """The lines of a file, or of standard input for ``-``, without their line ends, in lists.

    Progress is told in bytes of the file as it is stored. Raises UsageError for a file that is not
    there, cannot be read, is damaged, or is compressed in a way that this Python does not know.
    """
    shown = "standard input" if name == STDIN else name
    try:
        with _open(name) as raw:
            counted = _Counted(raw)
            stream = _decompressed(counted, shown)
            total = _size(raw)
            for lines in _lines(stream):
                progress.transfer(shown, counted.position, total)
                yield lines
    except _DAMAGED as problem:
        raise UsageError(
            f"{shown} is damaged: {problem}", hint="Decompress it by hand to see how far it can be read."
        ) from None
    except OSError as problem:
        raise UsageError(f"cannot read {shown}: {problem.strerror or problem}") from None


class _Counted(io.RawIOBase):
    """A stream that knows how many bytes were read of it and what it begins with."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._ahead = raw.read(6)
        self.magic = self._ahead
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._ahead[: len(view)] or self._raw.read(len(view))
        self._ahead = self._ahead[len(view) :]
        view[: len(data)] = data
        self.position += len(data)
        return len(data)


def _open(name: str) -> BinaryIO:
    return os.fdopen(os.dup(0), "rb") if name == STDIN else Path(name).open("rb")


def _size(raw: BinaryIO) -> int | None:
    return os.fstat(raw.fileno()).st_size or None


def _decompressed(counted: _Counted, shown: str) -> BinaryIO:
    buffered = io.BufferedReader(counted, BLOCK_SIZE)
    for magic, opener in _FORMATS.items():
        if counted.magic.startswith(magic):
            return opener(buffered, shown)
    return buffered


def _gzip(stream: BinaryIO, _shown: str) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=stream))


def _xz(stream: BinaryIO, _shown: str) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(stream))


def _bzip2(stream: BinaryIO, _shown: str) -> BinaryIO:
    return cast("BinaryIO", bz2.BZ2File(stream))


def _zstd(stream: BinaryIO, shown: str) -> BinaryIO:
    try:
        # Python has it since 3.14 (PEP 784).
        module = importlib.import_module("compression.zstd")
    except ImportError:
        raise UsageError(
            f"{shown} is compressed with zstd, which this Python cannot read",
            hint="Pipe it: zstd -dc FILE | backport maillog -",
        ) from None
    return cast("BinaryIO", module.ZstdFile(stream))


_FORMATS: dict[bytes, Callable[[BinaryIO, str], BinaryIO]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\x00": _xz,
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def _lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    rest = b""
    while block := stream.read(BLOCK_SIZE):
        lines = (rest + block).split(b"\n")
        # A file without line ends must not fill the memory.
        rest = lines.pop()[:LINE_LIMIT]
        yield lines
    if rest:
        yield [rest]
