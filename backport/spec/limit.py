"""A step of %prep that applies every patch is kept to those that the spec had before.

%autopatch takes a range from rpm 4.15 on alone, and Fedora 28 has 4.14. So the spec's own patches are
applied one by one, each as %autopatch would do it (rpm's macros file, "autopatch" and "__scm_apply_patch").
Only where the spec itself cannot be built with an older rpm does %autopatch stay, with its range.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from backport.errors import PatchError
from backport.spec.lines import Spec, Splice
from backport.spec.steps import Step, has_flag, level_text, patch_style, ranged
from backport.spec.tags import OwnPatch, PatchTags

_WHOLE_LINE = re.compile(r"[ \t]*%autopatch\b[^%{}\\\n]*\n?", re.ASCII)
_HINT = "Apply the patch with a spec edit in the recipe."
MOST_AUTOMATIC = 50
"""Steps of one %prep that apply all patches."""


class EntangledError(PatchError):
    """What applies all patches cannot be kept to the spec's own: ours must not be a patch to rpm at all."""


def patch_command(spec: Spec, number: int, strip: int | str) -> str:
    """``%patch -P N`` is right from rpm 4.14 on, unless the spec has a macro of the name patch."""
    if "patch" in spec.definitions:
        return f"patch -p{strip} --fuzz=0 < %{{PATCH{number}}}"
    return f"%patch -P {number} -p{strip}"


def limit(spec: Spec, step: Step, tags: PatchTags, steps: Sequence[Step]) -> list[Splice]:
    """The changes that keep a step, one of ``steps``, to the patches that the spec has of its own.

    Raises :class:`EntangledError` where that would be a guess.
    """
    if step.macro == "autopatch":
        return _limit_autopatch(spec, step, tags, steps)
    if not step.macro.endswith("autosetup"):
        raise _entangled(spec, step, "this applies all patches, with another strip level")
    if tags.any and (not step.certain or tags.included):
        raise _entangled(spec, step, "it is not known which patches this applies")
    changes = [step.with_option("-N")]
    if tags.any and tags.own is None:
        verbose = " -v" if has_flag(step.options, "v") else ""
        level = level_text(step.options)
        options = f"{verbose}{f' -p{level}' if level else ''} -M {tags.next_number - 1}"
        changes.append(spec.insert_after(step.line, f"%autopatch{options}"))
    elif tags.own:
        changes.append(spec.insert_after(step.line, *_one_by_one(spec, step, tags.own, steps)))
    return changes


def _entangled(spec: Spec, step: Step, reason: str) -> EntangledError:
    return EntangledError(f"{spec.name}, line {step.line.number}: {reason}", hint=_HINT)


def _limit_autopatch(spec: Spec, step: Step, tags: PatchTags, steps: Sequence[Step]) -> list[Splice]:
    if tags.included:
        raise _entangled(spec, step, "it is not known which patches this applies")
    if tags.own is None or ranged(step.options):
        return [step.with_option(f"-M {tags.next_number - 1}")]
    if not _WHOLE_LINE.fullmatch(spec.group_text(step.line)):
        raise _entangled(spec, step, "a macro decides how this applies all patches")
    start, end = step.line.start, step.line.start + len(step.line.text)
    lines = _one_by_one(spec, step, tags.own, steps)
    return [Splice(start=start, end=end, text=spec.eol.join(lines))]


def _one_by_one(spec: Spec, step: Step, own: Sequence[OwnPatch], steps: Sequence[Step]) -> list[str]:
    before = [other for other in steps if other.unpacks and other.line.index <= step.line.index]
    style = patch_style(before[-1].options if before else "")
    if not style.isidentifier():
        raise _entangled(spec, step, "a macro decides how this applies all patches")
    return [_as_autopatch(spec, step, patch, style) for patch in own]


def _as_autopatch(spec: Spec, step: Step, patch: OwnPatch, style: str) -> str:
    """One patch as %autopatch applies it: %patch cannot do without a level, and knows no -S."""
    level, number = level_text(step.options), patch.number
    if level and style == "patch":
        command = patch_command(spec, number, level)
    else:
        options = [f"__scm_apply_{style}", "" if has_flag(step.options, "v") else "-q"]
        options += [f"-p{level}" if level else ""]
        if style != "patch":
            options.append(f"-m %{{basename:%{{PATCH{number}}}}} %{{PATCH{number}}} {number}")
        command = f"%{{uncompress:%{{PATCH{number}}}}} | %{{{' '.join(filter(None, options))}}}"
    return command if patch.certain else f"%{{?PATCH{number}:{command}}}"
