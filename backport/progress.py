"""How stages tell what they are doing; what is shown of it is the command line's business."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from backport.files import opened_regular
from backport.printable import printable_line

_CHUNK = 1024 * 1024
_MOST = 16
"""How many chunks of a log are read at once."""
_LINE = 2000
_SECTION = re.compile(r"^Executing\((%\w+)\): ")
"""What rpmbuild prints when it begins a section of the spec; only shown, nothing is decided by it."""


class Progress(Protocol):
    """The listener to long work."""

    def note(self, message: str) -> None:
        """One thing is being done now, in a few words without a full stop."""

    def transfer(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes of ``what`` have arrived (None: nobody knows how many)."""

    def following(self, message: str, log: Path) -> AbstractContextManager[None]:
        """While the block lasts, one long thing is being done that has a log of its own."""


class Silent:
    """A listener that shows nothing."""

    def note(self, message: str) -> None:
        """Show nothing."""

    def transfer(self, what: str, done: int, total: int | None) -> None:
        """Show nothing."""

    def following(self, message: str, log: Path) -> AbstractContextManager[None]:  # noqa: ARG002  # a listener
        """Show nothing."""
        return contextlib.nullcontext()


class Follower:
    """The lines of a log while it is written, harmless for a terminal, and the spec's section they are of.

    The log need not be there yet. It may be written by what is not trusted: only a plain file is read.
    """

    def __init__(self, log: Path, *, start: int = 0) -> None:
        self.section = ""
        self._log = log
        self._offset = start
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """The lines that came whole since the last time; those that are too long are cut."""
        for _ in range(_MOST):
            chunk = self._read()
            if not chunk:
                return
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > _LINE:
                whole, self._rest = [*whole, self._rest], b""
            for line in whole:
                text = line[:_LINE].decode("utf-8", "replace")
                if found := _SECTION.match(text):
                    self.section = found[1]
                yield printable_line(text, _LINE)

    def _read(self) -> bytes:
        try:
            with opened_regular(self._log) as stream:
                stream.seek(self._offset)
                chunk = stream.read(_CHUNK)
        except OSError:
            return b""
        self._offset += len(chunk)
        return chunk
