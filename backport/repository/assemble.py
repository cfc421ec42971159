"""One new generation, made beside those that are there, whole before anybody can see it.

What the generation before holds is linked, the new packages are added; all of it is described, signed,
read back, brought to the disk and proven, and only then gets its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from backport import repodata
from backport.artifacts import Rpm
from backport.errors import PublishError
from backport.evidence import store as evidence
from backport.evidence.store import Evidence, place_evidence
from backport.files import digest_of, link_or_copy, opened_folder, scratch_folder, sync, write_atomically
from backport.progress import Progress
from backport.repository.advisories import Advisory, add_updateinfo, read_advisories
from backport.repository.contents import Content, basearch, described, repositories_of
from backport.repository.generations import RECORD, Generation, TargetFolder, generation_id
from backport.repository.readers import own_files, write_mirrorlists
from backport.repository.splice import extend_repodata, read_base
from backport.signing.detached import verify_file
from backport.signing.key import Signer, open_key
from backport.site import Signing
from backport.target import Target

REPOMD = f"{repodata.FOLDER}/{repodata.REPOMD}"
"""Relative to a repository's folder."""
_LINKERS = 4
_SYNCS = 8
"""How many files are brought to the disk at a time: the file system writes its journal once for several."""

Proof = Callable[[Generation, Path], None]
"""Looks at a whole generation whose folder has not its name yet, and raises what keeps it from readers."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A package that is to be published, and where."""

    rpm: Rpm
    path: str
    """Relative to the generation's folder."""
    content: Content


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What all steps of making one generation share."""

    folder: TargetFolder
    target: Target
    url: str
    """The URL of the target's folder as clients see it."""
    public_key: Path
    before: Generation | None
    added: Sequence[Incoming]
    record: Generation
    advisories: tuple[Advisory, ...] = ()
    """What is told of the packages in the target's own repository."""
    evidence: Evidence | None = None
    """Where the added packages come from, and what was tested."""
    replaced: frozenset[str] = frozenset()
    """The paths of the added packages of which the generation before has another file."""
    removed: frozenset[str] = frozenset()
    """The paths of packages of the generation before that are not carried on."""
    lender: Path | None = None
    """The folder of the older generation from which the added packages come back."""
    copy_of: Path | None = None
    """The folder of the generation of another channel that this one is to be a copy of."""
    others: frozenset[str] = frozenset()
    """The paths of those of its packages that the generation before has not, or not so."""
    copied: list[Path] = field(default_factory=list)
    """What had to be copied for want of hard links."""
    linked: set[str] = field(default_factory=set)
    """What is on the disk already, since another generation has it, too."""

    @property
    def origin(self) -> Path:
        """Where the generation is copied from. Raises ValueError where it is not."""
        if self.copy_of is None:
            raise ValueError("it is no copy")
        return self.copy_of

    @property
    def before_path(self) -> Path | None:
        """The folder of the generation before."""
        return self.folder.folder_of(self.before.id) if self.before else None

    def repository_before(self, name: str) -> Path | None:
        """The folder of a repository in the generation before, where that has it."""
        path = self.before_path / name if self.before_path else None
        return path if path and path.is_dir() else None

    def is_unchanged(self, name: str) -> bool:
        """Whether a repository of the generation before stays as it is, metadata and all."""
        path = self.repository_before(name)
        return (
            path is not None
            and self.before is not None
            and self.before.fingerprint == self.record.fingerprint
            and self.before.compression == self.record.compression
            and not self.added_to(name)
            and not self.removed_from(name)
            and (name != basearch(self.target) or read_advisories(path) == self.advisories)
        )

    def is_extended(self, name: str) -> bool:
        """Whether packages come to a repository, and none changes, so that the metadata of the generation
        before is a part of the new."""
        return (
            self.repository_before(name) is not None
            and self.before is not None
            and self.before.compression == self.record.compression
            and not any(one.path in self.replaced for one in self.added_to(name))
            and not self.removed_from(name)
        )

    @property
    def changed(self) -> tuple[str, ...]:
        """The repositories whose metadata is new."""
        return tuple(name for name in repositories_of(self.target) if not self.is_unchanged(name))

    def added_to(self, name: str) -> list[Incoming]:
        """What comes to one of the repositories."""
        return [one for one in self.added if one.path.startswith(f"{name}/")]

    def removed_from(self, name: str) -> set[str]:
        """The locations of what goes from one of the repositories."""
        return {path.removeprefix(f"{name}/") for path in self.removed if path.startswith(f"{name}/")}

    @property
    def fresh(self) -> Collection[str]:
        """The paths of the packages whose files are still to be read."""
        return self.others if self.copy_of else {one.path for one in self.added}

    def link(self, source: Path | str, destination: Path | str) -> None:
        """Put a file at another place, too: by a hard link where the file system has them."""
        if link_or_copy(source, destination):
            self.linked.add(str(destination))
        else:
            self.copied.append(Path(destination))


