"""What dnf on a client chooses from: the target's, the published and the candidate's packages, for libsolv.

libsolv is the library by which dnf itself resolves dependencies, so that names, versions and files mean
here what they mean there. A rich dependency counts as met when a part of it is: whether all of it can be
met is shown by the installation in a root.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from backport.artifacts import Nevra
from backport.bindings import bindings
from backport.errors import PublishError
from backport.files import scratch_folder
from backport.gates.filter import Filter
from backport.gates.repositories import Metadata
from backport.target import Target

Solvable: TypeAlias = Any
"""One package of the pool (solv.XSolvable)."""

PUBLISHED, PUBLISHED_DEBUG = " published", " published-debug"
"""The repositories of what is published; no id of a target's repository begins with a space."""
_CANDIDATE = "candidate"
_FROM_RPM = "rpmlib("
_ALL = 0


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What a package requires, and which packages of the pool provide it, by their numbers."""

    text: str
    providers: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All packages; a client after the update has the newest of the target's, or the candidate's.

    Of the target's packages only those requirements, capabilities and files are there that can matter for
    the candidate (see `backport.gates.filter`).
    """

    solv: Any
    target: tuple[Solvable, ...]
    """The newest of the target's packages, one of each name and architecture."""
    server: tuple[Solvable, ...]
    """What a server may have: the newest of the target's packages and of the published ones, without what
    published packages have taken the place of."""
    known: tuple[Solvable, ...]
    """Every package of the target and every published one, the older ones too; but not a published one that
    the candidate has itself."""
    candidate: tuple[Solvable, ...]
    _requirements: dict[int, Requirement] = field(default_factory=dict)

    @functools.cached_property
    def replaced(self) -> tuple[Solvable, ...]:
        """The server's packages whose place the candidate's take: of the same name, or obsoleted."""
        return self._replaced_among(self.server)

    @functools.cached_property
    def replaced_of_target(self) -> tuple[Solvable, ...]:
        """The target's packages whose place the candidate's take, though a published one may have it now."""
        return self._replaced_among(self.target)

    def _replaced_among(self, packages: Sequence[Solvable]) -> tuple[Solvable, ...]:
        by_name = {new.name: new for new in self.candidate}
        obsoletes = obsoletes_of(self.candidate)

        def is_replaced(one: Solvable) -> bool:
            new = by_name.get(one.name)
            return (new is not None and is_update(one, new)) or is_obsoleted(one, obsoletes)

        return tuple(one for one in packages if is_replaced(one))

    @functools.cached_property
    def kept(self) -> tuple[Solvable, ...]:
        """The server's packages that stay beside the candidate's."""
        gone = {one.id for one in self.replaced}
        return tuple(one for one in self.server if one.id not in gone)

    def requirements(self, one: Solvable) -> Iterator[Requirement]:
        """What a package requires, except what rpm itself provides."""
        for dependency in _dependencies(one, "REQUIRES"):
            if dependency.str().startswith(_FROM_RPM):
                continue
            known = self._requirements.get(dependency.id)
            if known is None:
                providers = frozenset(other.id for other in self.solv.whatprovides(dependency))
                known = Requirement(text=dependency.str(), providers=providers)
                self._requirements[dependency.id] = known
            yield known

    def owners(self, path: str) -> tuple[Solvable, ...]:
        """The packages with this file; only for the paths that the pool was asked to know."""
        return tuple(self.solv.whatprovides(self.solv.Dep(path)))


def is_update(old: Solvable, new: Solvable) -> bool:
    """Whether a package takes another's place: of its name, and of its architecture or of none."""
    return old.name == new.name and (old.arch == new.arch or "noarch" in (old.arch, new.arch))


def is_published(one: Solvable) -> bool:
    """Whether a package of those known is the channel's, not the target's."""
    return one.repo.name in (PUBLISHED, PUBLISHED_DEBUG)


def obsoletes_of(packages: Iterable[Solvable]) -> list[Any]:
    """All that the packages obsolete."""
    return [dependency for one in packages for dependency in _dependencies(one, "OBSOLETES")]


def is_obsoleted(one: Solvable, obsoletes: Iterable[Any]) -> bool:
    """Whether one of these dependencies means the package: by its name, never by what it provides (rpm's
    dependencies manual)."""
    return any(one.matchesdep(solv().SOLVABLE_NAME, dependency) for dependency in obsoletes)


def ids(packages: Iterable[Solvable]) -> frozenset[int]:
    """The packages' numbers in their pool."""
    return frozenset(one.id for one in packages)


def nevra_of(one: Solvable) -> Nevra:
    """A package's NEVRA, however little of a version and release its metadata tells."""
    epoch, _, rest = one.evr.rpartition(":")
    version, _, release = rest.rpartition("-")
    return Nevra(name=one.name, epoch=int(epoch or 0), version=version, release=release, arch=one.arch)


def location_of(one: Solvable) -> tuple[str, tuple[str, str]]:
    """Where a package lies in its repository, and its digest: the kind, and in hex."""
    checksum = one.lookup_checksum(solv().SOLVABLE_CHECKSUM)
    return one.lookup_location()[0], (checksum.typestr(), checksum.hex())


