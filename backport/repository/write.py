"""Writing a new generation as its plan says, in a folder that nobody sees yet, and signing it.

What another generation has is linked; new packages are added and described.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from backport import repodata
from backport.errors import PublishError
from backport.evidence import store as evidence
from backport.files import digest_of, link_or_copy, opened_folder, write_atomically
from backport.repository.advisories import add_updateinfo
from backport.repository.clients import write_mirrorlists
from backport.repository.contents import basearch, described, repositories_of
from backport.repository.generations import RECORD, Generation, generation_id
from backport.repository.place import Place
from backport.repository.plan import Described, Extended, Kept, NewRpm, Plan, Repository, location
from backport.repository.splice import extend_repodata, read_base
from backport.signing.key import Signer
from backport.target import Target

REPOMD = f"{repodata.FOLDER}/{repodata.REPOMD}"
"""Relative to a repository's folder."""
_LINKERS = 4


@dataclass
class Links:
    """What was put into a generation of what others have."""

    linked: set[str] = field(default_factory=set)
    """What is on the disk already, since another generation has it, too."""
    copied: list[Path] = field(default_factory=list)
    """What was copied where the file system has no hard links."""

    def add(self, source: Path | str, destination: Path | str) -> None:
        """Put a file at another place, too: by a hard link where the file system has them."""
        if link_or_copy(source, destination):
            self.linked.add(str(destination))
        else:
            self.copied.append(Path(destination))

    def add_all(self, source: Path, destination: Path, places: Sequence[str]) -> None:
        """The same for many files. Names are looked up in the open folders, by several threads."""
        with opened_folder(source) as old, opened_folder(destination) as new:

            def link(some: Sequence[str]) -> None:
                for place in some:
                    try:
                        os.link(place, place, src_dir_fd=old, dst_dir_fd=new)
                    except OSError:
                        self.add(source / place, destination / place)
                    else:
                        self.linked.add(f"{destination}/{place}")

            with ThreadPoolExecutor(_LINKERS) as pool:
                for _ in pool.map(link, (places[start::_LINKERS] for start in range(_LINKERS))):
                    pass


def write(plan: Plan, folder: Path, target: Target) -> Links:
    """Put all that needs no signature into ``folder``: packages and metadata; gives what was linked.

    Raises PublishError when what is there is damaged or a new package changed, HostError, OSError.
    """
    links = Links()
    for one in plan.repositories:
        (folder / one.name).mkdir(parents=True)
        for new in () if isinstance(one, Kept) else one.new:
            _copy(new, folder / new.path)

    def write_one(one: Repository) -> None:
        match one:
            case Kept():
                _keep(one, folder / one.name, links)
            case Extended():
                _extend(one, folder / one.name, links, plan.record.compression)
            case Described():
                _describe(one, folder / one.name, links, plan.record.compression)
        if one.name == basearch(target) and not isinstance(one, Kept):
            compression = plan.record.compression
            add_updateinfo(folder / one.name, plan.advisories, compression=compression)

    with ThreadPoolExecutor(len(plan.repositories)) as pool:
        for _ in pool.map(write_one, plan.repositories):
            pass
    return links


def sign(plan: Plan, folder: Path, place: Place, *, links: Links, signer: Signer) -> Generation:
    """Add evidence and the record to what was written, and sign everything that is new; gives the record.

    Raises PublishError, SignError, OSError.
    """
    evidence.place_evidence(
        folder, plan.evidence, earlier=plan.evidence_of, present=_present(plan, folder), signer=signer,
        link=links.add,
    )  # fmt: skip
    record = _completed(plan, folder, place)
    write_atomically(folder / RECORD, record.to_json())
    write_mirrorlists(folder, place, record.id)
    unsigned = [folder / one.name / REPOMD for one in plan.repositories if not isinstance(one, Kept)]
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(signer.sign_file, (folder / RECORD, *unsigned)):
            pass
    return record


def content_digest(record: Generation) -> str:
    """The digest over what a generation holds, whose beginning is the end of its id.

    The metadata, of which it is made, has the digest of every package.
    """
    lines = [record.compression, *(f"{digest} {name}" for name, digest in sorted(record.metadata.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _completed(plan: Plan, folder: Path, place: Place) -> Generation:
    """The record with what only the finished folder says."""
    metadata = {name: digest_of(folder / name / REPOMD) for name in repositories_of(place.target)}
    if plan.record.metadata and metadata != plan.record.metadata:
        raise PublishError(
            "the new generation does not read back: its metadata is not that of the generation to promote",
            hint="check the disk; the generation before may be damaged too",
        )
    record = replace(
        plan.record, metadata=metadata, superseded={}, builds="", evidence=evidence.digest_over(folder),
        target=place.target.name, channel=place.channel, history=place.folder.read_history().digest,
    )  # fmt: skip
    return replace(record, id=generation_id(record.time, content_digest(record), place.folder.generations))


def _present(plan: Plan, folder: Path) -> Mapping[str, str] | None:
    """The packages' digests by path; None when all that was there is still there."""
    if plan.keeps_all:
        return None
    found: dict[str, str] = {}
    for one in plan.repositories:
        found |= {path: package.sha256 for path, package in described(folder, one.name).items()}
    return found


def _copy(new: NewRpm, destination: Path) -> None:
    shutil.copyfile(new.rpm.path, destination)
    destination.chmod(0o644)
    if digest_of(destination) != new.rpm.sha256:
        raise PublishError(f"{new.rpm.path}: changed since it was tested", hint="build it again")


def _keep(one: Kept, folder: Path, links: Links) -> None:
    """The packages that the metadata names, and the metadata; not what is there for others' clients alone."""
    packages = repodata.read_primary(one.source)
    links.add_all(one.source, folder, [package.location_href for package in packages])
    (folder / repodata.FOLDER).mkdir()
    for file in (*repodata.metadata_files(one.source), REPOMD, f"{REPOMD}.asc"):
        links.add(one.source / file, folder / file)


def _extend(one: Extended, folder: Path, links: Links, compression: repodata.Compression) -> None:
    """Link the packages while the metadata is written: neither waits for Python's lock for long."""
    new = [location(each.path) for each in one.new]
    with ThreadPoolExecutor(1) as pool:
        linking = pool.submit(_link_packages, one.source, folder, links, set(new))
        base = read_base(one.source, compression)
        extend_repodata(folder, base, rpms=[folder / name for name in new])
        linked = linking.result()
    # What the metadata does not name is not carried on, and what it names must be there.
    for foreign in linked - base.locations:
        (folder / foreign).unlink()
    links.add_all(one.source, folder, sorted(base.locations - linked))


def _link_packages(source: Path, folder: Path, links: Links, but: set[str]) -> frozenset[str]:
    """Link the packages of a folder in the order in which the file system has them; gives their names."""
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(".rpm") and entry.name not in but]
    links.add_all(source, folder, names)
    return frozenset(names)


def _describe(one: Described, folder: Path, links: Links, compression: repodata.Compression) -> None:
    """What the generation before describes is not parsed again."""
    new = [location(each.path) for each in one.new]
    known = repodata.read_packages(one.source) if one.source else {}
    kept = {name: package for name, package in known.items() if name not in one.left_out | set(new)}
    if one.source:
        links.add_all(one.source, folder, list(kept))
    repodata.write_repodata(
        folder, compression=compression, known=kept, rpms=[folder / name for name in (*kept, *new)]
    )
