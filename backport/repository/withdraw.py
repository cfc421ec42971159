"""Taking one package back: a generation without its newest build, or with an earlier one in its place.

What goes is a whole build, all that was built from one source package: its packages require each other. An
earlier build that is still published stays; where there is none, the newest that an older generation has
comes back, unless it is held. Nothing is taken from under another package that requires it: that is what
the metadata of the generations says; whether the target's own packages provide it is for dnf to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backport import repodata
from backport.artifacts import Check, Nevra, Rpm, is_for_debugging
from backport.errors import PublishError, as_kind
from backport.evidence.store import statements
from backport.repository.advisories import (
    Advisory,
    AdvisoryPackage,
    read_advisories,
    still_here,
    withdrawal,
)
from backport.repository.contents import PublishedRpm, basearch, content_of, published, repositories_of
from backport.repository.generations import Generation
from backport.repository.holds import concerning, words_for
from backport.repository.place import Place
from backport.repository.plan import NewRpm, Plan, count_signers, plan_repositories, time_after
from backport.repository.proof import Exhibit, Prover
from backport.repository.release import release
from backport.settings import did_you_mean
from backport.target import Target
from backport.trust import by_evr

_RICH = "("
_OPERATORS = {"EQ": "=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """What clients do not see any more, and what they see in its place."""

    folder: str
    generation: str | None
    """What clients see since; None where nothing was changed, since it was only to be shown."""
    before: str
    packages: tuple[str, ...]
    """The packages that went."""
    instead: tuple[str, ...]
    """The earlier build's, which are the newest now."""
    advice: str
    """What hosts are to do that have them."""
    required: tuple[str, ...]
    """What other packages require of it, and which: something else must provide that."""


