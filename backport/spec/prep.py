"""The %prep section: what applies the spec's patches, and how one more is applied, exactly once.

A patch of ours is relative to the directory in which %setup ends; where %setup only makes a container
(``-c``), to the one in which the spec applies its own first patch or that it enters at once. It is
applied last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from backport.errors import PatchError
from backport.spec.limit import limit, patch_command
from backport.spec.lines import PREAMBLE, Branches, Section, Spec, Splice
from backport.spec.place import Layout, Place, lay_out
from backport.spec.steps import Step, has_flag, level, level_span, level_text, read_steps, uses_source
from backport.spec.tags import PatchTags

_ARCHIVE = re.compile(
    r"\.(tar(\.\w+)?|t[gbx]z2?|zip|tlz|gem|crate|7z|jar|cpio)\b[ \t\r]*$|%\{(pypi|crates)_source\b", re.ASCII
)
_SOURCE_TAG = re.compile(r"[ \t]*source0?[ \t]*:(.*)", re.IGNORECASE | re.ASCII)
_BUILD_SYSTEM = re.compile(r"[ \t]*buildsystem[ \t]*:", re.IGNORECASE | re.ASCII)
#: What rpm 4.20 adds to a BuildSystem's own section: ``%prep -a`` behind it, ``%prep -p`` before it.
_ADDITION = re.compile(r"-[ap]\b(?![ \t]+[/<])", re.ASCII)
_PREP_OPTION = re.compile(r"[ \t]*buildoption[ \t]*\(prep\)[ \t]*:(.*)", re.IGNORECASE | re.ASCII)
_SCRIPTS = ("generate_buildrequires", "conf", "build", "install", "check", "clean")

_HINT = "Apply the patch with a spec edit in the recipe."


def apply_patches(spec: Spec, tags: PatchTags, patches: Sequence[tuple[int, int]]) -> list[Splice]:
    """The changes to %prep that apply the patches, given as (number, strip level), once each.

    Raises :class:`backport.errors.PatchError` where that would be a guess.
    """
    sections = spec.named("prep")
    declarative = any(_BUILD_SYSTEM.match(line.text) for line in spec.live(PREAMBLE))
    if declarative:
        sections = [section for section in sections if not _ADDITION.match(section.arguments)]
    if sections:
        _check_alternatives(spec, sections)
        return [splice for section in sections for splice in _in_section(spec, section, tags, patches)]
    return _declarative(spec, patches) if declarative else _new_section(spec, patches)


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
    if not any(step.macro or step.applies for step in steps):
        raise _nothing_unpacked(spec, section)
    automatic = [step for step in steps if step.automatic]
    base = spec.lines[section.first].after
    times = _times(spec, [(step.line.before, step.certain) for step in automatic], base)
    commands = [patch_command(spec, number, strip) for number, strip in patches]
    layout = lay_out(spec, section, steps)
    place = layout.place()
    if times == (1, 1) and all(_is_right_there(layout, step, place) for step in automatic):
        return [splice for step in automatic for splice in _adapt(spec, step, tags, patches, steps)]
    if place is None:
        reason = "behind the last patch, %prep has no place outside of shell blocks and conditionals"
        raise spec.refuse(f"{reason} whose directory is known", steps[-1].line, hint=_HINT)
    limits = [splice for step in automatic for splice in limit(spec, step, tags, steps)]
    return [*limits, spec.insert_after(place.line, *commands)]


def _is_right_there(layout: Layout, step: Step, place: Place | None) -> bool:
    """Whether a step that applies all patches does so in the directory that ours are relative to."""
    if step.unpacks or place is None:
        return True
    return layout.is_last_tree(step) and layout.directory(step) == place.directory


def _nothing_unpacked(spec: Spec, section: Section) -> PatchError:
    header = spec.lines[section.first]
    if any(uses_source(line.text) for line in spec.section_lines(section) if not line.comment):
        return spec.refuse("%prep handles its sources by hand, without %setup", header, hint=_HINT)
    if any(line.text.startswith("%") for line in spec.section_lines(section)[1:] if not line.conditional):
        return spec.refuse("%prep unpacks by a macro that is not known", header, hint=_HINT)
    return spec.refuse("%prep unpacks nothing", header, hint=_HINT)


def _adapt(
    spec: Spec, step: Step, tags: PatchTags, patches: Sequence[tuple[int, int]], steps: Sequence[Step]
) -> list[Splice]:
    """Make a step that applies our patches, too, do so at their level."""
    wanted = {strip for _, strip in patches}
    if {step.strip} == wanted:
        return []
    if step.macro and not tags.any and len(wanted) == 1:
        return [_set_level(step, patches[0][1])]
    commands = [patch_command(spec, number, strip) for number, strip in patches]
    return [*limit(spec, step, tags, steps), spec.insert_after(step.line, *commands)]


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


def _set_level(step: Step, strip: int) -> Splice:
    if level_text(step.options) is None:
        return step.with_option(f"-p{strip}")
    start, end = level_span(step)
    return Splice(start=start, end=end, text=str(strip))
