"""The spec's %changelog: a new entry goes on top of those that are there."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, replace
from itertools import pairwise

from backport.errors import PatchError
from backport.spec.lines import PREAMBLE, Section, Spec, Splice, are_exclusive, as_text
from backport.spec.release import known_release

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ENTRY = re.compile(
    r"\*[ \t]*\w+[ \t]+(\w{3})\w*[ \t]+(\d+)[ \t]+(?:\d+:\d+:\d+[ \t]+\w+[ \t]+)?(\d{4})", re.ASCII
)
_TAG = re.compile(
    r"(?:\xef\xbb\xbf)?[ \t]*(version|epoch)[ \t]*:[ \t]*(\S+)[ \t\r]*$", re.IGNORECASE | re.ASCII
)
_ELSEWHERE = re.compile(r"^[ \t]*%include\b|%\{include:|%changelog\b", re.MULTILINE | re.ASCII)
_HINT = "Add the entry with a spec edit in the recipe, or build without one."
_GENERATED = re.compile(r"[ \t]*%(\{\??)?autochangelog\b", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ChangelogEntry:
    """One entry: its date, its author as ``Name <mail>``, and its items, one string each."""

    date: dt.date
    author: str
    lines: tuple[str, ...]


def add_entry(spec: Spec, entry: ChangelogEntry, *, bump: int) -> list[Splice]:
    """The changes that put the entry on top of each %changelog, or a section at the spec's end.

    rpm refuses a changelog that is not in descending order, so the entry is never dated before the
    one that it is put upon. The macro %autochangelog, where an SRPM still has it, makes an entry of
    the day of the build: ours goes below that one. Raises :class:`backport.errors.PatchError` where
    the changelog comes from elsewhere, or the entry is empty.
    """
    _check(spec, entry)
    sections = spec.named("changelog")
    if sections:
        # rpm takes empty ones beside the one with the entries, and no second one with entries.
        filled = [section for section in sections if _is_filled(spec, section)] or sections[:1]
        places = [spec.lines[section.first].before for section in filled]
        if any(not are_exclusive(one, other) for one, other in pairwise(places)):
            raise spec.refuse("%changelog stands more than once", spec.lines[filled[1].first], hint=_HINT)
        return [_on_top(spec, section, entry, bump) for section in filled]
    if any(_ELSEWHERE.search(line.text) for line in spec.lines if not line.comment):
        raise spec.refuse("the %changelog comes from another file or a macro", hint=_HINT)
    last = spec.lines[-1]
    return [spec.insert_after(last, "", "%changelog", *_entry_lines(spec, entry, bump))]


def _on_top(spec: Spec, section: Section, entry: ChangelogEntry, bump: int) -> Splice:
    lines = spec.section_lines(section)
    if generated := next((line for line in lines if _GENERATED.match(line.text)), None):
        return spec.insert_after(generated, "", *_entry_lines(spec, entry, bump))
    newest = max((date for line in lines if (date := _date(line.text))), default=entry.date)
    if newest > entry.date:
        entry = replace(entry, date=newest)
    filled = any(line.text.strip(" \t\r") for line in lines[1:])
    return spec.insert_after(lines[0], *_entry_lines(spec, entry, bump), *([""] if filled else []))


def _is_filled(spec: Spec, section: Section) -> bool:
    lines = spec.section_lines(section)[1:]
    return any(line.text.strip(" \t\r") and not (line.comment or line.conditional) for line in lines)


def _date(text: str) -> dt.date | None:
    match = _ENTRY.match(text)
    if match is None or match[1] not in _MONTHS:
        return None
    try:
        return dt.date(int(match[3]), _MONTHS.index(match[1]) + 1, int(match[2]))
    except ValueError:
        return None


def _entry_lines(spec: Spec, entry: ChangelogEntry, bump: int) -> list[str]:
    date = entry.date
    stamp = f"{_DAYS[date.weekday()]} {_MONTHS[date.month - 1]} {date.day:02d} {date.year}"
    evr = known_evr(spec, bump)
    items = [line for item in entry.lines for line in _item(item)]
    return [f"* {stamp} {as_text(entry.author)}{f' - {evr}' if evr else ''}", *items]


def _item(item: str) -> list[str]:
    first, *rest = (line.strip() for line in as_text(item.strip()).split("\n"))
    return [first if first.startswith("- ") else f"- {first}", *map(_continued, rest)]


def _continued(line: str) -> str:
    """Conditionals and comments are looked for in what rpm has expanded: %% does not keep ``%endif``."""
    return f"  - {line}" if line.startswith(("%", "#")) else f"  {line}"


def known_evr(spec: Spec, bump: int) -> str | None:
    """The backport's EVR without ``%{?dist}``, as changelogs name it, where no macro has a part in it."""
    values: dict[str, set[str]] = {"version": set(), "epoch": set()}
    for line in spec.live(PREAMBLE):
        if match := _TAG.match(line.text):
            values[match[1].lower()].add(match[2])
    release = known_release(spec)
    version, epoch = values["version"], values["epoch"]
    if release is None or len(version) != 1 or len(epoch) > 1 or "%" in "".join(version | epoch):
        return None
    suffix = f".bp{bump}" if bump else ""
    return "".join([*(f"{number}:" for number in epoch), *version, "-", release, suffix])


def _check(spec: Spec, entry: ChangelogEntry) -> None:
    if not entry.lines or not all(item.strip() for item in entry.lines):
        raise PatchError(f"{spec.name}: the changelog entry says nothing", hint="Give it at least one line.")
    if not entry.author.strip() or "\n" in entry.author:
        raise PatchError(f"{spec.name}: the changelog entry has no author", hint="Name <mail>, on one line.")