def make_generation(
    publication: Publication, signing: Signing, progress: Progress, *, prove: Proof
) -> Generation:
    """Make the generation, whole, proven and on the disk, and give its record; no reader is led to it yet.

    It gets its name when ``prove`` has not raised: what is called like a generation was proven. Raises
    PublishError when it does not read back or a package changed, SignError when its metadata cannot be
    signed, HostError when this host cannot write it, OSError, what ``prove`` raises; nothing is left of it
    then.
    """
    repodata.compression_of(publication.record.compression)
    folder = publication.folder
    with scratch_folder(folder.generations, ".new-") as scratch:
        progress.note(f"linking {publication.record.packages} packages into a new generation")
        record = _made(publication, scratch, signing)
        _read_back(publication, scratch)
        _bring_to_disk(scratch, publication.linked)
        prove(record, scratch)
        scratch.rename(folder.folder_of(record.id))
        sync(folder.generations)
    if publication.copied:
        progress.note(f"copied {len(publication.copied)} files: the file system has no hard links")
    return record


def _made(publication: Publication, scratch: Path, signing: Signing) -> Generation:
    """The whole generation, signed, in ``scratch``; the packages are linked while the key is made ready."""
    with ThreadPoolExecutor() as pool:
        filling = pool.submit(_take_over if publication.copy_of else _fill, publication, scratch)
        with open_key(signing, digest=publication.target.signature_digest) as signer:
            _check_signer(signer, publication.record)
            filling.result()
            unsigned = [scratch / RECORD]
            if not publication.copy_of:
                unsigned += [scratch / name / REPOMD for name in publication.changed]
                _place_evidence(publication, scratch, signer)
            record = _completed(publication, scratch)
            write_atomically(scratch / RECORD, record.to_json())
            write_mirrorlists(scratch, publication.target, f"{publication.url}/generations/{record.id}")
            for _ in pool.map(signer.sign_file, unsigned):
                pass
    return record


def _completed(publication: Publication, scratch: Path) -> Generation:
    """The record with what only the finished folder tells."""
    metadata = metadata_digests(scratch, publication.target)
    if publication.copy_of and metadata != publication.record.metadata:
        raise _not_whole("its metadata is not that of the generation to promote")
    folder = publication.folder
    record = replace(
        publication.record, metadata=metadata, superseded={}, builds="",
        evidence=evidence.digest_over(scratch),
        target=publication.target.name, channel=folder.channel, history=folder.read_history().digest,
    )  # fmt: skip
    taken = folder.generations
    return replace(record, id=generation_id(record.time, content_digest(record), taken))


def _fill(publication: Publication, scratch: Path) -> None:
    """All that needs no signature: packages and metadata."""
    names = repositories_of(publication.target)
    for name in names:
        (scratch / name).mkdir(parents=True)
    _copy_packages(publication, scratch)
    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(_make_repository, publication, scratch, name) for name in names]:
            done.result()


