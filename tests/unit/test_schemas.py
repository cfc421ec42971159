import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import ValidationError
from typer.testing import CliRunner

from backport.artifacts import Check, Nevra, Verdict
from backport.commands import app
from backport.commands.schemas import print_as
from backport.evidence.why import Explanation
from backport.plan import Finding, Plan, PlannedPackage
from backport.repository.generations import Generation
from backport.repository.listing import Difference, Listed
from backport.repository.rollback import Moved
from backport.repository.surroundings import Fault
from backport.repository.verification import Verified
from backport.repository.withdraw import Withdrawn
from backport.runs.report import Failure, RunReport, StageReport, from_json, to_json
from backport.signing.key import KeyInfo
from backport.sources.offers import Found
from tests.conformity import check_document

AT = datetime(2026, 11, 24, 4, 10, 0, 5, tzinfo=UTC)
CHECK = Check(id="a.b", title="t", verdict=Verdict.PASS)
PLAN = Plan(
    packages=(
        PlannedPackage(name="a", source="a-1-1.src", suffix=".bp1", patches=("p",), edits=1, check=True),
    ),
    builder="chroot", published=False, held=False, reasons=("r",),
    findings=(Finding(kind="problem", message="m", exit_code=4),),
)  # fmt: skip
RECORD = Generation(
    id="g", time=AT, previous=None, compression="gz", fingerprint="F" * 40, run="r", superseded={"x": AT}
)
PACKAGES = [
    {
        "path": "x86_64/a.rpm", "nevra": str(Nevra.from_nvr("a-1-1")), "sha256": "0" * 64,
        "source": "a-1-1.src.rpm",
    }
]  # fmt: skip
WHY = Explanation(
    path="p", nevra="n", sha256="s", signed_by="k", source="s", original="o", original_url="u",
    original_sha256="d", original_signed_by="k", patches={"p": "d"}, diff="\udcff", recipe="r", target="t",
    builder="b", buildroot=("x",), run="r", started="2026-11-24T04:10:00Z", finished="2026-11-24T04:11:00Z",
    level="2", not_met=(), checks=({"id": "a"},), result="pass",
)  # fmt: skip
REPORT = RunReport(
    run="r", recipe="a", target="f28", builder="chroot", tool_version="1", started=AT, seconds=1.5,
    outcome="failed", key="k", inputs={"a": "b"}, changed=("c",), checks=(CHECK,), folder="/f",
    stages=(StageReport(name="fetch", seconds=1.0, status="done", details={"at": AT, "of": [("a", 1)]}),),
    failure=Failure(
        stage="build", kind="BuildError", message="m", hint=None, command=("a",), log=None, exit_code=5
    ),
)  # fmt: skip
MOVED = Moved(folder="f", generation="g", before=None, held=("a",))
KEY = KeyInfo(fingerprint="F" * 40, user_id="a <a@b>", created=AT, expires=None, public_key="k")
PRINTED: list[tuple[str, Any]] = [
    ("plan", {**vars(PLAN), "exit_code": 4}),
    ("search", [Found(package="a", builds={"f29": "a-1-1"})]),
    ("search", []),
    ("keys-show", KEY),
    ("keys-show", replace(KEY, expires=AT)),
    ("doctor", [CHECK]),
    ("verify-provenance", (CHECK,)),
    (
        "repo-list",
        (Listed(id="g", time=AT, current=True, proven=True, packages=1, added=1, run="r"),),
    ),
    ("repo-diff", Difference(added=("a",), removed=(), changed=(), inputs=("i",))),
    (
        "repo-verify",
        Verified(
            folder="f",
            generations=("g",),
            files=1,
            bytes=2,
            faults=(Fault(path="p", detail="d"),),
            trusted="t",
        ),
    ),
    ("repo-add-to-host", {"lines": ("a",), "fingerprint": "F" * 40}),
    ("repo-show", {**vars(RECORD), "packages": PACKAGES}),
    ("repo-show", (WHY,)),
    ("repo-rollback", MOVED),
    ("repo-promote", MOVED),
    (
        "repo-withdraw",
        Withdrawn(
            folder="f", generation=None, before="b", packages=("p",), instead=(), advice="a", required=()
        ),
    ),
    ("repo-prune", ("a",)),
    ("repo-gc", ("a",)),
    ("repo-anchor", ("a",)),
]  # fmt: skip


@pytest.mark.parametrize(("command", "data"), PRINTED)
def test_what_is_printed_keeps_to_its_schema(
    capsys: pytest.CaptureFixture[str], command: str, data: object
) -> None:
    print_as(command, data)
    text = capsys.readouterr().out
    check_document(command, json.loads(text))
    assert "+00:00" not in text
    with pytest.raises(ValidationError):
        check_document(command, {"no": "such"})


@pytest.mark.parametrize("command", ["build", "log"])
def test_a_report_keeps_to_its_schema_and_is_read_again(command: str) -> None:
    text = to_json(REPORT)
    document = json.loads(text)
    check_document(command, document)
    assert document["started"] == document["stages"][0]["details"]["at"] == "2026-11-24T04:10:00.000005Z"
    assert next(iter(document)) == "format"
    assert to_json(from_json(text)) == text
    check_document("log", [document])
    with pytest.raises(ValidationError):
        check_document(command, {key: value for key, value in document.items() if key != "outcome"})


def test_the_schema_of_a_command_is_printed() -> None:
    printed = json.loads(CliRunner().invoke(app, ["schema", "plan"]).output)
    assert "exit_code" in printed["required"]
