"""Taking one package back: a generation without its newest build, or with an earlier one in its place.

What goes is a whole build, all that was built from one source package: its packages require each other. An
earlier build that is still published stays; where there is none, the newest that an older generation has
comes back, unless it is held. Nothing is taken from under another package that requires it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport.artifacts import Check, is_for_debugging
from backport.errors import PublishError
from backport.progress import Progress
from backport.repository.advisories import (
    Advisory,
    AdvisoryPackage,
    read_advisories,
    still_here,
    withdrawal,
)
from backport.repository.assemble import Incoming, Publication, make_generation
from backport.repository.changes import require_published
from backport.repository.clients import channel_url, reported, site_keys, write_client_files
from backport.repository.contents import PublishedRpm, basearch, content_of
from backport.repository.generations import Generation, TargetFolder
from backport.repository.holds import words_for
from backport.repository.proof import Exhibit
from backport.repository.publish import LOCK_TIMEOUT, lead_to, require_proven, tidy_up
from backport.repository.withdrawal import Piece, Plan, binaries, make_plan, newest, pieces, recipe_of, rpm_of
from backport.site import Signing
from backport.target import Target


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """What readers do not see any more, and what they see in its place."""

    folder: str
    generation: str | None
    """What readers see since; None where nothing was changed, since it was only to be shown."""
    before: str
    packages: tuple[str, ...]
    """The packages that went."""
    instead: tuple[str, ...]
    """The earlier build's, which are the newest now."""
    advice: str
    """What hosts are to do that have them."""
    required: tuple[str, ...]
    """What other packages require of it, and which: something else must provide that."""


Prover = Callable[[Exhibit], tuple[Check, ...]]


