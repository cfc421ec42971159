"""The order of the stages, and nothing else: each function hands one artifact to the next stage."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport import gates, selftest
from backport.artifacts import (
    BuiltRpms,
    Check,
    GatedRpms,
    Nevra,
    PatchedSrpm,
    Rpm,
    SignedRpms,
    SourceRpm,
    TestedRpms,
)
from backport.builders import Builder, BuildRequest, choose_builder
from backport.errors import BuildRootLocked, Interrupted, PublishError, as_kind
from backport.evidence.provenance import Origin
from backport.files import digest_of, locked, scratch_folder, write_atomically
from backport.prepare import (
    Resolved,
    fetch_all,
    held_sources,
    is_held,
    is_published,
    patch_all,
    resolve_job,
    source_data,
)
from backport.progress import Progress
from backport.repodata import compression_of, write_repodata
from backport.repository import proof
from backport.repository.advisories import make_advisory, stock_evrs
from backport.repository.channel import Channel, load_channel
from backport.repository.generations import Generation
from backport.repository.place import Place
from backport.repository.publish import Run, publish
from backport.repository.upkeep import keep_up
from backport.roots.root import Aftermath, Root, clean_root, place_to_keep
from backport.runs.history import Recorder, forget_old_runs, last_run, remove_leftovers
from backport.runs.job import Job, Stage, package_inputs
from backport.runs.report import RunReport
from backport.runs.results import ResultStore, key_of
from backport.seals import require_own
from backport.signing import sign


class _Enough(Exception):
    """The run need not go on: the last stage that was asked for is done, or all is published."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of a run besides its job."""

    until: Stage = Stage.PUBLISH
    """The last stage."""
    force: bool = False
    """Whether to build again what is unchanged, or was rolled back."""
    keep_root: bool = False
    """Whether the root of a failed build or self-test is kept, in the place of the recipe's last such."""
    shell: Aftermath | None = None
    """What gets that root while the run waits."""
    results: Path | None = None
    """A folder in which the built packages are left, as far as the run comes: signed or not."""
    replay: tuple[str, ...] = ()
    """The command that the report of a failure names to try again."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What every stage of one run shares."""

    job: Job
    options: Options
    builder: Builder
    record: Recorder
    progress: Progress
    on_failure: Aftermath | None

    @property
    def heeds_holds(self) -> bool:
        """Whether what was rolled back is not to be published again."""
        return not self.options.force and self.options.until is Stage.PUBLISH

    def workspace(self, *parts: str) -> Path:
        return self.record.workspace(*parts)

    def channel(self) -> Channel | None:
        """What clients see now."""
        job = self.job
        return load_channel(
            job.site.paths.repository, job.target, job.site.channel, signing=job.site.signing,
            keys=self.workspace("channel"),
        )  # fmt: skip

    def place(self) -> Place:
        """Where packages are published."""
        job, site = self.job, self.job.site
        return Place(
            repository=site.paths.repository, target=job.target, base_url=job.base_url,
            signing=site.signing, channel=site.channel, progress=self.progress,
        )  # fmt: skip

    def leave(self, rpms: Sequence[Rpm], *, signed: bool) -> None:
        """Leave packages in the folder that was asked for, in the place of those of the same names."""
        if (folder := self.options.results) is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for rpm in rpms:
            with scratch_folder(folder, ".arriving-") as scratch:
                copy = Path(shutil.copyfile(rpm.path, scratch / rpm.path.name))
                copy.replace(folder / copy.name)
        self.record.note(results=str(folder), results_signed=signed)

    def reached(self, stage: Stage) -> None:
        if stage is self.options.until:
            self.record.note(outcome="stopped")
            raise _Enough


