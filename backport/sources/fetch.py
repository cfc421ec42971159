"""Source packages: fetched once, kept by their content, believed only after verification.

What must hold before a package is used, whether it was just fetched or lay in the cache:

- its SHA-256 is the one that the source states. A source may state none (such as an old hub, or one that
  cannot compute it); then the signature alone vouches for the file;
- its header is that of a source package with the very NEVRA that was asked for, and its digest over
  header and payload is the source's, where the source has one;
- one of the pinned keys signed it, and header and payload are unchanged since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rpm

from backport.artifacts import Rpm, SourceRpm
from backport.errors import FetchError, as_kind
from backport.files import digest_of, locked, scratch_folder, write_atomically
from backport.progress import Progress
from backport.seals import require_own
from backport.settings import Key
from backport.sources.offers import SPOILT, Copy, Offer, check_digest
from backport.trust import Keyring, nevra_of, pinned_keyring, read_header

LOCK_TIMEOUT = 3600.0
"""Seconds to wait for another process that fetches the same package."""
_CACHE_HINT = "make room, or set `cache` under [paths] to a folder that can be written"


@as_kind(FetchError)
def fetch(offer: Offer, *, cache: Path, keys: Sequence[Key], progress: Progress) -> SourceRpm:
    """The source package, verified, in the cache.

    ``keys`` are the pinned ones, of which one must have signed. An interrupted download leaves its part
    behind for the next run. Raises FetchError: not to be had, cut short, changed, another package, not
    a source package, not signed, signed by another key, or the cache cannot be written. Raises HostError
    when others can write to the cache.
    """
    try:
        require_own(cache / "sources")
        return _fetch(offer, _Store(folder=cache / "sources", offer=offer), keys, progress)
    except OSError as problem:
        reason = f"{problem.filename or cache}: {problem.strerror}"
        raise FetchError(f"{offer.nevra.filename}: cannot be kept: {reason}", hint=_CACHE_HINT) from None


@as_kind(FetchError)
def find_cached(offer: Offer, *, cache: Path, keys: Sequence[Key]) -> SourceRpm | None:
    """The source package where the cache has it, verified as `fetch` does; None where it has not.

    Nothing is downloaded. Raises FetchError, also where none of the pinned ``keys`` has signed it.
    """
    with scratch_folder(cache, "keys-") as folder:
        keyring = pinned_keyring(keys, folder)
        copy = _signed_copy(offer, keyring)
        path = _Store(folder=cache / "sources", offer=offer).cached(copy)
        return None if path is None else _verified(path, offer, copy, keyring)


def _fetch(offer: Offer, store: _Store, keys: Sequence[Key], progress: Progress) -> SourceRpm:
    name = offer.nevra.filename
    with store.held(), scratch_folder(store.folder, "keys-") as folder:
        keyring = pinned_keyring(keys, folder)
        copy = _signed_copy(offer, keyring)
        if copy.sha256 is None:
            progress.note(
                f"the {offer.told_by} states no SHA-256 of {name}: its signature alone vouches for it"
            )
        if (cached := store.cached(copy)) is not None:
            return _verified(cached, offer, copy, keyring)
        with store.arriving() as arriving:
            copy.download(arriving, scratch=store.folder, progress=progress)
            progress.note(f"verifying {name}")
            return store.keep(_verified(arriving, offer, copy, keyring), copy)


@dataclass(frozen=True, kw_only=True)
class _Store:
    """One package's places in the cache: ``sha256/DIGEST/NAME``, and which digest was seen for which key."""

    folder: Path
    offer: Offer

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from fetching the same package meanwhile."""
        name = self.offer.nevra.filename
        lock = self.folder / "locks" / f"{name}.lock"
        with locked(lock, timeout=LOCK_TIMEOUT, what=f"cannot fetch {name}"):
            yield

    def cached(self, copy: Copy) -> Path | None:
        """The kept copy with the digest that the source states, or else that was verified last."""
        sha256 = copy.sha256 or self._seen(copy)
        path = self.folder / "sha256" / sha256 / self.offer.nevra.filename if sha256 else None
        if path is None or not path.is_file():
            return None
        if digest_of(path) != sha256:
            path.unlink()
            return None
        return path

    @contextlib.contextmanager
    def arriving(self) -> Iterator[Path]:
        """Where the package is put until it is verified; gone afterwards, but for half a download."""
        path = self.folder / "arriving" / self.offer.nevra.filename
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, source: SourceRpm, copy: Copy) -> SourceRpm:
        path = self.folder / "sha256" / source.rpm.sha256 / source.rpm.nevra.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        source.rpm.path.replace(path)
        write_atomically(self._note(copy), f"{source.rpm.sha256}\n")
        return replace(source, rpm=replace(source.rpm, path=path))

    def _seen(self, copy: Copy) -> str | None:
        """The digest noted for this key: only a way to find the file, which is verified all the same."""
        note = self._note(copy)
        text = note.read_text(encoding="ascii").strip() if note.is_file() else ""
        return text if len(text) == 64 and text.isalnum() else None

    def _note(self, copy: Copy) -> Path:
        return self.folder / "seen" / copy.key / f"{self.offer.nevra.filename}.sha256"


def _signed_copy(offer: Offer, keyring: Keyring) -> Copy:
    """The copy that a pinned key signed, as far as the source names keys: by the ends of their ids."""
    for name in keyring.owners:
        for copy in offer.copies:
            if name.endswith(copy.key.upper()):
                return copy
    signers = ", ".join(copy.key for copy in offer.copies) or "nobody"
    told = f"the {offer.told_by} knows of signatures by: {signers}"
    raise FetchError(
        f"{offer.nevra.nvr}: not signed by a pinned key; {told}",
        hint="pin a signed build, or the key that signed this one if you know whose it is",
    )


def _verified(path: Path, offer: Offer, copy: Copy, keyring: Keyring) -> SourceRpm:
    sha256 = check_digest(
        path, copy.sha256, name=offer.nevra.filename, size=offer.size, told_by=offer.told_by
    )
    header = read_header(path)
    _check_header(header, offer)
    signing_key = keyring.verify(path)
    return SourceRpm(
        rpm=Rpm(nevra=offer.nevra, path=path, sha256=sha256),
        origin=offer.origin,
        url=copy.url,
        signing_key=signing_key,
        build_requires=tuple(
            sorted({name for name in header[rpm.RPMTAG_REQUIRENAME] if not name.startswith("rpmlib(")})
        ),
        changelog_time=next(iter(header[rpm.RPMTAG_CHANGELOGTIME]), header[rpm.RPMTAG_BUILDTIME]),
        digest=f"{'' if copy.sha256 else 'not '}stated by the {offer.told_by}",
    )


def _check_header(header: Any, offer: Offer) -> None:
    name = offer.nevra.filename
    if not header.isSource():
        raise FetchError(f"{name}: holds a binary package, not a source package", hint=SPOILT)
    if (found := nevra_of(header)) != offer.nevra:
        raise FetchError(f"{name}: holds {found} instead of {offer.nevra}", hint=SPOILT)
    digest = bytes(header[rpm.RPMTAG_SIGMD5] or b"").hex()
    if offer.header_digest not in ("", digest):
        raise FetchError(
            f"{name}: its header states the digest {digest}, but the {offer.told_by} {offer.header_digest}",
            hint=SPOILT,
        )
