"""Signed packages from a shelf, a publisher for them, and what a careful reader finds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from backport import repodata
from backport.artifacts import BuiltRpms, PublishedRepo, SignedRpms, TestedRpms
from backport.evidence.provenance import Origin
from backport.files import digest_of
from backport.progress import Silent
from backport.recipe import Advisory as Wishes
from backport.repository.advisories import Advisory, make_advisory
from backport.repository.contents import repositories_of
from backport.repository.generations import RECORD, STABLE, Generation, TargetFolder
from backport.repository.place import LOCK_TIMEOUT, Place
from backport.repository.proof import Prover
from backport.repository.publish import Run, publish
from backport.signing import sign
from backport.signing.detached import verify_file
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny

URL = "http://repo.example.org/"


class Notes(TypedDict, total=False):
    """What is said of a run's packages."""

    origin: Origin
    advisory: Advisory


def notes_of(name: str, tested: TestedRpms) -> Notes:
    """What a run says of its packages."""
    now = datetime.now(UTC)
    origin = Origin(
        run=name, recipe="tiny", target="f28", started=now, finished=now, parameters={}, transcript=""
    )
    advisory = make_advisory(
        Wishes(), tested.signed.rpms, summary=name, stock={}, issued=now, publisher="A <a@example.org>"
    )
    return {"origin": origin, "advisory": advisory}


@dataclass(frozen=True, kw_only=True)
class Publisher(Silent):
    """Everything that a publication needs besides the packages."""

    repository: Path
    signing: Signing
    target: Target
    notes: list[str]
    channel: str = STABLE
    url: str = URL

    @property
    def folder(self) -> TargetFolder:
        return TargetFolder.of(self.repository, self.target.name, self.channel)

    def publish(
        self,
        tested: TestedRpms,
        *,
        run: str = "",
        inputs: dict[str, str] | None = None,
        notes: Notes | None = None,
        prove: Prover = tiny.proven,
        force: bool = False,
    ) -> PublishedRepo:
        what = Run(gated=tiny.gated(tested), id=run, inputs=inputs or {}, **(notes or Notes()))
        return publish(what, self.place(), prove=prove, force=force)

    def place(self, lock_timeout: float = LOCK_TIMEOUT) -> Place:
        return Place(
            repository=self.repository, target=self.target, base_url=self.url, signing=self.signing,
            channel=self.channel, progress=self, lock_timeout=lock_timeout,
        )  # fmt: skip

    def note(self, message: str) -> None:
        self.notes.append(message)


def small_key(signing: Signing) -> None:
    """A key that is made, and signs, quickly."""
    signing.gnupghome.mkdir(mode=0o700, exist_ok=True)
    signing.gnupghome.chmod(0o700)
    for command in (
        [
            "gpg",
            "--batch",
            "--passphrase",
            "",
            "--quick-generate-key",
            "a <a@example.org>",
            "rsa2048",
            "sign",
        ],
        ["gpgconf", "--kill", "all"],
    ):
        environment = {"PATH": "/usr/bin", "GNUPGHOME": str(signing.gnupghome)}
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


class Shelf:
    """Signed packages, each built once."""

    def __init__(self, folder: Path, signing: Signing, target: Target) -> None:
        self.folder, self.signing, self.target = folder, signing, target
        self.made: dict[str, TestedRpms] = {}

    def __call__(
        self, name: str, version: str = "1", *, content: str = "content", more: Sequence[str] = ()
    ) -> TestedRpms:
        label = f"{name}-{version}-{content}"
        if label not in self.made:
            built = tiny.build(self.folder / label, name, version=version, content=content, subpackages=more)
            self.made[label] = tiny.tested(self.sign_again(built, self.folder / f"{label}-signed"))
        return self.made[label]

    def sign_again(self, built: BuiltRpms, workspace: Path) -> SignedRpms:
        return sign.sign([built], signing=self.signing, target=self.target, workspace=workspace)


def look(folder: TargetFolder, target: Target, key: Path, fingerprint: str) -> set[str]:
    """The packages that a reader finds, after every signature, digest and file has been checked."""
    generation = Path(os.path.realpath(folder.current))
    record = Generation.from_json((generation / RECORD).read_text())
    found = set()
    for name in repositories_of(target):
        repomd = generation / name / repodata.FOLDER / repodata.REPOMD
        verify_file(repomd, public_key=key, fingerprint=fingerprint)
        wrong = [one for one in repodata.check_repodata(generation / name) if one.kind != "extra"]
        assert wrong == []
        found |= {f"{name}/{place}" for place in repodata.read_packages(generation / name)}
    there = {path.relative_to(generation).as_posix() for path in generation.rglob("*.rpm")}
    assert found <= there
    for path in there - found:
        lenders = [one / path for one in folder.generations.iterdir() if one != generation]
        assert any(one.exists() and one.samefile(generation / path) for one in lenders), path
    assert len(found) == record.packages
    return {path.rsplit("/", 1)[1] for path in found}


def seen_by_reader(publisher: Publisher, tested: TestedRpms) -> set[str]:
    signed = tested.signed
    return look(publisher.folder, publisher.target, signed.public_key, signed.fingerprint)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file and link of a folder with its content, except the lock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock" or (path.is_dir() and not path.is_symlink()):
            continue
        content = str(path.readlink()) if path.is_symlink() else digest_of(path)
        found[str(path.relative_to(folder))] = (content, path.lstat().st_mtime_ns)
    return found
