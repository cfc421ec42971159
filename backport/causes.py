"""Why a program failed, as its log has it: evidence for people, never a verdict.

Whether something failed is known by exit codes. Here the lines that tell why are found in what rpmbuild, the
shell, make, compilers, patch, dnf and rpm print, by one table. A log was written by what failed, which is not
trusted: it can lead people astray and nothing else; of its text no control character is left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.printable import printable, printable_line

MOST_LINES = 100
"""How many lines of evidence are kept."""
_LINE = 400
_READ = 1024 * 1024
_MOST_READ = 20_000
"""How many lines at the end of a log are looked at."""
_BEFORE = 6
"""Lines before the end that are quoted beside what the table finds."""
_FOLLOWING = 40
"""Lines that one finding may bring with it."""
_SECTION = re.compile(r"^error: Bad exit status from \S+ \((%\w+)\)")
_STARTED = re.compile(r"^Executing\((%\w+)\): ")
_TRACED = re.compile(r"^\++ (?P<command>.*)")
_UNTOLD = re.compile(r"^(:|RPM_EC=\d+|jobs -p|exit( 0)?|true)$")
"""Commands of rpm's own at a section's end, and those that never fail."""
_DISTURBING = re.compile(
    r"^(\$ |D: |\(?try to add |You can try to add |\s+--skip-broken|setting SOURCE_DATE_EPOCH=)"
)
_BEFORE_LINE = re.compile(r"^(DEBUG|INFO|WARNING|ERROR) \w+\.py:\d+:  |^>>> (\[RPM\] )?")
"""What mock and dnf 5 put before a line of somebody else's."""
_PROGRESS = re.compile(r"(Running scriptlet|Running|Preparing|Installing|Upgrading|Downgrading)\b")
"""What dnf says before a scriptlet says something."""
_SUMMED_UP = "RPM build errors:"
"""What rpmbuild says once more at its end."""
_NAMED = 3
"""How many of the lines below one that ends in a colon are named with it."""
_LEFT_MACRO = re.compile(r"%\{[?!]*(?P<braced>\w+)[^}]*\}|%(?P<bare>[A-Za-z_]\w{2,})")
_MACRO_HINT = "set it with `macros` in the recipe, or have the spec need the package that defines it"


@dataclass(frozen=True, kw_only=True)
class Causes:
    """What a log says of a failure."""

    summary: str = ""
    """The cause in a few words; empty where the log names none."""
    evidence: tuple[str, ...] = ()
    """Lines of the log, harmless for a terminal, the telling ones first."""
    hint: str | None = None


@dataclass(frozen=True)
class _Rule:
    """A kind of line that names a cause; ``follows`` is what the lines that belong to it look like."""

    pattern: re.Pattern[str]
    hint: str | None = None
    follows: re.Pattern[str] | None = None


def _rule(pattern: str, hint: str | None = None, *, follows: str | None = None) -> _Rule:
    return _Rule(re.compile(pattern), hint, re.compile(follows) if follows else None)


