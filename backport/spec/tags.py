"""The Patch tags of a spec: where a new one goes, and which number it gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from backport.spec.lines import PREAMBLE, Line, Section, Spec, Splice

_TAG = re.compile(
    r"(?:\xef\xbb\xbf)?[ \t]*(?P<tag>patch|source)[ \t]*(?:(?P<number>[^\s:]+)[ \t]*)?:"
    r"(?P<gap>[ \t]*)(?P<value>.*)",
    re.IGNORECASE | re.ASCII,
)
_HEADER = re.compile(
    r"(?:\xef\xbb\xbf)?[ \t]*(?P<tag>name|version|release|epoch|summary|license|url|group|buildarch)"
    r"[ \t]*:(?P<gap>[ \t]*)(?P<value>.*)",
    re.IGNORECASE | re.ASCII,
)
_IN_MACRO = {
    kind: re.compile(rf"\b{kind}[ \t]*(\d+)[ \t]*:", re.IGNORECASE | re.ASCII) for kind in ("patch", "source")
}
_REFERENCES = {
    "patch": re.compile(r"%\{?[?!]*(?:patch|PATCH)[ \t]*(\d+)|%\{P:[ \t]*(\d+)", re.ASCII),
    "source": re.compile(r"%\{?[?!]*(?:source|SOURCE)[ \t]*(\d+)|%\{S:[ \t]*(\d+)", re.ASCII),
}
_OPTIONS = {
    "%patch": re.compile(r"-P[ \t]*(\d+)", re.ASCII),
    "autopatch": re.compile(r"-M[ \t]*(\d+)", re.ASCII),
}
#: %autopatch up to a number that only a macro knows, and one that is beyond any such number in use.
_UNKNOWN_RANGE = re.compile(r"-M[ \t]*\d*[%\[]", re.ASCII)
_INCLUDE = re.compile(r"[ \t]*%include\b", re.ASCII)
_UNKNOWN_NUMBER = re.compile(r"\bsource[ \t]*\d*[%{]", re.IGNORECASE | re.ASCII)
_BEYOND = 99999
_DECLARING = (PREAMBLE, "package")
_MOST_DIGITS = 9
_DIGITS = re.compile(r"\d+", re.ASCII)
_DECLARE = "Declare the patch with a spec edit in the recipe."


@dataclass(frozen=True, kw_only=True)
class OwnPatch:
    """A patch of the spec's own; ``certain`` is False where its tag stands in a conditional or a macro."""

    number: int
    certain: bool


@dataclass(frozen=True, kw_only=True)
class PatchTags:
    """The patches that a spec has before anything is added.

    ``next_number`` is above every number that a tag has or may get and that anything refers to;
    ``any`` says whether the spec may have a patch of its own at all. ``own`` are these patches in the
    order in which rpm applies them; None where rpm numbers them, which it does from 4.15 on, and where
    some may come from a file that the preamble includes (``included``).
    """

    next_number: int
    any: bool
    names: frozenset[str]
    own: tuple[OwnPatch, ...] | None = ()
    included: bool = False


def read_tags(spec: Spec) -> PatchTags:
    """Read the Patch tags, the %patchlist, and every mention of a patch's number.

    Raises :class:`backport.errors.PatchError` for a number that only a macro knows.
    """
    highest = automatic = -1
    names = set()
    for line in spec.live(PREAMBLE, "package", "patchlist"):
        number, name = _number_and_name(spec, line)
        if name is None:
            continue
        automatic = automatic + 1 if number is None else number
        highest = max(highest, automatic)
        names.add(name)
    mentioned = _mentioned(spec, "patch")
    included = any(_INCLUDE.match(line.text) for line in spec.live(PREAMBLE))
    return PatchTags(
        next_number=max([highest, *mentioned.values(), _BEYOND if included else -1]) + 1,
        any=bool(names) or mentioned.get("macro", -1) >= 0 or included,
        names=frozenset(names),
        own=None if included else _own(spec),
        included=included,
    )


def _own(spec: Spec) -> tuple[OwnPatch, ...] | None:
    """The spec's own patches, unless rpm numbers more than one of them (a lone one is number 0)."""
    found: dict[int, OwnPatch] = {}
    unnumbered = 0
    for line in spec.lines:
        if spec.sections[line.section].name not in _DECLARING or line.comment or line.conditional:
            continue
        numbers, certain = _declared(spec, line)
        unnumbered += numbers.count(None)
        for number in numbers:
            found.setdefault(number or 0, OwnPatch(number=number or 0, certain=certain))
    if spec.named("patchlist") or (unnumbered and (unnumbered > 1 or len(found) > 1)):
        return None
    return tuple(found.values())


def _declared(spec: Spec, line: Line) -> tuple[list[int | None], bool]:
    """The numbers of the patches that a line declares (None: without one), and whether it surely does."""
    if line.inner or ("%" in line.text and not _TAG.match(line.text)):
        return [_as_number(spec, line, digits) for digits in _IN_MACRO["patch"].findall(line.text)], False
    number, name = _number_and_name(spec, line)
    return [] if name is None else [number], not line.before


def _number_and_name(spec: Spec, line: Line) -> tuple[int | None, str | None]:
    if spec.sections[line.section].name == "patchlist":
        entry = line.text.strip(" \t\r")
        return None, entry if entry and not _is_header(spec, line) else None
    match = _TAG.match(line.text)
    if match is None or match["tag"].lower() != "patch":
        return None, None
    value = match["value"].rstrip(" \t\r")
    if not match["number"]:
        return None, value
    if not _DIGITS.fullmatch(match["number"]):
        raise spec.refuse(
            f"only a macro knows the number of this patch: Patch{match['number'][:40]}",
            line,
            hint="Give it a plain number with a spec edit in the recipe.",
        )
    return _as_number(spec, line, match["number"]), value


