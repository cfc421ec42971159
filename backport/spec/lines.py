"""A light model of a spec file: its lines, and where in the spec each one stands.

Nothing is expanded. The model knows only what decides the meaning of a place: the section, the
``%if`` branches around it, and whether the line is text of a macro that an earlier line opened.
Lines are joined as rpm joins them before it expands macros (``copyNextLineFromOFI`` in rpm's
build/parseSpec.c), so that a section header inside a macro's body is not taken for a section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from backport.errors import PatchError

#: The branches around a place, from the outside in: (number of the conditional, number of the branch).
Branches = tuple[tuple[int, int], ...]

PREAMBLE = ""
"""The name of the section before the first header."""
MAX_DEPTH = 200
"""How deep conditionals, or the blocks of a script, may be nested; no spec of Fedora's reaches 20."""
HOSTILE = "No honest spec is made like this: look at where it came from."

_SECTION = re.compile(
    r"%(description|package|prep|generate_buildrequires|conf|build|install|check|clean"
    r"|pre|post|preun|postun|pretrans|posttrans|preuntrans|postuntrans"
    r"|trigger|triggerin|triggerun|triggerpostun|triggerprein"
    r"|filetriggerin|filetriggerun|filetriggerpostun"
    r"|transfiletriggerin|transfiletriggerun|transfiletriggerpostun"
    r"|verifyscript|files|changelog|patchlist|sourcelist|sepolicy)(?=\s|$)",
    re.IGNORECASE | re.ASCII,
)
_CONDITION = re.compile(r"[ \t]*%(if|ifarch|ifnarch|ifos|ifnos|elif|elifarch|elifos|else|endif)\b", re.ASCII)
_DEFINITION = re.compile(r"[ \t]*%(define|global)\b", re.ASCII)
_DEFINED = re.compile(r"%(?:define|global)[ \t]+(\w+)(?:\([^)\n]{0,200}\))?[ \t]+([^\n]*)", re.ASCII)
_JOINT = re.compile(r"\\\n|\\.|%[%{(\[]|[{}()\[\]\n]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_COMMENT = re.compile(r"[ \t]*(#|%dnl\b)", re.ASCII)
_CLOSER = {"{": "}", "(": ")", "[": "]"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One physical line.

    ``start`` and ``end`` are offsets into the spec's text, the line ending included; ``before`` and
    ``after`` the branches in force on its two sides (they differ on conditional lines alone).
    ``inner`` lines are text of a macro that an earlier line opened; ``joined`` lines continue the
    line before them, by such a macro or by a backslash.
    """

    index: int
    start: int
    end: int
    text: str
    section: int
    before: Branches
    after: Branches
    inner: bool
    joined: bool

    @property
    def number(self) -> int:
        """The line number as people count, from 1."""
        return self.index + 1

    @property
    def comment(self) -> bool:
        """Whether the whole line is a comment."""
        return _COMMENT.match(self.text) is not None

    @property
    def conditional(self) -> bool:
        """Whether the line opens, splits or closes a conditional."""
        return not self.inner and _CONDITION.match(self.text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section: ``name`` in lower case, and the indices of its lines, header included."""

    name: str
    arguments: str
    first: int
    stop: int


@dataclass(kw_only=True, slots=True)
class Conditional:
    """One ``%if`` … ``%endif``: how many branches it has, whether one is an ``%else``, and its lines."""

    first: int
    last: int = -1
    branches: int = 1
    exhaustive: bool = False


@dataclass(frozen=True, kw_only=True)
class Splice:
    """One change of the text: what lies between two offsets becomes ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A spec's text (one character a byte), cut into lines and sections."""

    name: str
    text: str
    lines: tuple[Line, ...]
    sections: tuple[Section, ...]
    conditionals: tuple[Conditional, ...]

    @cached_property
    def eol(self) -> str:
        """The line ending of the spec's first line."""
        return "\r\n" if self.text.partition("\n")[0].endswith("\r") else "\n"

    @cached_property
    def definitions(self) -> dict[str, list[str]]:
        """What the spec itself defines macros as: the first line of every body, by the macro's name."""
        found: dict[str, list[str]] = {}
        for match in _DEFINED.finditer(self.text):
            found.setdefault(match[1], []).append(match[2])
        return found

    def section_lines(self, section: Section) -> tuple[Line, ...]:
        """The lines of a section, its header included."""
        return self.lines[section.first : section.stop]

    def named(self, *names: str) -> list[Section]:
        """All sections of these names, in the spec's order."""
        return [section for section in self.sections if section.name in names]

    def live(self, *names: str) -> Iterator[Line]:
        """The lines of these sections that rpm reads as they stand: no comment, no macro's body."""
        for section in self.named(*names):
            for line in self.section_lines(section):
                if not (line.inner or line.comment or line.conditional):
                    yield line

    def group_end(self, line: Line) -> Line:
        """The last of the lines that continue this one."""
        index = line.index
        while index + 1 < len(self.lines) and self.lines[index + 1].joined:
            index += 1
        return self.lines[index]

    def group_text(self, line: Line) -> str:
        """The text of a line and of the lines that continue it."""
        return self.text[line.start : self.group_end(line).end]

    def insert_after(self, line: Line, *new_lines: str) -> Splice:
        """New lines behind a line (and its continuation); a missing last line ending stays missing."""
        offset = self.group_end(line).end
        block = self.eol.join(new_lines)
        if not offset or self.text[offset - 1] == "\n":
            return Splice(start=offset, end=offset, text=block + self.eol)
        return Splice(start=offset, end=offset, text=self.eol + block)

    def refuse(self, reason: str, line: Line | None = None, *, hint: str) -> PatchError:
        """The error for what cannot be edited without guessing."""
        place = f"{self.name}, line {line.number}" if line else self.name
        return PatchError(f"{place}: {reason}", hint=hint)


def as_text(text: str) -> str:
    """The text as it stands in a spec: UTF-8, one character a byte, no macro."""
    return text.replace("%", "%%").encode().decode("latin-1")


def are_exclusive(one: Branches, other: Branches) -> bool:
    """Whether two places stand in different branches of one conditional, so that rpm reads one at most."""
    for (number, branch), (other_number, other_branch) in zip(one, other, strict=False):
        if number != other_number:
            return False
        if branch != other_branch:
            return True
    return False


def apply_splices(text: str, splices: list[Splice]) -> str:
    """The text with all changes made; changes at the same place keep their order."""
    pieces, position = [], 0
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        pieces += [text[position : splice.start], splice.text]
        position = splice.end
    return "".join([*pieces, text[position:]])


def parse(name: str, text: str) -> Spec:
    """Cut a spec's text into lines, sections and conditionals.

    Raises :class:`backport.errors.PatchError` where conditionals are nested deeper than MAX_DEPTH.
    """
    return _Parser().parse(name, text)


@dataclass(kw_only=True)
class _Joiner:
    """Says whether the next line belongs to this one, by the very counts that rpm makes."""

    depth: dict[str, int] = field(default_factory=lambda: dict.fromkeys("{([", 0))
    backslash: bool = False
    definition: bool = False

    def feed(self, line: str) -> None:
        if not self.joined:
            self.definition = _DEFINITION.match(line) is not None
        self.backslash = False
        for token in _JOINT.findall(line):
            if token == "\\\n":
                self.backslash = True
            elif token[0] == "%" and token[1] != "%":
                self.depth[token[1]] += 1
            elif token in self.depth:
                self.depth[token] += self.depth[token] > 0
            else:
                self._close(token)

    def _close(self, token: str) -> None:
        for opener, closer in _CLOSER.items():
            if token == closer and self.depth[opener]:
                self.depth[opener] -= 1

    @property
    def inner(self) -> bool:
        return any(self.depth.values()) or (self.backslash and self.definition)

    @property
    def joined(self) -> bool:
        return self.backslash or self.inner


@dataclass(kw_only=True)
class _Parser:
    lines: list[Line] = field(default_factory=list)
    headers: list[tuple[str, str, int]] = field(default_factory=lambda: [(PREAMBLE, "", 0)])
    conditionals: list[Conditional] = field(default_factory=list)
    branches: Branches = ()

    def parse(self, name: str, text: str) -> Spec:
        joiner, start = _Joiner(), 0
        for index, raw in enumerate(_LINE.findall(text)):
            inner, joined = joiner.inner, joiner.joined
            joiner.feed(raw)
            content = raw.rstrip("\r\n")
            before = self.branches
            if not inner:
                self._header(content, index)
                self._condition(content, index)
            if len(self.branches) > MAX_DEPTH:
                raise PatchError(
                    f"{name}, line {index + 1}: conditionals are nested deeper than {MAX_DEPTH}",
                    hint=HOSTILE,
                )
            self.lines.append(
                Line(
                    index=index,
                    start=start,
                    end=start + len(raw),
                    text=content,
                    section=len(self.headers) - 1,
                    before=before,
                    after=self.branches,
                    inner=inner,
                    joined=joined,
                )
            )
            start += len(raw)
        return Spec(
            name=name,
            text=text,
            lines=tuple(self.lines),
            sections=self._sections(),
            conditionals=tuple(self.conditionals),
        )

    def _header(self, content: str, index: int) -> None:
        if match := _SECTION.match(content):
            self.headers.append((match[1].lower(), content[match.end() :].strip(" \t"), index))

    def _condition(self, content: str, index: int) -> None:
        match = _CONDITION.match(content)
        if match is None:
            return
        if match[1].startswith("if"):
            self.branches = (*self.branches, (len(self.conditionals), 0))
            self.conditionals.append(Conditional(first=index))
        elif self.branches:
            self._next_branch(match[1], index)

    def _next_branch(self, word: str, index: int) -> None:
        *outer, (number, branch) = self.branches
        conditional = self.conditionals[number]
        if word == "endif":
            conditional.last = index
            self.branches = tuple(outer)
            return
        conditional.branches += 1
        conditional.exhaustive |= word == "else"
        self.branches = (*outer, (number, branch + 1))

    def _sections(self) -> tuple[Section, ...]:
        stops = [first for _, _, first in self.headers[1:]] + [len(self.lines)]
        return tuple(
            Section(name=name, arguments=arguments, first=first, stop=stop)
            for (name, arguments, first), stop in zip(self.headers, stops, strict=True)
        )
