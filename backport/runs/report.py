"""What a run did, as data; and that data as JSON, as JUnit XML and as text. Nothing here does I/O."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from xml.etree import ElementTree as ET

from pydantic import TypeAdapter

from backport.artifacts import Check, Verdict
from backport.errors import explained
from backport.printable import xml_text

Status = Literal["done", "failed"]
Outcome = Literal["published", "unchanged", "held", "stopped", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage of a run: how long it took, and what it left."""

    name: str
    seconds: float
    status: Status
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended before its time, and what a person can do about it."""

    stage: str
    kind: str
    message: str
    hint: str | None
    command: tuple[str, ...] | None
    """The program that failed."""
    log: str | None
    exit_code: int
    sandboxed: bool = False
    """Whether ``command`` was run in a sandbox that was made for it, and means something only there."""
    replay: tuple[str, ...] | None = None
    """The command that does the whole run again."""
    evidence: tuple[str, ...] = ()
    """What tells why: lines of the log, the telling ones first."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that is worth knowing about one run; times in UTC, durations in seconds."""

    format: Literal[1] = 1
    """Of report.json: it grows when a key changes its meaning or goes; keys may be added without."""
    run: str
    recipe: str
    target: str
    builder: str
    tool_version: str
    started: datetime
    seconds: float
    outcome: Outcome
    key: str
    """Digest over ``inputs``: the same key means the same result. Empty before they are known."""
    inputs: Mapping[str, str]
    changed: tuple[str, ...]
    """What differs from the inputs of the run before, in words."""
    stages: tuple[StageReport, ...]
    checks: tuple[Check, ...] = ()
    headline: tuple[str, ...] = ()
    repository: str | None = None
    generation: str | None = None
    folder: str
    """Where this run's logs and reports lie."""
    kept_root: str | None = None
    """The root in which the run failed, where it was to be kept."""
    entrance: tuple[str, ...] = ()
    """The command that opens a shell in it."""
    results: str | None = None
    """Where the built packages were left, if that was asked for."""
    results_signed: bool = False
    failure: Failure | None = None

    @property
    def exit_code(self) -> int:
        """The command's exit code."""
        return self.failure.exit_code if self.failure else 0


def to_json(report: RunReport) -> str:
    """The report as JSON text, keys in a stable order, times as RFC 3339 has them, in UTC with a Z."""
    document = TypeAdapter(RunReport).dump_python(report, mode="json", warnings=False, fallback=str)
    return json.dumps(document, indent=2) + "\n"


def from_json(text: str) -> RunReport:
    """The report that ``to_json`` wrote. Raises ValueError for anything else."""
    return TypeAdapter(RunReport).validate_python(json.loads(text))


def to_junit(report: RunReport) -> str:
    """The report as JUnit XML, one test case a stage and one a check."""
    suites = ET.Element("testsuites", name=f"backport {report.recipe} for {report.target}")
    stages = _suite(suites, "stages", report)
    for stage in report.stages:
        case = ET.SubElement(
            stages, "testcase", classname="backport.stage", name=stage.name, time=f"{stage.seconds:.3f}"
        )
        if stage.status == "failed" and report.failure:
            _problem(case, "failure", report.failure.message, _told(report.failure))
    if report.failure and all(stage.status == "done" for stage in report.stages):
        case = ET.SubElement(stages, "testcase", classname="backport.stage", name=report.failure.stage)
        _problem(case, "error", report.failure.message, _told(report.failure))
    if report.checks:
        junit_checks(_suite(suites, "checks", report), report.checks)
    return _document(suites)


def junit_document(name: str, checks: tuple[Check, ...], *, started: datetime, seconds: float) -> str:
    """An examination on its own as JUnit XML, one test case a check."""
    suites = ET.Element("testsuites", name=name)
    suite = ET.SubElement(
        suites, "testsuite", name=name, timestamp=started.isoformat(), time=f"{seconds:.3f}"
    )
    junit_checks(suite, checks)
    return _document(suites)


def junit_checks(suite: ET.Element, checks: tuple[Check, ...]) -> None:
    """Add one test case per check to a JUnit suite; a warning passes, with its text as output."""
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="backport.check", name=check.id)
        summary = f"expected {check.expected}, found {check.found}"
        match check.verdict:
            case Verdict.FAIL:
                _problem(case, "failure", summary, f"{check.advice}\n{check.evidence}")
            case Verdict.ERROR:
                _problem(case, "error", check.found or check.title, f"{check.advice}\n{check.evidence}")
            case Verdict.SKIPPED:
                ET.SubElement(case, "skipped", message=xml_text(check.advice))
            case Verdict.WARN:
                ET.SubElement(case, "system-out").text = xml_text(f"warning: {summary}. {check.advice}")


def to_text(report: RunReport) -> Iterator[str]:
    """The summary for a terminal, line by line, in rich's markup-free plain text."""
    what = f"{report.recipe} for {report.target}"
    match report.outcome:
        case "unchanged":
            yield f"{what}: nothing to do, the same inputs are published already"
        case "held":
            yield f"{what}: nothing to do, what these inputs gave was rolled back; --force publishes it"
        case "stopped":
            yield f"{what}: stopped after {report.stages[-1].name}, as asked"
    yield from report.headline
    if report.checks:
        yield f"checks: {tally(report.checks)}"
    if report.repository:
        yield f"repository: {report.repository}"
    if report.generation:
        yield f"generation: {report.generation}"
    if report.results:
        signed = "signed" if report.results_signed else "not signed: the run did not come that far"
        yield f"packages: {report.results} ({signed})"
    if report.kept_root:
        yield f"root: {report.kept_root}, until the next --keep-root of the recipe or `backport repo gc`"
        yield f"to enter it: {shlex.join(report.entrance)}"


def failure_text(failure: Failure) -> Iterator[str]:
    """A failure for people: stage and message, evidence, a hint, how to replay it, what failed, the log."""
    yield f"{failure.stage}: {failure.message}"
    yield from explained(
        hint=failure.hint, replay=failure.replay, command=failure.command, sandboxed=failure.sandboxed,
        log=failure.log, evidence=failure.evidence,
    )  # fmt: skip


def tally(checks: tuple[Check, ...]) -> str:
    """Verdicts counted, such as ``14 pass, 1 skipped``."""
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none"


def run_id(started: datetime, recipe: str, target: str) -> str:
    """A run's name: sortable by time, readable, safe as a folder's name."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z-{recipe}-{target}"


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What differs between two runs' inputs, one line each, in the inputs' order."""
    lines = []
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name), now.get(name)
        if old is None:
            lines.append(f"{name} is new: {new}")
        elif new is None:
            lines.append(f"{name} is gone: was {old}")
        elif old != new:
            lines.append(f"{name} changed: {old} → {new}")
    return tuple(lines)


def _suite(suites: ET.Element, name: str, report: RunReport) -> ET.Element:
    return ET.SubElement(
        suites,
        "testsuite",
        name=f"{report.recipe}-{report.target}.{name}",
        timestamp=report.started.isoformat(),
    )


def _document(suites: ET.Element) -> str:
    for suite in suites:
        _count(suite)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _count(suite: ET.Element) -> None:
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))


def _told(failure: Failure) -> str:
    return "\n".join((failure.hint or "", *failure.evidence)).strip()


def _problem(case: ET.Element, kind: str, message: str, text: str) -> None:
    ET.SubElement(case, kind, message=xml_text(message)).text = xml_text(text)