def _place_evidence(publication: Publication, scratch: Path, signer: Signer) -> None:
    place_evidence(
        scratch, publication.evidence, before=publication.before_path,
        present=_present(publication, scratch), signer=signer, link=publication.link,
        lender=publication.lender,
    )  # fmt: skip


def _take_over(publication: Publication, scratch: Path) -> None:
    """Packages, metadata and evidence as they are; not what is there for others' clients alone."""
    origin = publication.origin
    for name in repositories_of(publication.target):
        (scratch / name / repodata.FOLDER).mkdir(parents=True)
        for path in (*own_files(origin, name), REPOMD, f"{REPOMD}.asc"):
            publication.link(origin / name / path, scratch / name / path)
    newest = [origin / f"{name}{end}" for name in evidence.NEWEST for end in ("", ".asc")]
    for file in (*newest, *(origin / evidence.FOLDER).glob("*")):
        if file.is_file():
            place = scratch / file.relative_to(origin)
            place.parent.mkdir(exist_ok=True)
            publication.link(file, place)


def _present(publication: Publication, scratch: Path) -> Mapping[str, str] | None:
    """The packages' digests by path; None when all that was there is still there."""
    if not publication.replaced and not publication.removed:
        return None
    found: dict[str, str] = {}
    for name in repositories_of(publication.target):
        found |= {path: one.sha256 for path, one in described(scratch, name).items()}
    return found


def _check_signer(signer: Signer, record: Generation) -> None:
    if signer.key.fingerprint != record.fingerprint:
        raise PublishError(
            f"the packages are signed by {record.fingerprint}, the site's key is {signer.key.fingerprint}",
            hint="sign the packages again: `backport build --force`",
        )


def metadata_digests(generation: Path, target: Target) -> dict[str, str]:
    """For each repository of a generation, the digest of its ``repomd.xml``. Raises OSError."""
    return {name: digest_of(generation / name / REPOMD) for name in repositories_of(target)}


