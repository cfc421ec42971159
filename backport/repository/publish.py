"""Publishing: packages that passed everything become a new generation, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backport.artifacts import Check, GatedRpms, PublishedRepo, Rpm, SignedRpms, is_for_debugging
from backport.errors import PublishError
from backport.evidence.provenance import Origin, PublishedFile
from backport.evidence.store import new_evidence
from backport.repodata import read_primary
from backport.repository.advisories import Advisory, read_advisories, still_here
from backport.repository.contents import PublishedRpm, basearch, content_of, packages_of, path_of
from backport.repository.generations import Generation, TargetFolder
from backport.repository.holds import concerning, held, require_not_held, sources_of
from backport.repository.place import Place, reported
from backport.repository.plan import NewRpm, Plan, count_signers, plan_repositories, time_after
from backport.repository.proof import Exhibit, Prover
from backport.repository.release import release, renew_beside, show, switch
from backport.repository.rollback import last_proven


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run publishes, and what is said of it."""

    gated: GatedRpms
    id: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """For each recipe the digest over everything that its packages were made from."""
    origin: Origin | None = None
    """What becomes signed evidence; None: there is none."""
    advisory: Advisory | None = None

    @property
    def signed(self) -> SignedRpms:
        """The packages."""
        return self.gated.tested.signed


