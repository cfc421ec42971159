"""One new generation, made beside those that are there, whole before anybody can see it.

What the generation before holds is linked, the new packages are added; all of it is described, signed,
read back and brought to the disk, and only then gets its name. Metadata files of the generation before
stay reachable for a while, so that a client which has just read the old ``repomd.xml`` still finds all
that it names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from backport import repodata
from backport.artifacts import Rpm
from backport.errors import PublishError
from backport.evidence.store import Evidence, place_evidence
from backport.files import digest_of, scratch_folder, write_atomically
from backport.progress import Progress
from backport.repository.advisories import Advisory, add_updateinfo, read_advisories
from backport.repository.generations import (
    RECORD,
    Generation,
    PublishedRpm,
    TargetFolder,
    generation_id,
    sync_folder,
)
from backport.repository.splice import extend_repodata
from backport.roots.dnf import expand_url
from backport.signing.key import Signer, open_key, verify_file
from backport.site import Signing
from backport.target import Target

GRACE = timedelta(days=3)
"""How long superseded metadata stays reachable; dnf uses what it has for two days by default."""
SOURCE = "source"
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A package that is to be published, and where."""

    rpm: Rpm
    entry: PublishedRpm


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What all steps of making one generation share."""

    folder: TargetFolder
    target: Target
    public_key: Path
    before: Generation | None
    added: Sequence[Incoming]
    record: Generation
    advisories: tuple[Advisory, ...] = ()
    """What is told of the packages in the target's own repository."""
    evidence: Evidence | None = None
    """Where the added packages come from, and what was tested."""
    copy_of: Path | None = None
    """The folder of the generation of another channel that this one is to be a copy of."""
    copied: list[Path] = field(default_factory=list)
    """What had to be copied for want of hard links."""

    @property
    def before_path(self) -> Path | None:
        """The folder of the generation before."""
        return self.folder.generations / self.before.id if self.before else None

    def is_unchanged(self, name: str) -> bool:
        """Whether a repository of the generation before stays as it is, metadata and all."""
        before, path = self.before, self.before_path
        return (
            before is not None
            and path is not None
            and (path / name).is_dir()
            and before.fingerprint == self.record.fingerprint
            and before.compression == self.record.compression
            and not self.added_to(name)
            and (name != basearch(self.target) or read_advisories(path / name) == self.advisories)
        )

    def is_extended(self, name: str) -> bool:
        """Whether packages come to a repository, and none goes or changes, so that the metadata of the
        generation before is a part of the new."""
        before, path = self.before, self.before_path
        if before is None or path is None or not (path / name).is_dir():
            return False
        old, new = paths_in(name, before), {one.entry.path for one in self.added_to(name)}
        return (
            before.compression == self.record.compression == "gz"
            and not old & new
            and len(old) + len(new) == len(paths_in(name, self.record))
        )

    def added_to(self, name: str) -> list[Incoming]:
        """What comes to one of the repositories."""
        return [one for one in self.added if one.entry.path.startswith(f"{name}/")]

    @property
    def present(self) -> Mapping[str, str] | None:
        """The packages' digests by path; None when all that was there is still there."""
        now = {rpm.path: rpm.sha256 for rpm in self.record.rpms}
        kept = all(now.get(rpm.path) == rpm.sha256 for rpm in self.before.rpms) if self.before else True
        return None if kept else now

    def link(self, source: Path, destination: Path) -> None:
        """Put a file at another place, too: by a hard link where the file system has them."""
        _link(source, destination, self.copied)


def repositories_of(target: Target) -> tuple[str, ...]:
    """The folders of a generation that are dnf repositories: packages, their debuginfo, sources."""
    return basearch(target), f"debug/{basearch(target)}", SOURCE


def paths_in(repository: str, record: Generation | None) -> set[str]:
    """The packages of one of a generation's repositories."""
    return {rpm.path for rpm in record.rpms if rpm.path.startswith(f"{repository}/")} if record else set()


def basearch(target: Target) -> str:
    """The value of dnf's variable ``$basearch`` on the target."""
    return expand_url("$basearch", target)


