"""Runs on disk: each has a folder with its logs, report.json and junit.xml; old ones are forgotten."""

from __future__ import annotations

import contextlib
import fcntl
import re
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backport import __version__
from backport.artifacts import BY_HAND, Check
from backport.errors import (
    BackportError,
    BuildRootError,
    Ending,
    FetchError,
    HostError,
    Interrupted,
    PatchError,
    PublishError,
    SelfTestError,
    SignError,
    ToolError,
    from_os,
)
from backport.files import Hold, is_abandoned, remove_tree, write_atomically
from backport.runs.job import Job, Stage
from backport.runs.report import (
    Failure,
    RunReport,
    StageReport,
    Status,
    changes,
    from_json,
    run_id,
    to_json,
    to_junit,
)
from backport.signing.agent import end_unused_agent
from backport.site import Site

REPORT = "report.json"
"""Where in a run's folder its report is; without one, the run goes on or was killed."""
KEPT_RUNS = 100
"""How many runs' folders are kept; the oldest go first."""
TRACEBACK = "traceback.log"
"""Where in a run's folder it is told how a failure came about."""
_KEPT_NAMES = ("report.json", "junit.xml", "transcript.txt")
_KINDS: Mapping[Stage, type[BackportError]] = {
    Stage.RESOLVE: HostError,
    Stage.FETCH: FetchError,
    Stage.PATCH: PatchError,
    Stage.BUILD: BuildRootError,
    Stage.SIGN: SignError,
    Stage.SELF_TEST: SelfTestError,
    Stage.GATES: PublishError,
    Stage.PUBLISH: PublishError,
}
"""What it is to a stage when a tool fails, or the system refuses something, such as room on a disk."""


_SCRATCH = {
    Path(tempfile.gettempdir()): r"backport-(gnupg|keyring|keys|verify)-\w{8}",
}
_CACHE_SCRATCH = {
    "": r"\.diff-\w{8}",
    "built": r"\.new-\w{8}",
    "sources": r"(keys|splice)-\w{8}",
    "stock/*": r"(keys|repomd|filtered)-\w{8}",
}


class Recorder:
    """Writes down a run while it happens, so that a report exists however the run ends.

    ``replay`` is the command that does the run again. Raises HostError where nothing can be written to
    ``runs``.
    """

    def __init__(self, job: Job, *, runs: Path, replay: tuple[str, ...] = ()) -> None:
        self.started = datetime.now(UTC)
        self.id = run_id(self.started, job.name, job.target.name)
        self.folder = runs / self.id
        self.report = RunReport(
            run=self.id, recipe=job.name, target=job.target.name, builder=job.site.builder,
            tool_version=__version__, started=self.started, seconds=0.0, outcome="published", key="",
            inputs={}, changed=(), stages=(), folder=str(self.folder),
        )  # fmt: skip
        self._replay = replay
        self._clock = time.monotonic()
        self._current = Stage.RESOLVE
        try:
            runs.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(dir=runs, prefix=".making-"))
            making.chmod(0o755)
            self._hold = Hold(making, self.folder)
        except OSError as problem:
            raise from_os(problem).of(HostError) from problem

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> Iterator[dict[str, Any]]:
        """Time a stage; what is put into the given mapping becomes its details in the report.

        What a tool fails at meanwhile, or the system refuses, is raised as the stage's own failure.
        """
        self._current = stage
        details: dict[str, Any] = {}
        started = time.monotonic()
        status: Status = "failed"
        try:
            yield details
            status = "done"
        except OSError as problem:
            raise from_os(problem).of(_KINDS[stage]) from problem
        except ToolError as problem:
            raise problem.of(_KINDS[stage]) from problem
        finally:
            seconds = round(time.monotonic() - started, 3)
            ended = StageReport(name=stage, seconds=seconds, status=status, details=details)
            self.note(stages=(*self.report.stages, ended))

    def workspace(self, *parts: str) -> Path:
        """A folder of this run for a stage to write to."""
        folder = self.folder.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def inputs_are(self, inputs: dict[str, str], key: str, before: RunReport | None) -> None:
        """Note what decides the result, and how it differs from the run before."""
        changed = changes(before.inputs, inputs) if before else ("there is no earlier run",)
        self.note(key=key, inputs=inputs, changed=changed)

    def examined(self, checks: tuple[Check, ...], headline: tuple[str, ...] = ()) -> None:
        """Note what checks came to, behind those that are noted already."""
        self.note(checks=self.report.checks + checks, headline=self.report.headline + headline)

    def note(self, **facts: Any) -> None:
        """Put facts into the report, by the names of its fields."""
        self.report = replace(self.report, **facts)

    def finish(self, problem: BaseException | None = None) -> RunReport:
        """Drop everything but logs, write report.json and junit.xml, and return the report.

        ``problem`` is what ended the run before its time: a failure, an interruption or, told as an error of
        the tool's own, anything else.
        """
        ending = None if problem is None else self._as_ending(problem)
        self.note(seconds=round(time.monotonic() - self._clock, 3))
        if ending:
            outcome = "interrupted" if isinstance(ending, Interrupted) else "failed"
            self.note(outcome=outcome, failure=self._failure(ending))
        report = self.report
        try:
            with contextlib.closing(self._hold):
                self._write(report, problem)
        except OSError as refused:
            unwritten = report.failure or self._failure(from_os(refused).of(HostError))
            return replace(report, failure=unwritten)
        return report

    def _write(self, report: RunReport, problem: BaseException | None) -> None:
        # First of all, since it makes room where a full disk was what ended the run.
        _tidy(self.folder)
        write_atomically(self.folder / REPORT, to_json(report))
        write_atomically(self.folder / "junit.xml", to_junit(report))
        if problem is not None:
            write_atomically(self.folder / TRACEBACK, "".join(traceback.format_exception(problem)))

    def _as_ending(self, problem: BaseException) -> Ending:
        if isinstance(problem, Ending):
            return problem
        if isinstance(problem, OSError):
            return from_os(problem).of(HostError)
        what = f"unexpected {type(problem).__name__}: {problem}"
        if not isinstance(problem, Exception):
            return Interrupted(what)
        hint = "this is an error of backport's own: tell its developers, with the log"
        return BackportError(what, hint=hint, log=self.folder / TRACEBACK)

    def _failure(self, ending: Ending) -> Failure:
        return Failure(
            stage=self._current,
            kind=ending.kind,
            message=ending.message,
            hint=ending.hint,
            command=ending.command,
            log=str(ending.log) if ending.log else None,
            exit_code=ending.exit_code,
            sandboxed=ending.sandboxed,
            replay=self._replay or None,
            evidence=ending.evidence,
        )


