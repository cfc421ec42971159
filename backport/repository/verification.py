"""Everything that is published read again, and each way in which it is not what it was.

Signatures are checked with public keys alone. Files that generations share are one file on the disk and
are read once.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from backport import repodata
from backport.errors import PublishError, ToolError, as_kind
from backport.evidence import store as evidence
from backport.files import digests_of, scratch_folder
from backport.repository.clients import MIRRORLIST, SiteKeys, key_of, mirrorlist
from backport.repository.contents import repositories_of
from backport.repository.generations import RECORD, Generation, TargetFolder
from backport.repository.grace import own_files
from backport.repository.surroundings import EXTRA, Fault, keys_beside, surroundings
from backport.repository.tree import File, Tree, read_tree, strange
from backport.repository.write import content_digest
from backport.settings import Key
from backport.signing.detached import verify_file
from backport.target import Target
from backport.trust import pinned_keyring

SIGNATURE = ".asc"
_BUILDS = "builds"
"""The folder in which earlier versions kept rows of a generation's page."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was read again, and what was found."""

    folder: str
    generations: tuple[str, ...]
    files: int
    """How many different files were read."""
    bytes: int
    """Their size together."""
    faults: tuple[Fault, ...]
    trusted: str
    """Whose keys were taken for good."""


@as_kind(PublishError)
def verify(
    folder: TargetFolder,
    target: Target,
    *,
    keys: Sequence[Path] = (),
    ids: Sequence[str] = (),
    site: SiteKeys | None = None,
    base_url: str | None = None,
    thorough: bool = True,
) -> Verified:
    """Read everything again: every file's digest, every signature, all metadata, every link, the record.

    One of ``keys`` must have signed; default: of those of the ``site``, or where there is none of those
    beside the generations, which proves no more than that the folder fits together. ``ids`` are the
    generations whose files are read (default: all). ``base_url`` is the URL of the channel's folder as
    clients see it. Unless it is to be ``thorough``, what signed digests vouch for is not asked for signatures
    of its own.

    Raises PublishError when there is nothing to read, or a key or a named generation cannot be read.
    """
    if folder.generations.is_symlink() or not folder.generations.is_dir():
        raise PublishError(f"{folder.path}: nothing is published there", hint="name another target or folder")
    for one in ids:
        folder.load(one)
    with scratch_folder(Path(tempfile.gettempdir()), "backport-verify-") as scratch:
        pinned, trusted = _trusted(folder, keys, site, scratch)
        reading = _Reading(
            folder=folder, target=target, keys={key.fingerprint: key for key in pinned}, thorough=thorough
        )
        names = tuple(ids) or folder.ids()
        reading.faults += surroundings(folder, target, pinned, site, base_url)
        for name in names:
            reading.read_generation(name)
        reading.check_signatures(scratch)
    return Verified(
        folder=str(folder.path), generations=names, files=len(reading.digests),
        bytes=sum(reading.sizes.values()), faults=tuple(sorted(set(reading.faults))), trusted=trusted,
    )  # fmt: skip


def _trusted(
    folder: TargetFolder, files: Sequence[Path], site: SiteKeys | None, scratch: Path
) -> tuple[list[Key], str]:
    """The keys of which one must have signed, and whose they are."""
    if files:
        return [Key(fingerprint=key_of(file), file=file) for file in files], "the keys that were named"
    if site is None:
        beside = [Key(fingerprint=key_of(file), file=file) for file in keys_beside(folder)]
        return beside, "the keys that lie beside, which proves no more than that the folder fits together"
    found = []
    for fingerprint, text in site.known.items():
        file = scratch / f"{fingerprint}.asc"
        file.write_text(text, "ascii")
        found.append(Key(fingerprint=fingerprint, file=file))
    return found, "the site's own keys"


