"""What dnf on a client chooses from: the target's packages and the candidate's, in libsolv's pool.

libsolv is the library by which dnf itself resolves dependencies, so that names, versions and files mean
here what they mean there. A rich dependency counts as met when a part of it is: whether all of it can be
met is shown by the installation in a root.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from backport.bindings import import_bindings
from backport.errors import HostError, PublishError
from backport.gates.stock import Metadata
from backport.target import Target

Solvable: TypeAlias = Any
"""One package of the pool (solv.XSolvable)."""

_CANDIDATE = "candidate"
_FROM_RPM = "rpmlib("
_ALL = 0


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What a package requires, and which packages of the pool provide it, by their numbers."""

    text: str
    providers: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Universe:
    """All packages; a client after the update has the newest of the target's, or the candidate's."""

    pool: Any
    stock: tuple[Solvable, ...]
    """The newest of the target's packages, one of each name and architecture."""
    all_stock: tuple[Solvable, ...]
    """Every package of the target, the older ones too."""
    candidate: tuple[Solvable, ...]
    _requirements: dict[int, Requirement] = field(default_factory=dict)

    @functools.cached_property
    def replaced(self) -> tuple[Solvable, ...]:
        """The target's packages whose place the candidate's take: of the same name, or obsoleted."""
        by_name = {new.name: new for new in self.candidate}
        obsoletes = [dependency for new in self.candidate for dependency in _dependencies(new, "OBSOLETES")]

        def is_replaced(one: Solvable) -> bool:
            new = by_name.get(one.name)
            if new is not None and is_update(one, new):
                return True
            # Obsoletes are for names, never for what a package provides (rpm's dependencies manual).
            return any(one.matchesdep(_solv().SOLVABLE_NAME, dependency) for dependency in obsoletes)

        return tuple(one for one in self.stock if is_replaced(one))

    @functools.cached_property
    def kept(self) -> tuple[Solvable, ...]:
        """The target's packages that stay beside the candidate's."""
        gone = {one.id for one in self.replaced}
        return tuple(one for one in self.stock if one.id not in gone)

    def requirements(self, one: Solvable) -> Iterator[Requirement]:
        """What a package requires, but what rpm itself provides."""
        for dependency in _dependencies(one, "REQUIRES"):
            if dependency.str().startswith(_FROM_RPM):
                continue
            known = self._requirements.get(dependency.id)
            if known is None:
                providers = frozenset(other.id for other in self.pool.whatprovides(dependency))
                known = Requirement(text=dependency.str(), providers=providers)
                self._requirements[dependency.id] = known
            yield known

    def owners(self, path: str) -> tuple[Solvable, ...]:
        """The packages with this file; only for the paths that the pool was asked to know."""
        return tuple(self.pool.whatprovides(self.pool.Dep(path)))


def is_update(old: Solvable, new: Solvable) -> bool:
    """Whether a package takes another's place: of its name, and of its architecture or of none."""
    return old.name == new.name and (old.arch == new.arch or "noarch" in (old.arch, new.arch))


def ids(packages: Iterable[Solvable]) -> frozenset[int]:
    """The packages' numbers in their pool."""
    return frozenset(one.id for one in packages)


def location_of(one: Solvable) -> tuple[str, tuple[str, str]]:
    """Where a package lies in its repository, and its digest: the kind, and in hex."""
    checksum = one.lookup_checksum(_solv().SOLVABLE_CHECKSUM)
    return one.lookup_location()[0], (checksum.typestr(), checksum.hex())


def provides(one: Solvable) -> tuple[str, ...]:
    """What a package provides, as text."""
    return tuple(dependency.str() for dependency in _dependencies(one, "PROVIDES"))


def load_universe(
    target: Target, stock: Mapping[str, Metadata], candidate: Metadata, *, paths: Collection[str]
) -> Universe:
    """All packages of the target's repositories, by their ids, and of the candidate's.

    ``paths`` are the files whose owners will be asked for. Raises PublishError when metadata cannot be
    read, HostError where libsolv's bindings are missing.
    """
    pool = _solv().Pool()
    pool.setdisttype(pool.DISTTYPE_RPM)
    pool.setarch(target.arch)
    candidates = _add(pool, _CANDIDATE, candidate)
    all_stock = [
        one
        for name, metadata in stock.items()
        for one in _add(pool, name, metadata).solvables
        if one.arch not in ("src", "nosrc")
    ]
    _ask_for(pool, paths)
    return Universe(
        pool=pool,
        stock=_newest(all_stock),
        all_stock=tuple(all_stock),
        candidate=tuple(candidates.solvables),
    )


def _add(pool: Any, name: str, metadata: Metadata) -> Any:
    repository = pool.add_repo(name)
    extend = _solv().Repo.REPO_EXTEND_SOLVABLES
    for path, language, flags in ((metadata.primary, None, 0), (metadata.filelists, "FL", extend)):
        stream = _solv().xfopen(str(path))
        if not repository.add_rpmmd(stream, language, flags):
            raise PublishError(f"{path}: cannot be read as repository metadata: {pool.errstr}")
        stream.close()
    return repository


def _ask_for(pool: Any, paths: Collection[str]) -> None:
    """Libsolv finds the owners of all files that anything requires in one pass: so something does."""
    probe = pool.add_repo(" probe").add_solvable()
    probe.name, probe.evr, probe.arch = "probe", "0-0", "noarch"
    for path in paths:
        probe.add_deparray(_solv().SOLVABLE_REQUIRES, pool.Dep(path))
    pool.addfileprovides()
    pool.createwhatprovides()


def _newest(packages: Iterable[Solvable]) -> tuple[Solvable, ...]:
    newest: dict[tuple[str, str], Solvable] = {}
    for one in packages:
        known = newest.setdefault((one.name, one.arch), one)
        if one.evrcmp(known) > 0:
            newest[one.name, one.arch] = one
    return tuple(newest.values())


def _dependencies(one: Solvable, kind: str) -> list[Any]:
    solv = _solv()
    found = one.lookup_deparray(getattr(solv, f"SOLVABLE_{kind}"), _ALL)
    return [dependency for dependency in found if dependency.id != solv.SOLVABLE_PREREQMARKER]


def _solv() -> Any:
    try:
        return import_bindings("solv")
    except ImportError:
        raise HostError("libsolv's Python bindings are not installed", hint="install python3-solv") from None
