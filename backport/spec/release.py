"""The Release tags of a spec: each gets the backport's suffix.

The suffix goes to the end of the value, behind ``%{?dist}``: ``3%{?dist}`` becomes ``3%{?dist}.bp1``.
At a target whose ``%dist`` is ``.fc28`` that is 3.fc28.bp1: above every 3.fc28 of the target and
below the 3.fc29 that it came from (rpm's version(7): more segments are newer, 28 is older than 29).
"""

from __future__ import annotations

import re

from backport.spec.lines import PREAMBLE, Line, Spec, Splice

_TAG = re.compile(r"(\xef\xbb\xbf)?[ \t]*release[ \t]*:[ \t]*", re.IGNORECASE | re.ASCII)
_BUMPED = re.compile(r"\.bp(\d+)$", re.ASCII)
_BARE_MACRO = re.compile(r"%(\w+)$", re.ASCII)
_MACRO_USE = re.compile(r"%(?:\{[?!]*)?(\w+)", re.ASCII)
_OWN_RELEASE = re.compile(r"%(release\b|\{\??release\})", re.ASCII)
_OPENERS, _CLOSERS = "{([", "})]"


def bump_release(spec: Spec, bump: int) -> list[Splice]:
    """The changes that give every Release tag, those of subpackages too, the suffix ``.bp<bump>``.

    A suffix that is there already is raised. Raises :class:`backport.errors.PatchError` where the
    spec has no Release tag of its own or one whose value has no end.
    """
    tags = release_tags(spec)
    if not tags:
        raise spec.refuse(
            "no Release tag stands in the spec's own text",
            hint="It may come from %include or a macro: add it with a spec edit in the recipe.",
        )
    return [splice for line in tags for splice in _bump(spec, line, bump)]


def release_tags(spec: Spec) -> list[Line]:
    """The lines with a Release tag, in the main package and in subpackages."""
    return [line for line in spec.live(PREAMBLE, "package") if _TAG.match(line.text)]


def known_release(spec: Spec) -> str | None:
    """The first Release tag's value up to ``%{?dist}``, if that is plain text; without a guess, None."""
    for line in release_tags(spec):
        start, end = _value(spec, line)
        plain, dist, rest = spec.text[start:end].partition("%{?dist}")
        return plain if dist and not rest and plain and "%" not in plain else None
    return None


def _value(spec: Spec, line: Line) -> tuple[int, int]:
    """Where the tag's value starts and ends: at the first blank outside of a macro's braces."""
    match = _TAG.match(line.text)
    start = line.start + (match.end() if match else 0)
    limit, depth = spec.group_end(line).end, 0
    for position in range(start, limit):
        char = spec.text[position]
        depth += (char in _OPENERS) - (char in _CLOSERS)
        if char in " \t\r\n" and depth <= 0:
            return start, position
    if depth:
        raise spec.refuse("the Release tag has an open brace", line, hint="Correct it with a spec edit.")
    return start, limit


def _bump(spec: Spec, line: Line, bump: int) -> list[Splice]:
    start, end = _value(spec, line)
    value = spec.text[start:end]
    if not value:
        raise spec.refuse("the Release tag is empty", line, hint="Give it a value with a spec edit.")
    if bumped := _BUMPED.search(value):
        raised = max(bump, int(bumped[1]) + 1)
        return [Splice(start=start + bumped.start(1), end=end, text=str(raised))]
    if spec.sections[line.section].name == "package" and _OWN_RELEASE.search(value):
        return []
    suffix = f".bp{bump}"
    if macro := _BARE_MACRO.search(value):
        arguments = spec.text[end : line.start + len(line.text)].rstrip(" \t\r")
        if arguments or macro[1] == "autorelease":
            return _brace(spec, line, start + macro.start(1), end + len(arguments), suffix)
    if _lacks_dist(spec, value):
        suffix = f"~%{{?dist}}{suffix}"
    return [Splice(start=end, end=end, text=suffix)]


def _brace(spec: Spec, line: Line, name: int, end: int, suffix: str) -> list[Splice]:
    """``%macro arguments`` swallows the rest of its line, so it is given braces of its own."""
    body = spec.text[name:end]
    if body.count("{") != body.count("}") or body.endswith("\\"):
        raise spec.refuse(
            "the arguments of the Release tag's macro have no clear end",
            line,
            hint="Write the Release in braces with a spec edit in the recipe.",
        )
    return [Splice(start=name, end=name, text="{"), Splice(start=end, end=end, text="}" + suffix)]


def _lacks_dist(spec: Spec, value: str) -> bool:
    """Whether the value, through the spec's own macros, surely names no ``%dist``.

    Such a release is the same text on every target. ``~`` (rpm sorts it before the end of the
    string) keeps the backport below the release that it came from.
    """
    pending, seen = _macros_in(value), set[str]()
    while pending:
        name = pending.pop()
        bodies = _bodies(spec, name)
        if not bodies or any("(" in body or body.endswith("\\") for body in bodies):
            return False
        seen.add(name)
        pending |= {used for body in bodies for used in _macros_in(body)} - seen
    return True


def _macros_in(text: str) -> set[str]:
    return set(_MACRO_USE.findall(text.replace("%%", "")))


def _bodies(spec: Spec, name: str) -> list[str]:
    """What the spec itself defines a macro as."""
    return re.findall(rf"%(?:define|global)[ \t]+{re.escape(name)}(?:\([^)]*\))?[ \t]+(.*)", spec.text)
