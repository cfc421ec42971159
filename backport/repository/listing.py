"""The generations that are there, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from backport.errors import PublishError
from backport.repository.contents import PublishedRpm, packages_of
from backport.repository.generations import Generation, TargetFolder


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One generation in a list."""

    id: str
    time: datetime
    current: bool
    """Whether clients see it."""
    proven: bool
    """Whether a client could install from it."""
    packages: int
    added: int
    """How many of its packages the generation before did not have."""
    run: str
    note: str = ""
    """Why nothing more can be said of it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What another generation has in place of one's packages; each NEVRA with its repository's folder."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """The same package, signed another time or by another key."""
    inputs: tuple[str, ...]
    """The recipes whose inputs differ."""


def list_generations(folder: TargetFolder) -> tuple[Listed, ...]:
    """Every generation, the newest first; a damaged one with a note. Raises PublishError."""
    current = folder.current_id()
    found = [_listed(folder, one, current) for one in folder.ids()]
    return tuple(sorted(found, key=lambda one: (one.time, one.id), reverse=True))


def compare(folder: TargetFolder, first: Generation, second: Generation) -> Difference:
    """What clients of ``second`` see that those of ``first`` do not, and the other way round.

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
