"""What all gates look at: the signed candidate repository beside the target's own ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rpm as rpm_bindings

from backport.artifacts import Nevra, Rpm, SignedRpms, is_for_debugging
from backport.gates.pool import (
    PUBLISHED,
    PUBLISHED_DEBUG,
    Pool,
    Solvable,
    is_published,
    load_pool,
    location_of,
)
from backport.gates.repositories import TargetRepositories, metadata_of_folder, verified_file
from backport.progress import Progress
from backport.recipe import Gates
from backport.repository.channel import Channel
from backport.roots.dnf import ExtraRepository
from backport.settings import Key
from backport.target import Target
from backport.trust import read_header

_REPOSITORY_ID = "backport-candidate"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One candidate repository and what it is held against."""

    signed: SignedRpms
    candidate: Path
    """The folder of the signed candidate repository."""
    accepted: frozenset[str]
    """Digests of the packages of which the target's own rpmkeys accepted the signature."""
    target: Target
    gates: Gates
    install: tuple[str, ...]
    """The target's packages that the self-test's root has: a root of these exists already."""
    published: Channel | None
    """What clients can install now."""
    cache: Path
    workspace: Path
    progress: Progress

    @functools.cached_property
    def packages(self) -> tuple[Rpm, ...]:
        """The binary packages, without those that are only for debugging."""
        return tuple(one for one in self.signed.rpms if not is_for_debugging(one.nevra.name))

    @functools.cached_property
    def headers(self) -> dict[Nevra, Any]:
        """The headers of `packages`."""
        return {one.nevra: read_header(one.path) for one in self.packages}

    @functools.cached_property
    def files(self) -> dict[Nevra, tuple[Any, ...]]:
        """The files (rpm.file) of `packages`."""
        return {nevra: tuple(rpm_bindings.files(header)) for nevra, header in self.headers.items()}

    @functools.cached_property
    def pool(self) -> Pool:
        """The target's packages, the published ones and the candidate's. Raises ToolError."""
        paths = {file.name for files in self.files.values() for file in files}
        repositories = self._repositories.metadata()
        if self.published:
            repositories[PUBLISHED] = metadata_of_folder(self.published.folder)
            repositories[PUBLISHED_DEBUG] = metadata_of_folder(self.published.debug)
        return load_pool(
            self.target,
            repositories,
            metadata_of_folder(self.candidate),
            paths=paths,
            folder=self.workspace,
        )

    @functools.cached_property
    def replaced(self) -> tuple[Solvable, ...]:
        """The server's packages that the update replaces, without those that are only for debugging."""
        return tuple(one for one in self.pool.replaced if not is_for_debugging(one.name))

    def file_of(self, one: Solvable) -> Path:
        """A package of the target or a published one as a file, verified. Raises ToolError."""
        location, checksum = location_of(one)
        if self.published is None or not is_published(one):
            return self._repositories.package(one.repo.name, location, checksum)
        folder = self.published.folder if one.repo.name == PUBLISHED else self.published.debug
        return verified_file(folder, location, checksum, keys=self.published.keys, workspace=self.workspace)

    @functools.cached_property
    def repository(self) -> ExtraRepository:
        """The candidate as dnf takes it: both signature checks on."""
        key = Key(fingerprint=self.signed.fingerprint, file=self.signed.public_key)
        return ExtraRepository.of_folder(_REPOSITORY_ID, self.candidate, keys=(key,), repo_gpgcheck=True)

    @functools.cached_property
    def before(self) -> tuple[ExtraRepository, ...]:
        """What servers have beside the target's repositories until now."""
        return (self.published.before([one.nevra for one in self.packages]),) if self.published else ()

    @functools.cached_property
    def unchanged(self) -> frozenset[str]:
        """The names of those packages that servers have already, unless that is so of all."""
        ours = [one.nevra for one in self.packages]
        held = self.published.held(ours) if self.published else frozenset()
        return frozenset(nevra.name for nevra in held) if len(held) < len(ours) else frozenset()

    @property
    def after(self) -> tuple[ExtraRepository, ...]:
        """What servers will have beside the target's repositories."""
        return (*self.before, self.repository)

    @functools.cached_property
    def _repositories(self) -> TargetRepositories:
        return TargetRepositories.of(self.target, cache=self.cache, progress=self.progress)
