import json
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from backport.artifacts import Check, Verdict
from backport.runs.report import (
    Failure,
    Outcome,
    RunReport,
    StageReport,
    changes,
    failure_text,
    from_json,
    run_id,
    tally,
    to_json,
    to_junit,
    to_text,
)

CHECKS = (
    Check(id="after.protocol", title="Protocol", verdict=Verdict.PASS, expected="TLSv1.3", found="TLSv1.3"),
    Check(
        id="after.cipher",
        title="Suite",
        verdict=Verdict.FAIL,
        expected="TLS_AES_256_GCM_SHA384",
        found="TLS_AES_128_GCM_SHA256",
        advice="Set Ciphersuites.",
        evidence="\x1b[31m<red>",
    ),
    Check(id="library.maps", title="Maps", verdict=Verdict.SKIPPED, advice="Exim did not start"),
    Check(id="after.ocsp", title="OCSP", verdict=Verdict.WARN, found="expires soon"),
    Check(id="after.chain", title="Chain", verdict=Verdict.ERROR, found="no answer"),
)
FAILURE = Failure(
    stage="self-test",
    kind="self-test",
    message="1 check failed: after.cipher",
    hint="look at the evidence",
    command=("openssl", "s_client", "-brief"),
    sandboxed=True,
    replay=("backport", "build", "open ssl"),
    log="/var/log/x.log",
    exit_code=7,
)
REPORT = RunReport(
    run="20181201T020304.000005Z-openssl-f28",
    recipe="openssl",
    target="f28",
    builder="chroot",
    tool_version="1",
    started=datetime(2018, 12, 1, 2, 3, 4, 5, tzinfo=UTC),
    seconds=12.5,
    outcome="failed",
    key="k",
    inputs={"target": "t"},
    changed=("target changed: s → t",),
    stages=(
        StageReport(name="fetch", seconds=1.5, status="done", details={"files": ["a"]}),
        StageReport(name="self-test", seconds=3, status="failed"),
    ),
    checks=CHECKS,
    headline=("before: TLSv1.2", "after: TLSv1.3"),
    folder="/runs/x",
    failure=FAILURE,
)


def test_a_report_survives_its_json() -> None:
    assert from_json(to_json(REPORT)) == REPORT


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', to_json(REPORT).replace('"pass"', '"fine"')]
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(text)


def test_junit_has_a_case_for_every_stage_and_check() -> None:
    suites = ET.fromstring(to_junit(REPORT))
    cases = {case.get("name"): case for case in suites.iter("testcase")}
    assert list(cases) == ["fetch", "self-test", *(check.id for check in CHECKS)]
    assert [child.tag for child in cases["after.cipher"]] == ["failure"]
    assert [child.tag for child in cases["library.maps"]] == ["skipped"]
    assert [child.tag for child in cases["after.chain"]] == ["error"]
    assert list(cases["after.protocol"]) == []
    checks = suites[1]
    counted = [checks.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counted == ["5", "1", "1", "1"]


def test_junit_carries_hostile_text_as_text() -> None:
    failure = ET.fromstring(to_junit(REPORT)).find(".//testcase[@name='after.cipher']/failure")
    assert failure is not None
    assert failure.text is not None
    assert "<red>" in failure.text
    assert "\x1b" not in failure.text


def test_a_failure_between_the_stages_is_in_junit_too() -> None:
    report = replace(REPORT, stages=REPORT.stages[:1], checks=())
    assert ET.fromstring(to_junit(report)).find(".//testcase[@name='self-test']/error") is not None


def test_a_failure_tells_stage_hint_command_and_log() -> None:
    assert list(failure_text(FAILURE)) == [
        "self-test: 1 check failed: after.cipher",
        "hint: look at the evidence",
        "command: backport build 'open ssl'",
        "failed inside the root's sandbox: openssl s_client -brief",
        "log: /var/log/x.log",
    ]


def test_a_failures_evidence_is_whole_in_the_reports_and_short_on_a_terminal() -> None:
    failure = replace(FAILURE, evidence=tuple(f"line {number}" for number in range(30)))
    report = replace(REPORT, failure=failure)
    assert from_json(to_json(report)).failure == failure
    cases = ET.fromstring(to_junit(report)).iter("failure")
    assert any(str(case.text).endswith("line 28\nline 29") for case in cases)
    assert [line for line in failure_text(failure) if "line" in line] == [
        f"  | line {number}" for number in range(10)
    ]


def test_the_exit_code_is_the_failures() -> None:
    assert REPORT.exit_code == 7
    assert replace(REPORT, failure=None).exit_code == 0


def test_the_summary_shows_both_handshakes_and_the_repository() -> None:
    lines = list(to_text(replace(REPORT, repository="/srv/f28", generation="g1")))
    assert lines == [
        "before: TLSv1.2",
        "after: TLSv1.3",
        "checks: 1 pass, 1 fail, 1 warn, 1 skipped, 1 error",
        "repository: /srv/f28",
        "generation: g1",
    ]


def test_an_unchanged_run_says_so() -> None:
    lines = list(to_text(replace(REPORT, outcome="unchanged", checks=(), headline=())))
    assert lines == ["openssl for f28: nothing to do, the same inputs are published already"]


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        ("stopped", "openssl for f28: stopped after fetch, as asked"),
        (
            "held",
            "openssl for f28: nothing to do, what these inputs gave was rolled back; --force publishes it",
        ),
    ],
)
def test_a_run_that_published_nothing_says_why(outcome: Outcome, line: str) -> None:
    report = replace(REPORT, outcome=outcome, stages=REPORT.stages[:1], checks=(), headline=(), failure=None)
    assert list(to_text(report)) == [line]


def test_a_report_from_before_failures_had_a_command_to_replay_is_read() -> None:
    document = json.loads(to_json(REPORT))
    del document["failure"]["replay"], document["failure"]["sandboxed"]
    failure = from_json(json.dumps(document)).failure
    assert failure == replace(FAILURE, replay=None, sandboxed=False)


def test_changes_name_what_is_new_gone_and_different() -> None:
    assert changes({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "4"}) == (
        "b changed: 1 → 2",
        "d is new: 4",
        "c is gone: was 1",
    )


def test_run_ids_sort_by_time() -> None:
    early = run_id(datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "openssl", "f28")
    late = run_id(datetime(2026, 1, 2, 3, 4, 6, 0, tzinfo=UTC), "exim", "f28")
    assert early < late


def test_no_checks_are_counted_as_none() -> None:
    assert tally(()) == "none"