def provides(one: Solvable) -> tuple[str, ...]:
    """What a package provides, as text."""
    return tuple(dependency.str() for dependency in _dependencies(one, "PROVIDES"))


def load_pool(
    target: Target,
    repositories: Mapping[str, Metadata],
    candidate: Metadata,
    *,
    paths: Collection[str],
    folder: Path,
) -> Pool:
    """All packages of the repositories in ``repositories``, by their ids, and of the candidate's.

    What is published is among the former, as PUBLISHED and PUBLISHED_DEBUG. ``paths`` are the files whose
    owners will be asked for. What is written to ``folder`` is gone in the end. Raises PublishError when
    metadata cannot be read, HostError where libsolv's bindings are missing.
    """
    pool = new_pool(target)
    candidates = add_repository(pool, _CANDIDATE, candidate)
    chosen = Filter.of(repositories, candidate, paths)
    known = []
    for name, metadata in repositories.items():
        with scratch_folder(folder, "filtered-") as scratch:
            repository = add_repository(pool, name, chosen.apply(metadata, scratch))
        known += [one for one in repository.solvables if one.arch not in ("src", "nosrc")]
    ask_for_files(pool, paths)
    own = {one.str() for one in candidates.solvables}
    known = [one for one in known if not (is_published(one) and one.str() in own)]
    return Pool(
        solv=pool,
        target=_newest(one for one in known if not is_published(one)),
        server=_on_a_server(known),
        known=tuple(known),
        candidate=tuple(candidates.solvables),
    )


def new_pool(target: Target) -> Any:
    """An empty pool for packages of the target's architecture."""
    pool = solv().Pool()
    pool.setdisttype(pool.DISTTYPE_RPM)
    pool.setarch(target.arch)
    return pool


def newest_of_sources(
    target: Target, repositories: Mapping[str, Metadata], names: Collection[str]
) -> dict[str, Nevra]:
    """The newest EVR that the target has of each of these source packages, as far as it has any.

    It is told by binary packages that have their source's own version and release. Raises PublishError when
    metadata cannot be read, HostError where libsolv's bindings are missing.
    """
    pool, newest = new_pool(target), dict[str, Solvable]()
    for name, metadata in repositories.items():
        for one in add_repository(pool, name, metadata, files=False).solvables:
            source = one.lookup_str(solv().SOLVABLE_SOURCENAME) or one.name
            if source in names and not one.lookup_str(solv().SOLVABLE_SOURCEEVR):
                known = newest.setdefault(source, one)
                newest[source] = one if one.evrcmp(known) > 0 else known
    return {name: replace(nevra_of(one), name=name, arch="src") for name, one in newest.items()}


def add_repository(pool: Any, name: str, metadata: Metadata, *, files: bool = True) -> Any:
    """Add a repository's packages, with all their ``files`` or those alone that primary names: programs and
    what is in /etc. Raises PublishError."""
    repository = pool.add_repo(name)
    extend = solv().Repo.REPO_EXTEND_SOLVABLES
    parts = [(metadata.primary, None, 0), *([(metadata.filelists, "FL", extend)] if files else [])]
    for path, language, flags in parts:
        stream = solv().xfopen(str(path))
        if not repository.add_rpmmd(stream, language, flags):
            raise PublishError(f"{path}: cannot be read as repository metadata: {pool.errstr}")
        stream.close()
    return repository


def ask_for_files(pool: Any, paths: Collection[str]) -> None:
    """Let the pool know who has these files, and what its packages provide.

    Libsolv finds the owners of all files that anything requires in one pass: so something does.
    """
    probe = pool.add_repo(" probe").add_solvable()
    probe.name, probe.evr, probe.arch = "probe", "0-0", "noarch"
    for path in paths:
        probe.add_deparray(solv().SOLVABLE_REQUIRES, pool.Dep(path))
    pool.addfileprovides()
    pool.createwhatprovides()


def _newest(packages: Iterable[Solvable]) -> tuple[Solvable, ...]:
    newest: dict[tuple[str, str], Solvable] = {}
    for one in packages:
        known = newest.setdefault((one.name, one.arch), one)
        if one.evrcmp(known) > 0:
            newest[one.name, one.arch] = one
    return tuple(newest.values())


def _on_a_server(packages: Iterable[Solvable]) -> tuple[Solvable, ...]:
    """The newest packages, without those that a published one has taken the place of."""
    newest = _newest(packages)
    fresh = [one for one in newest if is_published(one)]
    by_name = {one.name: one for one in fresh}
    obsoletes = obsoletes_of(fresh)

    def is_there(one: Solvable) -> bool:
        new = by_name.get(one.name)
        if new is not None and new.id != one.id and is_update(one, new) and new.evrcmp(one) > 0:
            return False
        return not is_obsoleted(one, obsoletes)

    return tuple(one for one in newest if is_there(one)) if fresh else newest


def _dependencies(one: Solvable, kind: str) -> list[Any]:
    names = solv()
    found = one.lookup_deparray(getattr(names, f"SOLVABLE_{kind}"), _ALL)
    return [dependency for dependency in found if dependency.id != names.SOLVABLE_PREREQMARKER]


def solv() -> Any:
    """Libsolv's bindings. Raises HostError where they are not installed."""
    return bindings("solv")
