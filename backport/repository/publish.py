"""Publishing: packages that passed everything become a new generation that readers see whole, or not at all.

A new generation is made beside those that are there, and proven: a client installs from it. Only then has
it a name, and one rename switches readers over. Until that rename any failure, even a power cut, leaves them
what they had; after it nothing is a failure any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport.artifacts import Check, GatedRpms, PublishedRepo, SignedRpms, TestedRpms
from backport.errors import BackportError, PublishError
from backport.evidence.provenance import PublishedFile
from backport.progress import Progress, Silent
from backport.repository.assemble import Incoming, Publication, make_generation
from backport.repository.clients import channel_url, reported, site_keys, write_client_files
from backport.repository.contents import PublishedRpm, basearch, content_of, packages_of, path_of
from backport.repository.documents import Account, advisories_for, evidence_for
from backport.repository.generations import STABLE, Generation, TargetFolder
from backport.repository.history import Action
from backport.repository.holds import concerning, held, held_packages, sources_of
from backport.repository.overview import renew
from backport.repository.readers import lend
from backport.site import Signing
from backport.target import Target

LOCK_TIMEOUT = 600.0
"""How long another publisher is waited for, in seconds."""
Prover = Callable[[PublishedRepo], tuple[Check, ...]]


def publish(
    gated: GatedRpms,
    *,
    target: Target,
    repository: Path,
    base_url: str,
    signing: Signing,
    prove: Prover,
    run: str = "",
    inputs: Mapping[str, str] | None = None,
    account: Account | None = None,
    progress: Progress | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    channel: str = STABLE,
    force: bool = False,
    look: Callable[[Generation | None], None] | None = None,
) -> PublishedRepo:
    """Let readers of a target's channel see the packages, besides all that were there.

    ``base_url`` is the URL of ``repository`` as clients see it. ``prove`` looks at the new generation (see
    `backport.repository.proof`) before any reader is led to it. ``run`` goes into the generation's
    record, and so do ``inputs``, beside those of the generation before under other names. Packages
    that are there already are left alone; where all are, from the same inputs, nothing changes but that
    the present generation is proven once more. ``account`` is what is told of the packages: signed
    evidence, an advisory. What was rolled back is published again only with ``force``. ``look`` is told what
    readers see until now, when no other publisher can change that, and may refuse.

    Raises PublishError when the folder cannot be written to, another publisher holds it for
    ``lock_timeout`` seconds, the inputs were rolled back, a package of the same NEVRA with other content
    is or was there, a package is for another architecture or release, the metadata cannot be signed, the
    new generation does not read back, or a check of ``prove`` fails. Readers then see what they saw before.
    """
    tested = gated.tested
    folder = TargetFolder.of(repository, target.name, channel)
    base_url = channel_url(base_url, channel)
    progress = progress or Silent()
    with reported(folder):
        folder.create()
        with folder.locked(timeout=lock_timeout):
            folder.remove_leftovers(signing)
            arrival = _arrival(tested, folder, target)
            before, found = arrival.before, []
            if look:
                look(before)

            def show(record: Generation, content: Path) -> None:
                """Let the prover see a generation, with the files for clients that it needs."""
                needed = [record, before] if before else [record]
                write_client_files(folder, needed, site_keys(signing), target=target, base_url=base_url)
                found.append(
                    PublishedRepo(
                        gated=gated, folder=folder.path, generation=record.id, content=content,
                        repo_file=folder.repo_file, base_url=base_url, checks=(),
                    )
                )  # fmt: skip
                found[0] = replace(found[0], checks=prove(found[0]))
                require_proven(found[0].checks)
                if not folder.is_proven(record.id):
                    folder.mark_proven(record.id, signing)

            if before and not arrival.added and _is_as_wanted(before, tested.signed, target, inputs or {}):
                progress.note("everything is published already")
                now = before
                try:
                    show(now, folder.folder_of(now.id))
                except PublishError as problem:
                    raise _led_to_proven(problem, folder, now, target, signing) from None
            else:
                rolled_back = _held(arrival, inputs or {})
                if not force:
                    _require_not_held(folder, rolled_back)
                record = _record(arrival, run=run, inputs=inputs or {})
                publication = _publication(arrival, record, account, f"{base_url}/{target.name}")
                now = make_generation(publication, signing, progress, prove=show)
                lead_to(folder, now.id, target, signing, action="publish", release=rolled_back, is_new=True)
            tidy_up(folder, target, base_url, signing, progress)
            return replace(found[0], content=folder.folder_of(now.id))


def lead_to(
    folder: TargetFolder,
    generation: str,
    target: Target,
    signing: Signing,
    *,
    action: Action,
    hold: Collection[str] = (),
    release: Collection[str] = (),
    is_new: bool = False,
) -> None:
    """Let readers see a generation, with what those who have just read another may still ask for.

    One that was just made (``is_new``) is removed again where that fails. Raises PublishError, OSError.
    """
    try:
        lend(folder, generation, target)
        folder.switch(generation, action=action, signing=signing, hold=hold, release=release)
    except BaseException:
        if is_new and folder.current_id() != generation:
            with suppress(OSError, BackportError):
                folder.remember("prune", None, signing, generations=(generation,))
                folder.remove(generation)
        raise


def tidy_up(
    folder: TargetFolder, target: Target, base_url: str, signing: Signing, progress: Progress
) -> None:
    """Renew what lies beside the generations after a switch: readers see that already, so that it cannot fail
    any more."""
    try:
        renew(folder, target, base_url, signing)
    except (BackportError, OSError) as problem:
        progress.note(
            f"readers see it, but what lies beside could not be renewed, `backport repo gc` does: {problem}"
        )


def published_state(repository: Path, target: Target, channel: str = STABLE) -> Generation | None:
    """What readers see now; None when nothing is published. Raises PublishError."""
    return TargetFolder.of(repository, target.name, channel).published()


def is_held(repository: Path, target: Target, inputs: str, channel: str = STABLE) -> bool:
    """Whether the packages from these inputs were rolled back. Raises PublishError."""
    return inputs in TargetFolder.of(repository, target.name, channel).held()


def is_proven(repository: Path, target: Target, channel: str = STABLE) -> bool:
    """Whether what readers see now has passed its proof; a publisher may be killed before it does.

    Raises PublishError.
    """
    folder = TargetFolder.of(repository, target.name, channel)
    current = folder.current_id()
    return current is not None and folder.is_proven(current)


def require_proven(checks: Sequence[Check]) -> None:
    """Raises PublishError for the first check that keeps a generation from readers."""
    if not checks:
        raise ValueError("without a check nothing is proved")
    if failed := [check for check in checks if check.stops]:
        raise PublishError(
            f"a client cannot install what is to be published: {failed[0].title}: {failed[0].found}; "
            "readers see what they saw before",
            hint=failed[0].advice or None,
        )


def _led_to_proven(
    problem: PublishError, folder: TargetFolder, now: Generation, target: Target, signing: Signing
) -> PublishError:
    """What is to be told where the very generation that readers see fails its proof: unless it passed it
    before, they are led to the last one that did."""
    if folder.is_proven(now.id) or (earlier := last_proven(folder, now)) is None:
        return problem
    lead_to(folder, earlier, target, signing, action="rollback")
    message = problem.message.replace("what they saw before", f"{earlier} again, the last that passed")
    return PublishError(message, hint=problem.hint)


def last_proven(folder: TargetFolder, now: Generation) -> str | None:
    """The newest generation before ``now`` that is there, passed its proof and was seen by readers."""
    known = folder.proven() & folder.seen()
    earlier = []
    for one in folder.ids():
        # Ids tell whole seconds; a damaged one is nowhere to be led to.
        with suppress(PublishError):
            if one in known and (record := folder.load(one)).time < now.time:
                earlier.append(record)
    return max(earlier, key=lambda record: record.time).id if earlier else None


def _held(arrival: _Arrival, inputs: Mapping[str, str]) -> frozenset[str]:
    """What of the run was rolled back: the very packages, their sources, or the run itself."""
    built = sources_of(arrival.tested.signed.built)
    return concerning(
        held(arrival.folder), packages=[one.rpm.nevra for one in arrival.incoming],
        sources=set(built.values()), inputs=set(inputs.values()),
    )  # fmt: skip


def _require_not_held(folder: TargetFolder, rolled_back: Collection[str]) -> None:
    if rolled_back:
        names = ", ".join(held_packages(rolled_back)) or "what these inputs gave"
        raise PublishError(
            f"{names}: was rolled back from {folder.path}",
            hint="raise `bump` in the recipe for a change, lead readers to that generation by "
            "`backport repo rollback ID`, or publish it again by --force",
        )


@dataclass(frozen=True, kw_only=True)
class _Arrival:
    """The packages of a run, beside what is there."""

    tested: TestedRpms
    folder: TargetFolder
    target: Target
    before: Generation | None
    before_path: Path | None
    """The folder of the generation before."""
    incoming: Sequence[Incoming]
    known: Mapping[str, PublishedRpm]
    """The packages of the generation before by path; none where it has none of the run's."""
    added: Sequence[Incoming]
    """What is not there yet, or is there but signed by another key."""

    @property
    def replaced(self) -> frozenset[str]:
        """The paths of what is signed by another key."""
        return frozenset(one.path for one in self.added if one.path in self.known)


