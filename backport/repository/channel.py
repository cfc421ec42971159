"""What a channel's clients can install now, as roots and gates take it, and who vouches for that.

The record of the generation must be signed by a key of the site's GNUPGHOME. It has the digests of the
metadata, which has those of the packages, and it names the keys that signed them. So nothing that others
have put into the published folder gets into a root.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from backport import repodata
from backport.artifacts import Nevra, is_for_debugging
from backport.errors import PublishError, as_kind
from backport.files import digest_of, write_atomically
from backport.repository.contents import published, repositories_of
from backport.repository.generations import RECORD, STABLE, Generation, TargetFolder
from backport.roots.dnf import ExtraRepository
from backport.settings import Key
from backport.signing.detached import verify_file
from backport.signing.key import public_key
from backport.site import Signing
from backport.target import Target

REPOSITORY_ID = "backport-published"


@dataclass(frozen=True, kw_only=True)
class ChannelPackage:
    """One binary package of a channel."""

    nevra: Nevra
    source: str
    """The name of the source package that it was built from."""
    path: Path
    sha256: str
    """Digest of the file, as the metadata has it."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """The generation that a channel's clients see."""

    generation: str
    folder: Path
    """The dnf repository of its packages."""
    debug: Path
    """The one of those that are for debugging."""
    packages: tuple[ChannelPackage, ...]
    """All that ``folder`` holds, older builds too."""
    keys: tuple[Key, ...]
    """The keys that signed its packages and its metadata."""

    def repository(
        self, *, only: Collection[Nevra] = (), excluded: Collection[Nevra] = ()
    ) -> ExtraRepository:
        """The packages as dnf takes them, both signature checks on: ``only`` some, or all but some."""
        return ExtraRepository(
            id=REPOSITORY_ID, baseurl=self.folder.as_uri(), keys=self.keys, repo_gpgcheck=True,
            only=tuple(sorted(map(str, only))), excluded=tuple(sorted(map(str, excluded))),
        )  # fmt: skip

    def held(self, candidate: Collection[Nevra]) -> frozenset[Nevra]:
        """Those of a candidate's packages that are published already; none for debugging is among them."""
        return frozenset(candidate) & {one.nevra for one in self.packages}

    def before(self, candidate: Collection[Nevra]) -> ExtraRepository:
        """What servers have before a candidate is published.

        Where all of that is published already, and is published again, that is what was there before it.
        """
        held = self.held(candidate)
        new = {nevra for nevra in candidate if not is_for_debugging(nevra.name)} - held
        return self.repository(excluded=() if new else held)


@as_kind(PublishError)
def load_channel(
    repository: Path, target: Target, channel: str = STABLE, *, signing: Signing, keys: Path | None
) -> Channel | None:
    """What clients of a target's channel see; None when nothing is published.

    Public keys are written to the folder ``keys``; without one no signature is looked at, which is enough to
    tell of the packages, and never to install one. Raises PublishError when the generation is damaged or not
    signed by a key of the site's.
    """
    folder = TargetFolder.of(repository, target.name, channel)
    record = folder.current_generation()
    if record is None:
        return None
    generation = folder.folder_of(record.id).resolve()
    found = _verified_keys(folder, record, signing, keys) if keys else ()
    for name, digest in record.metadata.items():
        repomd = generation / name / repodata.FOLDER / repodata.REPOMD
        if not repomd.is_file() or digest_of(repomd) != digest:
            raise PublishError(
                f"{repomd}: is not that of this generation", hint="`backport repo verify` tells what is lost"
            )
    packages, debug, _ = repositories_of(target)
    return Channel(
        generation=record.id,
        folder=generation / packages,
        debug=generation / debug,
        packages=_packages(generation, packages),
        keys=found,
    )


def _packages(generation: Path, name: str) -> tuple[ChannelPackage, ...]:
    return tuple(
        ChannelPackage(
            nevra=(found := published(name, one)).nevra,
            source=(one.rpm_sourcerpm or "").rsplit("-", 2)[0],
            path=generation / found.path,
            sha256=found.sha256,
        )
        for one in repodata.read_primary(generation / name)
    )


def _verified_keys(
    folder: TargetFolder, record: Generation, signing: Signing, place: Path
) -> tuple[Key, ...]:
    """The keys of all signers: from the GNUPGHOME, or from beside the generations where the record, signed by
    a key of the GNUPGHOME, names them."""
    path = folder.folder_of(record.id) / RECORD
    own = _write(place, record.fingerprint, public_key(signing, record.fingerprint))
    if own is None:
        raise PublishError(
            f"{path}: is signed by {record.fingerprint}, which is no key of {signing.gnupghome}",
            hint=f"if it was this site's, put it there: gpg --homedir {signing.gnupghome} --import FILE",
        )
    verify_file(path, public_key=own.file, fingerprint=record.fingerprint)
    keys = [own]
    for fingerprint in sorted(set(record.signers) - {record.fingerprint}):
        text = public_key(signing, fingerprint)
        beside = folder.path / f"{folder.public_key.name}-{fingerprint[-16:]}"
        if text is None and beside.is_file():
            text = beside.read_text("ascii")
        keys += [key] if (key := _write(place, fingerprint, text)) else []
    return tuple(keys)


def _write(place: Path, fingerprint: str, text: str | None) -> Key | None:
    if not text:
        return None
    file = place / f"{fingerprint}.asc"
    write_atomically(file, text)
    return Key(fingerprint=fingerprint, file=file)