def content_digest(record: Generation) -> str:
    """The digest over what a generation holds, whose beginning is the end of its id.

    The metadata, of which it is made, has the digest of every package.
    """
    lines = [record.compression, *(f"{digest} {name}" for name, digest in sorted(record.metadata.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _copy_packages(publication: Publication, scratch: Path) -> None:
    for one in publication.added:
        destination = scratch / one.path
        shutil.copyfile(one.rpm.path, destination)
        destination.chmod(0o644)
        if digest_of(destination) != one.rpm.sha256:
            raise PublishError(f"{one.rpm.path}: changed since it was tested", hint="build it again")


def _make_repository(publication: Publication, scratch: Path, name: str) -> None:
    """One repository's packages and metadata, which is still to be signed; one to which nothing was added
    keeps that which clients know."""
    before = publication.repository_before(name)
    if before and publication.is_unchanged(name):
        packages = repodata.read_primary(before)
        _link_packages(publication, before, scratch / name, [one.location_href for one in packages])
        _link_metadata(publication, before, scratch / name)
        return
    if before and publication.is_extended(name):
        _extend(publication, before, scratch, name)
    else:
        _describe_anew(publication, before, scratch, name)
    if name == basearch(publication.target):
        compression = publication.target.compression
        add_updateinfo(scratch / name, publication.advisories, compression=compression)


def _extend(publication: Publication, before: Path, scratch: Path, name: str) -> None:
    """Link the packages while the metadata is written: neither waits for Python's lock for long."""
    folder = scratch / name
    with ThreadPoolExecutor(1) as pool:
        added = {one.path.rpartition("/")[2] for one in publication.added_to(name)}
        linking = pool.submit(_link_all, publication, before, folder, added)
        base = read_base(before, publication.record.compression)
        extend_repodata(folder, base, rpms=[scratch / one.path for one in publication.added_to(name)])
        linked = linking.result()
    # What the metadata does not name is not carried on, and what it names must be there.
    for foreign in linked - base.locations:
        (folder / foreign).unlink()
    _link_packages(publication, before, folder, sorted(base.locations - linked))


def _link_all(publication: Publication, before: Path, folder: Path, added: Collection[str]) -> frozenset[str]:
    """Link the packages of a folder, but ``added``, in the order in which the file system has them; their
    names."""
    with os.scandir(before) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".rpm") and entry.name not in added]
    _link_packages(publication, before, folder, names)
    return frozenset(names)


def _describe_anew(publication: Publication, before: Path | None, scratch: Path, name: str) -> None:
    """What the generation before describes is not parsed again."""
    added = {one.path.removeprefix(f"{name}/") for one in publication.added_to(name)}
    known = repodata.read_packages(before) if before else {}
    left_out = added | publication.removed_from(name)
    kept = {place: package for place, package in known.items() if place not in left_out}
    if before:
        _link_packages(publication, before, scratch / name, list(kept))
    repodata.write_repodata(
        scratch / name, compression=publication.target.compression, known=kept,
        rpms=[scratch / name / place for place in (*kept, *added)],
    )  # fmt: skip


def _link_packages(publication: Publication, before: Path, folder: Path, places: Sequence[str]) -> None:
    """Names are looked up in the open folders, by several threads, since there may be many."""
    with opened_folder(before) as source, opened_folder(folder) as destination:

        def link(some: Sequence[str]) -> None:
            for place in some:
                try:
                    os.link(place, place, src_dir_fd=source, dst_dir_fd=destination)
                except OSError:
                    publication.link(before / place, folder / place)
                else:
                    publication.linked.add(f"{folder}/{place}")

        with ThreadPoolExecutor(_LINKERS) as pool:
            for _ in pool.map(link, (places[start::_LINKERS] for start in range(_LINKERS))):
                pass


def _link_metadata(publication: Publication, before: Path, folder: Path) -> None:
    (folder / repodata.FOLDER).mkdir()
    for file in (*repodata.metadata_files(before), REPOMD, f"{REPOMD}.asc"):
        publication.link(before / file, folder / file)


def _read_back(publication: Publication, scratch: Path) -> None:
    """Read what is new in a generation as a client would: every signature, digest and file.

    What is linked from the generation before was read back when that was made.
    """
    with ThreadPoolExecutor() as pool:
        verifying = pool.submit(_verify, publication, scratch / RECORD)
        names = repositories_of(publication.target)
        problems = pool.map(partial(_problem, publication, scratch), names)
        for name, problem in zip(names, problems, strict=True):
            if problem:
                raise _not_whole(f"{name}/{problem}")
        verifying.result()


def _verify(publication: Publication, path: Path) -> None:
    key, fingerprint = publication.public_key, publication.record.fingerprint
    verify_file(path, public_key=key, fingerprint=fingerprint)


def _problem(publication: Publication, scratch: Path, name: str) -> repodata.Discrepancy | None:
    folder = scratch / name
    _verify(publication, folder / REPOMD)
    if publication.copy_of is None and (publication.is_unchanged(name) or publication.is_extended(name)):
        problems = repodata.check_metadata_files(folder)
    else:
        fresh = {path.removeprefix(f"{name}/") for path in publication.fresh}
        problems = repodata.check_repodata(folder, digests=fresh)
    return problems[0] if problems else None


def _not_whole(reason: str) -> PublishError:
    return PublishError(
        f"the new generation does not read back: {reason}",
        hint="check the disk; the generation before may be damaged too",
    )


def _bring_to_disk(scratch: Path, linked: Collection[str]) -> None:
    """Fsync everything that is new, all files before the folders that name them; what is linked from the
    generation before is on the disk already."""
    files: list[str] = []
    folders: list[str] = []
    for folder, _, names in os.walk(scratch):
        folders.append(folder)
        files += [path for name in names if (path := f"{folder}/{name}") not in linked]
    with ThreadPoolExecutor(_SYNCS) as pool:
        for _ in pool.map(sync, files):
            pass
        for _ in pool.map(_sync_folder, folders):
            pass


def _sync_folder(path: str) -> None:
    Path(path).chmod(0o755)
    sync(path)
