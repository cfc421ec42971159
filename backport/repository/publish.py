"""Publishing: tested packages become a new generation that readers see whole, or not at all.

A new generation is made beside those that are there. Then one rename switches readers over. Until that
rename any failure, even a power cut, leaves them what they had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import rpm as rpm_bindings

from backport.artifacts import Check, PublishedRepo, Rpm, SignedRpms, TestedRpms, is_for_debugging
from backport.errors import BackportError, PublishError
from backport.progress import Progress, Silent
from backport.repository.assemble import SOURCE, Incoming, Publication, basearch, make_generation
from backport.repository.clients import PublicKey, channel_url, reported, write_client_files
from backport.repository.documents import Account, advisories_for, evidence_for
from backport.repository.generations import STABLE, Generation, PublishedRpm, TargetFolder
from backport.repository.overview import write_page
from backport.signing.key import other_keys
from backport.site import Signing
from backport.target import Target
from backport.trust import read_header

LOCK_TIMEOUT = 600.0
"""How long another publisher is waited for, in seconds."""
Prover = Callable[[PublishedRepo], tuple[Check, ...]]


def publish(
    tested: TestedRpms,
    *,
    target: Target,
    repository: Path,
    base_url: str,
    signing: Signing,
    run: str = "",
    inputs: Mapping[str, str] | None = None,
    account: Account | None = None,
    prove: Prover | None = None,
    progress: Progress | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    channel: str = STABLE,
    force: bool = False,
) -> PublishedRepo:
    """Let readers of a target's channel see the packages, besides all that were there.

    ``base_url`` is the URL of ``repository`` as clients see it. ``run`` goes into the generation's
    record, and so do ``inputs``, beside those of the generation before under other names. Packages
    that are there already are left alone; where all are, from the same inputs, nothing changes.
    ``account`` is what is told of the packages: signed evidence, an advisory.
    ``prove`` looks at the result (see `backport.repository.proof`) before another publisher can; when it
    fails or is interrupted, readers are led back to what they saw before. Inputs whose packages were
    rolled back are published again only with ``force``.

    Raises PublishError when the folder cannot be written to, another publisher holds it for
    ``lock_timeout`` seconds, the inputs were rolled back, a package of the same NEVRA with other content
    is or was there, a package is for another architecture or release, the new generation does not read
    back, or a check of ``prove`` fails; SignError when the metadata cannot be signed. Readers then see
    what they saw before.
    """
    folder = TargetFolder.of(repository, target.name, channel)
    base_url = channel_url(base_url, channel)
    released = frozenset((inputs or {}).values()) if force else frozenset()
    progress = progress or Silent()
    with reported(folder):
        folder.create()
        with folder.locked(timeout=lock_timeout):
            folder.remove_leftovers()
            before = folder.current_generation()
            added = _new_ones(_incoming(tested.signed, target), before, folder)
            if before and not added and _is_as_wanted(before, tested.signed, target, inputs or {}):
                progress.note("everything is published already")
                now = before
            else:
                _require_not_held(folder, inputs or {}, released)
                record = _record(tested.signed, before, added, target=target, run=run, inputs=inputs or {})
                publication = Publication(
                    folder=folder, target=target, public_key=tested.signed.public_key, before=before,
                    added=added, record=record,
                    evidence=evidence_for(account, tested, record, {one.entry.path for one in added}),
                    advisories=advisories_for(
                        account, record, basearch(target), folder.generations / before.id if before else None
                    ),
                )  # fmt: skip
                now = make_generation(publication, signing, progress)
            # The key and the .repo file are there before anything that they are needed for.
            write_client_files(
                folder, signer=_signing_key(tested.signed), others=other_keys(signing),
                needed=now, before=before, target=target, base_url=base_url,
            )  # fmt: skip
            if before is None or now.id != before.id:
                folder.switch(now.id, action="publish", release=released)
            write_page(folder, target, base_url)
            published = PublishedRepo(
                tested=tested, folder=folder.path, generation=now.id, repo_file=folder.repo_file,
                base_url=base_url, checks=(),
            )  # fmt: skip
            if prove is None:
                return published
            try:
                return _proven(published, prove, folder, before)
            except BaseException:
                with suppress(BackportError, OSError):
                    write_page(folder, target, base_url)
                raise


def published_state(repository: Path, target: Target, channel: str = STABLE) -> Generation | None:
    """What readers see now; None when nothing is published. Raises PublishError."""
    return TargetFolder.of(repository, target.name, channel).current_generation()


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


def roll_back(
    repository: Path,
    target: Target,
    *,
    failed: str,
    to: str | None,
    lock_timeout: float = LOCK_TIMEOUT,
    channel: str = STABLE,
) -> None:
    """Let readers see the generation ``to`` again instead of ``failed`` (None: nothing, as before).

    Raises PublishError when ``to`` is not whole, or when readers see another generation by now.
    """
    folder = TargetFolder.of(repository, target.name, channel)
    with reported(folder), folder.locked(timeout=lock_timeout):
        if (now := folder.current_id()) != failed:
            raise PublishError(
                f"{folder.current}: leads to {now}, no more to {failed}",
                hint="another publisher was faster; look at what it published",
            )
        if to is not None:
            folder.load(to)
        if to != failed:
            folder.switch(to, action="rollback")


def _proven(
    published: PublishedRepo, prove: Prover, folder: TargetFolder, before: Generation | None
) -> PublishedRepo:
    """The publication with its checks; unless all pass, readers see the generation before again."""
    previous = before.id if before else None
    try:
        checks = prove(published)
        if failed := [check for check in checks if check.stops]:
            raise PublishError(
                f"a client cannot install what was published: {failed[0].title}: {failed[0].found}; "
                "readers see what they saw before",
                hint=failed[0].advice or None,
            )
    except BaseException:
        if previous != published.generation:
            folder.switch(previous, action="rollback")
        raise
    if not folder.is_proven(published.generation):
        folder.mark_proven(published.generation)
    return replace(published, checks=checks)


def _require_not_held(folder: TargetFolder, inputs: Mapping[str, str], released: Collection[str]) -> None:
    for name, digest in inputs.items():
        if digest in folder.held() - set(released):
            raise PublishError(
                f"{name}: what these inputs gave was rolled back from {folder.path}",
                hint="change the inputs, lead readers to that generation by `backport repo rollback ID`, "
                "or publish it again by --force",
            )


def _incoming(signed: SignedRpms, target: Target) -> list[Incoming]:
    found: dict[str, Incoming] = {}
    for package in (*signed.rpms, *signed.srpms):
        path = f"{_place(package, target)}/{package.nevra.filename}"
        if path in found:
            raise PublishError(f"{package.nevra}: is among the packages twice")
        entry = PublishedRpm(
            path=path,
            nevra=str(package.nevra),
            sha256=package.sha256,
            content=_content_of(package.path),
            key=signed.fingerprint,
        )
        found[path] = Incoming(rpm=package, entry=entry)
    return list(found.values())


def _place(package: Rpm, target: Target) -> str:
    nevra = package.nevra
    if nevra.arch not in {target.arch, "noarch", "src", "nosrc"}:
        raise PublishError(
            f"{nevra}: is for {nevra.arch}, the target {target.name} is {target.arch}",
            hint="build it for the target's architecture",
        )
    if target.dist not in nevra.release:
        raise PublishError(
            f"{nevra}: its release does not name the target {target.name} ({target.dist})",
            hint="build it for this target",
        )
    if nevra.arch in {"src", "nosrc"}:
        return SOURCE
    if is_for_debugging(nevra.name):
        return f"debug/{basearch(target)}"
    return basearch(target)


def _content_of(path: Path) -> str:
    header = read_header(path, error=PublishError)
    digest = header[rpm_bindings.RPMTAG_SHA256HEADER]
    if not digest:
        raise PublishError(
            f"{path}: has no SHA-256 digest of its header", hint="build it with rpm 4.14 or later"
        )
    return digest if isinstance(digest, str) else digest.decode("ascii")


def _new_ones(
    incoming: Sequence[Incoming], before: Generation | None, folder: TargetFolder
) -> list[Incoming]:
    """What is not there yet, or is there but signed by another key."""
    there = {rpm.path: rpm for rpm in before.rpms} if before else {}
    new = []
    for one in incoming:
        old = there.get(one.entry.path)
        contents = {old.content} if old else _earlier_contents(folder, one.entry.path)
        if contents - {one.entry.content}:
            raise PublishError(
                f"{one.entry.nevra}: is published already, with other content",
                hint="raise `bump` in the recipe: clients never take another package of the same version",
            )
        if not old or old.key != one.entry.key:
            new.append(one)
    return new


def _earlier_contents(folder: TargetFolder, path: str) -> set[str]:
    """What clients may have got under a package's name before readers were led back."""
    places = (folder.generations / name / path for name in folder.ids())
    return {_content_of(place) for place in places if place.is_file()}


