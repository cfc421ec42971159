"""The %prep section: what applies the spec's patches, and how one more is applied, exactly once.

A patch of ours is relative to the directory in which the spec applies its own first patch, or, in a
spec without patches, to the directory in which %setup ends. It is applied last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from backport.spec.lines import PREAMBLE, Branches, Section, Spec, Splice
from backport.spec.place import find_place
from backport.spec.steps import Step, has_flag, level, level_text, read_steps, uses_source
from backport.spec.tags import PatchTags

_ARCHIVE = re.compile(
    r"\.(tar(\.\w+)?|t[gbx]z2?|zip|tlz|gem|crate|7z|jar|cpio)\b[ \t\r]*$|%\{(pypi|crates)_source\b", re.ASCII
)
_SOURCE_TAG = re.compile(r"[ \t]*source0?[ \t]*:(.*)", re.IGNORECASE | re.ASCII)
_BUILD_SYSTEM = re.compile(r"[ \t]*buildsystem[ \t]*:", re.IGNORECASE | re.ASCII)
_PREP_OPTION = re.compile(r"[ \t]*buildoption[ \t]*\(prep\)[ \t]*:(.*)", re.IGNORECASE | re.ASCII)
_SCRIPTS = ("generate_buildrequires", "conf", "build", "install", "check", "clean")

_HINT = "Apply the patch with a spec edit in the recipe."


def apply_patches(spec: Spec, tags: PatchTags, patches: Sequence[tuple[int, int]]) -> list[Splice]:
    """The changes to %prep that apply the patches, given as (number, strip level), once each.

    Raises :class:`backport.errors.PatchError` where that would be a guess.
    """
    sections = spec.named("prep")
    own = [section for section in sections if not section.arguments.startswith(("-a", "-p"))]
    if own:
        _check_alternatives(spec, own)
        return [splice for section in own for splice in _in_section(spec, section, tags, patches)]
    if any(_BUILD_SYSTEM.match(line.text) for line in spec.live(PREAMBLE)):
        return _declarative(spec, patches)
    return _new_section(spec, patches)


def _check_alternatives(spec: Spec, sections: list[Section]) -> None:
    """Several %prep sections are right only as branches of one conditional."""
    places = [spec.lines[section.first].before for section in sections]
    outer = {place[:-1] + place[-1:][:0] for place in places}
    numbers = {place[-1][0] for place in places if place}
    if len(sections) > 1 and (len(set(places)) < len(places) or len(numbers) != 1 or len(outer) != 1):
        raise spec.refuse("%prep stands more than once", spec.lines[sections[1].first], hint=_HINT)


def _declarative(spec: Spec, patches: Sequence[tuple[int, int]]) -> list[Splice]:
    """The %prep that rpm gives a BuildSystem: ``%autosetup -C -p1`` and the spec's BuildOption(prep)."""
    found = [match[1] for line in spec.live(PREAMBLE) if (match := _PREP_OPTION.match(line.text))]
    options = " ".join(found)
    strip = level(options, default=1)
    if has_flag(options, "N") or any(wanted != strip for _, wanted in patches):
        raise spec.refuse("the patches of its BuildSystem are not applied at the level asked for", hint=_HINT)
    return []


def _new_section(spec: Spec, patches: Sequence[tuple[int, int]]) -> list[Splice]:
    """A %prep of the plain kind, where the spec has a source to unpack and no script that does it."""
    scripts = spec.named(*_SCRIPTS)
    values = [match[1] for line in spec.live(PREAMBLE) if (match := _SOURCE_TAG.match(line.text))]
    if not any(_ARCHIVE.search(value) for value in values) or not scripts:
        raise spec.refuse(
            "no %prep, and no source to unpack", hint="There is nothing that a patch could change."
        )
    used = next((line for line in spec.live(*_SCRIPTS) if uses_source(line.text)), None)
    if used or any(not line.comment and "%include" in line.text for line in spec.lines):
        raise spec.refuse("no %prep; the sources are unpacked elsewhere", used, hint=_HINT)
    header = spec.lines[scripts[0].first]
    strips = {strip for _, strip in patches}
    if header.before or len(strips) > 1:
        raise spec.refuse("no %prep, and no plain place for one", header, hint=_HINT)
    block = spec.eol.join(["%prep", f"%autosetup -p{strips.pop()}", "", ""])
    return [Splice(start=header.start, end=header.start, text=block)]


def _in_section(
    spec: Spec, section: Section, tags: PatchTags, patches: Sequence[tuple[int, int]]
) -> list[Splice]:
    steps = read_steps(spec, section)
    if not steps:
        reason = "%prep unpacks nothing by %setup and applies no patch"
        raise spec.refuse(reason, spec.lines[section.first], hint=_HINT)
    automatic = [step for step in steps if step.automatic]
    wanted = {strip for _, strip in patches}
    base = spec.lines[section.first].after
    times = _times(spec, [(step.line.before, step.certain) for step in automatic], base)
    if times == (1, 1) and {step.strip for step in automatic} == wanted:
        return []
    if times == (1, 1) and len(wanted) == 1 and not tags.any and all(map(_takes_level, automatic)):
        return [_add_option(step, f" -p{patches[0][1]}") for step in automatic]
    limits = [splice for step in automatic for splice in _limit(spec, step, tags, patches[0][0] - 1)]
    place = find_place(spec, section, steps)
    lines = [f"%patch -P {number} -p{strip}" for number, strip in patches]
    return [*limits, spec.insert_after(place, *lines)]


def _times(spec: Spec, steps: Iterable[tuple[Branches, bool]], base: Branches) -> tuple[int, int]:
    """How often, at least and at most, these steps run below the branches ``base``."""
    low = high = 0
    deeper: dict[int, dict[int, list[tuple[Branches, bool]]]] = {}
    for branches, certain in steps:
        if branches[: len(base)] == base and len(branches) > len(base):
            number, branch = branches[len(base)]
            deeper.setdefault(number, {}).setdefault(branch, []).append((branches, certain))
        else:
            low, high = low + certain, high + 1
    for number, branches_of in deeper.items():
        conditional = spec.conditionals[number]
        runs = [_times(spec, inside, (*base, (number, branch))) for branch, inside in branches_of.items()]
        whole = conditional.exhaustive and len(runs) == conditional.branches
        low += min(run[0] for run in runs) if whole else 0
        high += max(run[1] for run in runs)
    return low, high


def _takes_level(step: Step) -> bool:
    """Whether the strip level can be given to this step: it has none, and it is a macro that takes one."""
    return bool(step.macro) and level_text(step.options) is None


def _add_option(step: Step, option: str) -> Splice:
    position = step.line.start + step.line.text.index(step.macro) + len(step.macro)
    return Splice(start=position, end=position, text=option)


def _limit(spec: Spec, step: Step, tags: PatchTags, highest: int) -> list[Splice]:
    """Keep a step that applies every patch to those that the spec had before."""
    if step.macro == "autopatch":
        return [_add_option(step, f" -M {highest}")]
    if step.macro not in ("autosetup", "forgeautosetup"):
        raise spec.refuse("this applies all patches in one way, not ours alone", step.line, hint=_HINT)
    level = level_text(step.options)
    changes = [_add_option(step, " -N")]
    if tags.any:
        verbose = " -v" if has_flag(step.options, "v") else ""
        autopatch = f"%autopatch{verbose}{f' -p{level}' if level else ''} -M {highest}"
        changes.append(spec.insert_after(step.line, autopatch))
    return changes