def is_going_on(runs: Path, name: str) -> bool:
    """Whether a process holds the lock of a run's recipe and target. Raises OSError."""
    guard = runs / f".{name.partition('Z-')[2]}.lock"
    if not guard.is_file():
        return False
    with guard.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def past_runs(runs: Path) -> Iterator[RunReport]:
    """The reports of past runs, newest first; a folder without a readable report is passed over."""
    for folder in sorted(runs.glob("*Z-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            yield from_json((folder / REPORT).read_text())


def last_run(runs: Path, recipe: str, target: str) -> RunReport | None:
    """The newest run of a recipe for a target that got as far as knowing its inputs."""
    mine = (report for report in past_runs(runs) if (report.recipe, report.target) == (recipe, target))
    return next((report for report in mine if report.inputs), None)


def forget_old_runs(runs: Path, keep: int = KEPT_RUNS) -> None:
    """Remove the folders of all but the newest runs."""
    for folder in sorted(runs.glob("*Z-*"), reverse=True)[keep:]:
        # Another run may be about the same.
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder)


def remove_leftovers(site: Site) -> tuple[str, ...]:
    """Remove folders of runs without a report, temporary keyrings and half-made parts of the cache, each
    where the process that made it has ended, and end gpg's agent of the signing key where such a process left
    it; what that was, paths for the most part. Roots and half-made generations are their own users' matter.
    Raises SignError, OSError."""
    gone = []
    for folder in _candidates(site):
        if is_abandoned(folder):
            # What cannot be removed is in nobody's way; another may be about the same.
            with contextlib.suppress(OSError):
                remove_tree(folder)
                gone.append(str(folder))
    home = site.signing.gnupghome
    if end_unused_agent(home):
        gone.append(f"gpg's agent of {home}")
    return tuple(gone)


def _candidates(site: Site) -> Iterator[Path]:
    cache = site.paths.cache
    for folder in sorted(cache.glob("runs/*Z-*")):
        if not (folder / REPORT).exists():
            yield folder
    places = {parent: pattern for name, pattern in _CACHE_SCRATCH.items() for parent in _places(cache, name)}
    for parent, pattern in {**_SCRATCH, **places}.items():
        yield from (path for path in sorted(parent.glob("*-*")) if re.fullmatch(pattern, path.name))


def _places(cache: Path, pattern: str) -> Iterator[Path]:
    return cache.glob(pattern) if pattern else iter((cache,))


def _tidy(folder: Path) -> None:
    """Leave only what people read: package files and unpacked sources are kept elsewhere or not at all."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif BY_HAND in path.relative_to(folder).parts and not path.is_symlink():
            continue
        elif path.is_symlink() or not (path.suffix == ".log" or path.name in _KEPT_NAMES):
            path.unlink()
