"""Text that others wrote, made harmless for a terminal and a message."""

from __future__ import annotations


def printable(text: str, limit: int = 300) -> str:
    r"""Foreign text for a message: one line, bounded, without control characters.

    >>> printable("no\x1b[31m such\nbuild")
    'no [31m such build'
    """
    return "".join(character if character.isprintable() else " " for character in text[:limit]).strip()
