"""What is done with generations besides publishing them: list, compare, lead back, promote, remove.

Every function that changes something holds the folder's lock. Until its one rename readers see what they
saw before, and what a killed process left is removed by the next.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import rpm as rpm_bindings

from backport.artifacts import Nevra
from backport.errors import PublishError
from backport.progress import Progress
from backport.repodata import FOLDER, REPOMD
from backport.repository.assemble import Publication, make_generation
from backport.repository.clients import PublicKey, channel_url, reported, write_client_files
from backport.repository.contents import PublishedRpm, content_of, packages_of
from backport.repository.generations import Generation, TargetFolder, last_switch
from backport.repository.overview import write_page
from backport.repository.publish import LOCK_TIMEOUT
from backport.signing.key import KeyInfo
from backport.site import Signing
from backport.target import Target
from backport.trust import fingerprints_in


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
    """The recipes whose inputs are not published again until they change."""


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
    lock_timeout: float = LOCK_TIMEOUT,
) -> Moved:
    """Let readers see a generation again (default: the one from which the present one was made).

    It is one rename, and recorded. What the generation that readers leave came from is held: it is not
    published again before its inputs change or somebody forces it. Leading readers to a later
    generation is done the same way, and lets go of what that came from. ``base_url`` is the URL of the
    repository folder.

    Raises PublishError when there is no such generation, readers see it already, it is not whole, or it is
    signed by a key that clients are not told any more.
    """
    _require(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        folder.remove_leftovers(signing)
        now = folder.current_generation()
        wanted = folder.load(generation or _previous(folder, now))
        if now and wanted.id == now.id:
            raise PublishError(f"{folder.path}: readers see {wanted.id} already")
        _require_usable(folder, wanted)
        left = dict(now.inputs) if now else {}
        held = {name: digest for name, digest in left.items() if wanted.inputs.get(name) != digest}
        later = now is None or now.time < wanted.time
        folder.switch(
            wanted.id, action="rollback", signing=signing, hold=() if later else held.values(),
            release=tuple(wanted.inputs.values()),
        )  # fmt: skip
        write_page(folder, target, channel_url(base_url, folder.channel))
    return Moved(
        folder=str(folder.path), generation=wanted.id, before=now.id if now else None,
        held=() if later else tuple(sorted(held)),
    )  # fmt: skip


def promote(
    source: TargetFolder,
    destination: TargetFolder,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    others: tuple[KeyInfo, ...] = (),
    force: bool = False,
    progress: Progress,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Moved:
    """Let readers of one channel see what those of another see: the same files, nothing is built anew.

    ``base_url`` is the URL of the repository folder, ``others`` are keys that clients are to know besides
    the one that signs. Inputs that were rolled back from the channel go there again only with ``force``.

    Raises PublishError when nothing is published in ``source``, ``destination`` has a package that
    ``source`` lacks or has with other content, its record cannot be signed, or the copy does not read back.
    """
    if source.path == destination.path:
        raise PublishError(f"{source.channel}: a channel is not promoted to itself", hint="name two channels")
    _require(source)
    with reported(destination), ExitStack() as held:
        destination.create()
        for folder in sorted((source, destination), key=lambda one: str(one.path)):
            held.enter_context(folder.locked(timeout=lock_timeout))
        source.remove_leftovers(signing)
        destination.remove_leftovers(signing)
        wanted, before = source.current_generation(), destination.current_generation()
        if wanted is None:
            raise PublishError(f"{source.path}: nothing is published there")
        if not force:
            _require_not_held(wanted, destination)
        if before and before.metadata == wanted.metadata and wanted.inputs.items() <= before.inputs.items():
            progress.note("everything is published there already")
            return Moved(folder=str(destination.path), generation=before.id, before=before.id)
        publication = _copy_of(source, wanted, destination, before, target)
        record = make_generation(publication, signing, progress)
        key = PublicKey(fingerprint=record.fingerprint, text=source.public_key.read_text("ascii"))
        url = channel_url(base_url, destination.channel)
        write_client_files(
            destination, signer=key, others=others, needed=record, before=before, target=target, base_url=url
        )
        release = tuple(record.inputs.values()) if force else ()
        destination.switch(record.id, action="promote", signing=signing, release=release)
        if source.is_proven(wanted.id):
            destination.mark_proven(record.id, signing)
        write_page(destination, target, url)
    return Moved(folder=str(destination.path), generation=record.id, before=before.id if before else None)


def prune(
    folder: TargetFolder,
    keep: int,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    lock_timeout: float = LOCK_TIMEOUT,
) -> tuple[str, ...]:
    """Remove all but the newest ``keep`` generations; gives the ids of those that went.

    What readers see stays, and so does every generation without which the newest build of a package
    would be lost, and every one that the record does not know. ``base_url`` is the URL of the repository
    folder. Raises PublishError for fewer than one, or when a generation is damaged.
    """
    if keep < 1:
        raise PublishError("at least one generation is kept", hint="give --keep a number above 0")
    _require(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        folder.remove_leftovers(signing)
        records = [folder.load(one) for one in folder.ids()]
        records.sort(key=lambda one: (one.time, one.id), reverse=True)
        kept = {one.id for one in records[:keep]} | {folder.current_id(), last_switch(folder.history())}
        kept |= set(folder.unknown())
        held = [(one.id, packages_of(folder, one).values()) for one in records]
        kept |= _only_with_newest(held, kept)
        gone = tuple(one.id for one in reversed(records) if one.id not in kept)
        if gone:
            folder.remember("prune", None, signing, generations=gone)
        for one in gone:
            folder.remove(one)
        write_page(folder, target, channel_url(base_url, folder.channel))
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
    _require(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        gone = folder.remove_leftovers(signing)
        write_page(folder, target, channel_url(base_url, folder.channel))
    return gone


def accept_folder(
    folder: TargetFolder, *, signing: Signing, lock_timeout: float = LOCK_TIMEOUT
) -> tuple[str, ...]:
    """Begin the record anew from what is in the folder; gives its generations. Raises PublishError."""
    _require(folder)
    with reported(folder), folder.locked(timeout=lock_timeout):
        return folder.anchor(signing)


def _require(folder: TargetFolder) -> None:
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
    previous = now.previous if now else None
    if previous is None:
        raise PublishError(
            f"{folder.path}: no earlier generation is known",
            hint="name one; `backport repo list` names those that are there",
        )
    return previous


def _require_usable(folder: TargetFolder, wanted: Generation) -> None:
    """It takes no more than a look: whether all of it is whole is the business of `verify`."""
    path = folder.folder_of(wanted.id)
    for name in wanted.metadata or ():
        if not (path / name / FOLDER / f"{REPOMD}.asc").is_file():
            raise PublishError(
                f"{path / name}: has no signed metadata", hint="`backport repo verify` tells what is lost"
            )
    keys = [folder.public_key, *folder.path.glob(f"{folder.public_key.name}-*")]
    known = {key for file in keys if file.is_file() for key in fingerprints_in(file, error=PublishError)}
    if wanted.fingerprint not in known:
        raise PublishError(
            f"{wanted.id}: is signed by {wanted.fingerprint}, which clients are not told any more",
            hint=f"put that public key beside {folder.public_key.name}, or choose a later generation",
        )


def _require_not_held(wanted: Generation, destination: TargetFolder) -> None:
    held = destination.held()
    if rolled_back := sorted(name for name, digest in wanted.inputs.items() if digest in held):
        raise PublishError(
            f"{', '.join(rolled_back)}: was rolled back from {destination.path}",
            hint="promote what came from other inputs, or the same again by --force",
        )


def _copy_of(
    source: TargetFolder,
    wanted: Generation,
    destination: TargetFolder,
    before: Generation | None,
    target: Target,
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
        folder=destination, target=target, public_key=source.public_key, before=before, copy_of=origin,
        added=(), others=frozenset(path for path, rpm in there.items() if known.get(path) != rpm),
        record=replace(
            wanted, id="", time=now, previous=before.id if before else None, superseded={},
            added=len(there.keys() - known.keys()),
            inputs={**(before.inputs if before else {}), **wanted.inputs},
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
    newest: dict[tuple[str, str], Nevra] = {}
    holders: dict[Nevra, list[str]] = {}
    for generation, rpms in held:
        for nevra in (rpm.nevra for rpm in rpms):
            holders.setdefault(nevra, []).append(generation)
            key = (nevra.name, nevra.arch)
            if key not in newest or _by_evr(newest[key], nevra) < 0:
                newest[key] = nevra
    more: set[str] = set()
    for nevra in newest.values():
        if not set(holders[nevra]) & (kept | more):
            more.add(holders[nevra][0])
    return more


@functools.cache
def _by_evr(first: Nevra, second: Nevra) -> int:
    """As rpm compares versions: -1 when the first is older."""
    old, new = ((str(one.epoch), one.version, one.release) for one in (first, second))
    return int(rpm_bindings.labelCompare(old, new))
