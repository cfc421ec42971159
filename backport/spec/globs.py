"""File globs over the folder of the sources: a patch of ours lies there, too, beside the spec's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from backport.spec.lines import Line, Section, Spec

_FOLDER = r"_sourcedir\b|\bRPM_SOURCE_DIR\b|\bSOURCES/|\bdirname\b[^\n]{0,200}%\{?(?:SOURCE|S:)"
_GLOB = re.compile(r"[*?\[]")
_WORD = re.compile(r"[^\s;|&<>()'\"`]+")
_UNKNOWN = re.compile(r"%?\$?\{[^{}]*\}|%\w+|\$\w+")
_LEAVES = re.compile(r"[ \t]*(?:\)|popd\b|cd\b)", re.ASCII)
_LONGEST = 500
_LISTS = re.compile(r"\b(?:ls|find)\b", re.ASCII)
_CASE = re.compile(r"[ \t]*\(?[^\s();&]+\)(?=\s|$)", re.ASCII)


def glob_for(spec: Spec, section: Section, names: Iterable[str]) -> tuple[Line, str] | None:
    """The first glob over the sources in a script that would match one of these files, and its line."""
    wanted = list(names)
    for line, pattern in _patterns(spec, section):
        if any(fnmatchcase(name, pattern) for name in wanted):
            return line, pattern
    return None


def _patterns(spec: Spec, section: Section) -> Iterator[tuple[Line, str]]:
    names = _names(spec)
    folder, inside = re.compile(names), False
    enters = re.compile(rf"\b(?:cd|pushd)[ \t]+[^\s;]{{0,200}}(?:{names})[^)]*$", re.ASCII)
    for line in spec.section_lines(section)[1:]:
        if line.comment or line.conditional:
            continue
        named = folder.search(line.text) is not None
        inside = inside and _LEAVES.match(line.text) is None
        if inside or named:
            inside |= enters.search(line.text) is not None
            yield from ((line, pattern) for pattern in _patterns_of(line.text, folder))


def _patterns_of(text: str, folder: re.Pattern[str]) -> Iterator[str]:
    if case := _CASE.match(text):
        text = text[case.end() :]
    words = [word for word in _WORD.findall(text) if _GLOB.search(word)]
    if not words and _LISTS.search(text):
        yield "*"
    for word in words:
        named = folder.search(word)
        rest = word[named.end() :].lstrip("}/") if named else word.removeprefix("/")
        pattern = _UNKNOWN.sub("*", rest) if len(rest) <= _LONGEST else "*"
        if "/" not in pattern:
            yield pattern


def _names(spec: Spec) -> str:
    """What names the folder of the sources: rpm's own names for it, and the spec's macros that hold one."""
    known = re.compile(_FOLDER)
    own = [name for name, bodies in spec.definitions.items() if any(map(known.search, bodies))]
    names = "|".join(map(re.escape, own[:100]))
    return rf"{_FOLDER}|%\{{?(?:{names})\b" if names else _FOLDER
