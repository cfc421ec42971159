"""Which packages a generation holds: as its signed metadata tells, and nothing else.

The record of a generation has the digests of its ``repomd.xml`` files, they have those of the files that name
each package with its digest. So there is one account of them, which clients read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import rpm as rpm_bindings

from backport import repodata
from backport.artifacts import Nevra, Rpm, is_for_debugging
from backport.errors import PublishError, as_kind
from backport.files import digest_of
from backport.repository.generations import Generation, TargetFolder
from backport.roots.dnf import expand_url
from backport.target import Target
from backport.trust import read_header, signers_of

SOURCE = "source"


@dataclass(frozen=True, kw_only=True, order=True)
class PublishedRpm:
    """One package of a generation."""

    path: str
    """Relative to the generation's folder."""
    nevra: Nevra
    sha256: str
    """Digest of the file."""
    source: str = ""
    """The file name of its source package; its own for a source package."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a package's header says of it."""

    digest: str
    """SHA-256 of the header without its signatures; the header holds the payload's own digest, so that two
    files with the same are the same package, however they were signed."""
    source: str
    """The file name of the source package that it was built from; empty for a source package."""
    signers: tuple[str, ...]
    """The fingerprints and key ids by which its signatures name their maker."""

    def is_signed_by(self, fingerprint: str) -> bool:
        """Whether it claims to be signed by that key."""
        return any(fingerprint.endswith(name) for name in self.signers)


def repositories_of(target: Target) -> tuple[str, ...]:
    """The folders of a generation that are dnf repositories: packages, their debuginfo, sources."""
    return basearch(target), f"debug/{basearch(target)}", SOURCE


def basearch(target: Target) -> str:
    """The value of dnf's variable ``$basearch`` on the target."""
    return expand_url("$basearch", target)


def path_of(package: Rpm, target: Target) -> str:
    """Where a package lies in a generation. Raises PublishError for another architecture or release."""
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
    packages, debug, sources = repositories_of(target)
    if nevra.arch in {"src", "nosrc"}:
        return f"{sources}/{nevra.filename}"
    return f"{debug if is_for_debugging(nevra.name) else packages}/{nevra.filename}"


@as_kind(PublishError)
def content_of(path: Path) -> Content:
    """What the header of a package file says. Raises PublishError when it cannot be read."""
    header = read_header(path)
    digest = header[rpm_bindings.RPMTAG_SHA256HEADER]
    if not digest:
        raise PublishError(
            f"{path}: has no SHA-256 digest of its header", hint="build it with rpm 4.14 or later"
        )
    return Content(
        digest=_text(digest),
        source=_text(header[rpm_bindings.RPMTAG_SOURCERPM] or ""),
        signers=signers_of(header) or (),
    )


def packages_of(folder: TargetFolder, record: Generation) -> dict[str, PublishedRpm]:
    """The packages of a generation by their path, as createrepo_c's parser reads its metadata.

    Raises PublishError when that is damaged, or is not the metadata of this generation.
    """
    found: dict[str, PublishedRpm] = {}
    generation = folder.folder_of(record.id)
    for name, digest in record.metadata.items():
        repomd = generation / name / repodata.FOLDER / repodata.REPOMD
        if not repomd.is_file() or digest_of(repomd) != digest:
            raise PublishError(
                f"{repomd}: is not that of this generation", hint="`backport repo verify` tells what is lost"
            )
        found |= described(generation, name)
    return found


@as_kind(PublishError)
def described(generation: Path, name: str) -> Mapping[str, PublishedRpm]:
    """The packages of one repository by their path in the generation. Raises PublishError."""
    packages = repodata.read_primary(generation / name)
    return {f"{name}/{one.location_href}": published(name, one) for one in packages}


def published(name: str, package: repodata.Package) -> PublishedRpm:
    """A package as the metadata of the repository ``name`` describes it."""
    nevra = repodata.nevra_of(package)
    return PublishedRpm(
        path=f"{name}/{package.location_href}", nevra=nevra, sha256=package.pkgId,
        source=package.rpm_sourcerpm or nevra.filename,
    )  # fmt: skip


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