def withdraw(
    folder: TargetFolder,
    name: str,
    *,
    target: Target,
    base_url: str,
    signing: Signing,
    prove: Prover,
    reason: str = "",
    publisher: str,
    dry_run: bool = False,
    progress: Progress,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Withdrawn:
    """Let readers see the newest build of a package no more; all else stays as it is.

    ``name`` is that of a source package, or of any package that was built from it. The new generation is
    proven like any other, and what was withdrawn is held. ``base_url`` is the URL of the repository folder.

    Raises PublishError when nothing of that name is published, another published package requires it and
    nothing else provides that, or the new generation is not proven.
    """
    require_published(folder)
    url = channel_url(base_url, folder.channel)
    with reported(folder), folder.locked(timeout=lock_timeout):
        if not dry_run:
            folder.remove_leftovers(signing)
        now = folder.current_generation()
        if now is None:
            raise PublishError(f"{folder.path}: nothing is published there")
        plan = make_plan(folder, now, name, target)
        advice = (
            f"dnf distro-sync {' '.join(sorted({one.nevra.name for one in _installable(plan.gone, target)}))}"
        )
        result = Withdrawn(
            folder=str(folder.path), generation=None, before=now.id, advice=advice.strip(),
            packages=tuple(str(one.nevra) for one in plan.gone),
            instead=tuple(str(one.nevra) for one in plan.instead),
            required=tuple(f"{', '.join(users)} requires {what}" for what, users in plan.needed.items()),
        )  # fmt: skip
        if dry_run:
            return result
        words = words_for(folder, now, [_published(one) for one in plan.gone])
        recipe = recipe_of(folder.folder_of(now.id), plan.gone)
        words |= {now.inputs[recipe]} if recipe in now.inputs else frozenset()
        publication = _publication(
            folder, now, plan, target=target, url=f"{url}/{target.name}", recipe=recipe,
            advisories=_advisories(folder, now, plan, target=target, told_by=(advice, reason, publisher)),
        )  # fmt: skip

        def show(record: Generation, content: Path) -> None:
            write_client_files(folder, [record, now], site_keys(signing), target=target, base_url=url)
            exhibit = Exhibit(
                folder=folder.path, generation=record.id, content=content, repo_file=folder.repo_file,
                base_url=url, fingerprint=record.fingerprint, unless_provided=tuple(plan.needed),
                packages=tuple(rpm_of(one, content) for one in _to_install(plan, target)),
            )  # fmt: skip
            _require_proven(prove(exhibit), plan)
            # Whoever is killed now has held it, too: the switch is completed by the next command.
            folder.remember("proof", record.id, signing, held=folder.held() | words)

        record = make_generation(publication, signing, progress, prove=show)
        lead_to(folder, record.id, target, signing, action="withdraw", hold=words, is_new=True)
        tidy_up(folder, target, url, signing, progress)
    return replace(result, generation=record.id)


def _require_proven(checks: Sequence[Check], plan: Plan) -> None:
    for check in checks:
        if check.stops and check.id == "publish.provided":
            lost = check.evidence.splitlines()
            users = "; ".join(f"{', '.join(plan.needed[one])} requires {one}" for one in lost)
            raise PublishError(
                f"{plan.name} cannot be withdrawn: {users}, which nothing else provides",
                hint="withdraw that first, or lead readers back by `backport repo rollback`",
            )
    require_proven(checks)


def _to_install(plan: Plan, target: Target) -> tuple[Piece, ...]:
    """What readers get in the place of what goes, and whoever uses it; of each name the newest."""
    some = [*plan.instead, *(one for one in plan.consumers if set(one.requires).isdisjoint(plan.needed))]
    return tuple(one for one in newest(some, target) if not is_for_debugging(one.nevra.name))


def _installable(some: Sequence[Piece], target: Target) -> tuple[Piece, ...]:
    return tuple(one for one in binaries(some, target) if not is_for_debugging(one.nevra.name))


def _published(piece: Piece) -> PublishedRpm:
    return PublishedRpm(path=piece.path, nevra=piece.nevra, sha256=piece.sha256)


def _advisories(
    folder: TargetFolder,
    now: Generation,
    plan: Plan,
    *,
    target: Target,
    told_by: tuple[str, str, str],
) -> tuple[Advisory, ...]:
    """What is told of all packages then; ``told_by`` are the advice, the reason and who tells it."""
    name, (advice, reason, publisher) = basearch(target), told_by
    told = read_advisories(folder.folder_of(now.id) / name)
    if plan.lender:
        told = (*read_advisories(folder.folder_of(plan.lender.id) / name), *told)
    gone = [
        AdvisoryPackage(nevra=one.nevra, filename=one.nevra.filename, sha256=one.sha256, source=one.source)
        for one in _installable(plan.gone, target)
    ]
    more = withdrawal(
        gone,
        name=plan.name,
        advice=advice,
        reason=reason,
        issued=datetime.now(UTC),
        publisher=publisher,
    )
    lost = {one.path for one in plan.gone}
    place = folder.folder_of(now.id)
    there = {path for path in pieces(place, target) if path not in lost} | {one.path for one in plan.back}
    return still_here((*told, more) if gone else told, lambda file: f"{name}/{file}" in there)


def _publication(
    folder: TargetFolder,
    now: Generation,
    plan: Plan,
    *,
    target: Target,
    url: str,
    recipe: str,
    advisories: tuple[Advisory, ...],
) -> Publication:
    lender = folder.folder_of(plan.lender.id) if plan.lender else None
    added = [
        Incoming(rpm=rpm_of(one, lender), path=one.path, content=content_of(lender / one.path))
        for one in plan.back
        if lender
    ]
    signers = Counter(now.signers)
    for one in plan.gone:
        content = content_of(folder.folder_of(now.id) / one.path)
        signers.subtract(key for key in tuple(signers) if content.is_signed_by(key))
    known = {*now.signers, *(plan.lender.signers if plan.lender else ())}
    for incoming in added:
        signers.update(key for key in known if incoming.content.is_signed_by(key))
    sources = {one.source for one in plan.gone} - {one.source for one in plan.back}
    returned = plan.lender.sources if plan.lender else {}
    return Publication(
        folder=folder, target=target, url=url, public_key=folder.public_key, before=now, added=added,
        removed=frozenset(one.path for one in plan.gone), lender=lender, advisories=advisories,
        record=replace(
            now, id="", time=_later_than(now), previous=now.id, run="", superseded={}, signers=dict(+signers),
            added=len(added), inputs={one: key for one, key in now.inputs.items() if one != recipe},
            sources={
                **{one: digest for one, digest in now.sources.items() if one not in sources},
                **{one.source: returned[one.source] for one in plan.back if one.source in returned},
            },
        ),
    )  # fmt: skip


def _later_than(now: Generation) -> datetime:
    time = datetime.now(UTC)
    if time < now.time:
        raise PublishError(
            f"this host's clock says {time:%Y-%m-%d %H:%M:%S} UTC, before generation {now.id} was made",
            hint="set the clock",
        )
    return time
