"""The target's own repositories as they are: their metadata, and single packages out of them.

What lies on this host is read where it is. What is reached over the network is kept by its digest. A
package is used only when it has the digest that the metadata names and the signature of a key that is
pinned for its repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport import trust
from backport.errors import FetchError, ToolError
from backport.files import digest_of, scratch_folder
from backport.progress import Progress
from backport.repodata import FOLDER, REPOMD, bindings
from backport.roots.dnf import expand_url, folder_of
from backport.roots.root import REPOMD_LIMITS
from backport.seals import require_own
from backport.settings import Key
from backport.sources.download import download
from backport.target import Repository, Target
from backport.web import Limits

METADATA_LIMIT = 1024**3
"""Bytes of one metadata file at most; Fedora's largest has some 60 MB."""
PACKAGE_LIMIT = 4 * 1024**3
"""Bytes of one package at most: what an RPM can hold."""
_TIMEOUT, _TOTAL_TIMEOUT, _RETRIES = 30.0, 3600.0, 3
_HINT = "check `mirrors` in the site file, the target's `baseurl` and the network"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata files of one repository, on this host."""

    primary: Path
    filelists: Path
    digest: str = ""
    """Over both, where it was asked for."""


@dataclass(frozen=True, kw_only=True)
class TargetRepositories:
    """The target's repositories, and what was fetched from them."""

    target: Target
    cache: Path
    """Where fetched files are kept, named by their digests."""
    progress: Progress

    @classmethod
    def of(cls, target: Target, *, cache: Path, progress: Progress) -> TargetRepositories:
        """The target's repositories, what is fetched from them kept in the site's cache."""
        folder = cache / "stock" / f"{target.name}-{target.arch}"
        return cls(target=target, cache=folder, progress=progress)

    def metadata(self) -> dict[str, Metadata]:
        """The metadata of every repository, by its id. Raises ToolError, HostError
        when others can write to the cache."""
        require_own(self.cache)
        return {repository.id: self._metadata_of(repository) for repository in self.target.repositories}

    def package(self, repository_id: str, location: str, checksum: tuple[str, str]) -> Path:
        """One package, verified by digest (kind and hex) and signature. Raises ToolError."""
        repository = next(one for one in self.target.repositories if one.id == repository_id)
        path = self._file(repository, location, checksum, limit=PACKAGE_LIMIT)
        keys = tuple(self.target.keys[name] for name in repository.keys)
        trust.verify_rpm(path, keys, self.cache)
        return path

    def _metadata_of(self, repository: Repository) -> Metadata:
        url = self._url(repository, f"{FOLDER}/{REPOMD}")
        with scratch_folder(self.cache, "repomd-") as scratch:
            repomd = folder_of(url)
            if repomd is None:
                repomd = scratch / REPOMD
                self._download(url, repomd, limit=REPOMD_LIMITS.size)
            records = _records(repomd, f"repository {repository.id}")
        digest = "".join(record.checksum for record in records.values())
        files = {
            kind: self._file(
                repository,
                record.location_href,
                (record.checksum_type, record.checksum),
                limit=METADATA_LIMIT,
            )
            for kind, record in records.items()
        }
        return Metadata(**files, digest=digest)

    def _file(self, repository: Repository, location: str, checksum: tuple[str, str], *, limit: int) -> Path:
        kind, digest = checksum
        url = self._url(repository, location)
        if here := folder_of(url):
            path = here
        else:
            path = self.cache / digest / Path(location).name
            if not path.is_file() or digest_of(path, kind) != digest:
                self._download(url, path, limit=limit)
        try:
            found = digest_of(path, kind)
        except OSError as problem:
            raise ToolError(f"{path}: cannot be read: {problem.strerror}", hint=_HINT) from None
        if found != digest:
            raise ToolError(
                f"{url}: is not what the metadata of {repository.id} names",
                hint="the repository is damaged or being changed; try another mirror",
            )
        return path

    def _url(self, repository: Repository, location: str) -> str:
        if location.startswith("/") or "://" in location or ".." in Path(location).parts:
            raise ToolError(
                f"repository {repository.id}: names a file outside of itself: {location}",
                hint="the repository is damaged; try another mirror",
            )
        return f"{expand_url(repository.baseurl, self.target).rstrip('/')}/{location}"

    def _download(self, url: str, path: Path, *, limit: int) -> None:
        limits = Limits(timeout=_TIMEOUT, retries=_RETRIES, total_timeout=_TOTAL_TIMEOUT, size=limit)
        try:
            download(url, path, limits=limits, progress=self.progress)
        except FetchError as problem:
            raise ToolError(problem.message, hint=_HINT) from None


def verified_file(
    folder: Path, location: str, checksum: tuple[str, str], *, keys: Sequence[Key], workspace: Path
) -> Path:
    """A package of a repository of our own, by digest (kind and hex) and signature. Raises ToolError."""
    kind, digest = checksum
    path = folder / location
    if Path(location).name != location or path.is_symlink() or not path.is_file():
        raise ToolError(f"{path}: is missing", hint="`backport repo verify` names what is lost")
    if digest_of(path, kind) != digest:
        raise ToolError(
            f"{path}: is not what the metadata names", hint="`backport repo verify` names what is lost"
        )
    trust.verify_rpm(path, keys, workspace)
    return path


def metadata_of_folder(folder: Path) -> Metadata:
    """The metadata of a repository of our own. Raises ToolError."""
    records = _records(folder / FOLDER / REPOMD, str(folder))
    files = {kind: folder / record.location_href for kind, record in records.items()}
    for path in files.values():
        if not path.is_file():
            raise ToolError(f"{path}: is missing, though {REPOMD} names it")
    return Metadata(**files)


def _records(repomd: Path, what: str) -> dict[str, Any]:
    createrepo_c = bindings()
    try:
        records = {record.type: record for record in createrepo_c.Repomd(str(repomd)).records}
        return {kind: records[kind] for kind in ("primary", "filelists")}
    except KeyError as missing:
        raise ToolError(f"{what}: its metadata has no {missing}", hint=_HINT) from None
    except (createrepo_c.CreaterepoCError, OSError) as problem:
        raise ToolError(f"{what}: its metadata cannot be read: {problem}", hint=_HINT) from None
