"""What it takes to withdraw a package: which build goes, what comes back, who requires it.

Told by the metadata of the generations; whether the target's own packages provide what others require is for
dnf to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport import repodata
from backport.artifacts import Nevra, Rpm
from backport.errors import PublishError, as_kind
from backport.evidence.store import statements
from backport.repository.contents import basearch, repositories_of
from backport.repository.generations import Generation, TargetFolder
from backport.repository.holds import concerning
from backport.settings import did_you_mean
from backport.target import Target
from backport.trust import by_evr

_RICH = "("
_OPERATORS = {"EQ": "=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One package of a generation, as its metadata describes it."""

    path: str
    nevra: Nevra
    sha256: str
    source: str
    """The file name of its source package; its own for a source package."""
    requires: tuple[str, ...]
    provides: frozenset[str]
    """The names of what it provides, its files that its metadata names before all others included."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a withdrawal does to the generation that readers see."""

    name: str
    """The source package's name."""
    gone: tuple[Piece, ...]
    back: tuple[Piece, ...]
    """What comes back from an older generation."""
    lender: Generation | None
    """That generation."""
    instead: tuple[Piece, ...]
    """The build that is the newest then: what came back, or was there all along."""
    needed: Mapping[str, tuple[str, ...]]
    """What other packages require of that which goes, and who does, where nothing else here provides it."""
    consumers: tuple[Piece, ...]
    """Those who require something that what goes provides."""


@as_kind(PublishError)
def pieces(generation: Path, target: Target) -> dict[str, Piece]:
    """The packages of a generation by their path. Raises PublishError when its metadata is damaged."""
    found = {}
    for name in repositories_of(target):
        for package in repodata.read_primary(generation / name):
            path = f"{name}/{package.location_href}"
            found[path] = _piece(path, package)
    return found


def make_plan(folder: TargetFolder, now: Generation, name: str, target: Target) -> Plan:
    """What it takes to withdraw a package, named by its source package or by any that was built from it.

    Raises PublishError when nothing of that name is published.
    """
    there = pieces(folder.folder_of(now.id), target)
    source = _source_named(name, there.values())
    builds = _builds(source, there.values())
    gone = builds[0]
    lender: Generation | None = None
    back: tuple[Piece, ...] = ()
    if len(builds) == 1:
        lender, back = _earlier(folder, now, source, gone, target)
    rest = [piece for piece in there.values() if piece not in gone]
    instead = back or (builds[1] if len(builds) > 1 else ())
    consumers, needed = _require(gone, [*newest(rest, target), *back], [*rest, *back], target)
    return Plan(
        name=source, gone=gone, back=back, lender=lender, instead=instead, needed=needed, consumers=consumers
    )


def recipe_of(generation: Path, gone: Collection[Piece]) -> str:
    """The recipe whose run made packages, as its provenance tells; empty where none does."""
    wanted = {(piece.path, piece.sha256) for piece in gone}
    for _, statement in statements(generation):
        if any((one.name, one.sha256) in wanted for one in statement.subject):
            return str(statement.predicate.build_definition.external_parameters.get("recipe", ""))
    return ""


def binaries(some: Sequence[Piece], target: Target) -> tuple[Piece, ...]:
    """Those that a host may have installed."""
    return tuple(one for one in some if one.path.startswith(f"{basearch(target)}/"))


def rpm_of(piece: Piece, generation: Path) -> Rpm:
    """The package's file in a generation."""
    return Rpm(nevra=piece.nevra, path=generation / piece.path, sha256=piece.sha256)


def _piece(path: str, package: Any) -> Piece:
    nevra = repodata.nevra_of(package)
    files = {f"{entry[1]}{entry[2]}" for entry in package.files}
    return Piece(
        path=path, nevra=nevra, sha256=package.pkgId, source=package.rpm_sourcerpm or nevra.filename,
        requires=tuple(_capability(one) for one in package.requires),
        provides=frozenset({entry[0] for entry in package.provides} | files),
    )  # fmt: skip