def _arrival(tested: TestedRpms, folder: TargetFolder, target: Target) -> _Arrival:
    before = folder.published()
    path = folder.folder_of(before.id) if before else None
    incoming = _incoming(tested.signed, target)
    known = {}
    if before and path and any((path / one.path).exists() for one in incoming):
        known = packages_of(folder, before)
    signer = tested.signed.fingerprint
    added = [one for one in incoming if _is_new(one, known.get(one.path), path, folder, signer)]
    return _Arrival(
        tested=tested,
        folder=folder,
        target=target,
        before=before,
        before_path=path,
        incoming=incoming,
        known=known,
        added=added,
    )


def _is_new(
    one: Incoming, old: PublishedRpm | None, before: Path | None, folder: TargetFolder, signer: str
) -> bool:
    there = content_of(before / one.path) if before and old else None
    contents = {there.digest} if there else _earlier_contents(folder, one.path)
    if contents - {one.content.digest}:
        raise PublishError(
            f"{one.rpm.nevra}: is published already, with other content",
            hint="raise `bump` in the recipe: clients never take another package of the same version",
        )
    return not (old and there and (there.is_signed_by(signer) or old.sha256 == one.rpm.sha256))


def _publication(arrival: _Arrival, record: Generation, account: Account | None, url: str) -> Publication:
    """What is published, with all that is told of it."""
    new = {one.path for one in arrival.added}
    files = [_file_of(one, new, arrival.known) for one in arrival.incoming]
    signed, target = arrival.tested.signed, arrival.target
    return Publication(
        folder=arrival.folder, target=target, url=url, public_key=signed.public_key, before=arrival.before,
        added=arrival.added, replaced=arrival.replaced, record=record,
        evidence=evidence_for(account, arrival.tested, files, new),
        advisories=advisories_for(account, files, basearch(target), arrival.before_path),
    )  # fmt: skip


