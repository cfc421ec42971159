"""Editing a spec as text: every byte that is not part of the change stays as it is.

No macro is expanded, nothing is read or run: a foreign spec is only text here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backport.errors import PatchError, as_kind
from backport.run import time_limit
from backport.spec.anchors import SpecEdit, apply_edits
from backport.spec.changelog import ChangelogEntry, add_entry
from backport.spec.limit import EntangledError
from backport.spec.lines import Spec, Splice, apply_splices, as_text, parse
from backport.spec.prep import apply_patches, apply_sources, check_globs
from backport.spec.release import bump_release
from backport.spec.tags import PatchTags, add_tags, next_source, read_tags

DEADLINE = 60.0
"""Seconds for one spec; Fedora's largest takes one."""
_BYTE_ORDER_MARK = "\xef\xbb\xbf"
"""That of UTF-8, one character a byte."""


@dataclass(frozen=True, kw_only=True)
class SpecPatch:
    """A patch to add: its file name in SOURCES, and the strip level (``-p``) it applies with."""

    name: str
    strip: int = 1


@as_kind(PatchError)
def edit_spec(
    text: bytes,
    *,
    name: str,
    patches: Sequence[SpecPatch] = (),
    edits: Sequence[SpecEdit] = (),
    undefine: Sequence[str] = (),
    bump: int,
    changelog: ChangelogEntry | None,
) -> bytes:
    """Give a spec patches, a Release with ``.bp<bump>`` and a changelog entry; ``name`` is for errors.

    ``edits`` are made first, one upon the other. Macros to ``undefine`` are unset on the first lines,
    because rpmbuild forgets its option of that name where it is given ``--target``, too. Each patch gets
    a PatchN tag (a SourceN tag, where the spec has commands of its own for all patches) and is applied
    exactly once, in the order given, after the spec's own patches. It is relative to the directory in
    which %setup ends; where that is a container (``-c``), to the one in which the spec applies its own
    last patch or, without any, that it enters at once. ``bump=0`` leaves the Release alone, as does
    ``changelog=None`` the changelog.

    Raises :class:`backport.errors.PatchError`, with the line and a hint, wherever an edit would be a
    guess.
    """
    hint = "No honest spec takes so long to edit: look at where it came from."
    with time_limit(DEADLINE, what=name, hint=hint):
        edited = apply_edits(text.decode("latin-1"), name=name, edits=edits)
        spec = parse(name, edited)
        if not spec.lines:
            raise PatchError(f"{name}: the spec is empty", hint="The source package is broken.")
        if bump < 0:
            raise PatchError(f"{name}: the bump {bump} is negative", hint="Use a number from 0 on.")
        splices = [_undefine(spec, macro) for macro in undefine]
        splices += bump_release(spec, bump) if bump else []
        if patches:
            splices += _add_patches(spec, patches)
        if changelog is not None:
            splices += add_entry(spec, changelog, bump=bump)
        return apply_splices(edited, splices).encode("latin-1")


def _add_patches(spec: Spec, patches: Sequence[SpecPatch]) -> list[Splice]:
    """Patches to rpm, or sources to rpm where the spec does something of its own with all patches."""
    tags = read_tags(spec)
    _check_patches(spec.name, patches, tags)
    check_globs(spec, [patch.name for patch in patches])
    names = [as_text(patch.name) for patch in patches]
    strips = [patch.strip for patch in patches]
    try:
        applied = apply_patches(spec, tags, list(enumerate(strips, start=tags.next_number)))
    except EntangledError as cause:
        start = next_source(spec)
        declared = add_tags(spec, "source", list(enumerate(names, start=start)))
        return declared + apply_sources(spec, list(enumerate(strips, start=start)), cause)
    return add_tags(spec, "patch", list(enumerate(names, start=tags.next_number))) + applied


def _undefine(spec: Spec, macro: str) -> Splice:
    first = len(_BYTE_ORDER_MARK) if spec.text.startswith(_BYTE_ORDER_MARK) else 0
    return Splice(start=first, end=first, text=f"%undefine {macro}{spec.eol}")


def _check_patches(name: str, patches: Sequence[SpecPatch], tags: PatchTags) -> None:
    seen = set(tags.names)
    for patch in patches:
        if not patch.name or any(
            char.isspace() or char == "/" or not char.isprintable() for char in patch.name
        ):
            raise PatchError(f"{name}: {patch.name!r} is no file name for a patch", hint="Use a plain name.")
        if patch.strip < 0:
            raise PatchError(f"{name}: strip level {patch.strip} of {patch.name}", hint="Use 0 or more.")
        if as_text(patch.name) in seen:
            raise PatchError(f"{name}: the spec already has the patch {patch.name}", hint="Rename the patch.")
        seen.add(as_text(patch.name))
