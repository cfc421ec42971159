"""The rules of a declarative pipeline, after Jenkins' "Pipeline Syntax" and "Pipeline Steps Reference"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.jenkins.groovy import Call, SyntaxProblem, Text, Value, Word, parse

PIPELINE = frozenset(
    "agent environment libraries options parameters post stages tools triggers".split()  # noqa: SIM905  # a list of words reads best as words
)
STAGE = frozenset(
    "agent environment failFast input matrix options parallel post stages steps tools when".split()  # noqa: SIM905  # as above
)
STAGE_CONTENTS = frozenset({"steps", "stages", "parallel", "matrix"})
POST = frozenset(
    "aborted always changed cleanup failure fixed regression success unstable unsuccessful".split()  # noqa: SIM905  # as above
)
TRIGGERS = frozenset({"cron", "pollSCM", "upstream"})
AGENTS = frozenset({"label", "node", "docker", "dockerfile", "kubernetes"})
UNITS = frozenset({"NANOSECONDS", "MICROSECONDS", "MILLISECONDS", "SECONDS", "MINUTES", "HOURS", "DAYS"})


@dataclass(frozen=True)
class Step:
    """What a step or option takes: the argument that may go without its name, and all names."""

    only: str | None = None
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    body: bool = False


def _step(only: str | None = None, *, required: str = "", optional: str = "", body: bool = False) -> Step:
    needed = frozenset(required.split()) | (frozenset({only}) if only else frozenset())
    return Step(only, needed, frozenset(optional.split()), body)


STEPS = {
    "archiveArtifacts": _step(
        "artifacts",
        optional="allowEmptyArchive caseSensitive defaultExcludes excludes fingerprint followSymlinks "
        "onlyIfSuccessful",
    ),
    "checkout": _step("scm"),
    "deleteDir": _step(),
    "dir": _step("path", body=True),
    "echo": _step("message"),
    "error": _step("message"),
    "junit": _step(
        "testResults",
        optional="allowEmptyResults checksName healthScaleFactor keepLongStdio keepProperties "
        "keepTestNames skipMarkingBuildUnstable skipOldReports skipPublishingChecks",
    ),
    "retry": _step("count", body=True),
    "sh": _step("script", optional="encoding label returnStatus returnStdout"),
    "timeout": _step("time", optional="activity unit", body=True),
    "withCredentials": _step("bindings", body=True),
    "withEnv": _step("overrides", body=True),
    "writeFile": _step(required="file text", optional="encoding"),
}
OPTIONS = {
    "buildDiscarder": _step("strategy"),
    "disableConcurrentBuilds": _step(optional="abortPrevious"),
    "disableResume": _step(),
    "parallelsAlwaysFailFast": _step(),
    "preserveStashes": _step(optional="buildCount"),
    "quietPeriod": _step("seconds"),
    "retry": _step("count"),
    "skipDefaultCheckout": _step(optional="skip"),
    "skipStagesAfterUnstable": _step(),
    "timeout": _step("time", optional="activity unit"),
    "timestamps": _step(),
}
STAGE_OPTIONS = frozenset({"skipDefaultCheckout", "timeout", "retry", "timestamps"})
CREDENTIALS = {
    "file": frozenset({"credentialsId", "variable"}),
    "string": frozenset({"credentialsId", "variable"}),
    "usernamePassword": frozenset({"credentialsId", "usernameVariable", "passwordVariable"}),
    "sshUserPrivateKey": frozenset({"credentialsId", "keyFileVariable"}),
}
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART = re.compile(r"(?:\*|H(?:\((\d+)-(\d+)\))?|(\d+)(?:-(\d+))?)(?:/(\d+))?")


@dataclass(frozen=True, order=True)
class Finding:
    """Something that Jenkins would refuse, or that leaks a secret."""

    line: int
    message: str


def lint(source: str) -> list[Finding]:
    """What is wrong with a Jenkinsfile, in the order of its lines; nothing where all is well."""
    try:
        calls = parse(source)
    except SyntaxProblem as problem:
        return [Finding(problem.line, str(problem))]
    if [call.name for call in calls] != ["pipeline"] or calls[0].body is None:
        return [Finding(1, "a declarative Jenkinsfile is one pipeline block")]
    return sorted(set(_pipeline(calls[0])))


def _pipeline(pipeline: Call) -> Iterator[Finding]:
    yield from _sections(pipeline, PIPELINE, required=("agent", "stages"))
    for section in pipeline.body or ():
        yield from _section(section, options=OPTIONS.keys())
    names = Counter(call.first_text("name") for call in pipeline.walk() if call.name == "stage")
    for name, count in names.items():
        if count > 1:
            yield Finding(pipeline.line, f"{count} stages of the name {name!r}")


def _sections(block: Call, known: Collection[str], required: Collection[str] = ()) -> Iterator[Finding]:
    names = Counter(section.name for section in block.body or ())
    for section in block.body or ():
        if section.name not in known:
            yield Finding(section.line, f"{block.name}: unknown section {section.name!r}")
        elif names[section.name] > 1:
            yield Finding(section.line, f"{block.name}: more than one {section.name}")
        elif section.body == []:
            yield Finding(section.line, f"{section.name}: empty")
    for name in required:
        if name not in names:
            yield Finding(block.line, f"{block.name}: no {name}")


def _section(section: Call, *, options: Collection[str]) -> Iterator[Finding]:
    body = section.body or []
    if section.name == "agent":
        yield from _agent(section)
    elif section.name == "environment":
        yield from _environment(body)
    elif section.name == "options":
        yield from _known_calls(body, {name: OPTIONS[name] for name in options}, "option")
    elif section.name == "triggers":
        yield from _triggers(body)
    elif section.name in ("stages", "parallel"):
        for stage in body:
            yield from _stage(stage)
    elif section.name == "steps":
        yield from _steps(body)
    elif section.name == "post":
        yield from _sections(section, POST)
        for condition in body:
            yield from _steps(condition.body or [])


def _agent(agent: Call) -> Iterator[Finding]:
    if agent.body is None:
        if agent.positional not in ([Word("any")], [Word("none")]):
            yield Finding(agent.line, "agent: any, none, or a block")
        return
    yield from _sections(agent, AGENTS)


def _environment(assignments: list[Call]) -> Iterator[Finding]:
    for assignment in assignments:
        value = assignment.positional[0] if assignment.assigned else None
        credentials = isinstance(value, Call) and value.name == "credentials"
        if not isinstance(value, Text) and not credentials:
            yield Finding(assignment.line, f"environment: {assignment.name} is not NAME = 'value'")
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", assignment.name):
            yield Finding(assignment.line, f"environment: {assignment.name!r} is no variable's name")


def _triggers(triggers: list[Call]) -> Iterator[Finding]:
    for trigger in triggers:
        if trigger.name not in TRIGGERS:
            yield Finding(trigger.line, f"unknown trigger {trigger.name!r}")
        elif trigger.name != "upstream" and (fault := cron_fault(trigger.first_text("spec") or "")):
            yield Finding(trigger.line, f"{trigger.name}: {fault}")


def cron_fault(spec: str) -> str | None:
    """What is wrong with one line of Jenkins' cron syntax (five fields, with H for a hashed value)."""
    fields = spec.split()
    if spec in ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"):
        return None
    if len(fields) != len(_RANGES):
        return f"{spec!r} has {len(fields)} fields, not five"
    for text, (low, high) in zip(fields, _RANGES, strict=True):
        for part in text.split(","):
            match = _CRON_PART.fullmatch(part)
            numbers = [int(group) for group in match.groups()[:4] if group] if match else []
            if not match or numbers != sorted(numbers) or any(not low <= n <= high for n in numbers):
                return f"{part!r} is not within {low} to {high}"
    return None