@dataclass
class _Reading:
    """What is known while the generations are read one after the other."""

    folder: TargetFolder
    target: Target
    keys: Mapping[str, Key]
    thorough: bool
    digests: dict[tuple[int, int], str] = field(default_factory=dict)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    packages: dict[tuple[int, int], Path] = field(default_factory=dict)
    """Each package file once."""
    signed: dict[tuple[tuple[int, int], ...], tuple[Path, tuple[Key, ...]]] = field(default_factory=dict)
    """Each file with a detached signature once, with the keys of which one must have made it."""
    signers: list[tuple[Path, Generation, list[tuple[int, int]]]] = field(default_factory=list)
    """For each generation, the packages that its record says the signers of."""
    faults: list[Fault] = field(default_factory=list)
    owned: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    """What the metadata of each generation's repositories names, where somebody asked."""

    @cached_property
    def owner(self) -> int:
        return self.folder.path.stat().st_uid

    def fault(self, path: Path, detail: str) -> None:
        self.faults.append(Fault(path=path.relative_to(self.folder.path).as_posix(), detail=detail))

    def read_generation(self, name: str) -> None:
        place = self.folder.folder_of(name)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or strange(status, self.owner):
            self.fault(place, strange(status, self.owner) or "is no folder")
        if not stat.S_ISDIR(status.st_mode):
            return
        tree = read_tree(place, owner=self.owner)
        for path, detail in tree.faults:
            self.fault(path, detail)
        try:
            record = self.folder.load(name)
        except PublishError as problem:
            self.fault(place / RECORD, problem.message)
            return
        if (record.target, record.channel) not in {("", ""), (self.target.name, self.folder.channel)}:
            self.fault(place / RECORD, f"is of {record.channel}/{record.target}")
        if not name.startswith(f"{name.partition('-')[0]}-{content_digest(record)[:12]}"):
            self.fault(place / RECORD, "is of other metadata than that which gave the generation its name")
        present = tree.files
        self._read_digests(present.values())
        self._expect_signature(place, RECORD, present, self.keys.values())
        expected = {RECORD, f"{RECORD}{SIGNATURE}"}
        packages: dict[str, str] = {}
        for repository in repositories_of(self.target):
            expected |= self._check_repository(place, repository, record, present)
            packages |= self._described(place, repository)
        expected |= self._check_packages(place, record, packages, present)
        expected |= self._check_superseded(place, record, present)
        expected |= self._check_builds(place, record, present)
        expected |= self._check_evidence(place, record, present)
        expected |= self._check_mirrorlists(place, present)
        self._check_extra(place, tree, expected)

    def _check_extra(self, place: Path, tree: Tree, expected: Collection[str]) -> None:
        """What is here has to be named, or be shared."""
        folders = {str(one) for path in expected for one in Path(path).parents}
        optional = {*repositories_of(self.target), _BUILDS, evidence.FOLDER}
        for one in sorted(tree.folders - folders - optional - {"debug"}):
            self.fault(place / one, "is an extra folder")
        for one in sorted(tree.files.keys() - set(expected)):
            if not self._is_shared(place.name, one, self.digests[tree.files[one].identity]):
                self.fault(place / one, EXTRA)

    def check_signatures(self, scratch: Path) -> None:
        """Let rpm check every package's signature and digests, gpg every other signature, each file once."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            detached = pool.map(lambda item: (item[0], _not_signed(*item)), list(self.signed.values()))
            packages = list(self.packages.values()) if self.thorough else []
            keyring = pinned_keyring(tuple(self.keys.values()), scratch)
            found = keyring.verify_all(packages)
            for path, reason in detached:
                if reason:
                    self.fault(path, reason)
        for path, reason in found.wrong.items():
            self.fault(path, reason.removeprefix(f"{path.name}: "))
        for place, record, identities in self.signers if self.thorough else ():
            signers = [found.signers.get(self.packages[one]) for one in identities]
            if None not in signers and Counter(signers) != Counter(record.signers):
                self.fault(place / RECORD, "tells of other signers than the packages have")

    def _read_digests(self, files: Iterable[File]) -> None:
        new = {file.path: file for file in files if file.identity not in self.digests}
        for path, digest in digests_of(list(new)).items():
            self.digests[new[path].identity] = digest
            self.sizes[new[path].identity] = new[path].size

    def _check_repository(
        self, place: Path, name: str, record: Generation, present: Mapping[str, File]
    ) -> set[str]:
        """The files of a repository's metadata, which must be that of this very generation."""
        folder = place / name
        repomd = f"{name}/{repodata.FOLDER}/{repodata.REPOMD}"
        named = {repomd, f"{repomd}{SIGNATURE}"}
        signer = self.keys.get(record.fingerprint)
        if signer is None:
            self.fault(place / repomd, f"the key {record.fingerprint} is not among the public keys")
        self._expect_signature(place, repomd, present, [signer] if signer else [])
        file = present.get(repomd)
        if file is None or self.digests[file.identity] != record.metadata.get(name):
            self.fault(place / repomd, "is not that of this generation")
        if file is None:
            return named
        try:
            files = repodata.metadata_files(folder)
            named |= {f"{name}/{one}" for one in files}
            for found in repodata.check_metadata_files(folder):
                self.fault(folder / found.path, found.detail)
        except ToolError as problem:
            self.fault(place / repomd, problem.message)
        return named

    def _described(self, place: Path, name: str) -> dict[str, str]:
        """The digests of a repository's packages by path, as createrepo_c reads all of its metadata."""
        try:
            packages = repodata.read_packages(place / name)
        except ToolError as problem:
            self.fault(place / name / repodata.FOLDER / repodata.REPOMD, problem.message)
            return {}
        return {f"{name}/{one}": str(package.pkgId) for one, package in packages.items()}

    def _check_packages(
        self, place: Path, record: Generation, packages: Mapping[str, str], present: Mapping[str, File]
    ) -> set[str]:
        there = []
        for name, digest in packages.items():
            if (file := present.get(name)) is None:
                self.fault(place / name, "is missing")
                continue
            if self.digests[file.identity] != digest:
                self.fault(file.path, "is not the file that was published: it has another digest")
            self.packages.setdefault(file.identity, file.path)
            there.append(file.identity)
        self.signers.append((place, record, there))
        return set(packages)

    def _check_superseded(self, place: Path, record: Generation, present: Mapping[str, File]) -> set[str]:
        """Metadata files carry their digest in their name."""
        for name in record.superseded:
            file = present.get(name)
            if file is None:
                self.fault(place / name, "is missing: clients of the generation before may still ask for it")
            elif not file.path.name.startswith(f"{self.digests[file.identity]}-"):
                self.fault(file.path, "is not the file that its name tells of")
        return set(record.superseded)

    def _check_builds(self, place: Path, record: Generation, present: Mapping[str, File]) -> set[str]:
        """Rows that earlier versions kept: the record knows the names, and they the digests."""
        names = {one for one in present if one.startswith(f"{_BUILDS}/") and one.endswith(".tsv")}
        told = "\n".join(sorted(name.rpartition("/")[2] for name in names))
        if record.builds != (hashlib.sha256(told.encode()).hexdigest() if names else ""):
            self.fault(place / _BUILDS, "is not what this generation tells of its builds")
        for name in names:
            if self.digests[present[name].identity] != name.removesuffix(".tsv").partition("-")[2]:
                self.fault(place / name, "is not the file that its name tells of")
        return names

    def _check_evidence(self, place: Path, record: Generation, present: Mapping[str, File]) -> set[str]:
        names = [name for name in evidence.files(place) if name in present]
        if record.evidence:
            digests = {name: self.digests[present[name].identity] for name in names}
            if evidence.digest_of_all(digests) != record.evidence:
                self.fault(place / evidence.FOLDER, "is not the evidence of this generation")
        for name in names:
            if record.evidence and not self.thorough and f"{name}{SIGNATURE}" in present:
                continue
            self._expect_signature(place, name, present, self.keys.values())
        return {*names, *(f"{name}{SIGNATURE}" for name in names)}

    def _check_mirrorlists(self, place: Path, present: Mapping[str, File]) -> set[str]:
        """Each is one line, the URL of its own repository in this generation."""
        found = set()
        for name in repositories_of(self.target):
            path = f"{name}/{MIRRORLIST}"
            if path in present:
                found.add(path)
                told = present[path].path.read_bytes()[:4096].decode("utf-8", "replace")
                own = f"/{self.target.name}/generations/{place.name}"
                if told.count("\n") != 1 or not told.endswith(mirrorlist(own, name)):
                    self.fault(place / path, f"does not name {own}/{name}/ alone")
        return found

    def _is_shared(self, generation: str, path: str, digest: str) -> bool:
        """Whether another generation has the very file as its own; see `backport.repository.grace`."""
        name = next((one for one in repositories_of(self.target) if path.startswith(f"{one}/")), None)
        if name is None:
            return False
        for other in self.folder.ids():
            if (other, name) not in self.owned:
                try:
                    self.owned[other, name] = own_files(self.folder.folder_of(other), name)
                except PublishError:
                    self.owned[other, name] = {}
        inner = path.removeprefix(f"{name}/")
        return any(
            other != generation and self.owned[other, name].get(inner) == digest
            for other in self.folder.ids()
        )

    def _expect_signature(
        self, place: Path, name: str, present: Mapping[str, File], keys: Iterable[Key]
    ) -> None:
        found = [present[one].identity for one in (name, f"{name}{SIGNATURE}") if one in present]
        whole = tuple(found) if len(found) == 2 else ((0, len(self.signed)),)
        self.signed.setdefault(whole, (place / name, tuple(keys)))


def _not_signed(path: Path, keys: Iterable[Key]) -> str:
    """Why no key of these made a file's signature; empty when one did."""
    reason = "there is no key to check its signature by"
    for key in keys:
        try:
            verify_file(path, public_key=key.file, fingerprint=key.fingerprint)
        except ToolError as problem:
            reason = problem.message.removeprefix(f"{path}: ")
        else:
            return ""
    return reason