_ROOM = "make room on the file system of the cache folder"
_INDENTED = r"^\s+\S"
_MIRRORS = "check `mirrors` in the site file and the network"
_MEMORY = "raise the build's limit of memory, or use a host with more"
_LIMITS = "raise the limits of the build"
_CONFLICT = "let one of the packages not hold the file, or name the other as obsolete"
_UNPACKAGED = "name them under %files, or remove them in %install"
_PATCH = "the patch does not fit this source: make it again"
_FAILED_SCRIPTLET = re.compile(r"Error in \w+ scriptlet in rpm package (?P<name>\S+)")
_SCRIPTLET = _rule(r"^error: .*scriptlet failed|^Error in \w+ scriptlet|scriptlet failed, exit status [1-9]")
_RPM_ERROR = _rule(r"^error: (?!Bad exit status)\S", follows=_INDENTED)
# The first rule that fits a line of the log gives the cause in words.
_RULES = (
    # The shell takes what a macro was to become for a job's name (bash(1), job control).
    _rule(r": fg: no job control$", _MACRO_HINT),
    _rule(r'^error: File must begin with "/": %', _MACRO_HINT),
    _rule(r"\b(No space left on device|Disk quota exceeded)|more space needed on the ", _ROOM),
    _rule(r"\b(Cannot allocate memory|virtual memory exhausted|[Oo]ut of memory)\b|: Killed\b", _MEMORY),
    _rule(r"fork: .*Resource temporarily unavailable|Too many open files", _LIMITS),
    # What rpm and dnf say.
    _rule(r"\bnothing provides .+", follows=r"^\s+- "),
    _rule(r"^\s*(No match for argument|Unable to find a match|No matching package|No package .* available)"),
    _rule(r"\bfile /\S+ .*conflicts? (with|between)\b", _CONFLICT),
    _SCRIPTLET,
    _rule(r"GPG check FAILED|is not signed|Public key for .* is not installed|Signature verification failed"),
    _rule(r"Cannot download|Failed to download|Curl error|Status code: \d+ for ", _MIRRORS),
    _rule(r"^ ?Problem( \d+)?: ", follows=r"^\s+- "),
    _rule(r"^error: Installed \(but unpackaged\) file", _UNPACKAGED, follows=r"^\s+/"),
    _RPM_ERROR,
    # What programs say that a section of the spec runs.
    _rule(r"Hunk #\d+ FAILED|out of \d+ hunks? (FAILED|ignored)|can't find file to patch", _PATCH),
    _rule(r"malformed patch|Reversed \(or previously applied\) patch", _PATCH),
    _rule(r": (fatal )?[Ee]rror: .", follows=r"^\s*(\d+ )?\|"),
    _rule(r"undefined reference to |cannot find -l|^CMake Error", follows=_INDENTED),
    _rule(r": command not found$|: No such file or directory$|: Permission denied$"),
    _rule(r"^(not ok|FAIL|FAILED|# FAILED)\b|\bFAILED([ :]|$)|\*\*\*Failed|^\w*(Error|Exception): "),
    _rule(r"^make(\[\d+\])?: \*\*\* "),
    _rule(r"^(Error|Failed|Transaction failed)\b.*\w", follows=_INDENTED),
)


def is_unexplained(message: str) -> bool:
    """Whether an error names a scriptlet that failed without a word about why.

    >>> is_unexplained("install of a: %prein(a-1-1.x86_64) scriptlet failed, exit status 1")
    True
    """
    return bool(re.search(r"scriptlet failed, exit status \d+$", message))


def failed_scriptlets(log: Path) -> dict[str, str]:
    """The packages of which a scriptlet failed in dnf's transaction, by name: the first line that says so.

    A %post that fails ends no transaction: rpm warns, and dnf's exit code is 0. Nothing else than this line
    has it: dnf's for every kind of scriptlet (dnf/yum/rpmtrans.py). Raises OSError.
    """
    failed: dict[str, str] = {}
    with log.open("rb") as stream:
        while line := stream.readline(_READ):
            if found := _FAILED_SCRIPTLET.search(line.decode("utf-8", "replace")):
                failed.setdefault(found["name"], printable(found[0], _LINE))
    return failed


def causes_of(log: Path | None, *, start: int = 0, spec: Path | None = None) -> Causes:
    """The causes in a log from the byte ``start`` on, at most the last MiB of it; nothing without a log.

    ``spec`` is the spec that was built, for the line in which a macro stands that nobody knows.
    """
    text = ""
    with contextlib.suppress(OSError):
        if log is not None:
            with log.open("rb") as stream:
                end = stream.seek(0, 2)
                stream.seek(max(min(start, end), end - _READ))
                text = stream.read(_READ).decode("utf-8", "replace")
    spec_text = ""
    with contextlib.suppress(OSError):
        spec_text = spec.read_text("utf-8", "replace") if spec else ""
    return causes_in(text, spec_text)


