"""The %prep section: what applies the spec's patches, and how one more is applied, exactly once.

A patch of ours is relative to the directory in which %setup ends; where %setup only makes a container
(``-c``), to the one in which the spec applies its own last patch or, without any, that it enters at once.
It is applied last. Where the spec does something of its own with all of its patches, ours is declared as a
source instead, which such commands leave alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from backport.errors import PatchError
from backport.spec import everyone
from backport.spec.globs import glob_for
from backport.spec.limit import MOST_AUTOMATIC, EntangledError, limit, patch_command
from backport.spec.lines import PREAMBLE, Branches, Line, Section, Spec, Splice
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
_UNPACKS = re.compile(r"[ \t]*(?:unzip|tar|bsdtar)[ \t][^\n;&|]*$", re.ASCII)
_DEFINES = re.compile(r"[ \t]*%(?:define|global)[ \t]+(\w+)", re.ASCII)
_TEXTS = ("changelog", "description", "files", "patchlist", "sourcelist")
_SCRIPTS = ("generate_buildrequires", "conf", "build", "install", "check", "clean")

_HINT = "Apply the patch with a spec edit in the recipe."


def apply_patches(spec: Spec, tags: PatchTags, patches: Sequence[tuple[int, int]]) -> list[Splice]:
    """The changes to %prep that apply the patches, given as (number, strip level), once each.

    Raises :class:`EntangledError` where the spec would apply a patch of ours in a way of its own, and any
    other :class:`backport.errors.PatchError` where an edit would be a guess.
    """
    sections = _sections(spec)
    if not sections and _is_declarative(spec):
        return _declarative(spec, patches)
    if line := _used_outside(spec, sections, "patches"):
        if _DEFINES.match(line.text):
            raise spec.refuse(
                "%prep uses this macro, which does something with every patch", line, hint=_HINT
            )
        raise EntangledError(f"{spec.name}, line {line.number}: what this does with every patch is not known")
    if not sections:
        return _new_section(spec, patches)
    return [splice for section in sections for splice in _in_section(spec, section, tags, patches)]


def apply_sources(spec: Spec, patches: Sequence[tuple[int, int]], cause: EntangledError) -> list[Splice]:
    """The changes to %prep that apply patches, given as (number, strip level), which are sources to rpm.

    Raises ``cause``, why they cannot be patches, where the spec uses all of its sources, too.
    """
    sections = _sections(spec)
    commands = [f"patch -p{strip} --fuzz=0 -i %{{SOURCE{number}}}" for number, strip in patches]
    if not sections or _used_outside(spec, [], "sources"):
        raise cause
    splices = []
    for section in sections:
        steps = read_steps(spec, section)
        place = lay_out(spec, section, steps).place() if steps else None
        if place is None:
            raise cause
        splices.append(spec.insert_after(place.line, *commands))
    return splices


def check_globs(spec: Spec, names: Sequence[str]) -> None:
    """Raise PatchError where %prep takes files of the sources by a glob that matches one of these."""
    for section in spec.named("prep"):
        if found := glob_for(spec, section, names):
            raise spec.refuse(
                f"the files that {found[1]!r} stands for would include a patch of the recipe",
                found[0],
                hint="Rename the patch so that it does not match, or change the line with a spec edit.",
            )


def _sections(spec: Spec) -> list[Section]:
    sections = spec.named("prep")
    if _is_declarative(spec):
        sections = [section for section in sections if not _ADDITION.match(section.arguments)]
    if sections:
        _check_alternatives(spec, sections)
    return sections


def _is_declarative(spec: Spec) -> bool:
    return any(_BUILD_SYSTEM.match(line.text) for line in spec.live(PREAMBLE))


def _used_outside(
    spec: Spec, sections: Sequence[Section], table: Literal["patches", "sources"]
) -> Line | None:
    """The first line outside of these sections that does something with all patches or sources.

    A macro counts where %prep, or another macro, names it.
    """
    mention = everyone.MENTION if table == "patches" else everyone.SOURCES
    known = {section.first for section in sections}
    for section in spec.sections:
        if section.name in _TEXTS or (section.name == "prep" and section.first in known):
            continue
        for line in spec.section_lines(section):
            text = "" if line.comment or line.joined else spec.group_text(line)
            used = table in text.lower() and (mention.search(text) or everyone.in_lua(text, table))
            if used and _is_named(spec, line):
                return line
    return None


def _is_named(spec: Spec, line: Line) -> bool:
    """Whether %prep or the preamble names the macro that a line defines; True where it defines none."""
    match = _DEFINES.match(line.text)
    if match is None:
        return True
    name = re.compile(rf"%\{{?[?!]*{re.escape(match[1])}\b")
    return any(
        name.search(spec.text, spec.lines[section.first].start, spec.lines[section.stop - 1].end)
        for section in spec.named(PREAMBLE, "package", "prep")
        if section.first < section.stop
    )


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
    commands = [patch_command(spec, number, strip) for number, strip in patches]
    if not any(step.macro or step.applies for step in steps):
        return [spec.insert_after(_by_hand(spec, section).line, *commands)]
    automatic = [step for step in steps if step.automatic]
    layout = lay_out(spec, section, steps)
    _check_clear(spec, steps, layout)
    base = spec.lines[section.first].after
    times = _times(spec, _alternatives(spec, section, automatic), base)
    place = layout.place()
    if times == (1, 1) and all(_is_right_there(layout, step, place) for step in automatic):
        return [splice for step in automatic for splice in _adapt(spec, step, tags, patches, steps)]
    if place is None:
        raise _no_place(spec, steps)
    limits = [splice for step in automatic for splice in limit(spec, step, tags, steps)]
    return [*limits, spec.insert_after(place.line, *commands)]


def _no_place(spec: Spec, steps: Sequence[Step]) -> PatchError:
    patching = [step for step in steps if step.applies]
    if patching and any(has_flag(step.options, "c") for step in steps if step.unpacks):
        reason = "%setup -c only makes a container, and the place of the spec's last own patch is not always"
        return spec.refuse(f"{reason} reached, or not in a known directory", patching[-1].line, hint=_HINT)
    reason = "behind the last patch, %prep has no place outside of shell blocks and conditionals"
    return spec.refuse(f"{reason} whose directory is known", steps[-1].line, hint=_HINT)


def _check_clear(spec: Spec, steps: Sequence[Step], layout: Layout) -> None:
    """Raise EntangledError where it is not known what the spec does with each of its patches."""
    for step in steps:
        in_block = step.automatic and not step.macro and not layout.is_open(step)
        if step.unclear or in_block:
            line = f"{spec.name}, line {step.line.number}"
            raise EntangledError(f"{line}: what this does with every patch is not known", hint=_HINT)
    if sum(step.automatic for step in steps) > MOST_AUTOMATIC:
        raise spec.refuse(f"more than {MOST_AUTOMATIC} steps apply all patches", hint=_HINT)


def _alternatives(spec: Spec, section: Section, automatic: Sequence[Step]) -> list[tuple[Branches, bool]]:
    """Where each step runs and whether it surely does; of ``%{?x:…}`` and ``%{!?x:…}`` one does."""
    found: list[tuple[Branches, bool]] = []
    waiting: Step | None = None
    for step in automatic:
        if waiting and _are_alternatives(spec, section, waiting, step):
            found[-1], waiting = (step.line.before, True), None
            continue
        found.append((step.line.before, step.certain))
        waiting = step if step.guard else None
    return found


def _are_alternatives(spec: Spec, section: Section, one: Step, other: Step) -> bool:
    name = one.guard.lstrip("!?")
    opposite = {one.guard, other.guard} == {f"?{name}", f"!?{name}"}
    script = spec.text[spec.lines[section.first].start : spec.lines[section.stop - 1].end]
    changed = re.search(rf"%(?:define|global|undefine)[ \t]+{name}\b", script)
    return opposite and one.line.before == other.line.before and changed is None


def _is_right_there(layout: Layout, step: Step, place: Place | None) -> bool:
    """Whether a step that applies all patches does so in the directory that ours are relative to."""
    if step.unpacks or place is None:
        return True
    return layout.is_last_tree(step) and layout.directory(step) == place.directory


def _by_hand(spec: Spec, section: Section) -> Place:
    """Behind the ``cd`` into what one plain command unpacks. Raises PatchError where it is not so plain."""
    lines = [line for line in spec.section_lines(section)[1:] if not (line.comment or line.conditional)]
    used = [line for line in lines if uses_source(line.text)]
    foreign = [line for line in lines if line.text.startswith("%") and not line.inner]
    if len(used) == 1 and not foreign and _UNPACKS.match(used[0].text) and not used[0].joined:
        entered = lay_out(spec, section, [Step(line=used[0])]).entered_by_hand()
        if entered:
            return entered
    header = spec.lines[section.first]
    if foreign and (not used or foreign[0].index < used[0].index):
        raise spec.refuse("%prep unpacks by a macro that is not known", foreign[0], hint=_HINT)
    if used:
        raise spec.refuse("%prep handles its sources by hand, without %setup", header, hint=_HINT)
    raise spec.refuse("%prep unpacks nothing", header, hint=_HINT)


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
