"""Leading clients back to a generation that is there, or forth again: one rename, and recorded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from backport.errors import PublishError
from backport.repodata import FOLDER, REPOMD
from backport.repository.clients import write_mirrorlists
from backport.repository.generations import Generation, TargetFolder
from backport.repository.history import SWITCHES
from backport.repository.holds import about, held, held_packages, held_recipes, left_behind
from backport.repository.place import Place
from backport.repository.release import renew_beside, switch
from backport.trust import fingerprints_in

_MAKING = SWITCHES - {"rollback"}
"""The actions that make a generation from the one that clients see."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What clients see since, and what they saw before."""

    folder: str
    generation: str
    before: str | None
    held: tuple[str, ...] = ()
    """The recipes whose packages are not published again until a source, a patch or a `bump` changes."""
    packages: tuple[str, ...] = ()
    """The packages that are held."""
    dry_run: bool = False
    """Whether it was only to be shown."""


def rollback(place: Place, generation: str | None = None, *, dry_run: bool = False) -> Moved:
    """Let clients see a generation again (default: the last one that they may, see `_previous`).

    The packages that only the generation has which clients leave are held: they are not published again
    before a source, a patch or a `bump` makes others of them, or somebody forces it. Leading clients to a
    later generation is done the same way, and lets go of what that has.

    Raises PublishError when there is no such generation, clients see it already, it was never proven, it is
    not whole, or it is signed by a key that clients do not know any more.
    """
    folder = place.folder
    with place.locked(clean=not dry_run):
        now = folder.current_generation()
        wanted = folder.load(generation or _previous(folder, now))
        if now and wanted.id == now.id:
            raise PublishError(f"{folder.path}: clients see {wanted.id} already")
        _require_usable(folder, wanted)
        bad = left_behind(folder, now, wanted) if now and now.time >= wanted.time else frozenset()
        if not dry_run:
            write_mirrorlists(folder.folder_of(wanted.id), place, wanted.id)
            freed = about(folder, wanted, held(folder))
            switch(place, wanted.id, action="rollback", hold=bad, release=freed)
            renew_beside(place)
    return Moved(
        folder=str(folder.path), generation=wanted.id, before=now.id if now else None,
        held=held_recipes(now.inputs if now else {}, bad), packages=held_packages(bad), dry_run=dry_run,
    )  # fmt: skip


def last_proven(folder: TargetFolder, now: Generation) -> str | None:
    """The newest generation before ``now`` that is there, passed its proof and was seen by clients."""
    known = folder.proven() & folder.seen()
    earlier = []
    for one in folder.ids():
        # A damaged one is nowhere to be led to.
        with suppress(PublishError):
            if one in known and (record := folder.load(one)).time < now.time:
                earlier.append(record)
    return max(earlier, key=lambda record: record.time).id if earlier else None


def require_proven(folder: TargetFolder, wanted: Generation) -> None:
    """What somebody accepted who looked at the folder has no proof, and needs none. Raises PublishError."""
    accepted = {one for event in folder.history() if event.action == "anchor" for one in event.generations}
    if wanted.id not in accepted and not folder.is_proven(wanted.id):
        raise PublishError(
            f"{wanted.id}: never was a client shown to install from it: the record has no proof",
            hint="`backport build` proves what it publishes; `backport repo list` names what was proven",
        )


def _previous(folder: TargetFolder, now: Generation | None) -> str:
    """Where clients may be led back to: what the present generation was made from, or where that is gone
    what was before it; at last the newest that is there. It was proven, and clients have seen it."""
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


def _require_usable(folder: TargetFolder, wanted: Generation) -> None:
    """It takes no more than a look: whether all of it is whole is the business of `verify`."""
    require_proven(folder, wanted)
    path = folder.folder_of(wanted.id)
    for name in wanted.metadata or ():
        if not (path / name / FOLDER / f"{REPOMD}.asc").is_file():
            raise PublishError(
                f"{path / name}: has no signed metadata", hint="`backport repo verify` says what is lost"
            )
    keys = [folder.public_key, *folder.path.glob(f"{folder.public_key.name}-*")]
    known = {key for file in keys if file.is_file() for key in fingerprints_in(file)}
    if wanted.fingerprint not in known:
        raise PublishError(
            f"{wanted.id}: is signed by {wanted.fingerprint}, which clients do not know any more",
            hint=f"put that public key beside {folder.public_key.name}, or choose a later generation",
        )
