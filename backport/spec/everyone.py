"""Commands on all patches of a spec at once, ``%{patches}``: what they do with each of them.

A patch of ours would be among them. So it counts what surely happens to it: nothing, or that it is applied
once. Anything else is unclear, and then ours must not be among them.
"""

from __future__ import annotations

import re
from typing import Literal

#: What a command does with every patch.
Use = Literal["nothing", "applies", "unclear"]

MENTION = re.compile(r"%(?:\{[?!]*)?(?:patches|PATCHES)\b", re.ASCII)
SOURCES = re.compile(r"%(?:\{[?!]*)?(?:sources|SOURCES)\b", re.ASCII)
_LUA_TABLE = {
    name: re.compile(rf"\bi?pairs[ \t]*\([ \t]*{name}\b|#{name}\b|[(,=][ \t]*{name}\b|\b{name}\[", re.ASCII)
    for name in ("patches", "sources")
}
_LOOP = re.compile(r"[ \t]*for\b", re.ASCII)
_LOOP_END = re.compile(r"^[ \t]*done\b|;[ \t]*done\b", re.ASCII | re.MULTILINE)
_SPLIT = re.compile(r"\n|&&|\|\||[;|]")
_KEYWORD = re.compile(r"(?:do|then|else|if|elif|while|until|!|\{|\()(?=[\s({!]|$)", re.ASCII)
_CHOOSES = re.compile(
    r"&&|\|\||(?:^|[\s;(])(?:if|case|while|until|\[\[?|test|continue|break|return|exit|read)(?=\s|$)"
    r"|\bfor\b.*\bfor\b",
    re.ASCII | re.DOTALL,
)
_PATCHES = re.compile(
    r"(?:/usr/bin/)?(?:patch|%\{?[?]?__patch\}?)(?=[ \t<]|$)|git[ \t]+(?:am|apply)(?=[ \t<]|$)", re.ASCII
)
_HARMLESS = re.compile(
    r"(?:test|\[\[?|echo|printf|ls|cat|wc|file|:|true|false|for|done|fi|continue|break)(?=[\s<]|$)", re.ASCII
)
_LONGEST = 4_000


def in_lua(text: str, table: Literal["patches", "sources"]) -> bool:
    """Whether Lua in the text uses rpm's table of the patches or sources."""
    return table in text and "%{lua:" in text and _LUA_TABLE[table].search(text) is not None


def use_of(text: str, following: str) -> tuple[Use, str]:
    """What the command ``text``, which names all patches, does with each; and the whole of the command.

    ``following`` is the script from ``text`` on: a loop goes on to its ``done``.
    """
    if in_lua(text, "patches"):
        return "unclear", text
    if _LOOP.match(text):
        end = _LOOP_END.search(following)
        if end is None:
            return "unclear", text
        text = following[: end.end()]
    commands = [command for part in _SPLIT.split(text) if (command := _bare(part))]
    patching = [command for command in commands if _PATCHES.match(command)]
    if not patching:
        return "nothing" if all(_HARMLESS.match(command) for command in commands) else "unclear", text
    plain = all(_PATCHES.match(command) or _HARMLESS.match(command) for command in commands)
    if len(patching) > 1 or not plain or _CHOOSES.search(text):
        return "unclear", text
    return "applies", text


def following_text(text: str, start: int, stop: int) -> str:
    """As much of a script as a loop may have."""
    return text[start : min(stop, start + _LONGEST)]


def _bare(command: str) -> str:
    """A command without the words of the shell's grammar before it."""
    command = command.strip()
    while match := _KEYWORD.match(command):
        command = command[match.end() :].lstrip()
    return "" if command.startswith("#") else command
