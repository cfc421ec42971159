"""Where a line of a shell script stands: how deep in its blocks, and in which directory.

Not a shell: a reader of just the words that open and close blocks and change the directory, enough
to tell whether a new line between two lines of a script would always run, once, and where.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TypeVar

_T = TypeVar("_T")

#: A directory relative to the one where the sources lie, as path components.
Directory = tuple[str, ...]
TOP: Directory = ()
MAX_DEPTH = 200
"""How deep blocks and folders may be nested, and how many here documents one command may have."""


class TooDeepError(ValueError):
    """A script is nested deeper than MAX_DEPTH."""


_TOKEN = re.compile(
    r"(?P<blank>[ \t\r]+|\\\n)|(?P<end>\n|;;&?|;&|;|&&|\|\||\||&(?!>))"
    r"|(?P<heredoc><<-?[ \t]*(?P<quote>['\"\\]?)(?P<mark>\w+)['\"]?)|(?P<redirect>[<>]+&?)|(?P<bracket>[()])"
    r"|(?P<comment>\#[^\n]*)|(?P<word>(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|[^\s;&|<>()'\"\\])+)"
    r"|(?P<open>['\"])",
    re.ASCII | re.DOTALL,
)
_OPENERS = {
    "if": "fi",
    "for": "done",
    "while": "done",
    "until": "done",
    "select": "done",
    "case": "esac",
    "{": "}",
}
_STAY_AT_COMMAND = {"then", "do", "else", "elif", "!", "if", "while", "until", "{", "time"}


@dataclass(frozen=True, kw_only=True)
class State:
    """``blocks``: the words that will close the open blocks. ``directory``: None where unknown."""

    blocks: tuple[str, ...] = ()
    directory: Directory | None = TOP
    stack: tuple[Directory | None, ...] = ()
    previous: Directory | None = None
    heredocs: tuple[str, ...] = ()
    saved: tuple[Directory | None, ...] = ()
    quote: str = ""

    @property
    def plain(self) -> bool:
        """Whether a command put here is a command of its own, outside of any block."""
        return not (self.blocks or self.heredocs or self.quote)


def after_unpacking(state: State) -> State:
    """The state behind %setup, which always ends in the directory of the sources."""
    return replace(state, previous=state.directory, directory=TOP)


def merge(states: list[State], *, name: str) -> State:
    """The state behind a conditional whose branches end in these states.

    Where they end in several directories, that is one place of its own: where the script goes on.
    """
    first = states[0]
    if all(state.directory == first.directory and state.stack == first.stack for state in states):
        return first
    return replace(first, directory=(f"<{name}>",))


def run(state: State, script: str) -> State:
    """The state behind these lines of a script. Raises TooDeepError."""
    reader = _Reader(state=state)
    for line in re.findall(r"(?:\\\n|[^\n])*\n|(?:\\\n|[^\n])+", script):
        reader.line(line)
    return reader.state


@dataclass(kw_only=True)
class _Reader:
    state: State
    words: list[str] = field(default_factory=list)
    at_command: bool = True

    def line(self, line: str) -> None:
        if self.state.heredocs:
            if line.strip("\t\n\r ") == self.state.heredocs[0]:
                self.state = replace(self.state, heredocs=self.state.heredocs[1:])
            return
        if self.state.quote:
            _, closed, line = line.partition(self.state.quote)
            if not closed:
                return
            self.state = replace(self.state, quote="")
        line, position = _fold_expansions(line), 0
        while position < len(line):
            match = _TOKEN.match(line, position)
            if match is None:
                position += 1
                continue
            self._token(match)
            position = len(line) if match["open"] else match.end()
        if not self.state.quote:
            self._finish()

    def _token(self, match: re.Match[str]) -> None:
        kind, text = match.lastgroup, match[0]
        if match["mark"]:
            self.state = replace(self.state, heredocs=_deeper(self.state.heredocs, match["mark"]))
        elif kind == "end":
            self._finish()
        elif kind == "bracket":
            self._bracket(text)
        elif kind == "open":
            self.state = replace(self.state, quote=text)
        elif kind == "word":
            self._word(text)

    def _word(self, word: str) -> None:
        blocks = self.state.blocks
        if self.at_command and blocks and word == blocks[-1]:
            self.state = replace(self.state, blocks=blocks[:-1])
        elif self.at_command and word in _OPENERS:
            self.state = replace(self.state, blocks=_deeper(blocks, _OPENERS[word]))
            self.at_command = word in _STAY_AT_COMMAND
        elif self.at_command and word in _STAY_AT_COMMAND:
            pass
        else:
            self.words.append(word)
            self.at_command = False

    def _bracket(self, bracket: str) -> None:
        state = self.state
        if bracket == "(":
            opened = "call" if self.words else ")"
            saved = (*state.saved, state.directory)
            self.state = replace(state, blocks=_deeper(state.blocks, opened), saved=saved)
            self.at_command = True
            self.words = []
        elif state.blocks and state.blocks[-1] in (")", "call"):
            self._finish()
            self.state = replace(
                self.state,
                blocks=state.blocks[:-1],
                directory=state.saved[-1] if state.saved else None,
                saved=state.saved[:-1],
            )
            self.at_command = state.blocks[-1] == "call"
        else:
            self.words, self.at_command = [], True

    def _finish(self) -> None:
        words, self.words, self.at_command = self.words, [], True
        if words and words[0] in ("cd", "pushd", "popd"):
            self.state = _move(self.state, words[0], [word for word in words[1:] if word not in ("-P", "-L")])


def _move(state: State, command: str, arguments: list[str]) -> State:
    if command == "popd":
        directory = state.stack[-1] if state.stack else None
        return replace(state, directory=directory, stack=state.stack[:-1], previous=state.directory)
    target = arguments[0].strip("\"'") if arguments else "~"
    if command == "pushd":
        state = replace(state, stack=_deeper(state.stack, state.directory))
    directory = state.previous if target == "-" else _resolve(state.directory, target)
    return replace(state, directory=directory, previous=state.directory)


def _resolve(directory: Directory | None, target: str) -> Directory | None:
    if re.fullmatch(r"%\{_builddir\}/%\{\??buildsubdir\}/?", target):
        return TOP
    absolute = target.startswith(("/", "~", "$RPM_BUILD", "%{_builddir}", "%_builddir"))
    if directory is None and not absolute:
        return None
    parts = [] if absolute or directory is None else list(directory)
    for part in target.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > MAX_DEPTH:
        raise TooDeepError
    return tuple(parts)


def _deeper(nested: tuple[_T, ...], one: _T) -> tuple[_T, ...]:
    if len(nested) >= MAX_DEPTH:
        raise TooDeepError
    return (*nested, one)


def _fold_expansions(line: str) -> str:
    """Put a plain letter for every character inside ``${}``, ``$()``, ``%{}`` and ``%()``."""
    result: list[str] = []
    closers: list[str] = []
    pairs = {"{": "}", "(": ")"}
    for position, char in enumerate(line):
        before = line[position - 1] if position else ""
        if char in pairs and (before in ("$", "%") or closers):
            closers.append(pairs[char])
            result.append("x")
        elif closers:
            if char == closers[-1]:
                closers.pop()
            result.append("\n" if char == "\n" else "x")
        else:
            result.append(char)
    return "".join(result)
