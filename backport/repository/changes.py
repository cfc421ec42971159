"""What is done with generations besides publishing them: list, compare, lead back, promote, remove.

Every function that changes something holds the folder's lock. Until its one rename readers see what they
saw before, and what a killed process left is removed by the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport.artifacts import Nevra
from backport.errors import PublishError
from backport.progress import Progress, Silent
from backport.repodata import FOLDER, REPOMD
from backport.repository.assemble import Publication, make_generation
from backport.repository.clients import (
    channel_url,
    reported,
    site_keys,
    write_client_files,
)
from backport.repository.contents import PublishedRpm, content_of, packages_of
from backport.repository.generations import STABLE, Generation, TargetFolder, last_switch
from backport.repository.history import SWITCHES
from backport.repository.holds import about, held, held_packages, held_recipes, left_behind
from backport.repository.overview import renew
from backport.repository.publish import LOCK_TIMEOUT, lead_to, tidy_up
from backport.repository.readers import recent, take_back, write_mirrorlists
from backport.site import Signing
from backport.target import Target
from backport.trust import fingerprints_in, newest

_MAKING = SWITCHES - {"rollback"}
"""The actions that make a generation from the one that readers see."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One generation in a list."""

    id: str
    time: datetime
    current: bool
    """Whether readers see it."""
    proven: bool
    """Whether a client could install from it."""
    packages: int
    added: int
    """How many of its packages the generation before did not have."""
    run: str
    note: str = ""
    """Why nothing more can be told of it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What another generation has in place of one's packages; each NEVRA with its repository's folder."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """The same package, signed another time or by another key."""
    inputs: tuple[str, ...]
    """The recipes whose inputs differ."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What readers see since, and what they saw before."""

    folder: str
    generation: str
    before: str | None
    held: tuple[str, ...] = ()
    """The recipes whose packages are not published again until a source, a patch or a `bump` changes."""
    packages: tuple[str, ...] = ()
    """The packages that are held."""
    dry_run: bool = False
    """Whether it was only to be shown."""


def list_generations(folder: TargetFolder) -> tuple[Listed, ...]:
    """Every generation, the newest first; a damaged one with a note. Raises PublishError."""
    current = folder.current_id()
    found = [_listed(folder, one, current) for one in folder.ids()]
    return tuple(sorted(found, key=lambda one: (one.time, one.id), reverse=True))


def compare(folder: TargetFolder, first: Generation, second: Generation) -> Difference:
    """What readers of ``second`` see that those of ``first`` do not, and the other way round.

    Raises PublishError when the metadata of one is damaged.
    """
    old, new = (packages_of(folder, one) for one in (first, second))
    names = first.inputs.keys() | second.inputs.keys()
    return Difference(
        added=_named(new[path] for path in new.keys() - old.keys()),
        removed=_named(old[path] for path in old.keys() - new.keys()),
        changed=_named(new[path] for path in new.keys() & old.keys() if new[path].sha256 != old[path].sha256),
        inputs=tuple(sorted(name for name in names if first.inputs.get(name) != second.inputs.get(name))),
    )