def _capability(dependency: Sequence[Any]) -> str:
    """A requirement as rpm writes it; createrepo_c gives name, flags, epoch, version, release, pre."""
    name, flags, epoch, version, release = dependency[:5]
    if flags not in _OPERATORS:
        return str(name)
    evr = "".join(
        (f"{epoch}:" if epoch and epoch != "0" else "", version or "", f"-{release}" if release else "")
    )
    return f"{name} {_OPERATORS[flags]} {evr}"


def _source_name(piece: Piece) -> str:
    return Nevra.from_nvr(piece.source.removesuffix(".rpm").rpartition(".")[0]).name


def _source_named(name: str, there: Collection[Piece]) -> str:
    sources = {_source_name(piece) for piece in there}
    if name in sources:
        return name
    built = [piece for piece in there if piece.nevra.name == name]
    if not built:
        names = sorted(sources | {piece.nevra.name for piece in there})
        raise PublishError(
            f"no package of the name {name!r} is published{did_you_mean(name, names)}",
            hint="`backport repo show` lists what is",
        )
    return _source_name(max(built, key=lambda piece: by_evr(piece.nevra)))


def _builds(source: str, there: Collection[Piece]) -> list[tuple[Piece, ...]]:
    """What was built from the source packages of a name, the newest first."""
    groups: dict[str, list[Piece]] = {}
    for piece in there:
        if _source_name(piece) == source:
            groups.setdefault(piece.source, []).append(piece)
    found = sorted(groups.values(), key=lambda group: max(by_evr(one.nevra) for one in group), reverse=True)
    return [tuple(sorted(group, key=lambda one: one.path)) for group in found]


def _earlier(
    folder: TargetFolder, now: Generation, source: str, gone: Sequence[Piece], target: Target
) -> tuple[Generation | None, tuple[Piece, ...]]:
    """The newest earlier build that an older, proven generation still has and nobody holds."""
    held = folder.held()
    limit = max(by_evr(one.nevra) for one in gone)
    best: tuple[Generation | None, tuple[Piece, ...]] = None, ()
    for one in folder.proven() & folder.seen() - {now.id}:
        try:
            record = folder.load(one)
            builds = _builds(source, pieces(folder.folder_of(one), target).values())
        except PublishError:
            continue
        for build in builds:
            evr = max(by_evr(piece.nevra) for piece in build)
            is_held = concerning(held, packages=[piece.nevra for piece in build])
            if evr < limit and not is_held and (not best[1] or evr > max(by_evr(p.nevra) for p in best[1])):
                best = record, build
    return best


def newest(rest: Sequence[Piece], target: Target) -> Iterator[Piece]:
    """Of the binary packages of each name the newest."""
    found: dict[tuple[str, str], Piece] = {}
    for piece in binaries(rest, target):
        key = piece.nevra.name, piece.nevra.arch
        if key not in found or by_evr(found[key].nevra) < by_evr(piece.nevra):
            found[key] = piece
    return iter(found.values())


def _require(
    gone: Sequence[Piece], users: Sequence[Piece], rest: Sequence[Piece], target: Target
) -> tuple[tuple[Piece, ...], dict[str, tuple[str, ...]]]:
    offered = {name for piece in binaries(gone, target) for name in piece.provides}
    still = {name for piece in binaries(rest, target) for name in piece.provides}
    consumers, needed = [], dict[str, list[str]]()
    for user in users:
        wanted = [one for one in user.requires if one.split(" ")[0] in offered and not one.startswith(_RICH)]
        if wanted:
            consumers.append(user)
        for one in wanted:
            # With a version, only dnf can tell whether what is left is new enough.
            if " " in one or one not in still:
                needed.setdefault(one, []).append(str(user.nevra))
    return tuple(consumers), {one: tuple(users) for one, users in needed.items()}
