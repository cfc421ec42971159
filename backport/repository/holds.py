"""What is held: built packages that clients were led back from, and the changed sources that they came from.

Each event of a folder's history says what is held since, in words::

    package openssl-1:1.1.1w-1.fc28.bp1.x86_64 <digest of its header>
    source openssl-1.1.1w-1.fc28.bp1.src.rpm <digest of the changed source package>
    <key of a run>

What was bad are the packages; neither another version of the tool nor another self-test makes them good. A
key is of the run's inputs: by it a run ends before it asks for anything, by the source's digest before it
builds. Earlier versions held keys alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from backport.artifacts import BuiltRpms, Nevra, PatchedSrpm
from backport.errors import PublishError
from backport.repository.contents import PublishedRpm, content_of, packages_of
from backport.repository.generations import Generation, TargetFolder

_PACKAGE, _SOURCE = "package", "source"


def require_not_held(
    folder: TargetFolder, words: Collection[str], inputs: Mapping[str, str] | None = None
) -> None:
    """Raises PublishError where words hold something, which is named by its recipe among ``inputs``, or by
    its packages."""
    if words:
        names = held_recipes(inputs or {}, words) or held_packages(words) or ("what these inputs gave",)
        raise PublishError(
            f"{', '.join(names)}: was rolled back from {folder.path}",
            hint="raise `bump` in the recipe for a change, lead clients to that generation by "
            "`backport repo rollback ID`, or take it again by --force",
        )


def sources_of(built: Iterable[BuiltRpms]) -> dict[str, str]:
    """The digests of changed source packages by the file names of what was built from them."""
    return {one.srpm.nevra.filename: one.patched.sha256 for one in built}


def words_for(
    folder: TargetFolder, generation: Generation, packages: Collection[PublishedRpm]
) -> frozenset[str]:
    """The words that hold some packages of a generation. A damaged one is held by its name."""
    words = set()
    for one in packages:
        digest, source = "", one.nevra.filename
        with suppress(PublishError, OSError):
            content = content_of(folder.folder_of(generation.id) / one.path)
            digest, source = content.digest, content.source or source
        words.add(f"{_PACKAGE} {one.nevra} {digest}".strip())
        if changed := generation.sources.get(source):
            words.add(f"{_SOURCE} {source} {changed}")
    return frozenset(words)


def left_behind(folder: TargetFolder, left: Generation | None, kept: Generation) -> frozenset[str]:
    """The words for what clients do not have any more who are led from one generation to another.

    Of a generation whose metadata is damaged nothing but the runs can be told.
    """
    if left is None:
        return frozenset()
    keys = {digest for name, digest in left.inputs.items() if kept.inputs.get(name) != digest}
    try:
        old, new = packages_of(folder, left), packages_of(folder, kept)
    except PublishError:
        return frozenset(keys)
    gone = [one for path, one in old.items() if path not in new]
    return frozenset(keys) | words_for(folder, left, gone)


def held(folder: TargetFolder) -> frozenset[str]:
    """All words that hold now; for a key that an earlier version held, as far as its generations are still
    there, also those for its packages. Raises PublishError."""
    history = folder.history()
    now = frozenset(history[-1].held) if history else frozenset()
    more: set[str] = set()
    for before, event in zip((None, *history), history, strict=False):
        new = set(event.held) - set(before.held if before else ())
        if not new & now or event.action != "rollback" or any(_is_word(word) for word in new):
            continue
        with suppress(PublishError):
            left, kept = folder.load(event.before or ""), folder.load(event.generation or "")
            more |= {word for word in left_behind(folder, left, kept) if _is_word(word)}
    return now | more


def concerning(
    words: Iterable[str],
    *,
    packages: Iterable[Nevra] = (),
    sources: Collection[str] = (),
    inputs: Collection[str] = (),
) -> frozenset[str]:
    """Those of the words that are about some packages, changed sources (their digests) or runs."""
    names = {str(nevra) for nevra in packages}
    return frozenset(
        word
        for word in words
        if word in inputs
        or (word.startswith(f"{_PACKAGE} ") and word.split(" ")[1] in names)
        or (word.startswith(f"{_SOURCE} ") and word.rpartition(" ")[2] in sources)
    )


def about(folder: TargetFolder, generation: Generation, words: Collection[str]) -> frozenset[str]:
    """Those of the words that are about what a generation has. Raises PublishError."""
    packages = [one.nevra for one in packages_of(folder, generation).values()] if words else []
    return concerning(
        words, packages=packages, sources=set(generation.sources.values()),
        inputs=set(generation.inputs.values()),
    )  # fmt: skip


def held_packages(words: Iterable[str]) -> tuple[str, ...]:
    """The names of the packages that the words hold."""
    return tuple(sorted(word.split(" ")[1] for word in words if word.startswith(f"{_PACKAGE} ")))


def held_recipes(inputs: Mapping[str, str], words: Collection[str]) -> tuple[str, ...]:
    """The recipes whose runs the words hold."""
    return tuple(sorted(name for name, key in inputs.items() if key in words))


def held_sources(folder: TargetFolder, patched: Iterable[PatchedSrpm]) -> tuple[str, ...]:
    """The names of the packages of which the very same changed source is held. Raises PublishError."""
    words = held(folder)
    return tuple(one.source.rpm.nevra.name for one in patched if concerning(words, sources={one.sha256}))


def _is_word(word: str) -> bool:
    return word.startswith((f"{_PACKAGE} ", f"{_SOURCE} "))
