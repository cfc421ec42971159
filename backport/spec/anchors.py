"""Edits at an anchor: text that stands in the spec exactly once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backport.errors import PatchError

_MOST_NAMED = 20
_LONGEST, _MOST_LINES = 200, 20_000
"""Of each line, and of lines, as much as is compared with an anchor that is nowhere."""


@dataclass(frozen=True, kw_only=True)
class SpecEdit:
    """One edit of a spec's text.

    ``anchor`` may be a part of a line or several lines. ``insert_before`` and ``insert_after`` put
    whole lines before or behind the lines that hold it; ``replace`` and ``delete`` change the anchor
    alone, and an anchor that is whole lines is deleted with its line ending.
    """

    action: Literal["insert_before", "insert_after", "replace", "delete"]
    anchor: str
    text: str = ""


def apply_edits(text: str, *, name: str, edits: Sequence[SpecEdit]) -> str:
    """The spec's text (one character a byte) with the edits made, each upon the one before.

    Raises :class:`backport.errors.PatchError` where an anchor stands there not at all or more than
    once, with the lines of all matches or the line that comes nearest.
    """
    eol = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    for edit in edits:
        anchor, new = (_as_text(part, eol) for part in (edit.anchor, edit.text))
        start = _find(text, anchor, name, edit)
        text = _change(text, edit.action, new, eol, found=(start, start + len(anchor)))
    return text


def _as_text(text: str, eol: str) -> str:
    """UTF-8, one character a byte, with the spec's line endings and none at the end."""
    return text.replace("\r\n", "\n").removesuffix("\n").replace("\n", eol).encode().decode("latin-1")


def _change(text: str, action: str, new: str, eol: str, *, found: tuple[int, int]) -> str:
    start, end = found
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    if action == "insert_before":
        return text[:first] + new + eol + text[first:]
    if action == "insert_after":
        if last < 0:
            return text + eol + new
        return text[: last + 1] + new + eol + text[last + 1 :]
    if action == "delete" and start == first and text[end : end + len(eol)] == eol:
        end += len(eol)
    return text[:start] + ("" if action == "delete" else new) + text[end:]


def _find(text: str, anchor: str, name: str, edit: SpecEdit) -> int:
    if not anchor.strip():
        raise PatchError(f"{name}: the anchor of a spec edit is empty", hint="Give it text of the spec.")
    found: list[int] = []
    start = text.find(anchor)
    while start >= 0 and len(found) <= _MOST_NAMED:
        found.append(start)
        start = text.find(anchor, start + 1)
    if len(found) == 1:
        return found[0]
    shown = edit.anchor.strip().partition("\n")[0]
    if found:
        lines = ", ".join(str(text.count("\n", 0, start) + 1) for start in found[:_MOST_NAMED])
        count = f"{len(found)} lines" if len(found) <= _MOST_NAMED else f"more than {_MOST_NAMED} lines"
        raise PatchError(
            f"{name}: the anchor {shown!r} stands on {count}: {lines}",
            hint="Lengthen the anchor, with the line above or below, until it is unique.",
        )
    raise PatchError(f"{name}: the anchor {shown!r} does not stand in the spec", hint=_nearest(text, anchor))


def _nearest(text: str, anchor: str) -> str:
    """A hint that names the line most like the anchor's first."""
    wanted = next(line.strip() for line in anchor.split("\n") if line.strip())[:_LONGEST]
    lines = [line.strip()[:_LONGEST] for line in text.split("\n", _MOST_LINES)[:_MOST_LINES]]
    near = difflib.get_close_matches(wanted, lines, n=1, cutoff=0.4)
    if not near:
        return "No line of the spec resembles it."
    line = near[0].encode("latin-1").decode(errors="replace")
    return f"The nearest line is {lines.index(near[0]) + 1}: {line}"
