"""Everything that is published read again, and each way in which it is not what it was.

Signatures are checked with public keys alone. Files that generations share are one file on the disk and
are read once.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backport import repodata
from backport.errors import PublishError
from backport.evidence import store as evidence
from backport.files import digests_of, scratch_folder
from backport.repository import builds
from backport.repository.assemble import content_digest
from backport.repository.contents import repositories_of
from backport.repository.generations import RECORD, Generation, TargetFolder
from backport.repository.overview import PAGE
from backport.repository.readers import MIRRORLIST, mirrorlist, own_files
from backport.settings import Key
from backport.signing.key import verify_file
from backport.target import Target
from backport.trust import fingerprints_in, pinned_keyring

SIGNATURE = ".asc"


@dataclass(frozen=True, kw_only=True, order=True)
class Fault:
    """One thing that is not as it was published."""

    path: str
    """Relative to the target's folder."""
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


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


def verify(
    folder: TargetFolder,
    target: Target,
    *,
    keys: Sequence[Path] = (),
    ids: Sequence[str] = (),
) -> Verified:
    """Read everything again: every file's digest, every signature, all metadata, every link.

    ``keys`` are the public keys of which one must have signed (default: those beside the generations,
    which proves no more than that the folder fits together), ``ids`` the generations (default: all).
    Raises PublishError when there is nothing to read, or a key or a named generation cannot be read.
    """
    if not folder.generations.is_dir():
        raise PublishError(f"{folder.path}: nothing is published there", hint="name another target or folder")
    for one in ids:
        folder.load(one)
    files = list(keys) or _keys_beside(folder)
    pinned = [Key(fingerprint=found, file=file) for file in files for found in _only_key(file)]
    reading = _Reading(folder=folder, target=target, keys={key.fingerprint: key for key in pinned})
    names = tuple(ids) or folder.ids()
    if not ids:
        reading.faults += _about_folder(folder, pinned)
    for name in names:
        reading.read_generation(name)
    reading.check_signatures()
    return Verified(
        folder=str(folder.path), generations=names, files=len(reading.digests),
        bytes=sum(reading.sizes.values()), faults=tuple(sorted(set(reading.faults))),
    )  # fmt: skip


@dataclass(frozen=True)
class _File:
    """A file of a generation."""

    path: Path
    identity: tuple[int, int]
    """Device and inode: files that generations share are the same."""
    size: int


