"""Before anything is built: what its source says of a job, its source packages, and their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backport import srpm
from backport.artifacts import PatchedSrpm, SourceRpm
from backport.errors import SignError
from backport.files import scratch_folder
from backport.needs import Needs, survey
from backport.progress import Progress
from backport.repository import holds
from backport.repository.channel import Channel, load_channel
from backport.repository.generations import Generation, TargetFolder
from backport.runs.job import Job, settings_inputs
from backport.runs.results import key_of
from backport.signing import sign
from backport.sources import Offer, fetch, lock
from backport.sources.order import Node, build_order

NO_KEY = "none yet"
"""In the place of the signing key's fingerprint, in a plan."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the source says of a job's packages, and what follows from it before anything is fetched."""

    offers: Mapping[str, Offer]
    """By package, in the order in which they are built."""
    needs: Mapping[str, Needs]
    """What each package's build root takes of what is published, and what it lacks where that was asked."""
    channel: Channel | None
    """What clients can install now."""
    inputs: Mapping[str, str]
    key: str
    published: Generation | None
    """What clients see now."""


def ask_source(job: Job, *, locked: bool = True) -> dict[str, Offer]:
    """What the source says of the job's packages, by package, in the order in which they are built.

    Raises FetchError, also for one that is not the ``locked`` one, and UsageError for packages that need each
    other in a circle.
    """
    by_name = {one.nevra.name: one for one in job.source.ask(job.recipe, arch=job.target.arch)}
    nodes = {
        name: Node(
            build_requires=one.build_requires,
            requires=one.requires,
            provides=one.provides,
            stock=frozenset(job.recipe.packages[name].stock),
        )
        for name, one in by_name.items()
    }
    ordered = {name: by_name[name] for name in build_order(nodes)}
    if locked:
        _check_locked(job, ordered.values())
    return ordered


def resolve_job(
    job: Job, builder: str, *, workspace: Path, progress: Progress, planning: bool = False
) -> Resolved:
    """Everything that is known before anything is fetched.

    ``builder`` is the builder's identity. ``workspace`` gets the public keys of what is published. While
    ``planning`` no key is needed, and needs are looked for also where they cannot change the result. Raises
    FetchError, also for a build that is not the locked one, UsageError, SignError, and PublishError where
    what is published or a repository of the target cannot be read.
    """
    offers = ask_source(job)
    signing_key = _signing_key(job, planning=planning)
    channel = load_channel(
        job.site.paths.repository, job.target, job.site.channel, signing=job.site.signing,
        keys=None if planning else workspace,
    )  # fmt: skip
    needs = survey(job, offers, channel, whole=planning, progress=progress)
    inputs = settings_inputs(job, builder=builder, signing_key=signing_key)
    for name, one in offers.items():
        inputs[f"{name} source"] = one.identity
        inputs |= {f"{name} takes {what}": value for what, value in needs[name].inputs().items()}
    return Resolved(
        offers=offers,
        needs=needs,
        channel=channel,
        inputs=inputs,
        key=key_of(inputs),
        published=folder_of(job).published(),
    )


def _signing_key(job: Job, *, planning: bool) -> str:
    try:
        return sign.show_key(job.site.signing).fingerprint
    except SignError:
        if not planning:
            raise
        return NO_KEY


def is_published(job: Job, resolved: Resolved) -> bool:
    """Whether what clients see now came from these very inputs, and a client could install it."""
    now = resolved.published
    if now is None or now.inputs.get(job.name) != resolved.key:
        return False
    return folder_of(job).is_proven(now.id)


def is_held(job: Job, resolved: Resolved) -> bool:
    """Whether clients were led back from what these very inputs gave; then only ``--force`` publishes it."""
    return resolved.key in folder_of(job).held()


def held_sources(job: Job, patched: Sequence[PatchedSrpm]) -> tuple[str, ...]:
    """The packages of which clients were led back from what was built of the very same source; it would be
    the same again, whatever else of the inputs is another. Raises PublishError."""
    return holds.held_sources(folder_of(job), patched)


def folder_of(job: Job) -> TargetFolder:
    """Where the job's packages are published."""
    return TargetFolder.of(job.site.paths.repository, job.target.name, job.site.channel)


def fetch_all(job: Job, offers: Mapping[str, Offer], progress: Progress) -> tuple[SourceRpm, ...]:
    """The verified source packages, in the order of ``offers``; where there is a lock, no others.

    Raises FetchError.
    """
    originals = _fetch_any(job, offers, progress)
    _check_locked(job, originals)
    return originals


def patch_all(job: Job, originals: Sequence[SourceRpm], workspace: Path) -> tuple[PatchedSrpm, ...]:
    """The source packages with the recipe's changes. Raises PatchError."""
    return tuple(patch(job, source, workspace / source.rpm.nevra.name) for source in originals)


def patch(job: Job, source: SourceRpm, workspace: Path) -> PatchedSrpm:
    """One source package with the recipe's changes. Raises PatchError."""
    return srpm.patch(
        source, job.recipe.packages[source.rpm.nevra.name], target=job.target,
        patches=job.patches, packager=job.site.packager, workspace=workspace,
    )  # fmt: skip


def fetch_sources(job: Job, *, progress: Progress) -> tuple[SourceRpm, ...]:
    """Resolve and fetch alone, for ``backport fetch`` and ``lock``. Raises FetchError."""
    return fetch_all(job, ask_source(job), progress)


def lock_sources(job: Job, *, progress: Progress) -> None:
    """Write the job's lock file from what the source gives now. Raises FetchError."""
    lock.write_lock(job.lock_file, _fetch_any(job, ask_source(job, locked=False), progress))


def diff(job: Job, *, progress: Progress) -> str:
    """The whole change to every package, in build order. Raises FetchError, PatchError."""
    with scratch_folder(job.site.paths.cache, ".diff-") as scratch:
        patched = patch_all(job, fetch_sources(job, progress=progress), scratch)
        return "".join(one.diff for one in patched)


def _check_locked(job: Job, found: Iterable[Offer | SourceRpm]) -> None:
    path = job.lock_in_force
    if locked := lock.load_lock(path):
        for one in found:
            lock.check_lock(locked, one, path=path)


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """A source package as `backport fetch --json` and a run's report tell of it."""

    nevra: str
    sha256: str
    digest: str
    """Whether and by whom it was stated, such as ``stated by the hub``."""
    signing_key: str
    url: str
    file: str


def source_data(source: SourceRpm) -> dict[str, str]:
    """A source package for machines."""
    return {
        "nevra": str(source.rpm.nevra),
        "sha256": source.rpm.sha256,
        "digest": source.digest,
        "signing_key": source.signing_key,
        "url": source.url,
        "file": str(source.rpm.path),
    }


def _fetch_any(job: Job, offers: Mapping[str, Offer], progress: Progress) -> tuple[SourceRpm, ...]:
    cache = job.site.paths.cache
    return tuple(
        fetch.fetch(offer, cache=cache, keys=job.source_keys, progress=progress) for offer in offers.values()
    )
