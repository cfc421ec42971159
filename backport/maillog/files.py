"""Log files as blocks of lines: plain or compressed, whatever their names say, in constant memory."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
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

_ROTATED = re.compile(r"\A(.*?)(?:[.-](\d{1,3}|\d{8}(?:-\d+)?))?(?:\.(?:gz|xz|bz2|zst))?\Z", re.DOTALL)
"""A log's name, and what logrotate (a number, or dateext) and exicyclog put behind it."""


def in_order(names: Sequence[str]) -> list[str]:
    """Files in the order in which their lines were written: of a set of rotated ones the oldest first.

    >>> in_order(["main.log", "main.log.1", "main.log.10.gz", "main.log.2.gz"])
    ['main.log.10.gz', 'main.log.2.gz', 'main.log.1', 'main.log']
    """
    parts: dict[str, tuple[str, str]] = {name: _ROTATED.findall(name)[0] for name in names}
    logs = [log for log, _ in parts.values()]

    def age(name: str) -> tuple[int, int, str]:
        log, number = parts[name]
        return logs.index(log), -int(number) if 0 < len(number) < 4 else 1, number or "~"

    return sorted(names, key=age)


def line_blocks(name: str, progress: Progress) -> Iterator[list[bytes]]:
    """The lines of a file, or of standard input for ``-``, without their line ends, in lists.

    Progress is told in bytes of the file as it is stored. Raises UsageError for a file that is not
    there, cannot be read, is damaged, or is compressed in a way that this Python does not know; of a damaged
    one after all whole lines that come before the damage.
    """
    shown = "standard input" if name == STDIN else name
    try:
        with _open(name) as raw:
            counted = _Counted(raw)
            stream = _decompressed(counted)
            total = _size(raw)
            for lines in _lines(stream):
                progress.transfer(shown, counted.position, total)
                yield lines
    except ImportError:
        raise UsageError(
            f"{shown} is compressed with zstd, which this Python cannot read",
            hint="Pipe it: zstd -dc FILE | backport maillog -",
        ) from None
    except _refusals() as problem:
        # What gzip and bz2 find wrong are OSErrors without a number.
        if isinstance(problem, OSError) and problem.errno:
            raise UsageError(f"cannot read {shown}: {problem.strerror}") from None
        raise UsageError(
            f"{shown} is damaged: {problem}", hint="What comes before the damage is counted."
        ) from None


def _refusals() -> tuple[type[Exception], ...]:
    zstd = sys.modules.get("compression.zstd")
    return EOFError, OSError, zlib.error, lzma.LZMAError, *([zstd.ZstdError] if zstd else ())


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


def _decompressed(counted: _Counted) -> io.BufferedIOBase:
    buffered: io.BufferedReader = io.BufferedReader(counted, BLOCK_SIZE)
    for magic, opened in _FORMATS.items():
        if counted.magic.startswith(magic):
            return opened(buffered)
    return buffered


def _zstd(stream: io.BufferedReader) -> io.BufferedIOBase:
    # Python has it since 3.14 (PEP 784).
    return cast("io.BufferedIOBase", importlib.import_module("compression.zstd").open(stream))


_FORMATS: dict[bytes, Callable[[io.BufferedReader], io.BufferedIOBase]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def _lines(stream: io.BufferedIOBase) -> Iterator[list[bytes]]:
    rest = b""
    # Not read(), which would lose what comes before damage.
    while block := stream.read1(BLOCK_SIZE):
        lines = (rest + block).split(b"\n")
        # A file without line ends must not fill the memory.
        rest = lines.pop()[:LINE_LIMIT]
        yield lines
    if rest:
        yield [rest]
