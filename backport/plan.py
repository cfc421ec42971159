"""What a run would do, and what would stop it, as far as that is known before a package is fetched.

Findings are told in the order in which a run would meet them, so that the first problem ends the plan with
the exit code that the run would have. What cannot be known here is told as not examined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backport.artifacts import SourceRpm
from backport.builders import choose_builder
from backport.errors import BackportError, BuildError, BuildRootError, FetchError, PatchError
from backport.files import scratch_folder
from backport.needs import Needs
from backport.prepare import NO_KEY, Resolved, is_held, is_published, patch, resolve_job
from backport.progress import Silent
from backport.rehearsal import Unknown, failing_patch
from backport.repodata import compression_of
from backport.roots.root import check_architecture
from backport.runs.history import last_run
from backport.runs.job import Job
from backport.runs.report import changes
from backport.sources.fetch import find_cached


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a run would meet."""

    kind: Literal["problem", "not examined"]
    message: str
    hint: str = ""
    exit_code: int = 0
    """That of a run which it would end."""


@dataclass(frozen=True, kw_only=True)
class PlannedPackage:
    """One package's way through a run that has not begun."""

    name: str
    source: str
    """NEVRA of the source package."""
    suffix: str
    """What is put behind the release."""
    patches: tuple[str, ...]
    edits: int
    """How many changes are made to the spec's text, besides adding patches."""
    check: bool
    """Whether %check runs."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``backport build`` would do now."""

    packages: tuple[PlannedPackage, ...]
    """In the order in which they are built."""
    builder: str
    published: bool
    """Whether these very inputs are what clients see now, so that nothing would be done."""
    held: bool
    """Whether clients were led back from what these inputs gave, so that it is not published again."""
    reasons: tuple[str, ...]
    """What differs from the last run's inputs."""
    findings: tuple[Finding, ...]
    """What would stop the run, and what is not known, in the order of its stages."""

    @property
    def exit_code(self) -> int:
        """That of the run: of the first problem, or 0."""
        return next((one.exit_code for one in self.findings if one.kind == "problem"), 0)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One row a package for people: name, source, suffix, patches and edits, %check."""
        for package in self.packages:
            edits = [f"{package.edits} edit{'s' * (package.edits > 1)}"] if package.edits else []
            yield (
                package.name,
                package.source,
                package.suffix,
                ", ".join([*package.patches, *edits]) or "none",
                "runs" if package.check else "left out",
            )


def plan(job: Job) -> Plan:
    """Ask the source, look at what a run would need, and compare with what is published.

    Raises FetchError, UsageError, and PublishError where what is published or a repository of the target
    cannot be read.
    """
    host, builder, identity = _host(job)
    with scratch_folder(job.site.paths.cache, ".plan-") as scratch:
        resolved = resolve_job(job, identity, workspace=scratch, progress=Silent(), planning=True)
        published, held = is_published(job, resolved), is_held(job, resolved)
        findings = () if published or held else (*host, *_findings(job, resolved, scratch))
    before = last_run(job.site.paths.cache / "runs", job.name, job.target.name)
    return Plan(
        packages=tuple(_planned(job, name, str(offer.nevra)) for name, offer in resolved.offers.items()),
        builder=builder,
        published=published,
        held=held,
        reasons=changes(before.inputs, resolved.inputs) if before else ("there is no earlier run",),
        findings=findings,
    )


def _host(job: Job) -> tuple[list[Finding], str, str]:
    """What this host lacks, and the name and the identity of the builder."""
    found: list[Finding] = []
    name = identity = job.site.builder
    try:
        builder = choose_builder(job.site, job.target)
        name, identity = builder.name, builder.identity
    except BackportError as problem:
        found.append(_problem(problem))
    try:
        compression_of(job.target.compression)
    except BackportError as problem:
        found.append(_problem(problem))
    return found, name, identity


def _findings(job: Job, resolved: Resolved, scratch: Path) -> Iterator[Finding]:
    if resolved.inputs["signing key"] == NO_KEY:
        yield Finding(
            kind="not examined", message="signing: there is no signing key here",
            hint="`backport keys init` makes one",
        )  # fmt: skip
    yield from sorted(_sources(job, resolved, scratch), key=lambda one: one.exit_code)
    try:
        check_architecture(job.target)
    except BackportError as problem:
        yield _problem(problem)
    for name, needs in resolved.needs.items():
        yield from _needs(job, name, needs)


def _sources(job: Job, resolved: Resolved, scratch: Path) -> Iterator[Finding]:
    """Signatures, anchors and what else is known of the source packages."""
    for name, offer in resolved.offers.items():
        try:
            source = find_cached(offer, cache=job.site.paths.cache, keys=job.source_keys)
        except FetchError as problem:
            yield _problem(problem)
            continue
        if source is None:
            yield Finding(
                kind="not examined",
                message=f"{name}: the changes to its spec: {offer.nevra.filename} is not in the cache",
                hint=f"`backport fetch {job.name}` brings it",
            )
        else:
            yield from _changes(job, source, scratch / name)


def _changes(job: Job, source: SourceRpm, workspace: Path) -> Iterator[Finding]:
    name = source.rpm.nevra.name
    package = job.recipe.packages[name]
    try:
        patched = patch(job, source, workspace)
    except PatchError as problem:
        yield _problem(problem)
        return
    if not package.patches:
        return
    try:
        failing = failing_patch(
            patched, [Path(one.file).name for one in package.patches], workspace / "trial"
        )
    except Unknown as problem:
        yield Finding(kind="not examined", message=f"{name}: whether its patches apply: {problem}")
    else:
        if failing:
            yield Finding(
                kind="problem", message=f"{name}: {failing} does not apply to its sources",
                hint="make the patch again for this version of the package", exit_code=BuildError.exit_code,
            )  # fmt: skip


def _needs(job: Job, name: str, needs: Needs) -> Iterator[Finding]:
    where = f"{job.target.name}, in its channel {job.site.channel} or in the recipe"
    if needs.missing:
        yield Finding(
            kind="problem",
            message=f"{name}: nothing in {where} provides what it needs to be built: "
            + ", ".join(needs.missing),
            hint=f"does {job.target.name} have it under another name? Edit the spec in the recipe",
            exit_code=BuildRootError.exit_code,
        )
    elif needs.conflicts:
        yield Finding(
            kind="problem",
            message=f"{name}: what it needs cannot be installed together: {'; '.join(needs.conflicts)}",
            hint="edit its BuildRequires in the recipe, or publish what is missing first",
            exit_code=BuildRootError.exit_code,
        )


def _problem(problem: BackportError) -> Finding:
    return Finding(
        kind="problem", message=problem.message, hint=problem.hint or "", exit_code=problem.exit_code
    )


def _planned(job: Job, name: str, source: str) -> PlannedPackage:
    package = job.recipe.packages[name]
    return PlannedPackage(
        name=name,
        source=source,
        suffix=f"{job.target.dist}.bp{package.bump}",
        patches=tuple(patch.file for patch in package.patches),
        edits=len(package.edits),
        check=package.build.check,
    )