@dataclass(frozen=True, kw_only=True, order=True)
class Piece(PublishedRpm):
    """One package of a generation, with its dependencies as the metadata describes them."""

    generation: Path
    """The folder of that generation."""
    requires: tuple[str, ...]
    provides: frozenset[str]
    """The names of what it provides, its files that its metadata names before all others included."""

    @property
    def rpm(self) -> Rpm:
        """Its file."""
        return Rpm(nevra=self.nevra, path=self.generation / self.path, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a withdrawal does to the generation that clients see."""

    name: str
    """The source package's name."""
    gone: tuple[Piece, ...]
    back: tuple[Piece, ...]
    """What comes back from an older generation."""
    older: Generation | None
    """That generation."""
    instead: tuple[Piece, ...]
    """The build that is the newest then: what came back, or was there all along."""
    needed: Mapping[str, tuple[str, ...]]
    """What other packages require of that which goes, and who does, where nothing else here provides it."""
    consumers: tuple[Piece, ...]
    """Those who require something that what goes provides."""
    stay: frozenset[str]
    """The paths of all packages that are there then."""

    @property
    def required(self) -> tuple[str, ...]:
        """What is needed, in words."""
        return tuple(f"{', '.join(users)} requires {what}" for what, users in self.needed.items())


def withdraw(
    place: Place,
    name: str,
    *,
    prove: Prover,
    publisher: str,
    reason: str = "",
    dry_run: bool = False,
) -> Withdrawn:
    """Let clients see the newest build of a package no more; all else stays as it is.

    ``name`` is that of a source package, or of any package that was built from it. The new generation is
    proven like any other, and what was withdrawn is held.

    Raises PublishError when nothing of that name is published, another published package requires it and
    nothing else provides that, or the new generation is not proven.
    """
    with place.locked(clean=not dry_run):
        now = place.folder.current_generation()
        if now is None:
            raise PublishError(f"{place.folder.path}: nothing is published there")
        removal = _removal(place, now, name)
        gone = _installable(removal.gone, place.target)
        advice = f"dnf distro-sync {' '.join(sorted({one.nevra.name for one in gone}))}".strip()
        result = Withdrawn(
            folder=str(place.folder.path), generation=None, before=now.id, advice=advice,
            packages=tuple(str(one.nevra) for one in removal.gone),
            instead=tuple(str(one.nevra) for one in removal.instead), required=removal.required,
        )  # fmt: skip
        if dry_run:
            return result

        def prove_removal(exhibit: Exhibit) -> tuple[Check, ...]:
            checks = prove(exhibit)
            _require_provided(checks, removal)
            return checks

        advisory = withdrawal(
            [_told(one) for one in gone], name=removal.name, advice=advice, reason=reason,
            issued=datetime.now(UTC), publisher=publisher,
        )  # fmt: skip
        record, _ = release(place, _plan(place, now, removal, advisory), prove_removal)
    return replace(result, generation=record.id)


def _plan(place: Place, now: Generation, removal: Removal, advisory: Advisory) -> Plan:
    folder, target = place.folder, place.target
    recipe = _recipe_of(folder.folder_of(now.id), removal.gone)
    hold = words_for(folder, now, removal.gone)
    hold |= {now.inputs[recipe]} if recipe in now.inputs else frozenset()
    new = [NewRpm(rpm=one.rpm, path=one.path, content=content_of(one.rpm.path)) for one in removal.back]
    known = {*now.signers, *(removal.older.signers if removal.older else ())}
    signers = count_signers(
        now.signers, new=(key for one in new for key in known if one.content.is_signed_by(key)),
        gone=[content_of(one.rpm.path) for one in removal.gone],
    )  # fmt: skip
    sources = {one.source for one in removal.gone} - {one.source for one in removal.back}
    returned = removal.older.sources if removal.older else {}
    record = replace(
        now, id="", time=time_after(now), previous=now.id, run="", metadata={}, signers=signers,
        added=len(new), inputs={one: key for one, key in now.inputs.items() if one != recipe},
        sources={
            **{one: digest for one, digest in now.sources.items() if one not in sources},
            **{one.source: returned[one.source] for one in removal.back if one.source in returned},
        },
    )  # fmt: skip
    advisories = _advisories(place, now, removal, advisory)
    older = (folder.folder_of(removal.older.id),) if removal.older else ()
    return Plan(
        action="withdraw", before=now, record=record, public_key=folder.public_key, advisories=advisories,
        repositories=plan_repositories(
            place, now, record, new=new, removed=[one.path for one in removal.gone], advisories=advisories
        ),
        evidence_of=(folder.folder_of(now.id), *older), install=_to_install(removal, target),
        provided=tuple(removal.needed), hold=hold,
    )  # fmt: skip


def _require_provided(checks: Sequence[Check], removal: Removal) -> None:
    for check in checks:
        if check.stops and check.id == "publish.provided":
            lost = set(check.evidence.splitlines())
            needed = {what: users for what, users in removal.needed.items() if what in lost}
            users = "; ".join(replace(removal, needed=needed or removal.needed).required)
            raise PublishError(
                f"{removal.name} cannot be withdrawn: {users}, which nothing else provides",
                hint="withdraw that first, or go back by `backport repo rollback`",
            )


def _to_install(removal: Removal, target: Target) -> tuple[Rpm, ...]:
    """What clients get in the place of what goes, and whoever uses it; of each name the newest."""
    users = [one for one in removal.consumers if set(one.requires).isdisjoint(removal.needed)]
    newest = _newest([*removal.instead, *users], target)
    return tuple(one.rpm for one in newest if not is_for_debugging(one.nevra.name))


def _installable(some: Sequence[Piece], target: Target) -> tuple[Piece, ...]:
    return tuple(one for one in _binaries(some, target) if not is_for_debugging(one.nevra.name))


def _told(one: Piece) -> AdvisoryPackage:
    return AdvisoryPackage(nevra=one.nevra, filename=one.nevra.filename, sha256=one.sha256, source=one.source)


def _advisories(place: Place, now: Generation, removal: Removal, advisory: Advisory) -> tuple[Advisory, ...]:
    """What is said of all packages then."""
    name, folder = basearch(place.target), place.folder
    known = read_advisories(folder.folder_of(now.id) / name)
    if removal.older:
        known = (*read_advisories(folder.folder_of(removal.older.id) / name), *known)
    known = (*known, advisory) if advisory.packages else known
    return still_here(known, lambda file: f"{name}/{file}" in removal.stay)


def _removal(place: Place, now: Generation, name: str) -> Removal:
    """What it takes to withdraw a package, named by its source package or by any that was built from it."""
    target = place.target
    there = _pieces(place.folder.folder_of(now.id), target)
    source = _source_named(name, there)
    builds = _builds(source, there)
    gone = builds[0]
    older: Generation | None = None
    back: tuple[Piece, ...] = ()
    if len(builds) == 1:
        older, back = _earlier(place, now, source, gone)
    rest = [piece for piece in there if piece not in gone]
    instead = back or (builds[1] if len(builds) > 1 else ())
    consumers, needed = _require(gone, [*_newest(rest, target), *back], [*rest, *back], target)
    return Removal(
        name=source, gone=gone, back=back, older=older, instead=instead, needed=needed, consumers=consumers,
        stay=frozenset(one.path for one in (*rest, *back)),
    )  # fmt: skip


def _recipe_of(generation: Path, gone: Collection[Piece]) -> str:
    """The recipe whose run made packages, as its provenance says; empty where none does."""
    wanted = {(piece.path, piece.sha256) for piece in gone}
    for _, statement in statements(generation):
        if any((one.name, one.sha256) in wanted for one in statement.subject):
            return str(statement.predicate.build_definition.external_parameters.get("recipe", ""))
    return ""


@as_kind(PublishError)
def _pieces(generation: Path, target: Target) -> list[Piece]:
    """The packages of a generation. Raises PublishError when its metadata is damaged."""
    return [
        _piece(generation, name, package)
        for name in repositories_of(target)
        for package in repodata.read_primary(generation / name)
    ]


def _piece(generation: Path, name: str, package: Any) -> Piece:
    files = {f"{entry[1]}{entry[2]}" for entry in package.files}
    return Piece(
        **vars(published(name, package)), generation=generation,
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
    place: Place, now: Generation, source: str, gone: Sequence[Piece]
) -> tuple[Generation | None, tuple[Piece, ...]]:
    """The newest earlier build that an older, proven generation still has and nobody holds."""
    folder = place.folder
    held = folder.held()
    limit = max(by_evr(one.nevra) for one in gone)
    best: tuple[Generation | None, tuple[Piece, ...]] = None, ()
    for one in folder.proven() & folder.seen() - {now.id}:
        try:
            record = folder.load(one)
            builds = _builds(source, _pieces(folder.folder_of(one), place.target))
        except PublishError:
            continue
        for build in builds:
            evr = max(by_evr(piece.nevra) for piece in build)
            is_held = concerning(held, packages=[piece.nevra for piece in build])
            if evr < limit and not is_held and (not best[1] or evr > max(by_evr(p.nevra) for p in best[1])):
                best = record, build
    return best


def _binaries(some: Sequence[Piece], target: Target) -> tuple[Piece, ...]:
    """Those that a host may have installed."""
    return tuple(one for one in some if one.path.startswith(f"{basearch(target)}/"))


def _newest(rest: Sequence[Piece], target: Target) -> Iterator[Piece]:
    """Of the binary packages of each name the newest."""
    ordered = sorted(_binaries(rest, target), key=lambda one: by_evr(one.nevra))
    return iter({(one.nevra.name, one.nevra.arch): one for one in ordered}.values())


def _require(
    gone: Sequence[Piece], users: Sequence[Piece], rest: Sequence[Piece], target: Target
) -> tuple[tuple[Piece, ...], dict[str, tuple[str, ...]]]:
    offered = {name for piece in _binaries(gone, target) for name in piece.provides}
    still = {name for piece in _binaries(rest, target) for name in piece.provides}
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