def make_generation(publication: Publication, signing: Signing, progress: Progress) -> Generation:
    """Make the generation, whole and on the disk, and give its record; no reader is led to it yet.

    Raises PublishError when it does not read back or a package changed, SignError when its metadata
    cannot be signed, OSError; nothing is left of it then.
    """
    folder = publication.folder
    with (
        open_key(signing, digest=publication.target.signature_digest) as signer,
        scratch_folder(folder.generations, ".new-") as scratch,
    ):
        _check_signer(signer, publication.record)
        progress.note(f"linking {len(publication.record.rpms)} packages into a new generation")
        if publication.copy_of:
            _take_over(publication, publication.copy_of, scratch)
        else:
            _fill(publication, scratch, signer)
        record = replace(
            publication.record,
            id=generation_id(publication.record.time, content_digest(publication.record), folder.generations),
            superseded=_keep_superseded(publication, scratch),
            metadata=metadata_digests(scratch, publication.target),
        )
        write_atomically(scratch / RECORD, record.to_json())
        signer.sign_file(scratch / RECORD)
        _read_back(publication, scratch)
        _bring_to_disk(scratch, linked=publication.copy_of or publication.before_path)
        scratch.rename(folder.generations / record.id)
        sync_folder(folder.generations)
    if publication.copied:
        progress.note(f"copied {len(publication.copied)} files: the file system has no hard links")
    return record


def _fill(publication: Publication, scratch: Path, signer: Signer) -> None:
    for name in repositories_of(publication.target):
        (scratch / name).mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        linking = pool.submit(_link_packages, publication, scratch)
        _copy_packages(publication, scratch)
        _describe(publication, scratch, signer, linking)
        linking.result()
    place_evidence(
        scratch, publication.evidence, before=publication.before_path, present=publication.present,
        signer=signer, link=publication.link,
    )  # fmt: skip


def _take_over(publication: Publication, origin: Path, scratch: Path) -> None:
    """Packages, metadata and evidence as they are; not what only clients of the other channel knew."""
    own = Generation.from_json((origin / RECORD).read_text(encoding="utf-8"))
    left_out = {RECORD, f"{RECORD}.asc", *own.superseded}
    for folder, _, names in os.walk(origin):
        place = Path(folder).relative_to(origin)
        (scratch / place).mkdir(exist_ok=True)
        for name in names:
            if (place / name).as_posix() not in left_out:
                publication.link(origin / place / name, scratch / place / name)


def _check_signer(signer: Signer, record: Generation) -> None:
    if signer.key.fingerprint != record.fingerprint:
        raise PublishError(
            f"the packages are signed by {record.fingerprint}, the site's key is {signer.key.fingerprint}",
            hint="sign the packages again: `backport build --force`",
        )


def metadata_digests(generation: Path, target: Target) -> dict[str, str]:
    """For each repository of a generation, the digest of its ``repomd.xml``. Raises OSError."""
    return {
        name: digest_of(generation / name / repodata.FOLDER / repodata.REPOMD)
        for name in repositories_of(target)
    }


