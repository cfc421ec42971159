import json
from pathlib import Path

import pytest

from backport.artifacts import Check, Verdict
from backport.errors import BackportError, BuildError, HostError, Interrupted
from backport.runs.history import Recorder, forget_old_runs, last_run, past_runs
from backport.runs.job import Stage, load_job

REPLAY = ("backport", "build", "openssl", "--target", "f28")


def recorder(tmp_path: Path) -> Recorder:
    site = tmp_path / "backport.toml"
    site.write_text("")
    return Recorder(load_job("openssl", "f28", site), runs=tmp_path / "runs", replay=REPLAY)


def test_a_finished_run_is_found_in_the_history(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with record.stage(Stage.FETCH) as details:
        details["files"] = 2
    record.inputs_are({"target": "t"}, "key", None)
    report = record.finish()
    assert list(past_runs(tmp_path / "runs")) == [report]
    assert last_run(tmp_path / "runs", "openssl", "f28") == report
    assert report.changed == ("there is no earlier run",)
    assert report.stages[0].details == {"files": 2}


def test_a_failed_stage_is_told_with_everything_to_act_on(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    log = record.workspace("build") / "build.log"
    problem = BuildError("openssl failed", hint="read the log", command=("rpmbuild", "x"), log=log)
    with pytest.raises(BuildError), record.stage(Stage.BUILD):
        raise problem
    failure = record.finish(problem).failure
    assert failure is not None
    assert (failure.stage, failure.exit_code, failure.log) == ("build", 5, str(log))
    assert (failure.command, failure.replay) == (("rpmbuild", "x"), REPLAY)
    assert "raise problem\n" in (record.folder / "traceback.log").read_text()


def test_an_interruption_is_no_failure_of_the_package(tmp_path: Path) -> None:
    report = recorder(tmp_path).finish(Interrupted("interrupted by SIGINT"))
    assert (report.outcome, report.exit_code) == ("interrupted", 130)


def test_a_run_that_nothing_stopped_has_the_outcome_that_its_stages_gave_it(tmp_path: Path) -> None:
    assert recorder(tmp_path).finish().outcome == "published"
    record = recorder(tmp_path)
    record.note(outcome="unchanged")
    assert record.finish().outcome == "unchanged"


def test_checks_of_several_stages_add_up(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.examined((Check(id="a", title="A", verdict=Verdict.PASS),), ("before: TLSv1.2",))
    record.examined((Check(id="b", title="B", verdict=Verdict.PASS),))
    report = record.finish()
    assert [check.id for check in report.checks] == ["a", "b"]
    assert report.headline == ("before: TLSv1.2",)


def test_only_logs_and_reports_stay(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    build = record.workspace("build", "openssl")
    (build / "build.log").write_text("kept")
    (build / "openssl.rpm").write_text("gone")
    (build / "link").symlink_to("/etc/passwd")
    (record.workspace("patch") / "openssl.spec").write_text("gone")
    record.finish()
    left = sorted(str(path.relative_to(record.folder)) for path in record.folder.rglob("*") if path.is_file())
    assert left == ["build/openssl/build.log", "junit.xml", "report.json"]
    assert not (record.folder / "patch").exists()


def test_the_newest_run_with_inputs_counts(tmp_path: Path) -> None:
    first = recorder(tmp_path)
    first.inputs_are({"a": "1"}, "k1", None)
    before = first.finish()
    recorder(tmp_path).finish(BuildError("early"))
    assert last_run(tmp_path / "runs", "openssl", "f28") == before
    second = recorder(tmp_path)
    second.inputs_are({"a": "2"}, "k2", before)
    assert second.finish().changed == ("a changed: 1 → 2",)


def test_unreadable_runs_are_passed_over_and_old_ones_forgotten(tmp_path: Path) -> None:
    reports = [recorder(tmp_path).finish() for _ in range(3)]
    (Path(reports[2].folder) / "report.json").write_text("{")
    assert [report.run for report in past_runs(tmp_path / "runs")] == [reports[1].run, reports[0].run]
    forget_old_runs(tmp_path / "runs", keep=1)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [reports[2].run]


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        (Stage.RESOLVE, 9), (Stage.FETCH, 3), (Stage.PATCH, 4), (Stage.BUILD, 5), (Stage.SIGN, 6),
        (Stage.SELF_TEST, 7), (Stage.GATES, 8), (Stage.PUBLISH, 8),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_the_stages_own_failure(tmp_path: Path, stage: Stage, code: int) -> None:
    record = recorder(tmp_path)
    with pytest.raises(BackportError) as caught, record.stage(stage):
        raise OSError(28, "No space left on device", "/srv/x")
    report = record.finish(caught.value)
    assert report.failure is not None
    assert (report.outcome, report.exit_code, report.failure.stage) == ("failed", code, stage)
    assert report.failure.message == "/srv/x: No space left on device"
    assert "make room" in str(report.failure.hint)
    assert report.stages[-1].status == "failed"


def test_an_error_of_the_tools_own_is_a_failure_with_its_traceback(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with pytest.raises(ZeroDivisionError) as caught, record.stage(Stage.SIGN):
        raise ZeroDivisionError("division by zero")
    report = record.finish(caught.value)
    assert report.failure is not None
    assert (report.outcome, report.exit_code, report.failure.stage) == ("failed", 1, "sign")
    assert report.failure.message == "unexpected ZeroDivisionError: division by zero"
    assert report.failure.log == str(record.folder / "traceback.log")
    assert "raise ZeroDivisionError" in Path(report.failure.log).read_text()


def test_what_is_no_error_at_all_interrupts(tmp_path: Path) -> None:
    report = recorder(tmp_path).finish(KeyboardInterrupt())
    assert (report.outcome, report.exit_code) == ("interrupted", 130)


def test_without_a_folder_for_runs_there_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(HostError, match=r"/runs: File exists"):
        recorder(tmp_path)


def test_room_is_made_before_the_report_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = recorder(tmp_path)
    package = record.workspace("build") / "openssl.rpm"
    package.write_text("large")

    def write(path: Path, content: str) -> None:
        assert not package.exists()
        path.write_text(content)

    monkeypatch.setattr("backport.runs.history.write_atomically", write)
    record.finish(BuildError("the disk is full"))
    assert json.loads((record.folder / "report.json").read_text())["outcome"] == "failed"


def test_a_report_that_cannot_be_written_is_still_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _content: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("backport.runs.history.write_atomically", refuse)
    report = recorder(tmp_path).finish()
    assert (report.outcome, report.exit_code) == ("published", 9)
    assert report.failure is not None
    assert report.failure.message.endswith("report.json: No space left on device")
    assert recorder(tmp_path).finish(BuildError("first")).exit_code == 5
