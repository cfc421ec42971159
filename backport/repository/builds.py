"""What was built, as a generation's page shows it: from its metadata and its provenance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Nevra
from backport.evidence.store import statements
from backport.repository.contents import PublishedRpm, described, repositories_of
from backport.target import Target


@dataclass(frozen=True, kw_only=True)
class Build:
    """What was built from one source package."""

    name: str
    evr: str
    origin: str
    """The source package that it was rebuilt from; empty where no statement says."""
    source: str
    """The path of its own source package; empty where it is not here."""
    packages: tuple[tuple[str, str], ...]
    """Path and name of each binary package."""
    debug: int = 0
    """How many packages there are beside them that are for debugging alone."""


def builds_in(generation: Path, target: Target) -> tuple[Build, ...]:
    """The builds of a generation by name and EVR. Raises PublishError when its metadata or a statement is
    damaged."""
    packages, debug, sources = (described(generation, name).values() for name in repositories_of(target))
    origins, own = _origins(generation), {one.source: one for one in sources}
    shown, hidden = _by_source(packages), _by_source(debug)
    found = []
    for source in own.keys() | shown.keys() | hidden.keys():
        here = own.get(source)
        # A file's name lacks the epoch.
        nevra = here.nevra if here else Nevra.from_nvr(source.removesuffix(".rpm").rpartition(".")[0])
        named = ((one.path, one.nevra.name) for one in shown.get(source, ()))
        build = Build(
            name=nevra.name, evr=nevra.evr, origin=origins.get(source, ""), source=here.path if here else "",
            packages=tuple(sorted(named)), debug=len(hidden.get(source, ())),
        )  # fmt: skip
        found.append(build)
    return tuple(sorted(found, key=lambda one: (one.name, one.evr)))


def _by_source(packages: Iterable[PublishedRpm]) -> dict[str, list[PublishedRpm]]:
    found: dict[str, list[PublishedRpm]] = {}
    for one in packages:
        found.setdefault(one.source, []).append(one)
    return found


def _origins(generation: Path) -> dict[str, str]:
    """The source packages that others were rebuilt from, by the file names of what came of them."""
    found: dict[str, str] = {}
    for _, statement in statements(generation):
        needed = statement.predicate.build_definition.resolved_dependencies
        originals = {
            one.annotations.get("package"): (one.name or "").removesuffix(".rpm").rpartition(".")[0]
            for one in needed
            if one.annotations.get("role") == "source"
        }
        for subject in statement.subject:
            origin = originals.get(subject.annotations.get("package"), "")
            found.setdefault(str(subject.annotations.get("source", "")), origin)
    return found