def causes_in(text: str, spec: str = "") -> Causes:
    r"""The causes in what a program printed.

    >>> causes_in("Error:\n Problem: conflicting requests\n  - nothing provides x needed by y-1-1").summary
    'nothing provides x needed by y-1-1'
    """
    last = (line for line in text.splitlines()[-_MOST_READ:] if not _DISTURBING.match(line))
    lines = [printable_line(_BEFORE_LINE.sub("", line, count=1), _LINE) for line in last]
    section, scope = _failed_section(lines)
    found = {rule: list(_found(rule, scope)) for rule in _RULES}
    rule = next((rule for rule in _RULES if found[rule]), None)
    telling = sorted({number for numbers in found.values() for number in numbers})
    command = _last_command(scope) if section else ""
    what = _in_words(scope, found[rule]) if rule else ""
    hint = rule.hint if rule else None
    if rule is _SCRIPTLET:
        before = scope[: found[rule][0]]
        command = _last_command(before)
        traced = max((number for number, line in enumerate(before) if _TRACED.match(line)), default=-1)
        said = _last_words(before[traced + 1 :])
        what = f"{what}: {said}" if said and not _PROGRESS.match(said) else what
    if rule and (macro := _unknown_macro(rule, what, command, spec)):
        what, command, hint = macro, "", _MACRO_HINT
    if command:
        what = f"{what} (in `{command}`)" if what else f"`{command}` failed"
    words = (section, what or _last_words(scope))
    return Causes(
        summary=": ".join(word for word in words if word),
        evidence=_evidence(scope, telling),
        hint=hint,
    )


def _failed_section(lines: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The section of the spec that failed, and the lines that it printed; all where none did."""
    for number in range(len(lines) - 1, -1, -1):
        if section := _SECTION.match(lines[number]):
            begins = [at for at in range(number) if _STARTED.match(lines[at])]
            return section[1], lines[begins[-1] + 1 if begins else 0 : number]
    return "", lines[: lines.index(_SUMMED_UP)] if _SUMMED_UP in lines else lines


def _found(rule: _Rule, lines: Sequence[str]) -> Iterator[int]:
    """Numbers of the lines that a rule fits, and of those that belong to them."""
    number = 0
    while number < len(lines):
        # What the shell only says that it does is no outcome.
        if rule.pattern.search(lines[number]) and not _TRACED.match(lines[number]):
            yield number
            last = number + _FOLLOWING
            while (
                rule.follows and number + 1 < min(len(lines), last) and rule.follows.search(lines[number + 1])
            ):
                number += 1
                yield number
        number += 1


def _in_words(lines: Sequence[str], numbers: Sequence[int]) -> str:
    """What the first line that a rule fits says; with what it announces, where it ends in a colon."""
    first, *rest = (lines[number].strip().removeprefix("- ") for number in numbers)
    first = first.removeprefix("error: ").removeprefix("Error: ")
    return f"{first} {', '.join(rest[:_NAMED])}".strip() if first.endswith(":") else first


def _last_command(lines: Sequence[str]) -> str:
    """The last command that the shell told of (sh -x): with ``-e`` the one that failed."""
    for line in reversed(lines):
        told = _TRACED.match(line)
        if told and not _UNTOLD.match(told["command"]):
            return printable(told["command"], 120)
    return ""


def _last_words(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip() and not _TRACED.match(line)), "")


def _unknown_macro(rule: _Rule, line: str, command: str, spec: str) -> str:
    """What to say of a macro that was left as it stands in the spec; empty where the line holds none."""
    left = _LEFT_MACRO.search(line)
    if rule.hint is _MACRO_HINT:
        left = left or _LEFT_MACRO.search(command)
    elif rule is not _RPM_ERROR or not (left and left["braced"]):
        return ""
    if left is None:
        return ""
    name = left["braced"] or left["bare"]
    stands = re.compile(rf"%(\{{[?!]*)?{re.escape(name)}\b")
    places = [number for number, text in enumerate(spec.splitlines(), start=1) if stands.search(text)]
    where = f" (line {places[0]} of the spec)" if places else ""
    return f"the target does not know the macro %{{{name}}}{where}"


def _evidence(lines: Sequence[str], telling: Sequence[int]) -> tuple[str, ...]:
    """The telling lines, and before them where there is room the last ones that were printed."""
    last = range(max(0, len(lines) - _BEFORE), len(lines))
    numbers = [*telling[:MOST_LINES], *(number for number in last if number not in telling)]
    kept = [lines[number] for number in numbers if lines[number].strip()]
    return tuple(dict.fromkeys(kept))[:MOST_LINES]
