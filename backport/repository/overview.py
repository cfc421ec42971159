"""The page of a target's folder, from what lies in it: written anew whenever readers see something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backport.artifacts import Check, Verdict
from backport.evidence.intoto import TestResult
from backport.evidence.store import NEWEST, age_of, statements, test_results
from backport.files import write_atomically
from backport.repository.advisories import read_advisories
from backport.repository.assemble import SOURCE, basearch
from backport.repository.generations import Generation, PublishedRpm, TargetFolder
from backport.repository.page import Build, Event, Page, render_page
from backport.target import Target

PAGE = "index.html"
SHOWN_EVENTS = 20
"""How many of the last changes the page tells."""
_MEANINGS = {
    "provenance.json": "Provenance, in-toto and SLSA",
    "test-results.json": "Test results, in-toto",
    "sbom.cdx.json": "Bill of materials, CycloneDX",
}


def write_page(folder: TargetFolder, target: Target, base_url: str) -> None:
    """Write ``index.html`` into a target's folder; where nothing is published, remove it.

    ``base_url`` is the URL of the repository folder as clients see it. For the lock's holder alone. Raises
    PublishError when what is published cannot be read, OSError.
    """
    path = folder.path / PAGE
    record = folder.current_generation()
    if record is None:
        path.unlink(missing_ok=True)
        return
    text = render_page(overview(folder, record, target, base_url))
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def overview(folder: TargetFolder, record: Generation, target: Target, base_url: str) -> Page:
    """What the page tells of a generation. Raises PublishError when it is damaged."""
    generation = folder.generations / record.id
    tested, result = next(iter(test_results(generation)), ("", None))
    told = result.predicate if result else None
    repository = generation / basearch(target)
    return Page(
        target=target.name,
        summary=target.summary,
        base_url=f"{base_url.rstrip('/')}/{target.name}",
        fingerprint=record.fingerprint,
        public_key=folder.public_key.name,
        generation=record.id,
        made=record.time,
        builds=_builds(generation, record),
        headline=told.headline if told else (),
        checks=_checks(told),
        tested=age_of(tested) if tested else None,
        transcript=(told.transcript.text or "") if told and told.transcript else "",
        advisories=read_advisories(repository) if repository.is_dir() else (),
        history=_history(folder),
        evidence=tuple((name, _MEANINGS[name]) for name in NEWEST if (generation / name).exists()),
    )


@dataclass
class _Group:
    """The packages of one source package, while they are gathered."""

    origin: str = ""
    source: str = ""
    nevra: str = ""
    packages: list[tuple[str, str]] = field(default_factory=list)
    debug: int = 0

    def add(self, rpm: PublishedRpm) -> None:
        if rpm.path.startswith(f"{SOURCE}/"):
            self.source, self.nevra = rpm.path, rpm.nevra
        elif rpm.path.startswith("debug/"):
            self.debug += 1
        else:
            self.packages.append((rpm.path, _name(rpm.nevra)))
            self.nevra = self.nevra or rpm.nevra

    def build(self) -> Build:
        name, version, release = self.nevra.rsplit(".", 1)[0].rsplit("-", 2)
        return Build(
            name=name, evr=f"{version}-{release}", origin=self.origin, source=self.source,
            packages=tuple(sorted(self.packages, key=lambda item: item[1])), debug=self.debug,
        )  # fmt: skip


def _builds(generation: Path, record: Generation) -> tuple[Build, ...]:
    origins = _origins(generation)
    groups: dict[str, _Group] = {}
    for rpm in record.rpms:
        source, origin = origins.get((rpm.path, rpm.sha256), (rpm.nevra, ""))
        group = groups.setdefault(source, _Group())
        group.origin = origin
        group.add(rpm)
    builds = (group.build() for group in groups.values() if group.nevra)
    return tuple(sorted(builds, key=lambda build: (build.name, build.evr)))


def _origins(generation: Path) -> Mapping[tuple[str, str], tuple[str, str]]:
    """By path and digest: the package's own source package, and the one that this was made from."""
    found = {}
    for _, statement in statements(generation):
        originals = {
            one.annotations.get("package"): (one.name or "").removesuffix(".src.rpm")
            for one in statement.predicate.build_definition.resolved_dependencies
            if one.annotations.get("role") == "source"
        }
        for subject in statement.subject:
            source = str(subject.annotations.get("source", subject.name))
            origin = originals.get(subject.annotations.get("package"), "")
            found[subject.name, subject.sha256] = (source, origin)
    return found


def _checks(told: TestResult | None) -> tuple[Check, ...]:
    return tuple(_check(data) for data in told.checks) if told else ()


def _check(data: Mapping[str, Any]) -> Check:
    """A check as the evidence tells it; one of a kind that is not known is no pass."""
    verdict = str(data.get("verdict", ""))
    return Check(
        id=str(data.get("id", "")),
        title=str(data.get("title", "")),
        verdict=Verdict(verdict) if verdict in set(Verdict) else Verdict.ERROR,
        expected=str(data.get("expected", "")),
        found=str(data.get("found", "")),
        evidence=str(data.get("evidence", "")),
        advice=str(data.get("advice", "")),
    )


def _history(folder: TargetFolder) -> tuple[Event, ...]:
    events: list[tuple[datetime, str, str]] = [
        (event.time, event.action, event.generation or "nothing")
        for event in folder.history()
        if event.action != "proof"
    ]
    return tuple(
        Event(time=time, action=action, generation=generation)
        for time, action, generation in events[: -SHOWN_EVENTS - 1 : -1]
    )


def _name(nevra: str) -> str:
    return nevra.rsplit(".", 1)[0].rsplit("-", 2)[0]
