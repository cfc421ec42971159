"""The record of a conversation, line by line, with the time since connecting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

LINE_LIMIT = 400
"""Characters kept of one line; a server's answer may be hostile."""
REPLY_LIMIT = 2000
"""Characters kept of a whole reply."""

_INDENT = " " * 10


class Style(StrEnum):
    """How a transcript is written."""

    COMPACT = "compact"
    CHECKTLS = "checktls"
    """Like the page of CheckTLS's test of a receiver: each line of a reply by itself."""


class Transcript:
    """What was said, when: seconds since the connection was begun, to the millisecond.

    A line that the server sent is shown with everything unprintable escaped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, style: Style = Style.COMPACT) -> None:
        self.style = style
        self._clock = clock
        self._begin = clock()
        self._entries: list[tuple[str, list[str]]] = []

    def note(self, text: str, details: Iterable[str] = (), *, limit: int = LINE_LIMIT) -> list[str]:
        """Something that happened, and what is to be told about it on lines of their own.

        Gives the list of those lines; what is learnt about them later may be added to it.
        """
        entry = (f"[{self._elapsed()}] {printable(text, limit)}", list(details))
        self._entries.append(entry)
        return entry[1]

    def sent(self, line: str) -> None:
        """A command of ours, without its line end."""
        self.note(f" --> {line}" if self.style is Style.CHECKTLS else f"--> {line}")

    def received(self, lines: Sequence[str]) -> None:
        """A whole reply of the server's, its lines without their ends: one after the other, with slashes."""
        if self.style is Style.CHECKTLS:
            self.note(
                f"<--  {printable(lines[0])}", [f"     {line}" for line in lines[1:]], limit=REPLY_LIMIT
            )
            return
        self.note(f"<-- {' / '.join(map(printable, lines))}", limit=REPLY_LIMIT)

    def text(self) -> str:
        """Everything so far, each line with its line end."""
        return "".join(
            f"{line}\n"
            for head, details in self._entries
            for line in (head, *(f"{_INDENT}{printable(detail)}" for detail in details))
        )

    def _elapsed(self) -> str:
        return f"{self._clock() - self._begin:07.3f}"


def printable(text: str, limit: int = LINE_LIMIT) -> str:
    r"""``text`` on one line, harmless for a terminal, cut to ``limit`` characters.

    >>> printable("220 \x1b[2Jhello\r")
    '220 \\x1b[2Jhello\\r'
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