def _as_number(spec: Spec, line: Line, digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise spec.refuse(
            f"no patch or source has a number of {len(digits)} digits",
            line,
            hint="Give it a plain number with a spec edit in the recipe.",
        )
    return int(digits)


def _is_header(spec: Spec, line: Line) -> bool:
    return line.index == spec.sections[line.section].first


def _mentioned(spec: Spec, kind: str) -> dict[str, int]:
    """The highest number in the tags of a kind that macros hold, and in references to such files."""
    highest: dict[str, int] = {}
    for line in spec.lines:
        if line.comment:
            continue
        if line.inner or ("%" in line.text and not _TAG.match(line.text)):
            held = [_as_number(spec, line, digits) for digits in _IN_MACRO[kind].findall(line.text)]
            highest["macro"] = max([highest.get("macro", -1), *held])
        if "%" in line.text and (references := _referred(spec, line, kind)):
            highest["reference"] = max(highest.get("reference", -1), *references)
    return highest


def _referred(spec: Spec, line: Line, kind: str) -> list[int]:
    text = line.text
    found = [group for groups in _REFERENCES[kind].findall(text) for group in groups if group]
    unknown = []
    if kind == "patch":
        for macro, option in _OPTIONS.items():
            found += option.findall(text) if macro in text else []
        unknown = [_BEYOND] if "autopatch" in text and _UNKNOWN_RANGE.search(text) else []
    return [_as_number(spec, line, digits) for digits in found] + unknown


def next_source(spec: Spec) -> int:
    """A number above that of every source, at least 1: Source0 is what %setup unpacks.

    Raises :class:`backport.errors.PatchError` where a new source would give others another number.
    """
    numbers = [0, *_mentioned(spec, "source").values()]
    automatic, beyond = -1, False
    for line in spec.live(PREAMBLE, "package"):
        match = _TAG.match(line.text)
        if match is None or match["tag"].lower() != "source":
            beyond |= _INCLUDE.match(line.text) is not None or _UNKNOWN_NUMBER.search(line.text) is not None
        elif match["number"] and not _DIGITS.fullmatch(match["number"]):
            beyond = True
        elif match["number"]:
            automatic = _as_number(spec, line, match["number"])
        elif spec.sections[line.section].name:
            raise spec.refuse("a subpackage has a source without a number", line, hint=_DECLARE)
        else:
            automatic += 1
        numbers.append(automatic)
    if lists := spec.named("sourcelist"):
        raise spec.refuse("a %sourcelist numbers its sources", spec.lines[lists[0].first], hint=_DECLARE)
    return max([*numbers, _BEYOND if beyond else 0]) + 1


def add_tags(spec: Spec, kind: Literal["patch", "source"], files: list[tuple[int, str]]) -> list[Splice]:
    """The changes that declare files, given as (number, file name).

    Sources go behind the last of them. Patches go into a %patchlist, where the spec has one; otherwise they
    are PatchN tags behind the last Patch tag of the main preamble, else behind its last Source tag, else
    behind its other tags; and behind what it includes, which may be patches. A tag never lands inside a
    conditional: it goes behind its end.
    """
    if kind == "patch" and (lists := spec.named("patchlist")):
        return _add_to_list(spec, lists[-1], [name for _, name in files])
    anchor = _anchor(spec, kind)
    if anchor is None:
        raise spec.refuse("no Patch, Source or other tag stands in the preamble's own text", hint=_DECLARE)
    lines = [_format(anchor, kind, number, name) for number, name in files]
    included = [line for line in spec.live(PREAMBLE) if _INCLUDE.match(line.text)]
    behind = max([anchor, *included[-1:]], key=lambda line: line.index)
    place = _outside(spec, behind, spec.sections[0])
    if place is None:
        first = spec.lines[spec.conditionals[behind.after[0][0]].first]
        block = "".join(line + spec.eol for line in lines)
        return [Splice(start=first.start, end=first.start, text=block)]
    return [spec.insert_after(place, *lines)]


def _anchor(spec: Spec, kind: str) -> Line | None:
    """The line whose neighbour and model a new tag is."""
    found: dict[str, Line] = {}
    for line in spec.live(PREAMBLE):
        if match := _TAG.match(line.text):
            found[match["tag"].lower()] = line
        elif not line.after and _HEADER.match(line.text):
            found["header"] = line
    return next((found[tag] for tag in (kind, "source", "header") if tag in found), None)


def _outside(spec: Spec, line: Line, section: Section) -> Line | None:
    """The first line from this one on that has no conditional around its end, within the section."""
    line = spec.group_end(line)
    if line.after:
        end = spec.conditionals[line.after[0][0]].last
        if not line.index < end < section.stop:
            return None
        line = spec.lines[end]
    return line


def _format(anchor: Line, kind: str, number: int, name: str) -> str:
    """``PatchN: name`` with the value in the anchor's column."""
    match = _TAG.match(anchor.text) or _HEADER.match(anchor.text)
    tag = f"{kind.title()}{number}:"
    gap = match["gap"] if match else " "
    if not match or not gap.strip(" "):
        column = match.start("value") - match.start("tag") if match else 0
        return tag + " " * max(column - len(tag), 1) + name
    return tag + gap + name


def _add_to_list(spec: Spec, section: Section, names: list[str]) -> list[Splice]:
    lines = spec.section_lines(section)
    last = next(line for line in reversed(lines) if line.text.strip(" \t\r") and not line.comment)
    place = _outside(spec, last, section) if last.after != lines[0].after else spec.group_end(last)
    if place is None:
        raise spec.refuse("the %patchlist ends inside a conditional", last, hint=_DECLARE)
    return [spec.insert_after(place, *names)]
