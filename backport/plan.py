"""What a run would do, told before anything is fetched or changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backport.builders import choose_builder
from backport.prepare import is_held, is_published, resolve_job
from backport.runs.history import last_run
from backport.runs.job import Job
from backport.runs.report import changes


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
    """Whether these very inputs are what readers see now, so that nothing would be done."""
    held: bool
    """Whether readers were led back from what these inputs gave, so that it is not published again."""
    reasons: tuple[str, ...]
    """What differs from the last run's inputs."""

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
    """Ask the hub, and compare with what is published. Raises FetchError, UsageError, SignError."""
    builder = choose_builder(
        job.site.builder, target=job.target, cache=job.site.paths.cache, mock=job.site.mock
    )
    resolved = resolve_job(job, builder)
    before = last_run(job.site.paths.cache / "runs", job.name, job.target.name)
    return Plan(
        packages=tuple(_planned(job, name, str(build.nevra)) for name, build in resolved.builds.items()),
        builder=builder.name,
        published=is_published(job, resolved),
        held=is_held(job, resolved),
        reasons=changes(before.inputs, resolved.inputs) if before else ("there is no earlier run",),
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