def _signing_key(signed: SignedRpms) -> PublicKey:
    return PublicKey(fingerprint=signed.fingerprint, text=signed.public_key.read_text("ascii"))


def _is_as_wanted(before: Generation, signed: SignedRpms, target: Target, inputs: Mapping[str, str]) -> bool:
    return (
        before.fingerprint == signed.fingerprint
        and before.compression == target.compression
        and inputs.items() <= before.inputs.items()
    )


def _record(
    signed: SignedRpms,
    before: Generation | None,
    added: Sequence[Incoming],
    *,
    target: Target,
    run: str,
    inputs: Mapping[str, str],
) -> Generation:
    now = datetime.now(UTC)
    if before and now < before.time:
        raise PublishError(
            f"this host's clock says {now:%Y-%m-%d %H:%M:%S} UTC, before generation {before.id} was made",
            hint="set the clock",
        )
    rpms = {rpm.path: rpm for rpm in before.rpms} if before else {}
    rpms |= {one.entry.path: one.entry for one in added}
    return Generation(
        id="",
        time=now,
        previous=before.id if before else None,
        compression=target.compression,
        fingerprint=signed.fingerprint,
        run=run,
        inputs={**(before.inputs if before else {}), **inputs},
        rpms=tuple(rpms[path] for path in sorted(rpms)),
    )