def build(job: Job, options: Options, progress: Progress) -> RunReport:
    """Carry the job's packages over to the target, up to and with the last stage that is asked for.

    A failure is in the report, which is written whatever happens. Raises HostError only where no report can
    be written: the cache folder is refused, or others can write to it.
    """
    runs = _runs_folder(job)
    for folder in (job.site.paths.cache, runs):
        require_own(folder)
    record = Recorder(job, runs=runs, replay=options.replay)
    try:
        for left in remove_leftovers(job.site):
            progress.note(f"removed what a killed process had left: {left}")
        with _alone(job):
            on_failure = None
            if options.keep_root or options.shell:
                on_failure = functools.partial(_look_after, job, record, options)
            builder = choose_builder(job.site, job.target, on_failure=on_failure)
            record.note(builder=builder.name)
            compression_of(job.target.compression)
            run = _Run(
                job=job, options=options, builder=builder, record=record, progress=progress,
                on_failure=on_failure,
            )  # fmt: skip
            _carry_over(run)
    except _Enough:
        report = record.finish()
    except BaseException as problem:
        report = record.finish(problem)
        if not isinstance(problem, (Exception, Interrupted)):
            raise
    else:
        report = record.finish()
    forget_old_runs(runs)
    return report


@contextlib.contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Keep other runs of the recipe for the target from beginning."""
    guard = _runs_folder(job) / f".{job.name}-{job.target.name}.lock"
    busy = f"{job.name} is being built for {job.target.name}"
    with as_kind(BuildRootLocked), locked(guard, timeout=0, what=busy):
        yield


def _look_after(job: Job, record: Recorder, options: Options, root: Root) -> None:
    """Keep a root in which something failed, and let the person at the terminal look around in it."""
    if options.keep_root:
        root = root.keep(place_to_keep(job.site.paths.cache, job.name, job.target.name))
        record.note(kept_root=str(root.path), entrance=root.entrance())
    if options.shell:
        options.shell(root)


def _carry_over(run: _Run) -> None:
    resolved = _resolve(run)
    originals = _fetch(run, resolved)
    patched = _patch(run, originals)
    built = _build(run, patched, resolved)
    signed = _sign(run, built)
    tested = _self_test(run, signed)
    gated, beside = _gates(run, tested)
    _publish(run, gated, resolved, beside)


def _resolve(run: _Run) -> Resolved:
    source = run.job.source
    with run.record.stage(Stage.RESOLVE) as details:
        run.progress.note(f"asking the {source.name} about {', '.join(source.wanted(run.job.recipe))}")
        resolved = resolve_job(
            run.job, run.builder.identity, workspace=run.workspace("channel"), progress=run.progress
        )
        details["order"] = list(resolved.offers)
        before = last_run(_runs_folder(run.job), run.job.name, run.job.target.name)
        run.record.inputs_are(dict(resolved.inputs), resolved.key, before)
    if not run.options.force and is_published(run.job, resolved):
        _keep_up(run)
        run.record.note(outcome="unchanged")
        raise _Enough
    if run.heeds_holds and is_held(run.job, resolved):
        run.progress.note("clients were led back from what these inputs gave: nothing is published")
        _keep_up(run)
        run.record.note(outcome="held")
        raise _Enough
    return resolved


def _keep_up(run: _Run) -> None:
    """Nothing is to be published; what was may have been changed since, or the site was."""
    with run.record.stage(Stage.PUBLISH) as details:
        details["renewed"] = list(keep_up(run.place()))


def _fetch(run: _Run, resolved: Resolved) -> tuple[SourceRpm, ...]:
    with run.record.stage(Stage.FETCH) as details:
        originals = fetch_all(run.job, resolved.offers, run.progress)
        details["sources"] = [source_data(source) for source in originals]
    run.reached(Stage.FETCH)
    return originals


def _patch(run: _Run, originals: Sequence[SourceRpm]) -> tuple[PatchedSrpm, ...]:
    with run.record.stage(Stage.PATCH) as details:
        patched = patch_all(run.job, originals, run.workspace("patch"))
        details["packages"] = {
            str(one.source.rpm.nevra): {"sha256": one.sha256, "diff": one.diff} for one in patched
        }
    run.reached(Stage.PATCH)
    if run.heeds_holds and (names := held_sources(run.job, patched)):
        run.progress.note(f"clients were led back from this very {', '.join(names)}: nothing is built")
        run.record.note(outcome="held")
        raise _Enough
    return patched


def _build(run: _Run, patched: Sequence[PatchedSrpm], resolved: Resolved) -> tuple[BuiltRpms, ...]:
    site = run.job.site
    store = ResultStore(site.paths.cache / "built", key=site.signing.sealing_key, note=run.progress.note)
    candidates = run.workspace("candidates")
    built: list[BuiltRpms] = []
    newest: dict[str, Nevra] | None = None
    with run.record.stage(Stage.BUILD) as details:
        for one in patched:
            name = one.source.rpm.nevra.name
            earlier = [rpm for result in built for rpm in result.rpms]
            needs = resolved.needs[name]
            inputs = package_inputs(
                one,
                run.job.target,
                builder=run.builder.identity,
                candidates=earlier,
                published=needs.inputs(),
            )
            key = key_of(inputs)
            result = None if run.options.force else store.find(key, one)
            if result is None:
                if newest is None:
                    newest = _newest_of_target(run, patched)
                warned = run.job.recipe.gates.reason_to_warn(f"upgrade-path.{name}")
                limited = replace(one, above=newest.get(name), bounded=warned is None)
                run.progress.note(f"building {one.source.rpm.nevra} with {run.builder.name}")
                taken = [package.nevra for package in needs.published]
                request = BuildRequest(
                    patched=limited, workspace=run.workspace("build", name), progress=run.progress,
                    candidates=candidates if earlier else None,
                    published=resolved.channel.repository(only=taken) if resolved.channel and taken else None,
                )  # fmt: skip
                result = store.keep(key, run.builder.build(request))
            else:
                run.progress.note(f"{name} was built before from the same inputs")
            built.append(result)
            run.leave((result.srpm, *result.rpms), signed=False)
            _offer(result.rpms, candidates, run.job)
            details[name] = [{"nevra": str(rpm.nevra), "sha256": rpm.sha256} for rpm in result.rpms]
    run.reached(Stage.BUILD)
    return tuple(built)


def _newest_of_target(run: _Run, patched: Sequence[PatchedSrpm]) -> dict[str, Nevra]:
    """What the target has of the packages that are built, by name."""
    names = [one.source.rpm.nevra.name for one in patched]
    return gates.newest_of_target(
        run.job.target, names, cache=run.job.site.paths.cache, progress=run.progress
    )


def _sign(run: _Run, built: Sequence[BuiltRpms]) -> SignedRpms:
    job = run.job
    with run.record.stage(Stage.SIGN) as details:
        run.progress.note(f"signing {sum(len(one.rpms) + 1 for one in built)} packages")
        signed = sign.sign(
            built, signing=job.site.signing, target=job.target, workspace=run.workspace("sign")
        )
        with clean_root(job.target, cache=job.site.paths.cache, workspace=run.workspace("sign")) as root:
            sign.verify_in_root(root, (*signed.srpms, *signed.rpms), signed.public_key)
        run.leave((*signed.srpms, *signed.rpms), signed=True)
        details["key"] = signed.fingerprint
        details["packages"] = [
            {"nevra": str(rpm.nevra), "sha256": rpm.sha256} for rpm in (*signed.srpms, *signed.rpms)
        ]
    run.reached(Stage.SIGN)
    return signed


def _self_test(run: _Run, signed: SignedRpms) -> TestedRpms:
    job = run.job
    with run.record.stage(Stage.SELF_TEST):
        channel = run.channel()
        candidate = run.workspace("self-test", "candidate")
        _offer(signed.rpms, candidate, job)
        sign.sign_file(candidate / "repodata" / "repomd.xml", job.site.signing)
        workspace = run.workspace("self-test")
        examination = selftest.examine(
            signed, job.recipe.self_test, job.target, candidate=candidate,
            beside=(channel.before([rpm.nevra for rpm in signed.rpms]),) if channel else (),
            cache=job.site.paths.cache, workspace=workspace, progress=run.progress,
            on_failure=run.on_failure,
        )  # fmt: skip
        write_atomically(workspace / "transcript.txt", examination.transcript)
        run.record.examined(examination.checks, examination.headline)
        tested = selftest.passed(signed, examination)
    run.reached(Stage.SELF_TEST)
    return tested


def _gates(run: _Run, tested: TestedRpms) -> tuple[GatedRpms, Channel | None]:
    """The packages that may be published beside what clients see now."""
    job, paths = run.job, run.job.site.paths
    with run.record.stage(Stage.GATES):
        channel = run.channel()
        checks = gates.examine(
            tested, job.recipe, job.target, candidate=run.workspace("self-test", "candidate"),
            # The target's rpmkeys has accepted every package while they were signed.
            accepted=[rpm.sha256 for rpm in tested.signed.rpms],
            published=channel,
            cache=paths.cache, workspace=run.workspace("gates"), progress=run.progress,
        )  # fmt: skip
        run.record.examined(checks)
        gated = gates.passed(tested, checks)
    run.reached(Stage.GATES)
    return gated, channel


def _publish(run: _Run, gated: GatedRpms, resolved: Resolved, beside: Channel | None) -> None:
    """Publish beside what the gates looked at."""
    job, paths = run.job, run.job.site.paths
    with run.record.stage(Stage.PUBLISH):
        run.progress.note(f"publishing to {job.site.channel} in {paths.repository}")

        def prove(exhibit: proof.Exhibit) -> tuple[Check, ...]:
            checks = proof.prove(
                exhibit, target=job.target, cache=paths.cache, workspace=run.workspace("publish"),
                progress=run.progress,
            )  # fmt: skip
            run.record.examined(checks)
            return checks

        def look(now: Generation | None) -> None:
            if (now and now.id) != (beside and beside.generation):
                raise PublishError(
                    f"something else was published to {job.site.channel} while the gates looked at it",
                    hint="run the same command again: what was built is kept",
                )

        published = publish(
            _published_run(run, gated, resolved), run.place(), prove=prove, force=run.options.force, look=look
        )
        run.record.note(repository=str(published.folder), generation=published.generation)


def _published_run(run: _Run, gated: GatedRpms, resolved: Resolved) -> Run:
    """The run's packages, with what those who take them are to know."""
    job, tested, now = run.job, gated.tested, datetime.now(UTC)
    origin = Origin(
        run=run.record.id, recipe=job.name, target=job.target.name, vendor=job.target.namespace,
        started=run.record.started, finished=now,
        parameters=job.recipe.model_dump(mode="json", by_alias=True),
        inputs=resolved.inputs, patches=_patch_digests(job, tested), gates=gated.checks,
        transcript=(run.workspace("self-test") / "transcript.txt").read_text(encoding="utf-8"),
    )  # fmt: skip
    advisory = make_advisory(
        job.recipe.advisory, tested.signed.rpms, summary=job.recipe.summary, stock=stock_evrs(tested),
        issued=now, publisher=job.site.packager,
    )  # fmt: skip
    return Run(
        gated=gated, id=run.record.id, inputs={job.name: resolved.key}, origin=origin, advisory=advisory
    )


def _patch_digests(job: Job, tested: TestedRpms) -> dict[str, dict[str, str]]:
    """The digests of the patch files that went into each package."""
    digests = {}
    for built in tested.signed.built:
        name, sources = built.patched.source.rpm.nevra.name, built.patched.sources
        patches = job.recipe.packages[name].patches
        digests[name] = {patch.file: digest_of(sources / Path(patch.file).name) for patch in patches}
    return digests


@as_kind(PublishError)
def _offer(rpms: Sequence[Rpm], folder: Path, job: Job) -> None:
    """Make a repository of the packages, besides those that are in the folder already."""
    for rpm in rpms:
        (folder / rpm.path.name).unlink(missing_ok=True)
        shutil.copyfile(rpm.path, folder / rpm.path.name)
    write_repodata(folder, compression=job.target.compression)


def _runs_folder(job: Job) -> Path:
    return job.site.paths.cache / "runs"
