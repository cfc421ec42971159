"""What a new generation is to be: its record, and what each of its repositories is made of.

A run's publication, a promotion and a withdrawal are different plans, which go the same way; see
`backport.repository.release`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from backport.artifacts import Rpm
from backport.errors import PublishError
from backport.evidence.store import Evidence
from backport.repository.advisories import Advisory, read_advisories
from backport.repository.contents import Content, basearch, repositories_of
from backport.repository.generations import Generation
from backport.repository.history import Action
from backport.repository.place import Place


@dataclass(frozen=True, kw_only=True)
class NewRpm:
    """A package that the generation before has not, or not so."""

    rpm: Rpm
    path: str
    """Relative to the generation's folder."""
    content: Content
    replaces: bool = False
    """Whether the generation before has another file of it: the same package, signed otherwise."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A repository that is taken as another generation has it, its signed metadata too."""

    name: str
    source: Path
    """The folder of the repository in that generation."""
    unread: frozenset[str] | None = None
    """The locations of the packages whose files are to be read again; None: that their metadata is whole is
    enough, since they were read when this target's channel got them."""


@dataclass(frozen=True, kw_only=True)
class Extended:
    """A repository to which packages come: the metadata of the generation before is part of its own."""

    name: str
    source: Path
    new: tuple[NewRpm, ...]


@dataclass(frozen=True, kw_only=True)
class Described:
    """A repository whose packages are all described again."""

    name: str
    source: Path | None
    """The folder of the repository in the generation before."""
    new: tuple[NewRpm, ...]
    removed: frozenset[str]
    """The locations of what is not carried on."""

    @property
    def left_out(self) -> frozenset[str]:
        """The locations of which the file before does not stay."""
        return self.removed | {location(one.path) for one in self.new if one.replaces}


Repository: TypeAlias = Kept | Extended | Described


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One generation that is to be, and what clients are led to it for."""

    action: Action
    before: Generation | None
    """What clients see until then."""
    record: Generation
    """Without what only the finished folder says. Where it has digests of metadata, they must come true."""
    repositories: tuple[Repository, ...]
    public_key: Path
    """By which all that is signed must verify."""
    advisories: tuple[Advisory, ...] = ()
    """What the target's own repository says of its packages, where it is not kept."""
    evidence: Evidence | None = None
    """Where new packages come from, and what was tested."""
    evidence_of: tuple[Path, ...] = ()
    """The folders of the generations whose evidence is carried on."""
    install: tuple[Rpm, ...] = ()
    """What a client is to install for the proof."""
    provided: tuple[str, ...] = ()
    """Capabilities that something must provide, here or in the target's repositories."""
    hold: frozenset[str] = frozenset()
    release: frozenset[str] = frozenset()
    """What is held from then on, and what no more; see `backport.repository.holds`."""

    @property
    def keeps_all(self) -> bool:
        """Whether all files of packages that were there are still there."""
        return not any(one.left_out for one in self.repositories if isinstance(one, Described))


def plan_repositories(
    place: Place,
    before: Generation | None,
    record: Generation,
    *,
    new: Sequence[NewRpm],
    removed: Iterable[str] = (),
    advisories: Sequence[Advisory] = (),
) -> tuple[Repository, ...]:
    """What the repositories are made of when packages come and go; paths are relative to the generation.

    Raises PublishError when the advisories that are there are damaged.
    """
    found: list[Repository] = []
    for name in repositories_of(place.target):
        here = tuple(one for one in new if one.path.startswith(f"{name}/"))
        gone = frozenset(location(path) for path in removed if path.startswith(f"{name}/"))
        source = place.folder.folder_of(before.id) / name if before else None
        source = source if source and source.is_dir() else None
        described = Described(name=name, source=source, new=here, removed=gone)
        changed = described.left_out or (before and before.compression != record.compression)
        if before is None or source is None or changed:
            found.append(described)
        elif here or before.fingerprint != record.fingerprint or _says_more(place, name, source, advisories):
            found.append(Extended(name=name, source=source, new=here))
        else:
            found.append(Kept(name=name, source=source))
    return tuple(found)


def _says_more(place: Place, name: str, source: Path, advisories: Sequence[Advisory]) -> bool:
    return name == basearch(place.target) and read_advisories(source) != tuple(advisories)


def location(path: str) -> str:
    """Where a package lies in its repository, by its path in the generation."""
    return path.rpartition("/")[2]


def time_after(*generations: Generation | None) -> datetime:
    """Now, which is after some generations were made. Raises PublishError where this host's clock says it is
    not."""
    now = datetime.now(UTC)
    for one in generations:
        if one and now < one.time:
            raise PublishError(
                f"this host's clock says {now:%Y-%m-%d %H:%M:%S} UTC, before generation {one.id} was made",
                hint="set the clock",
            )
    return now


def count_signers(
    before: Mapping[str, int], *, new: Iterable[str], gone: Iterable[Content]
) -> dict[str, int]:
    """How many packages each key signed, once some come, as ``new`` names their signers, and some go."""
    signers = Counter(before)
    signers.update(new)
    for content in gone:
        signers.subtract(key for key in tuple(signers) if content.is_signed_by(key))
    return dict(+signers)
