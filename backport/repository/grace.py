"""What clients of other generations may still ask for, and so lies in the one that they are led to.

A client asks for ``repomd.xml`` first and then for what that names. Through the link ``current`` the first
may come from one generation and the rest from another, the older or the newer. So each generation that
clients are led to shares the files of those that they saw during the last days: hard links under the same
names, until the grace is over. What is shared is told apart from what is foreign by what it is: the file that
another generation's signed metadata names at that path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backport import repodata
from backport.errors import PublishError, ToolError, as_kind
from backport.files import link_or_copy, sync
from backport.repository.contents import repositories_of
from backport.repository.generations import TargetFolder
from backport.repository.history import SWITCHES
from backport.target import Target

GRACE = timedelta(days=3)
"""How long what clients saw stays reachable; dnf uses what it has for two days by default."""
_SIGNED = frozenset({repodata.REPOMD, f"{repodata.REPOMD}.asc"})


def recent(folder: TargetFolder, now: datetime | None = None) -> tuple[str, ...]:
    """The generations that clients may still be reading, the latest last. Raises PublishError."""
    since, there = (now or datetime.now(UTC)) - GRACE, set(folder.ids())
    switches = [event for event in folder.history() if event.action in SWITCHES and event.time > since]
    seen = [one for event in switches for one in (event.before, event.generation)]
    return tuple(dict.fromkeys(one for one in (*seen, folder.current_id()) if one in there and one))


@as_kind(PublishError)
def own_files(generation: Path, name: str) -> dict[str, str]:
    """What the metadata of a repository names, by path in it, with the SHA-256 digest that it has.

    Raises PublishError when the metadata is damaged.
    """
    place = generation / name
    # A metadata file is called by its digest.
    files = {path: Path(path).name.partition("-")[0] for path in repodata.metadata_files(place)}
    return files | {package.location_href: package.pkgId for package in repodata.read_primary(place)}


def share(folder: TargetFolder, generation: str, target: Target) -> None:
    """Give a generation what the clients of the others may still ask for. Raises PublishError, OSError.

    Nothing is taken from one whose metadata is damaged.
    """
    for other in recent(folder):
        for name in repositories_of(target) if other != generation else ():
            with suppress(ToolError):
                _share(folder, folder.folder_of(other) / name, folder.folder_of(generation) / name)


def unshare(folder: TargetFolder, target: Target) -> None:
    """Remove what is shared and nobody asks for any more, where another generation has the same file as its
    own. Raises PublishError, OSError."""
    asked, owners = set(recent(folder)), _owners(folder, target)
    for (generation, name), own in owners.items():
        place = folder.folder_of(generation) / name
        for path in set(_files(place)) - own:
            holders = [one for (one, other), theirs in owners.items() if other == name and path in theirs]
            same = [one for one in holders if _is_same(folder.folder_of(one) / name / path, place / path)]
            if same and asked.isdisjoint(same):
                (place / path).unlink()


def _share(folder: TargetFolder, source: Path, destination: Path) -> None:
    if not destination.is_dir() or not source.is_dir():
        return
    wanted = [path for path in repodata.metadata_files(source) if not (destination / path).exists()]
    if missing := _packages(source) - _packages(destination):
        wanted += [one.location_href for one in repodata.read_primary(source) if one.location_href in missing]
    beside = folder.generations / f".new-shared.{os.getpid()}"
    for path in wanted:
        # A copy, where there are no hard links, is seen when it is whole.
        beside.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            link_or_copy(source / path, beside)
            beside.replace(destination / path)
    if wanted:
        sync(destination / repodata.FOLDER)
        sync(destination)


def _owners(folder: TargetFolder, target: Target) -> dict[tuple[str, str], set[str]]:
    """What each repository of each generation names; those whose metadata is damaged are left out."""
    found = {}
    for generation in folder.ids():
        for name in repositories_of(target):
            with suppress(PublishError):
                found[generation, name] = set(own_files(folder.folder_of(generation), name))
    return found


def _files(place: Path) -> Iterator[str]:
    """The packages and metadata files in a repository's folder, whoever they belong to."""
    yield from _packages(place)
    for path in (place / repodata.FOLDER).iterdir():
        if path.name not in _SIGNED:
            yield f"{repodata.FOLDER}/{path.name}"


def _packages(place: Path) -> set[str]:
    with os.scandir(place) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".rpm")}


def _is_same(first: Path, second: Path) -> bool:
    with suppress(FileNotFoundError):
        return first.samefile(second) or first.read_bytes() == second.read_bytes()
    return False