def publish(
    run: Run,
    place: Place,
    *,
    prove: Prover,
    force: bool = False,
    look: Callable[[Generation | None], None] | None = None,
) -> PublishedRepo:
    """Let clients of a target's channel see a run's packages, besides all that were there.

    ``prove`` looks at the new generation (see `backport.repository.proof`) before any client is led to it.
    Packages that are there already are left alone; where all are, from the same inputs, nothing changes but
    that the present generation is proven once more. What was rolled back is published again only with
    ``force``. ``look`` is given what clients see until now, when no other publisher can change that, and may
    refuse.

    Raises PublishError when the folder cannot be written to, another publisher holds it too long, the
    inputs were rolled back, a package of the same NEVRA with other content is or was there, a package is for
    another architecture or release, the metadata cannot be signed, the new generation does not read back, or
    a check of ``prove`` fails. Clients then see what they saw before.
    """
    folder = place.folder
    with reported(folder):
        folder.create()
    with place.locked():
        before = folder.published()
        packages = _packages(run, place, before)
        if look:
            look(before)
        if before and not packages.new and _is_as_wanted(before, run, place):
            place.progress.note("everything is published already")
            now, checks = before, _prove_again(run, place, before, prove)
            renew_beside(place)
        else:
            now, checks = release(place, _plan(run, place, packages, force=force), prove)
    return PublishedRepo(
        gated=run.gated, folder=folder.path, generation=now.id, content=folder.folder_of(now.id),
        repo_file=folder.repo_file, base_url=place.url, checks=checks,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Packages:
    """The packages of a run, beside what is there."""

    before: Generation | None
    all: Sequence[NewRpm]
    known: Mapping[str, PublishedRpm]
    """The packages of the generation before by path; none where it has none of the run's."""
    new: Sequence[NewRpm]
    """What is not there yet, or is there but signed by another key."""
    files: Sequence[PublishedFile]
    """The packages as clients get them: one that was there keeps its file, signed another time."""


def _packages(run: Run, place: Place, before: Generation | None) -> _Packages:
    folder = place.folder
    found: dict[str, NewRpm] = {}
    for rpm in (*run.signed.rpms, *run.signed.srpms):
        path = path_of(rpm, place.target)
        if path in found:
            raise PublishError(f"{rpm.nevra}: is among the packages twice")
        found[path] = NewRpm(rpm=rpm, path=path, content=content_of(rpm.path))
    known: Mapping[str, PublishedRpm] = {}
    if before and any((folder.folder_of(before.id) / path).exists() for path in found):
        known = packages_of(folder, before)
    new = []
    for path, one in found.items():
        there = folder.folder_of(before.id) / path if before and path in known else None
        if _is_new(one, there, known.get(path), folder, run.signed.fingerprint):
            new.append(replace(one, replaces=there is not None))
    digests = {one.path: one.rpm.sha256 for one in new}
    files = [
        PublishedFile(path=path, nevra=str(one.rpm.nevra), sha256=digests.get(path) or known[path].sha256)
        for path, one in found.items()
    ]
    return _Packages(before=before, all=tuple(found.values()), known=known, new=new, files=files)


def _is_new(
    one: NewRpm, there: Path | None, old: PublishedRpm | None, folder: TargetFolder, signer: str
) -> bool:
    """Whether a package is to be published; ``there`` is the file that clients have of it, if any."""
    content = content_of(there) if there else None
    contents = {content.digest} if content else _earlier_contents(folder, one.path)
    if contents - {one.content.digest}:
        raise PublishError(
            f"{one.rpm.nevra}: is published already, with other content",
            hint="raise `bump` in the recipe: clients never take another package of the same version",
        )
    return not (content and old and (content.is_signed_by(signer) or old.sha256 == one.rpm.sha256))


def _earlier_contents(folder: TargetFolder, path: str) -> set[str]:
    """What clients may have got under a package's name before a rollback."""
    places = (folder.folder_of(one) / path for one in folder.ids())
    return {content_of(place).digest for place in places if place.is_file()}


def _is_as_wanted(before: Generation, run: Run, place: Place) -> bool:
    return (
        before.fingerprint == run.signed.fingerprint
        and before.compression == place.target.compression
        and run.inputs.items() <= before.inputs.items()
    )


def _prove_again(run: Run, place: Place, now: Generation, prove: Prover) -> tuple[Check, ...]:
    """Prove what clients see. Where it never was proven and fails, they are led to the last that was."""
    folder = place.folder
    exhibit = Exhibit(
        folder=folder, record=now, content=folder.folder_of(now.id), url=place.url, packages=_to_install(run)
    )
    try:
        return show(place, exhibit, prove, beside=None)
    except PublishError as problem:
        if folder.is_proven(now.id) or (earlier := last_proven(folder, now)) is None:
            raise
        switch(place, earlier, action="rollback")
        message = problem.message.replace("what they saw before", f"{earlier} again, the last that passed")
        raise PublishError(message, hint=problem.hint) from None


def _to_install(run: Run) -> tuple[Rpm, ...]:
    """The binary packages of the run that a client installs: none that is only for debugging."""
    return tuple(rpm for rpm in run.signed.rpms if not is_for_debugging(rpm.nevra.name))


def _plan(run: Run, place: Place, packages: _Packages, *, force: bool) -> Plan:
    """The generation before with what is new."""
    before, signed = packages.before, run.signed
    rolled_back = _rolled_back(run, place, packages)
    if not force:
        require_not_held(place.folder, rolled_back)
    before_path = place.folder.folder_of(before.id) if before else None
    replaced = [one.path for one in packages.new if one.replaces]
    signers = count_signers(
        before.signers if before else {}, new=[signed.fingerprint] * len(packages.new),
        gone=[content_of(before_path / path) for path in replaced] if before_path else (),
    )  # fmt: skip
    record = Generation(
        id="", time=time_after(before), previous=before.id if before else None,
        compression=place.target.compression, fingerprint=signed.fingerprint, run=run.id,
        inputs={**(before.inputs if before else {}), **run.inputs},
        sources={**(before.sources if before else {}), **sources_of(signed.built)},
        signers=signers, added=len(packages.new) - len(replaced),
    )  # fmt: skip
    advisories = _advisories(run, packages.files, basearch(place.target), before_path)
    new = {one.path for one in packages.new}
    evidence = None
    if run.origin:
        added = [file for file in packages.files if file.path in new]
        others = [file for file in packages.files if file.path not in new]
        evidence = new_evidence(run.gated.tested, run.origin, added=added, others=others)
    return Plan(
        action="publish", before=before, record=record, public_key=signed.public_key,
        repositories=plan_repositories(place, before, record, new=packages.new, advisories=advisories),
        advisories=advisories, evidence=evidence, evidence_of=(before_path,) if before_path else (),
        install=_to_install(run), release=rolled_back,
    )  # fmt: skip


def _rolled_back(run: Run, place: Place, packages: _Packages) -> frozenset[str]:
    """What of the run was rolled back: the very packages, their sources, or the run itself."""
    return concerning(
        held(place.folder), packages=[one.rpm.nevra for one in packages.all],
        sources=set(sources_of(run.signed.built).values()), inputs=set(run.inputs.values()),
    )  # fmt: skip


def _advisories(
    run: Run, files: Sequence[PublishedFile], repository: str, before: Path | None
) -> tuple[Advisory, ...]:
    """The advisories for a generation's ``repository``: those of the generation before, and the run's own."""
    old = before / repository if before else None
    old = old if old and old.is_dir() else None
    known = read_advisories(old) if old else ()
    digests = {
        file.path.removeprefix(f"{repository}/"): file.sha256
        for file in files
        if file.path.startswith(f"{repository}/")
    }
    if run.advisory:
        # A package that was there already keeps its file, which is signed another time.
        packages = tuple(
            replace(package, sha256=digests[package.filename])
            for package in run.advisory.packages
            if package.filename in digests
        )
        known = (*known, replace(run.advisory, packages=packages))
    # A file alone may be there for the clients of another generation.
    there = {one.location_href for one in read_primary(old)} if known and old else set()
    return still_here(known, lambda name: name in digests or name in there)