def content_digest(record: Generation) -> str:
    """The digest over a generation's packages, whose beginning is the end of its id."""
    lines = [record.compression, *(f"{rpm.sha256} {rpm.path}" for rpm in record.rpms)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _copy_packages(publication: Publication, scratch: Path) -> None:
    for one in publication.added:
        destination = scratch / one.entry.path
        shutil.copyfile(one.rpm.path, destination)
        destination.chmod(0o644)
        if digest_of(destination) != one.entry.sha256:
            raise PublishError(f"{one.rpm.path}: changed since it was tested", hint="build it again")


def _link_packages(publication: Publication, scratch: Path) -> None:
    """What the generation before holds; paths are joined as text, since there may be many."""
    added, before = {one.entry.path for one in publication.added}, publication.before_path
    for entry in publication.record.rpms:
        if before and entry.path not in added:
            _link(f"{before}/{entry.path}", f"{scratch}/{entry.path}", publication.copied)


def _link(source: Path | str, destination: Path | str, copied: list[Path]) -> None:
    try:
        os.link(source, destination)
    except OSError as problem:
        if problem.errno not in _NO_HARD_LINKS:
            raise
        shutil.copy2(source, destination)
        copied.append(Path(destination))


def _describe(publication: Publication, scratch: Path, signer: Signer, linking: Future[None]) -> None:
    """Signed metadata; a repository to which nothing was added keeps that which clients know."""
    for name in repositories_of(publication.target):
        before = publication.before_path / name if publication.before_path else None
        if before and publication.is_unchanged(name):
            _link_metadata(before, scratch / name, publication.copied)
            continue
        if before and publication.is_extended(name):
            extend_repodata(
                scratch / name, before, known=len(paths_in(name, publication.before)),
                rpms=[scratch / one.entry.path for one in publication.added_to(name)],
            )  # fmt: skip
        else:
            linking.result()
            repodata.write_repodata(
                scratch / name, compression=publication.target.compression, known=_known(publication, name),
                rpms=[scratch / path for path in paths_in(name, publication.record)],
            )  # fmt: skip
        if name == basearch(publication.target):
            compression = publication.target.compression
            add_updateinfo(scratch / name, publication.advisories, compression=compression)
        signer.sign_file(scratch / name / repodata.FOLDER / repodata.REPOMD)


def _link_metadata(source: Path, destination: Path, copied: list[Path]) -> None:
    (destination / repodata.FOLDER).mkdir()
    repomd = f"{repodata.FOLDER}/{repodata.REPOMD}"
    for file in (*repodata.metadata_files(source), repomd, f"{repomd}.asc"):
        _link(source / file, destination / file, copied)


def _known(publication: Publication, name: str) -> Mapping[str, repodata.Package]:
    """What the generation before describes, so that it is not parsed again."""
    if publication.before_path is None or not (publication.before_path / name).is_dir():
        return {}
    added = {one.entry.path for one in publication.added}
    described = repodata.read_packages(publication.before_path / name)
    return {place: package for place, package in described.items() if f"{name}/{place}" not in added}


def _keep_superseded(publication: Publication, scratch: Path) -> dict[str, datetime]:
    """Link the metadata files that clients of earlier generations may still ask for."""
    before, path = publication.before, publication.before_path
    if before is None or path is None:
        return {}
    now = publication.record.time
    kept = {name: since for name, since in before.superseded.items() if now - since < GRACE}
    for name in repositories_of(publication.target):
        if (path / name).is_dir():
            kept |= {f"{name}/{file}": now for file in repodata.metadata_files(path / name)}
    kept = {
        name: since
        for name, since in kept.items()
        if not (scratch / name).exists() and (path / name).exists()
    }
    for name in kept:
        _link(path / name, scratch / name, publication.copied)
    return kept


def _read_back(publication: Publication, scratch: Path) -> None:
    """Read what is new in a generation as a client would: every signature, digest and file.

    What is linked from the generation before was read back when that was made.
    """
    for name in repositories_of(publication.target):
        folder = scratch / name
        verify_file(
            folder / repodata.FOLDER / repodata.REPOMD, public_key=publication.public_key,
            fingerprint=publication.record.fingerprint, error=PublishError,
        )  # fmt: skip
        if publication.copy_of is None and (publication.is_unchanged(name) or publication.is_extended(name)):
            problems = repodata.check_metadata_files(folder)
        else:
            new_here = {one.entry.path.removeprefix(f"{name}/") for one in publication.added_to(name)}
            problems = repodata.check_repodata(folder, digests=new_here)
            _require_described(publication.record, name, folder)
        if problems:
            raise _not_whole(f"{name}/{problems[0]}")


def _require_described(record: Generation, name: str, folder: Path) -> None:
    packages = repodata.read_packages(folder)
    described = {f"{name}/{place}": package.pkgId for place, package in packages.items()}
    if described != {rpm.path: rpm.sha256 for rpm in record.rpms if rpm.path.startswith(f"{name}/")}:
        raise _not_whole("the metadata and the generation's record describe other packages")


def _not_whole(reason: str) -> PublishError:
    return PublishError(
        f"the new generation does not read back: {reason}",
        hint="check the disk; the generation before may be damaged too",
    )


def _bring_to_disk(scratch: Path, *, linked: Path | None) -> None:
    """Fsync everything that is new; what is linked from the generation before is on the disk already."""
    for folder, _, _ in os.walk(scratch):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and (linked is None or entry.stat().st_nlink == 1):
                    _sync_file(Path(entry.path))
        Path(folder).chmod(0o755)
        sync_folder(Path(folder))


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