@dataclass
class _Reading:
    """What is known while the generations are read one after the other."""

    folder: TargetFolder
    target: Target
    keys: Mapping[str, Key]
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

    def fault(self, path: Path, detail: str) -> None:
        self.faults.append(Fault(path=path.relative_to(self.folder.path).as_posix(), detail=detail))

    def read_generation(self, name: str) -> None:
        place = self.folder.folder_of(name)
        try:
            record = self.folder.load(name)
        except PublishError as problem:
            self.fault(place / RECORD, problem.message)
            return
        if not name.startswith(f"{name.partition('-')[0]}-{content_digest(record)[:12]}"):
            self.fault(place / RECORD, "is of other metadata than that which gave the generation its name")
        present = dict(self._walk(str(place), ""))
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
        expected |= self._check_evidence(place, present)
        expected |= self._check_mirrorlists(place, present)
        for path in sorted(present.keys() - expected):
            if not self._is_on_loan(name, path, self.digests[present[path].identity]):
                self.fault(place / path, "is an extra file, which nothing names")

    def check_signatures(self) -> None:
        """Let rpm check every package's signature and digests, gpg every other signature, each file once."""
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            scratch_folder(Path(tempfile.gettempdir()), "backport-verify-") as scratch,
        ):
            detached = pool.map(lambda item: (item[0], _not_signed(*item)), list(self.signed.values()))
            keyring = pinned_keyring(tuple(self.keys.values()), scratch, error=PublishError)
            found = keyring.verify_all(list(self.packages.values()))
            for path, reason in detached:
                if reason:
                    self.fault(path, reason)
        for path, reason in found.wrong.items():
            self.fault(path, reason.removeprefix(f"{path.name}: "))
        for place, record, identities in self.signers:
            signers = [found.signers.get(self.packages[one]) for one in identities]
            if None not in signers and Counter(signers) != Counter(record.signers):
                self.fault(place / RECORD, "tells of other signers than the packages have")

    def _walk(self, folder: str, relative: str) -> Iterator[tuple[str, _File]]:
        """Every file by its path in the generation; paths are joined as text, since there may be many."""
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{relative}{entry.name}"
                if entry.is_symlink():
                    self.fault(Path(entry.path), "is a symbolic link; a generation holds files alone")
                elif entry.is_dir():
                    yield from self._walk(entry.path, f"{name}/")
                else:
                    status = entry.stat(follow_symlinks=False)
                    identity = status.st_dev, status.st_ino
                    yield name, _File(Path(entry.path), identity, status.st_size)

    def _read_digests(self, files: Iterable[_File]) -> None:
        new = {file.path: file for file in files if file.identity not in self.digests}
        for path, digest in digests_of(list(new)).items():
            self.digests[new[path].identity] = digest
            self.sizes[new[path].identity] = new[path].size

    def _check_repository(
        self, place: Path, name: str, record: Generation, present: Mapping[str, _File]
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
        try:
            named |= {f"{name}/{one}" for one in repodata.metadata_files(folder)}
            for found in repodata.check_metadata_files(folder):
                self.fault(folder / found.path, found.detail)
        except PublishError as problem:
            self.fault(place / repomd, problem.message)
        return named

    def _described(self, place: Path, name: str) -> dict[str, str]:
        """The digests of a repository's packages by path, as createrepo_c reads all of its metadata."""
        try:
            packages = repodata.read_packages(place / name)
        except PublishError as problem:
            self.fault(place / name / repodata.FOLDER / repodata.REPOMD, problem.message)
            return {}
        return {f"{name}/{one}": str(package.pkgId) for one, package in packages.items()}

    def _check_packages(
        self, place: Path, record: Generation, packages: Mapping[str, str], present: Mapping[str, _File]
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

    def _check_superseded(self, place: Path, record: Generation, present: Mapping[str, _File]) -> set[str]:
        """Metadata files carry their digest in their name."""
        for name in record.superseded:
            file = present.get(name)
            if file is None:
                self.fault(place / name, "is missing: clients of the generation before may still ask for it")
            elif not file.path.name.startswith(f"{self.digests[file.identity]}-"):
                self.fault(file.path, "is not the file that its name tells of")
        return set(record.superseded)

    def _check_builds(self, place: Path, record: Generation, present: Mapping[str, _File]) -> set[str]:
        """What the page is made of: the record knows the names, and they the digests."""
        names = {path.relative_to(place).as_posix() for path in builds.files(place)}
        if builds.digest_over(place) != record.builds:
            self.fault(place / builds.FOLDER, "is not what this generation tells of its builds")
        for name in names & present.keys():
            if self.digests[present[name].identity] != builds.digest_in_name(place / name):
                self.fault(place / name, "is not the file that its name tells of")
        return names

    def _check_evidence(self, place: Path, present: Mapping[str, _File]) -> set[str]:
        names = evidence.files(place)
        for name in names:
            self._expect_signature(place, name, present, self.keys.values())
        return {*names, *(f"{name}{SIGNATURE}" for name in names)}

    def _check_mirrorlists(self, place: Path, present: Mapping[str, _File]) -> set[str]:
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

    def _is_on_loan(self, generation: str, path: str, digest: str) -> bool:
        """Whether another generation has the very file as its own; see `backport.repository.readers`."""
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
        self, place: Path, name: str, present: Mapping[str, _File], keys: Iterable[Key]
    ) -> None:
        found = [present[one].identity for one in (name, f"{name}{SIGNATURE}") if one in present]
        whole = tuple(found) if len(found) == 2 else ((0, len(self.signed)),)
        self.signed.setdefault(whole, (place / name, tuple(keys)))


def _not_signed(path: Path, keys: Iterable[Key]) -> str:
    """Why no key of these made a file's signature; empty when one did."""
    reason = "there is no key to check its signature by"
    for key in keys:
        try:
            verify_file(path, public_key=key.file, fingerprint=key.fingerprint, error=PublishError)
        except PublishError as problem:
            reason = problem.message.removeprefix(f"{path}: ")
        else:
            return ""
    return reason


def _about_folder(folder: TargetFolder, keys: Sequence[Key]) -> Iterator[Fault]:
    """What is wrong beside the generations: the link, the history, the files for clients."""
    try:
        current = folder.current_generation()
        folder.history()
    except PublishError as problem:
        yield Fault(path=folder.current.name, detail=problem.message)
        current = None
    if current and current.fingerprint not in {key.fingerprint for key in keys}:
        yield Fault(path=folder.public_key.name, detail=f"is not the key {current.fingerprint} that signs")
    names = {".lock", "current", "generations", "history.jsonl", PAGE, folder.repo_file.name}
    for path in sorted(folder.path.iterdir()):
        if path.name not in names and not path.name.startswith(folder.public_key.name):
            yield Fault(path=path.name, detail="is an extra file, which nothing names")
    for path in sorted(folder.generations.iterdir()):
        if path.name not in folder.ids():
            yield Fault(path=f"generations/{path.name}", detail="is no generation; see `backport repo gc`")
    for path in (folder.repo_file, folder.public_key):
        if current and not path.is_file():
            yield Fault(path=path.name, detail="is missing")


def _keys_beside(folder: TargetFolder) -> list[Path]:
    found = sorted(folder.path.glob(f"{folder.public_key.name}*"))
    if not found:
        raise PublishError(f"{folder.public_key}: is missing", hint="name the key's file by --key")
    return found


def _only_key(file: Path) -> tuple[str, ...]:
    found = fingerprints_in(file, error=PublishError)
    if len(found) != 1:
        raise PublishError(
            f"{file}: holds {len(found)} keys, not one", hint="give each key a file of its own"
        )
    return found
