"""The order of the stages, and nothing else: each line hands one artifact to the next stage."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backport import publish, repodata, selftest, sign, sources, srpm
from backport.artifacts import BuiltRpms, PatchedSrpm, PublishedRepo, SignedRpms, SourceRpm, TestedRpms
from backport.builders import Builder, choose_builder
from backport.errors import BackportError, BuildRootLocked, Interrupted
from backport.files import locked, scratch_folder
from backport.history import Recorder, forget_old_runs, last_run
from backport.job import Job, Stage, package_inputs, settings_inputs
from backport.lock import check_lock
from backport.order import Node, build_order
from backport.progress import Progress
from backport.report import RunReport
from backport.results import ResultStore, key_of
from backport.sources import ResolvedBuild


class _Enough(Exception):
    """The stage after which the run was asked to stop is done."""


class _Unchanged(Exception):
    """The same inputs are published already."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What every stage of one run shares."""

    job: Job
    builder: Builder
    signing_key: str
    record: Recorder
    progress: Progress
    until: Stage
    force: bool

    @property
    def cache(self) -> Path:
        return self.job.site.paths.cache


def build(job: Job, *, until: Stage, force: bool, progress: Progress) -> RunReport:
    """Carry the recipe's packages over to the target, up to and with the stage ``until``.

    A report is written whatever happens; a failure is in it, not raised. Raises BackportError only
    for what keeps a run from starting.
    """
    runs = job.site.paths.cache / "runs"
    builder = choose_builder(job.site.builder, target=job.target, cache=job.site.paths.cache)
    signing_key = sign.show_key(job.site.signing).fingerprint
    busy = f"{job.name} for {job.target.name} is being built already"
    with locked(runs / f".{job.name}-{job.target.name}.lock", timeout=0, error=BuildRootLocked, what=busy):
        record = Recorder(job, runs=runs, builder=builder.name, progress=progress)
        run = _Run(
            job=job,
            builder=builder,
            signing_key=signing_key,
            record=record,
            progress=progress,
            until=until,
            force=force,
        )
        report = _recorded(run)
        forget_old_runs(runs)
    return report


def _recorded(run: _Run) -> RunReport:
    try:
        _carry_over(run)
    except _Enough:
        return run.record.finish("stopped")
    except _Unchanged:
        return run.record.finish("unchanged")
    except BackportError as problem:
        return run.record.finish("failed", problem)
    except BaseException:
        run.record.finish("failed", Interrupted("the run was ended by an unexpected error"))
        raise
    return run.record.finish("published")


def _carry_over(run: _Run) -> None:
    builds = resolve(run)
    originals = fetch(run, builds)
    patched = patch(run, builds, originals)
    built = build_all(run, patched)
    signed = sign_all(run, built)
    tested = self_test(run, signed)
    publish_all(run, tested)
