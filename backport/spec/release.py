"""The Release tags of a spec: each gets the backport's suffix.

The suffix goes to the end of the value, behind ``%{?dist}``: ``3%{?dist}`` becomes ``3%{?dist}.bp1``.
At a target whose ``%dist`` is ``.fc28`` that is 3.fc28.bp1: above every 3.fc28 of the target and
below the 3.fc29 that it came from (rpm's version(7): more segments are newer, 28 is older than 29).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from backport.spec.lines import PREAMBLE, Line, Spec, Splice

_TAG = re.compile(r"(\xef\xbb\xbf)?[ \t]*release[ \t]*:[ \t]*", re.IGNORECASE | re.ASCII)
_BUMPED = re.compile(r"\.bp(\d+)$", re.ASCII)
_BARE_MACRO = re.compile(r"%(\w+)$", re.ASCII)
_MACRO_USE = re.compile(r"%\{?[?!]*(\w+)", re.ASCII)
_NO_PLAIN_MACRO = re.compile(r"%[(\[]|%\{\w+:", re.ASCII)
_OWN_RELEASE = re.compile(r"%(release\b|\{\??release\})", re.ASCII)
_LONGEST_BUMP = 9
_OPENERS, _CLOSERS = "{([", "})]"
_OWN_HINT = "Write the Release as it is to be with a spec edit in the recipe."


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
    bumper = _Bumper(spec=spec, tags=tags, suffix=f".bp{bump}", bump=bump)
    return [splice for line in tags for splice in bumper.splices(line)]


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


@dataclass(frozen=True, kw_only=True)
class _Bumper:
    """Gives Release tags their suffix, by what is the same for all of them."""

    spec: Spec
    tags: Sequence[Line]
    suffix: str
    bump: int

    def splices(self, line: Line) -> list[Splice]:
        start, end = _value(self.spec, line)
        value = self.spec.text[start:end]
        if not value:
            raise self.spec.refuse("the Release tag is empty", line, hint=_OWN_HINT)
        if bumped := _BUMPED.search(value):
            if len(bumped[1]) > _LONGEST_BUMP:
                raise self.spec.refuse("the Release tag's .bp number is too large", line, hint=_OWN_HINT)
            raised = max(self.bump, int(bumped[1]) + 1)
            return [Splice(start=start + bumped.start(1), end=end, text=str(raised))]
        if self.spec.sections[line.section].name == "package" and (own := _OWN_RELEASE.search(value)):
            return [] if own.end() == len(value) else [self._added_to_main(line, value, (start, end))]
        if macro := _BARE_MACRO.search(value):
            arguments = self.spec.text[end : line.start + len(line.text)].rstrip(" \t\r")
            if arguments or macro[1] == "autorelease":
                return _brace(self.spec, line, start + macro.start(1), end + len(arguments), self.suffix)
        return [Splice(start=end, end=end, text=self._suffix_of(value))]

    def _added_to_main(self, line: Line, value: str, place: tuple[int, int]) -> Splice:
        """Behind the suffix, more would sort lower than before: it goes between the main Release and that."""
        main = self._main
        if main is None:
            raise self.spec.refuse("this adds to a Release that is not known", line, hint=_OWN_HINT)
        value = _OWN_RELEASE.sub(lambda _: main, value)
        return Splice(start=place[0], end=place[1], text=value + self._suffix_of(value))

    def _suffix_of(self, value: str) -> str:
        """With the target's ``%dist``, where the value surely names none.

        Such a release is the same text on every target. ``~`` (rpm sorts it before the end of the
        string) keeps the backport below the release that it came from.
        """
        constant = not _NO_PLAIN_MACRO.search(value) and _macros_in(value) <= self._constant
        return f"~%{{?dist}}{self.suffix}" if constant else self.suffix

    @cached_property
    def _main(self) -> str | None:
        """The main package's Release without our suffix, where it stands once and takes no arguments."""
        mains = [tag for tag in self.tags if self.spec.sections[tag.section].name == PREAMBLE]
        if len(mains) != 1:
            return None
        start, end = _value(self.spec, mains[0])
        value = _BUMPED.sub("", self.spec.text[start:end])
        arguments = self.spec.text[end : mains[0].start + len(mains[0].text)].strip(" \t\r")
        return None if arguments and _BARE_MACRO.search(value) else _BARE_MACRO.sub(r"%{\1}", value)

    @cached_property
    def _constant(self) -> frozenset[str]:
        """The macros of the spec's own that, through all that they use, surely name no ``%dist``."""
        users: dict[str, list[str]] = {}
        pending = []
        for name, bodies in self.spec.definitions.items():
            if any("(" in body or body.endswith("\\") or _NO_PLAIN_MACRO.search(body) for body in bodies):
                pending.append(name)
            for used in set().union(*map(_macros_in, bodies)):
                users.setdefault(used, []).append(name)
        pending += [used for used in users if used not in self.spec.definitions]
        unsure: set[str] = set()
        while pending:
            name = pending.pop()
            if name not in unsure:
                unsure.add(name)
                pending += users.get(name, [])
        return frozenset(self.spec.definitions) - unsure


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


def _macros_in(text: str) -> set[str]:
    return set(_MACRO_USE.findall(text.replace("%%", "")))
