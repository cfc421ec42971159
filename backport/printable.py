"""Text that others wrote, made harmless for a terminal and a message."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Control sequences (ECMA-48, section 5.4)."""
_VOID_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def harmless(text: str) -> str:
    r"""Text that does nothing to a terminal: what would is written out; lines, tabs and letters stay.

    >>> harmless("no\x1b[31m such build")
    'no\\x1b[31m such build'
    """
    if text.isprintable():
        return text
    return "".join(
        one
        if one.isprintable() or one in "\n\t" or unicodedata.category(one) == "Zs"
        else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


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


def xml_text(text: str) -> str:
    """Text with a replacement for the characters that XML 1.0 cannot carry (section 2.2)."""
    return _VOID_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
