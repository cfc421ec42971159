"""Removing what is not needed any more, and accepting what is there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from backport.artifacts import Nevra
from backport.errors import PublishError
from backport.repository import grace
from backport.repository.contents import PublishedRpm, packages_of
from backport.repository.generations import last_switch
from backport.repository.overview import renew
from backport.repository.place import Place
from backport.trust import newest


def prune(place: Place, keep: int, *, dry_run: bool = False) -> tuple[str, ...]:
    """Remove all but the newest ``keep`` generations; gives the ids of those that went.

    What clients see stays, and so do what they saw during the last days (`grace.GRACE`), every generation
    without which the newest build of a package would be lost, and every one that the record does not know.
    Raises PublishError for fewer than one, or when a generation is damaged.
    """
    if keep < 1:
        raise PublishError("at least one generation is kept", hint="give --keep a number above 0")
    folder = place.folder
    with place.locked(clean=not dry_run):
        records = [folder.load(one) for one in folder.ids()]
        records.sort(key=lambda one: (one.time, one.id), reverse=True)
        kept = {one.id for one in records[:keep]} | {folder.current_id(), last_switch(folder.history())}
        # What the record does not know, and what clients may be reading, which has files of its own.
        kept |= {*folder.unknown(), *grace.recent(folder)}
        having = [(one.id, packages_of(folder, one).values()) for one in records]
        kept |= _only_with_newest(having, kept)
        gone = tuple(one.id for one in reversed(records) if one.id not in kept)
        if dry_run:
            return gone
        grace.unshare(folder, place.target)
        if gone:
            folder.remember("prune", None, place.signing, generations=gone)
        for one in gone:
            folder.remove(one)
        renew(place)
    return gone


def collect_garbage(place: Place) -> tuple[str, ...]:
    """Remove what killed processes left half made, and give its names; what they did not come to do for the
    page is done. Raises PublishError."""
    with place.locked(clean=False):
        gone = place.folder.remove_leftovers(place.signing)
        grace.unshare(place.folder, place.target)
        renew(place)
    return gone


def anchor(place: Place) -> tuple[str, ...]:
    """Begin the record again from what is in the folder; gives its generations. Raises PublishError."""
    with place.locked(clean=False):
        return place.folder.anchor(place.signing)


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