def lead_back(
    folder: TargetFolder,
    generation: str | None,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    dry_run: bool = False,
    progress: Progress | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Moved:
    """Let readers see a generation again (default: the last one that they may, see `_previous`).

    It is one rename, and recorded. The packages that only the generation has which readers leave are held:
    they are not published again before a source, a patch or a `bump` makes others of them, or somebody forces
    it. Leading readers to a later generation is done the same way, and lets go of what that has. ``base_url``
    is the URL of the repository folder.

    Raises PublishError when there is no such generation, readers see it already, it was never proven, it is
    not whole, or it is signed by a key that clients are not told any more.
    """
    require_published(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        if not dry_run:
            folder.remove_leftovers(signing)
        now = folder.current_generation()
        wanted = folder.load(generation or _previous(folder, now))
        if now and wanted.id == now.id:
            raise PublishError(f"{folder.path}: readers see {wanted.id} already")
        _require_usable(folder, wanted)
        later = now is None or now.time < wanted.time
        bad = frozenset() if later else left_behind(folder, now, wanted)
        if not dry_run:
            url = channel_url(base_url, folder.channel)
            own = f"{url}/{target.name}/generations/{wanted.id}"
            write_mirrorlists(folder.folder_of(wanted.id), target, own)
            freed = about(folder, wanted, held(folder))
            lead_to(folder, wanted.id, target, signing, action="rollback", hold=bad, release=freed)
            tidy_up(folder, target, url, signing, progress or Silent())
    return Moved(
        folder=str(folder.path), generation=wanted.id, before=now.id if now else None,
        held=held_recipes(now.inputs if now else {}, bad), packages=held_packages(bad), dry_run=dry_run,
    )  # fmt: skip


def promote(
    source: TargetFolder,
    destination: TargetFolder,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    force: bool = False,
    create: bool = False,
    dry_run: bool = False,
    progress: Progress,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Moved:
    """Let readers of one channel see what those of another see: the same files, nothing is built anew.

    ``base_url`` is the URL of the repository folder. Packages that were rolled back from the channel go
    there again only with ``force``. ``create`` begins a channel that there is not yet; with ``dry_run``
    nothing is changed.

    Raises PublishError when nothing is published in ``source``, ``destination`` has a package that
    ``source`` lacks or has with other content, its record cannot be signed, or the copy does not read back.
    """
    _require_channels(source, destination, target, create=create)
    with reported(destination), ExitStack() as locks:
        if not dry_run:
            destination.create()
        for folder in sorted((source, destination), key=lambda one: str(one.path)):
            if folder.path.is_dir():
                locks.enter_context(folder.locked(timeout=lock_timeout))
        for folder in (source, destination) if not dry_run else ():
            folder.remove_leftovers(signing)
        wanted, before = source.published(), destination.published()
        if wanted is None:
            raise PublishError(f"{source.path}: nothing is published there")
        rolled_back = about(source, wanted, held(destination))
        if rolled_back and not force:
            raise PublishError(
                f"{', '.join(_told(wanted, rolled_back))}: was rolled back from {destination.path}",
                hint="promote what came from other sources, or the same again by --force",
            )
        if before and before.metadata == wanted.metadata and wanted.inputs.items() <= before.inputs.items():
            progress.note("everything is published there already")
            return Moved(folder=str(destination.path), generation=before.id, before=before.id)
        _require_proven(source, wanted)
        url = channel_url(base_url, destination.channel)
        publication = _copy_of(
            source, wanted, destination, before=before, target=target, url=f"{url}/{target.name}"
        )

        if dry_run:
            return Moved(
                folder=str(destination.path), generation=wanted.id, before=before.id if before else None,
                dry_run=True,
            )  # fmt: skip

        def prepare(record: Generation, _content: Path) -> None:
            needed = [record, before] if before else [record]
            write_client_files(destination, needed, site_keys(signing), target=target, base_url=url)
            # The packages and their metadata are those that a client has installed from.
            destination.mark_proven(record.id, signing)

        record = make_generation(publication, signing, progress, prove=prepare)
        lead_to(destination, record.id, target, signing, action="promote", release=rolled_back, is_new=True)
        tidy_up(destination, target, url, signing, progress)
    return Moved(folder=str(destination.path), generation=record.id, before=before.id if before else None)


def prune(
    folder: TargetFolder,
    keep: int,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    dry_run: bool = False,
    lock_timeout: float = LOCK_TIMEOUT,
) -> tuple[str, ...]:
    """Remove all but the newest ``keep`` generations; gives the ids of those that went.

    What readers see stays, and so do what they saw during the last days (`readers.GRACE`), every generation
    without which the newest build of a package would be lost, and every one that the record does not know.
    ``base_url`` is the URL of the repository folder. Raises PublishError for fewer than one, or when a
    generation is damaged.
    """
    if keep < 1:
        raise PublishError("at least one generation is kept", hint="give --keep a number above 0")
    require_published(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        if not dry_run:
            folder.remove_leftovers(signing)
        records = [folder.load(one) for one in folder.ids()]
        records.sort(key=lambda one: (one.time, one.id), reverse=True)
        kept = {one.id for one in records[:keep]} | {folder.current_id(), last_switch(folder.history())}
        # What the record does not know, and what clients may be reading, which lend what is nowhere else.
        kept |= {*folder.unknown(), *recent(folder)}
        having = [(one.id, packages_of(folder, one).values()) for one in records]
        kept |= _only_with_newest(having, kept)
        gone = tuple(one.id for one in reversed(records) if one.id not in kept)
        if dry_run:
            return gone
        take_back(folder, target)
        if gone:
            folder.remember("prune", None, signing, generations=gone)
        for one in gone:
            folder.remove(one)
        renew(folder, target, channel_url(base_url, folder.channel), signing)
    return gone


def collect_garbage(
    folder: TargetFolder,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    lock_timeout: float = LOCK_TIMEOUT,
) -> tuple[str, ...]:
    """Remove what killed processes left half made, and give its names; what they did not come to do for the
    page is done. ``base_url`` is the URL of the repository folder. Raises PublishError."""
    require_published(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        gone = folder.remove_leftovers(signing)
        take_back(folder, target)
        renew(folder, target, channel_url(base_url, folder.channel), signing)
    return gone


def accept_folder(
    folder: TargetFolder, *, signing: Signing, lock_timeout: float = LOCK_TIMEOUT
) -> tuple[str, ...]:
    """Begin the record anew from what is in the folder; gives its generations. Raises PublishError."""
    require_published(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        return folder.anchor(signing)


def require_published(folder: TargetFolder) -> None:
    """There is something to work on; an empty folder is not made on the way."""
    if not folder.generations.is_dir():
        raise PublishError(
            f"{folder.path}: nothing is published there",
            hint="`backport build` publishes; or correct `paths.repository` in the site file",
        )


def _listed(folder: TargetFolder, one: str, current: str | None) -> Listed:
    try:
        record = folder.load(one)
    except PublishError as problem:
        time = datetime.strptime(one.split("-", 1)[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return Listed(
            id=one, time=time, current=one == current, proven=False, packages=0, added=0, run="",
            note=problem.message,
        )  # fmt: skip
    return Listed(
        id=one, time=record.time, current=one == current, proven=folder.is_proven(one),
        packages=record.packages, added=record.added, run=record.run,
    )  # fmt: skip


def _named(rpms: Iterable[PublishedRpm]) -> tuple[str, ...]:
    return tuple(sorted(f"{rpm.path.rpartition('/')[0]}: {rpm.nevra}" for rpm in rpms))


def _previous(folder: TargetFolder, now: Generation | None) -> str:
    """What readers may be led back to: what the present generation was made from, or where that is gone
    what was before it; at last the newest that is there. It was proven, and readers have seen it."""
    history = folder.history()
    made_from = {event.generation: event.before for event in history if event.action in _MAKING}
    usable = folder.proven() & folder.seen()
    one, passed = now.previous if now else None, set[str]()
    while one and one not in usable | passed:
        passed.add(one)
        one = made_from.get(one)
    if one is None or one in passed:
        left = {event.before for event in history if event.action == "rollback"}
        older = sorted(other for other in usable - left if now is None or other < now.id)
        one = older[-1] if older else None
    if one is None:
        raise PublishError(
            f"{folder.path}: no earlier generation is known that a client could install from",
            hint="name one; `backport repo list` names those that are there",
        )
    return one


def _require_proven(folder: TargetFolder, wanted: Generation) -> None:
    """What somebody accepted who looked at the folder has no proof, and needs none."""
    accepted = {one for event in folder.history() if event.action == "anchor" for one in event.generations}
    if wanted.id not in accepted and not folder.is_proven(wanted.id):
        raise PublishError(
            f"{wanted.id}: never was a client shown to install from it: the record tells of no proof",
            hint="`backport build` proves what it publishes; `backport repo list` names what was proven",
        )


def _require_usable(folder: TargetFolder, wanted: Generation) -> None:
    """It takes no more than a look: whether all of it is whole is the business of `verify`."""
    _require_proven(folder, wanted)
    path = folder.folder_of(wanted.id)
    for name in wanted.metadata or ():
        if not (path / name / FOLDER / f"{REPOMD}.asc").is_file():
            raise PublishError(
                f"{path / name}: has no signed metadata", hint="`backport repo verify` tells what is lost"
            )
    keys = [folder.public_key, *folder.path.glob(f"{folder.public_key.name}-*")]
    known = {key for file in keys if file.is_file() for key in fingerprints_in(file)}
    if wanted.fingerprint not in known:
        raise PublishError(
            f"{wanted.id}: is signed by {wanted.fingerprint}, which clients are not told any more",
            hint=f"put that public key beside {folder.public_key.name}, or choose a later generation",
        )


def _require_channels(source: TargetFolder, folder: TargetFolder, target: Target, *, create: bool) -> None:
    """There are two, and a name that is mistyped does not become one."""
    if source.path == folder.path:
        raise PublishError(f"{source.channel}: a channel is not promoted to itself", hint="name two channels")
    require_published(source)
    if folder.channel != STABLE and not create and not folder.generations.is_dir():
        raise PublishError(
            f"there is no channel {folder.channel!r} for {target.name} yet",
            hint="begin one by --create, or correct the name",
        )


def _told(generation: Generation, words: Collection[str]) -> tuple[str, ...]:
    return held_recipes(generation.inputs, words) or held_packages(words)


def _copy_of(
    source: TargetFolder,
    wanted: Generation,
    destination: TargetFolder,
    *,
    before: Generation | None,
    target: Target,
    url: str,
) -> Publication:
    origin = source.folder_of(wanted.id)
    there, known = packages_of(source, wanted), {}
    if before:
        old = destination.folder_of(before.id)
        known = packages_of(destination, before)
        for rpm in known.values():
            _require_same(rpm, there, origin, old)
    now = datetime.now(UTC)
    if now < max(wanted.time, before.time if before else wanted.time):
        raise PublishError(
            f"this host's clock says {now:%Y-%m-%d %H:%M:%S} UTC, before the generations were made",
            hint="set the clock",
        )
    return Publication(
        folder=destination, target=target, url=url, public_key=source.public_key, before=before,
        copy_of=origin, added=(),
        others=frozenset(path for path, rpm in there.items() if known.get(path) != rpm),
        record=replace(
            wanted, id="", time=now, previous=before.id if before else None, superseded={},
            added=len(there.keys() - known.keys()),
            inputs={**(before.inputs if before else {}), **wanted.inputs},
            sources={**(before.sources if before else {}), **wanted.sources},
        ),
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


def _only_with_newest(
    held: Sequence[tuple[str, Collection[PublishedRpm]]], kept: set[str | None]
) -> set[str]:
    """The newest of the generations that hold the newest build of a package which none of ``kept`` holds;
    ``held`` are all generations, the newest first."""
    holders: dict[Nevra, list[str]] = {}
    for generation, rpms in held:
        for rpm in rpms:
            holders.setdefault(rpm.nevra, []).append(generation)
    more: set[str] = set()
    for nevra in newest(holders):
        if not set(holders[nevra]) & (kept | more):
            more.add(holders[nevra][0])
    return more