def _stage(stage: Call) -> Iterator[Finding]:
    if stage.name != "stage" or not stage.first_text("name") or stage.body is None:
        yield Finding(stage.line, "stages hold stage('name') { … } and nothing else")
        return
    yield from _sections(stage, STAGE)
    contents = [section.name for section in stage.body if section.name in STAGE_CONTENTS]
    if len(contents) != 1:
        yield Finding(
            stage.line, f"stage {stage.first_text('name')!r}: needs steps, stages, parallel or matrix, once"
        )
    for section in stage.body:
        yield from _section(section, options=STAGE_OPTIONS)


def _steps(steps: list[Call]) -> Iterator[Finding]:
    yield from _known_calls(steps, STEPS, "step")
    for step in steps:
        if step.name == "withCredentials":
            yield from _credentials(step)
        if step.name == "sh" and any(
            isinstance(value, Text) and value.interpolates
            for value in (*step.positional, *step.named.values())
        ):
            yield Finding(step.line, "sh: Groovy would put values into the script; use single quotes")
        yield from _steps(step.body or [])


def _known_calls(calls: list[Call], known: dict[str, Step], what: str) -> Iterator[Finding]:
    for call in calls:
        if call.name not in known:
            yield Finding(call.line, f"unknown {what} {call.name!r}")
            continue
        yield from _arguments(call, known[call.name])
        if call.name == "timeout":
            yield from _timeout(call)


def _arguments(call: Call, step: Step) -> Iterator[Finding]:
    given = set(call.named)
    if call.positional and len(call.positional) == 1 and step.only and not given:
        given = {step.only}
    elif call.positional:
        yield Finding(call.line, f"{call.name}: takes named arguments")
    for name in sorted(given - step.required - step.optional):
        yield Finding(call.line, f"{call.name}: unknown argument {name!r}")
    for name in sorted(step.required - given):
        yield Finding(call.line, f"{call.name}: needs {name}")
    if step.body != (call.body is not None):
        yield Finding(call.line, f"{call.name}: {'needs a' if step.body else 'takes no'} block")
    elif call.body == []:
        yield Finding(call.line, f"{call.name}: empty")


def _timeout(call: Call) -> Iterator[Finding]:
    time: Value | None = call.named.get("time", call.positional[0] if call.positional else None)
    if not isinstance(time, Word) or not time.value.isdigit() or time.value == "0":
        yield Finding(call.line, "timeout: time is a whole number above 0")
    unit = call.named.get("unit")
    if unit is not None and (not isinstance(unit, Text) or unit.value not in UNITS):
        yield Finding(call.line, f"timeout: unit is one of {', '.join(sorted(UNITS))}")


def _credentials(step: Call) -> Iterator[Finding]:
    bindings = step.positional[0] if step.positional else step.named.get("bindings")
    if not isinstance(bindings, list) or not bindings:
        yield Finding(step.line, "withCredentials: takes a list of bindings")
        return
    for binding in bindings:
        if not isinstance(binding, Call) or binding.name not in CREDENTIALS:
            yield Finding(step.line, "withCredentials: unknown binding")
        elif missing := CREDENTIALS[binding.name] - set(binding.named):
            yield Finding(binding.line, f"{binding.name}: needs {', '.join(sorted(missing))}")
