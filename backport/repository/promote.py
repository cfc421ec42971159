"""Promoting: clients of one channel see what those of another see, the very same files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from backport.artifacts import Check, Verdict
from backport.errors import PublishError
from backport.repository.contents import PublishedRpm, content_of, packages_of, repositories_of
from backport.repository.generations import STABLE, Generation
from backport.repository.holds import about, held, require_not_held
from backport.repository.place import Place, reported
from backport.repository.plan import Kept, Plan, location, time_after
from backport.repository.proof import Exhibit
from backport.repository.release import release
from backport.repository.rollback import Moved, require_proven


def promote(
    source: Place, place: Place, *, force: bool = False, create: bool = False, dry_run: bool = False
) -> Moved:
    """Let clients of ``place`` see what those of another channel, ``source``, see: nothing is built again.

    Packages that were rolled back from the channel go there again only with ``force``. ``create`` begins a
    channel that there is not yet; with ``dry_run`` nothing is changed.

    Raises PublishError when nothing is published in ``source``, ``place`` has a package that ``source`` lacks
    or has with other content, its record cannot be signed, or the copy does not read back.
    """
    _require_channels(source, place, create=create)
    with reported(place.folder), ExitStack() as locks:
        _lock(source, place, locks, dry_run=dry_run)
        wanted, before = source.folder.published(), place.folder.published()
        if wanted is None:
            raise PublishError(f"{source.folder.path}: nothing is published there")
        rolled_back = about(source.folder, wanted, held(place.folder))
        if not force:
            require_not_held(place.folder, rolled_back, wanted.inputs)
        moved = Moved(
            folder=str(place.folder.path), generation=wanted.id, before=before.id if before else None,
            dry_run=dry_run,
        )  # fmt: skip
        if before and before.metadata == wanted.metadata and wanted.inputs.items() <= before.inputs.items():
            place.progress.note("everything is published there already")
            return replace(moved, generation=before.id, dry_run=False)
        require_proven(source.folder, wanted)
        plan = _plan(source, wanted, place, before)
        if dry_run:
            return moved
        record, _ = release(place, replace(plan, release=rolled_back), _proven_there)
    return replace(moved, generation=record.id)


def _lock(source: Place, place: Place, locks: ExitStack, *, dry_run: bool) -> None:
    if not dry_run:
        place.folder.create()
    both = (source.folder, place.folder)
    for folder in sorted(both, key=lambda one: str(one.path)):
        if folder.path.is_dir():
            locks.enter_context(folder.locked(timeout=place.lock_timeout))
    for folder in both if not dry_run else ():
        folder.remove_leftovers(place.signing)


def _require_channels(source: Place, place: Place, *, create: bool) -> None:
    """There are two, and a name that is mistyped does not become one."""
    if source.channel == place.channel:
        raise PublishError(f"{source.channel}: a channel is not promoted to itself", hint="name two channels")
    source.require_published()
    if place.channel != STABLE and not create and not place.folder.generations.is_dir():
        raise PublishError(
            f"there is no channel {place.channel!r} for {place.target.name} yet",
            hint="begin one by --create, or correct the name",
        )


def _plan(source: Place, wanted: Generation, place: Place, before: Generation | None) -> Plan:
    """All repositories as they are, whatever ``before`` has."""
    origin = source.folder.folder_of(wanted.id)
    there = packages_of(source.folder, wanted)
    known: Mapping[str, PublishedRpm] = {}
    if before:
        known = packages_of(place.folder, before)
        for rpm in known.values():
            _require_same(rpm, there, origin, place.folder.folder_of(before.id))
    others = [path for path, rpm in there.items() if known.get(path) != rpm]
    repositories = tuple(
        Kept(
            name=name, source=origin / name,
            unread=frozenset(location(path) for path in others if path.startswith(f"{name}/")),
        )
        for name in repositories_of(place.target)
    )  # fmt: skip
    record = replace(
        wanted, id="", time=time_after(wanted, before), previous=before.id if before else None,
        added=len(there.keys() - known.keys()),
        inputs={**(before.inputs if before else {}), **wanted.inputs},
        sources={**(before.sources if before else {}), **wanted.sources},
    )  # fmt: skip
    return Plan(
        action="promote", before=before, record=record, repositories=repositories,
        public_key=source.folder.public_key, evidence_of=(origin,),
    )  # fmt: skip


def _require_same(rpm: PublishedRpm, there: Mapping[str, PublishedRpm], origin: Path, old: Path) -> None:
    """What clients of the destination have must be in ``origin``, with the same content."""
    if rpm.path not in there:
        raise PublishError(
            f"{rpm.nevra}: {old} has it, the generation to promote does not",
            hint="build it for that channel, too; what was built before is taken as it is",
        )
    files = (origin / rpm.path, old / rpm.path)
    if there[rpm.path].sha256 != rpm.sha256 and len({content_of(file).digest for file in files}) > 1:
        raise PublishError(
            f"{rpm.nevra}: {old} has it with other content",
            hint="raise `bump` in the recipe: clients never take another package of the same version",
        )


def _proven_there(_exhibit: Exhibit) -> tuple[Check, ...]:
    """The packages and their metadata are those that a client has installed from."""
    title = "A client installed it from the other channel"
    return (Check(id="publish.promoted", title=title, verdict=Verdict.PASS),)