def _file_of(one: Incoming, new: Collection[str], known: Mapping[str, PublishedRpm]) -> PublishedFile:
    """A package of the run as readers get it: one that was there keeps its file, signed another time."""
    digest = one.rpm.sha256 if one.path in new else known[one.path].sha256
    return PublishedFile(path=one.path, nevra=str(one.rpm.nevra), sha256=digest)


def _incoming(signed: SignedRpms, target: Target) -> list[Incoming]:
    found: dict[str, Incoming] = {}
    for package in (*signed.rpms, *signed.srpms):
        path = path_of(package, target)
        if path in found:
            raise PublishError(f"{package.nevra}: is among the packages twice")
        found[path] = Incoming(rpm=package, path=path, content=content_of(package.path))
    return list(found.values())


def _earlier_contents(folder: TargetFolder, path: str) -> set[str]:
    """What clients may have got under a package's name before readers were led back."""
    places = (folder.folder_of(one) / path for one in folder.ids())
    return {content_of(place).digest for place in places if place.is_file()}


def _is_as_wanted(before: Generation, signed: SignedRpms, target: Target, inputs: Mapping[str, str]) -> bool:
    return (
        before.fingerprint == signed.fingerprint
        and before.compression == target.compression
        and inputs.items() <= before.inputs.items()
    )


def _record(arrival: _Arrival, *, run: str, inputs: Mapping[str, str]) -> Generation:
    now, before, signer = datetime.now(UTC), arrival.before, arrival.tested.signed.fingerprint
    if before and now < before.time:
        raise PublishError(
            f"this host's clock says {now:%Y-%m-%d %H:%M:%S} UTC, before generation {before.id} was made",
            hint="set the clock",
        )
    return Generation(
        id="",
        time=now,
        previous=before.id if before else None,
        compression=arrival.target.compression,
        fingerprint=signer,
        run=run,
        inputs={**(before.inputs if before else {}), **inputs},
        sources={**(before.sources if before else {}), **sources_of(arrival.tested.signed.built)},
        signers=_signers(arrival, signer),
        added=len(arrival.added) - len(arrival.replaced),
    )


def _signers(arrival: _Arrival, signer: str) -> dict[str, int]:
    """How many packages each key signed, once the run's are there."""
    before, path = arrival.before, arrival.before_path
    signers = Counter(before.signers if before else {})
    signers[signer] += len(arrival.added)
    for place in [path / one for one in arrival.replaced] if path else ():
        content = content_of(place)
        signers.subtract(key for key in tuple(signers) if content.is_signed_by(key))
    return dict(+signers)
