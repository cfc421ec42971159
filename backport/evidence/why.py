"""Why a package is here: where it comes from, what was changed, who signed what, what was tested.

All of it is read from the evidence that a generation carries;
`backport.evidence.store.verify_provenance` says whether that can be believed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport.errors import PublishError
from backport.evidence.intoto import ProvenanceStatement, Resource, Subject, TestStatement
from backport.evidence.store import statements, test_results
from backport.settings import unknown


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the evidence says of one package file."""

    path: str
    nevra: str
    sha256: str
    signed_by: str
    source: str
    """The file name of the source package that it was built from."""
    original: str
    """The file name of the source package that this one was made from."""
    original_url: str
    original_sha256: str
    original_signed_by: str
    patches: Mapping[str, str]
    """SHA-256 digests of the patches that were added, by file."""
    diff: str | None
    """The whole change; None where it is too large for the statement."""
    recipe: str
    target: str
    builder: str
    buildroot: tuple[str, ...]
    """The packages of the build root, as its list names them."""
    run: str
    started: str
    finished: str
    level: str
    not_met: tuple[str, ...]
    """What the next levels of SLSA ask for and this build does not have."""
    checks: tuple[Mapping[str, Any], ...]
    """The checks of the newest test that this file was part of."""
    result: str


def why(generation: Path, package: str) -> tuple[Explanation, ...]:
    """What the evidence says of a package: of each file whose name, NEVRA or file name ``package`` is.

    Raises UsageError for a package that no statement is about, PublishError when a statement is damaged.
    """
    found: list[Explanation] = []
    names: set[str] = set()
    tests = list(test_results(generation))
    for _, statement in statements(generation):
        for subject in statement.subject:
            names |= _names_of(subject)
            if package in _names_of(subject) and (generation / subject.name).is_file():
                found.append(_explain(statement, subject, tests))
    if not found:
        hint = "give its name, NEVRA or file name, as `backport repo show` lists them"
        raise unknown("no statement is about a package", package, names, hint=hint)
    return tuple(sorted(found, key=lambda one: one.path))


def to_text(explanation: Explanation, *, with_diff: bool = True) -> Iterator[str]:
    """The explanation for people, line by line."""
    one = explanation
    yield one.nevra
    yield from _table(
        {
            "file": one.path,
            "sha256": one.sha256,
            "signed by": one.signed_by,
            "built from": f"{one.source}, which was made from {one.original}",
            "that is from": one.original_url,
            "with sha256": one.original_sha256,
            "was signed by": one.original_signed_by,
            "recipe": f"{one.recipe} for {one.target}",
            "patches": ", ".join(one.patches) or "none",
            "builder": f"{one.builder}, in a root of {len(one.buildroot)} packages",
            "run": f"{one.run}, from {one.started} to {one.finished}",
            "SLSA": one.level,
        }
    )
    for line in one.not_met:
        yield from textwrap.wrap(f"not met: {line}", 100, initial_indent=" " * 17, subsequent_indent=" " * 17)
    yield ""
    yield f"What was tested: {one.result or 'nothing is told'}"
    for check in one.checks:
        found = f": {check['found']}" if check.get("found") else ""
        yield f"  {check.get('verdict', ''):<8} {check.get('title', check.get('id', ''))}{found}"
    if with_diff:
        yield ""
        yield "What was changed:"
        yield from _diff_lines(one.diff)


def _diff_lines(diff: str | None) -> Sequence[str]:
    if diff is None:
        return ("  the change is too large to stand in the statement; it is in the source package",)
    return diff.splitlines() or ("  nothing",)


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    for name, value in rows.items():
        yield f"  {name:<14} {value}"


def _names_of(subject: Subject) -> set[str]:
    nevra = str(subject.annotations.get("nevra", ""))
    file = subject.name.rsplit("/", 1)[-1]
    return {file, nevra, file.removesuffix(".rpm").rsplit(".", 1)[0].rsplit("-", 2)[0]} - {""}


def _explain(
    statement: ProvenanceStatement, subject: Subject, tests: Sequence[tuple[str, TestStatement]]
) -> Explanation:
    definition, details = statement.predicate.build_definition, statement.predicate.run_details
    package = subject.annotations.get("package")
    needed = [one for one in definition.resolved_dependencies if one.annotations.get("package") == package]
    left = [one for one in details.byproducts if one.annotations.get("package") == package]
    source = _only(needed, "source", subject)
    diff, buildroot = _with_role(left, "diff"), _with_role(left, "buildroot")
    test = next((one for _, one in tests if _is_about(one, subject)), None)
    return Explanation(
        path=subject.name,
        nevra=str(subject.annotations.get("nevra", subject.name)),
        sha256=subject.sha256,
        signed_by=str(subject.annotations.get("signed_by", "")),
        source=str(subject.annotations.get("source", "")),
        original=source.name or "",
        original_url=source.download_location or "",
        original_sha256=source.sha256,
        original_signed_by=str(source.annotations.get("signed_by", "")),
        patches={one.name or "": one.sha256 for one in needed if one.annotations.get("role") == "patch"},
        diff=diff[0].text if diff else None,
        recipe=str(definition.external_parameters.get("recipe", "")),
        target=str(definition.external_parameters.get("target", "")),
        builder=details.builder.version.get("builder", ""),
        buildroot=_packages_of(buildroot),
        run=details.metadata.invocation_id or "",
        started=details.metadata.started_on or "",
        finished=details.metadata.finished_on or "",
        level=str(statement.predicate.slsa.get("level", "")),
        not_met=tuple(str(line) for line in statement.predicate.slsa.get("not_met", ())),
        checks=test.predicate.checks if test else (),
        result=test.predicate.result.lower() if test else "",
    )


def _only(resources: Sequence[Resource], role: str, subject: Subject) -> Resource:
    found = _with_role(resources, role)
    if len(found) != 1:
        raise PublishError(f"{subject.name}: its statement names {len(found)} source packages, not one")
    return found[0]


def _with_role(resources: Sequence[Resource], role: str) -> list[Resource]:
    return [one for one in resources if one.annotations.get("role") == role]


def _packages_of(lists: Sequence[Resource]) -> tuple[str, ...]:
    """The first word of each line; mock's and the chroot builder's lists agree in that."""
    return tuple(line.split()[0] for one in lists for line in (one.text or "").splitlines() if line.split())


def _is_about(statement: TestStatement, subject: Subject) -> bool:
    return any(one.name == subject.name and one.sha256 == subject.sha256 for one in statement.subject)
