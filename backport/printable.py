"""Text that others wrote, made harmless for a terminal and a message."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Control sequences (ECMA-48, section 5.4)."""


def printable(text: str, limit: int = 300) -> str:
    r"""Foreign text for a message: one line, bounded, without control characters.

    >>> printable("no\x1b[31m such\nbuild")
    'no [31m such build'
    """
    return "".join(character if character.isprintable() else " " for character in text[:limit]).strip()


def printable_line(line: str, limit: int = 400) -> str:
    r"""A line of foreign output, its indent kept, without control sequences and characters.

    >>> printable_line("\ta.c:1: \x1b[31merror\x1b[0m\r")
    '    a.c:1: error'
    """
    text = _ESCAPES.sub("", line[: 2 * limit]).expandtabs(4).rstrip()
    return " " * (len(text) - len(text.lstrip(" "))) + printable(text, limit)
