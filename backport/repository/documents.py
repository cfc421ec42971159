"""What is published beside the packages: the evidence of a run, and the advisories of all that is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backport.artifacts import TestedRpms
from backport.evidence.provenance import Origin, PublishedFile
from backport.evidence.store import Evidence, new_evidence
from backport.repodata import read_primary
from backport.repository.advisories import Advisory, read_advisories, still_here


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a run has to tell of its packages."""

    origin: Origin
    advisory: Advisory


def evidence_for(
    account: Account | None, tested: TestedRpms, files: Sequence[PublishedFile], added: Collection[str]
) -> Evidence | None:
    """The evidence for a run's packages, ``files``; those of the paths ``added`` are new.

    Raises PublishError when a header cannot be read, OSError.
    """
    if account is None:
        return None
    return new_evidence(
        tested,
        account.origin,
        added=[file for file in files if file.path in added],
        others=[file for file in files if file.path not in added],
    )


def advisories_for(
    account: Account | None, files: Iterable[PublishedFile], repository: str, before: Path | None
) -> tuple[Advisory, ...]:
    """The advisories for a generation's ``repository``: those of ``before``, and the run's own.

    ``files`` are the run's packages, ``before`` is the folder of the generation before. Raises PublishError
    when its own are damaged.
    """
    old = before / repository if before else None
    told = read_advisories(old) if old and old.is_dir() else ()
    digests = {
        file.path.removeprefix(f"{repository}/"): file.sha256
        for file in files
        if file.path.startswith(f"{repository}/")
    }
    if account is not None:
        # A package that was there already keeps its file, which is signed another time.
        packages = tuple(
            replace(package, sha256=digests[package.filename])
            for package in account.advisory.packages
            if package.filename in digests
        )
        told = (*told, replace(account.advisory, packages=packages))
    # A file alone may be there for the clients of another generation.
    there = {one.location_href for one in read_primary(old)} if told and old and old.is_dir() else set()
    return still_here(told, lambda name: name in digests or name in there)
