"""Everything that is published read again, and each way in which it is not what it was.

Signatures are checked with public keys alone. Files that generations share are one file on the disk and
are read once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backport import repodata
from backport.errors import PublishError
from backport.evidence import store as evidence
from backport.files import digest_of, scratch_folder
from backport.repository.assemble import content_digest, repositories_of
from backport.repository.generations import RECORD, Generation, TargetFolder
from backport.repository.overview import PAGE
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


@dataclass
class _Reading:
    """What is known while the generations are read one after the other."""

    folder: TargetFolder
    target: Target
    keys: Mapping[str, Key]
    digests: dict[tuple[int, int], str] = field(default_factory=dict)
    """By device and inode."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    packages: dict[tuple[int, int], tuple[Path, str]] = field(default_factory=dict)
    """Each package file once, with the key that its record names."""
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: Path, detail: str) -> None:
        self.faults.append(Fault(path=path.relative_to(self.folder.path).as_posix(), detail=detail))

    def read_generation(self, name: str) -> None:
        place = self.folder.generations / name
        try:
            record = self.folder.load(name)
        except PublishError as problem:
            self.fault(place / RECORD, problem.message)
            return
        if not name.startswith(f"{name.partition('-')[0]}-{content_digest(record)[:12]}"):
            self.fault(place / RECORD, "lists other packages than those that gave the generation its name")
        present = self._walk(place)
        self._read_digests(present.values())
        self._check_signature(place / RECORD, self.keys.values())
        expected = {RECORD, f"{RECORD}{SIGNATURE}", *self._check_packages(place, record, present)}
        for repository in repositories_of(self.target):
            expected |= self._check_repository(place, repository, record)
        expected |= self._check_superseded(place, record, present)
        expected |= self._check_evidence(place)
        for path in sorted(present.keys() - expected):
            self.fault(place / path, "is an extra file, which nothing names")

    def check_signatures(self) -> None:
        """Let rpm check every package's signature and digests, each file once."""
        paths = [path for path, _ in self.packages.values()]
        with scratch_folder(Path(tempfile.gettempdir()), "backport-verify-") as scratch:
            keyring = pinned_keyring(tuple(self.keys.values()), scratch, error=PublishError)
            wrong = keyring.verify_all(paths)
            for path, key in self.packages.values():
                if path in wrong:
                    self.fault(path, wrong[path].removeprefix(f"{path.name}: "))
                elif (signer := keyring.signer_of(path)) != key:
                    self.fault(path, f"is signed by {signer}, its generation's record says by {key}")

    def _walk(self, place: Path) -> dict[str, Path]:
        present: dict[str, Path] = {}
        for folder, folders, names in os.walk(place):
            for name in (*names, *folders):
                path = Path(folder, name)
                if path.is_symlink():
                    self.fault(path, "is a symbolic link; a generation holds files alone")
                elif name in names:
                    present[path.relative_to(place).as_posix()] = path
        return present

    def _read_digests(self, paths: Iterable[Path]) -> None:
        new = {_identity(path): path for path in paths}
        new = {one: path for one, path in new.items() if one not in self.digests}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.digests |= zip(new, pool.map(digest_of, new.values()), strict=True)
        self.sizes |= {one: path.stat().st_size for one, path in new.items()}

    def _check_packages(self, place: Path, record: Generation, present: Mapping[str, Path]) -> set[str]:
        for rpm in record.rpms:
            if (path := present.get(rpm.path)) is None:
                self.fault(place / rpm.path, "is missing")
                continue
            identity = _identity(path)
            if self.digests[identity] != rpm.sha256:
                self.fault(path, "is not the file that was published: it has another digest")
            self.packages.setdefault(identity, (path, rpm.key))
        return {rpm.path for rpm in record.rpms}

    def _check_repository(self, place: Path, name: str, record: Generation) -> set[str]:
        """The files of a repository's metadata, which must be that of this very generation."""
        folder = place / name
        repomd = folder / repodata.FOLDER / repodata.REPOMD
        base = f"{name}/{repodata.FOLDER}/{repodata.REPOMD}"
        named = {base, f"{base}{SIGNATURE}"}
        signer = self.keys.get(record.fingerprint)
        if signer is None:
            self.fault(repomd, f"the key {record.fingerprint} is not among the public keys")
        self._check_signature(repomd, [signer] if signer else [])
        try:
            named |= {f"{name}/{file}" for file in repodata.metadata_files(folder)}
            for found in repodata.check_repodata(folder, digests=()):
                self.fault(folder / found.path, found.detail)
            described = {
                f"{name}/{one}": package.pkgId for one, package in repodata.read_packages(folder).items()
            }
        except PublishError as problem:
            self.fault(repomd, problem.message)
            return named
        recorded = {rpm.path: rpm.sha256 for rpm in record.rpms if rpm.path.startswith(f"{name}/")}
        digest = record.metadata.get(name)
        if described != recorded or (digest and digest != digest_of(repomd)):
            self.fault(repomd, "is not that of this generation")
        return named

    def _check_superseded(self, place: Path, record: Generation, present: Mapping[str, Path]) -> set[str]:
        """Metadata files carry their digest in their name."""
        for name in record.superseded:
            path = present.get(name)
            if path is None:
                self.fault(place / name, "is missing: clients of the generation before may still ask for it")
            elif not path.name.startswith(f"{self.digests[_identity(path)]}-"):
                self.fault(path, "is not the file that its name tells of")
        return set(record.superseded)

    def _check_evidence(self, place: Path) -> set[str]:
        names = evidence.files(place)
        for name in names:
            self._check_signature(place / name, self.keys.values())
        return {*names, *(f"{name}{SIGNATURE}" for name in names)}

    def _check_signature(self, path: Path, keys: Iterable[Key]) -> None:
        detail = "there is no key to check its signature by"
        for key in keys:
            try:
                verify_file(path, public_key=key.file, fingerprint=key.fingerprint, error=PublishError)
            except PublishError as problem:
                detail = problem.message.removeprefix(f"{path}: ")
            else:
                return
        self.fault(path, detail)


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


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
