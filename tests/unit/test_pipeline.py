"""However a run ends, there is a report of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from backport import pipeline
from backport.errors import BUSY, FetchError, HostError, Interrupted
from backport.files import locked
from backport.progress import Silent
from backport.runs.history import past_runs
from backport.runs.job import Job, load_job
from backport.runs.report import RunReport

REPLAY = ("backport", "build", "openssl", "--target", "f28")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    site = tmp_path / "backport.toml"
    site.write_text('[paths]\ncache = "cache"\nrepository = "repository"\n')
    return load_job("openssl", "f28", site)


def failing(problem: BaseException) -> Any:
    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise problem

    return fail


def build(job: Job) -> RunReport:
    """Run, and see that the report is on disk and nothing was published."""
    report = pipeline.build(job, pipeline.Options(replay=REPLAY), Silent())
    runs = job.site.paths.cache / "runs"
    assert list(past_runs(runs)) == [report]
    assert (runs / report.run / "junit.xml").is_file()
    assert not job.site.paths.repository.exists()
    assert report.failure is not None
    assert report.failure.replay == REPLAY
    return report


def test_a_host_that_lacks_something_is_reported(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "choose_builder", failing(HostError("mock is not installed")))
    report = build(job)
    assert (report.outcome, report.exit_code, report.builder) == ("failed", 9, "auto")


def test_a_run_beside_another_of_its_kind_is_reported(job: Job) -> None:
    guard = job.site.paths.cache / "runs" / ".openssl-f28.lock"
    with locked(guard, timeout=0, what="the test"):
        report = build(job)
    assert (report.outcome, report.exit_code) == ("failed", BUSY)
    assert "another process" in (report.failure.message if report.failure else "")


@pytest.mark.parametrize(
    ("problem", "outcome", "code"),
    [
        (FetchError("the hub is down"), "failed", 3),
        (PermissionError(13, "Permission denied", "/srv/x"), "failed", 9),
        (ZeroDivisionError(), "failed", 1),
        (Interrupted("interrupted by SIGINT"), "interrupted", 130),
    ],
)
def test_whatever_ends_a_stage_is_reported(
    job: Job, monkeypatch: pytest.MonkeyPatch, problem: BaseException, outcome: str, code: int
) -> None:
    monkeypatch.setattr(
        pipeline, "choose_builder", lambda *_, **__: type("Mute", (), {"name": "mock", "identity": "mock"})
    )
    monkeypatch.setattr(pipeline, "resolve_job", failing(problem))
    report = build(job)
    assert (report.outcome, report.exit_code, report.builder) == (outcome, code, "mock")
    assert [(stage.name, stage.status) for stage in report.stages] == [("resolve", "failed")]


def test_what_ends_python_itself_is_reported_and_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "choose_builder", failing(SystemExit(3)))
    with pytest.raises(SystemExit):
        build(job)
    (report,) = past_runs(job.site.paths.cache / "runs")
    assert report.outcome == "interrupted"
