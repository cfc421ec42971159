"""Source packages from Koji: fetched once, kept by their content, believed only after verification.

What must hold before a package is used, whether it was just fetched or lay in the cache:

- its SHA-256 is the one that the hub states. A hub may state none (an old one, or one that cannot
  compute it); then the signature alone vouches for the file;
- its header is that of a source package with the very NEVRA that was asked for, and its digest over
  header and payload is the hub's, where the hub has one;
- one of the pinned keys signed it, and header and payload are unchanged since.

Where the signed copy is gone (Koji drops those of old releases and keeps the signatures), the unsigned
one is fetched and the kept signature header put back on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rpm

from backport.artifacts import Rpm, SourceRpm
from backport.errors import FetchError
from backport.files import digest_of, locked, scratch_folder, write_atomically
from backport.progress import Progress
from backport.seals import require_own
from backport.settings import Key
from backport.site import Koji
from backport.sources.download import FileMissing, download
from backport.sources.resolve import Found, ResolvedBuild, resolve, search
from backport.trust import Keyring, nevra_of, pinned_keyring, read_header
from backport.web import Limits

__all__ = ["Found", "ResolvedBuild", "fetch", "resolve", "search"]

SIGNATURE_ROOM = 1024 * 1024
"""Bytes by which a signed copy may exceed the unsigned one that the hub tells the size of."""
LOCK_TIMEOUT = 3600.0
"""Seconds to wait for another process that fetches the same package."""
_CACHE_HINT = "make room, or set `cache` under [paths] to a folder that can be written"
_HINT = "nothing of it was kept; run again, and if this stays so, tell whoever runs the file server"


def fetch(
    build: ResolvedBuild, *, koji: Koji, cache: Path, keys: Sequence[Key], progress: Progress
) -> SourceRpm:
    """The build's source package, verified, in the cache.

    ``keys`` are the pinned ones, of which one must have signed. An interrupted download leaves its part
    behind for the next run. Raises FetchError: not to be had, cut short, changed, another package, not
    a source package, not signed, signed by another key, or the cache cannot be written. Raises HostError
    when others can write to the cache.
    """
    try:
        require_own(cache / "sources")
        return _fetch(build, koji, _Store(folder=cache / "sources", build=build), keys, progress)
    except OSError as problem:
        reason = f"{problem.filename or cache}: {problem.strerror}"
        raise FetchError(f"{build.nevra.filename}: cannot be kept: {reason}", hint=_CACHE_HINT) from None


def find_cached(build: ResolvedBuild, *, cache: Path, koji: Koji, keys: Sequence[Key]) -> SourceRpm | None:
    """The build's source package where the cache has it, verified as `fetch` does; None where it has not.

    Nothing is downloaded. Raises FetchError, also where none of the pinned ``keys`` has signed the build.
    """
    store = _Store(folder=cache / "sources", build=build)
    with scratch_folder(cache, "keys-") as folder:
        keyring = pinned_keyring(keys, folder, error=FetchError)
        copy = _Copy(build=build, koji=koji, sigkey=_pinned_sigkey(build, keyring))
        path = store.cached(copy.sigkey)
        return None if path is None else _verified(path, copy, keyring)


def _fetch(
    build: ResolvedBuild, koji: Koji, store: _Store, keys: Sequence[Key], progress: Progress
) -> SourceRpm:
    with store.held(), scratch_folder(store.folder, "keys-") as folder:
        keyring = pinned_keyring(keys, folder, error=FetchError)
        copy = _Copy(build=build, koji=koji, sigkey=_pinned_sigkey(build, keyring))
        if build.sha256(copy.sigkey) is None:
            name = build.nevra.filename
            progress.note(f"the hub states no SHA-256 of {name}: its signature alone vouches for it")
        if (cached := store.cached(copy.sigkey)) is not None:
            return _verified(cached, copy, keyring)
        with store.arriving() as arriving:
            copy.fetch(arriving, store.folder, progress)
            progress.note(f"verifying {build.nevra.filename}")
            verified = _verified(arriving, copy, keyring)
            return store.keep(verified, copy.sigkey)


@dataclass(frozen=True, kw_only=True)
class _Store:
    """One package's places in the cache: ``sha256/DIGEST/NAME``, and which digest was seen for which key."""

    folder: Path
    build: ResolvedBuild

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from fetching the same package meanwhile."""
        name = self.build.nevra.filename
        lock = self.folder / "locks" / f"{name}.lock"
        with locked(lock, timeout=LOCK_TIMEOUT, error=FetchError, what=f"cannot fetch {name}"):
            yield

    def cached(self, sigkey: str) -> Path | None:
        """The kept copy with the digest that the hub states, or else that was verified last."""
        sha256 = self.build.sha256(sigkey) or self._seen(sigkey)
        path = self.folder / "sha256" / sha256 / self.build.nevra.filename if sha256 else None
        if path is None or not path.is_file():
            return None
        if digest_of(path) != sha256:
            path.unlink()
            return None
        return path

    @contextlib.contextmanager
    def arriving(self) -> Iterator[Path]:
        """Where the package is put until it is verified; gone afterwards, but for half a download."""
        path = self.folder / "arriving" / self.build.nevra.filename
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, source: SourceRpm, sigkey: str) -> SourceRpm:
        path = self.folder / "sha256" / source.rpm.sha256 / source.rpm.nevra.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        source.rpm.path.replace(path)
        write_atomically(self._note(sigkey), f"{source.rpm.sha256}\n")
        return SourceRpm(**{**vars(source), "rpm": Rpm(**{**vars(source.rpm), "path": path})})

    def _seen(self, sigkey: str) -> str | None:
        """The digest noted for this key: only a way to find the file, which is verified all the same."""
        note = self._note(sigkey)
        text = note.read_text(encoding="ascii").strip() if note.is_file() else ""
        return text if len(text) == 64 and text.isalnum() else None

    def _note(self, sigkey: str) -> Path:
        return self.folder / "seen" / sigkey / f"{self.build.nevra.filename}.sha256"


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """The copy of the package that bears a certain key's signature, in Koji's path layout."""

    build: ResolvedBuild
    koji: Koji
    sigkey: str

    @property
    def url(self) -> str:
        return self._url(self._signed)

    @property
    def _signed(self) -> str:
        return f"data/signed/{self.sigkey}/src/{self.build.nevra.filename}"

    def fetch(self, target: Path, scratch: Path, progress: Progress) -> None:
        """Put the signed copy at ``target``: as it is, or made from the unsigned one and the signature."""
        try:
            self._download(self._signed, target, self.build.size, progress)
        except FileMissing:
            progress.note(f"no signed copy of {self.build.nevra.nvr} is left; putting its signature back on")
            with scratch_folder(scratch, "splice-") as folder:
                self._splice(target, folder, progress)

    def _splice(self, target: Path, folder: Path, progress: Progress) -> None:
        import koji  # noqa: PLC0415  # takes a tenth of a second that few runs need to spend

        name = self.build.nevra.filename
        unsigned, signature = target.with_name(f"unsigned-{name}"), folder / f"{name}.sig"
        try:
            self._download(f"data/sigcache/{self.sigkey}/src/{name}.sig", signature, 0, progress)
            self._download(f"src/{name}", unsigned, self.build.size, progress)
            _check_digest(unsigned, self.build.sha256(""), self.build)
            # The client library writes a temporary file beside its result, so that is in the scratch folder.
            spliced = koji.splice_rpm_sighdr(signature.read_bytes(), str(unsigned), str(folder / "spliced"))
        except FileMissing as missing:
            raise FetchError(
                f"{name}: neither the copy signed by {self.sigkey} is left nor what makes it: {missing}",
                hint="pin a build that the file server still has",
            ) from None
        except (koji.GenericError, IndexError):
            raise FetchError(f"{name}: not a package: it has no signature header", hint=_HINT) from None
        finally:
            unsigned.unlink(missing_ok=True)
        Path(spliced).replace(target)

    def _download(self, path: str, target: Path, size: int, progress: Progress) -> None:
        """A file of the build from where all builds are, or else from the volume that the hub names."""
        try:
            self._download_from(self._url(path), target, size, progress)
        except FileMissing:
            if not self.build.volume:
                raise
            self._download_from(self._url(path, volume=f"vol/{self.build.volume}/"), target, size, progress)

    def _download_from(self, url: str, target: Path, size: int, progress: Progress) -> None:
        limits = Limits(
            timeout=self.koji.timeout,
            retries=self.koji.retries,
            total_timeout=self.koji.total_timeout,
            size=size + SIGNATURE_ROOM,
        )
        download(url, target, limits=limits, progress=progress, size=size or None)

    def _url(self, path: str, *, volume: str = "") -> str:
        nevra = self.build.nevra
        build = f"packages/{nevra.name}/{nevra.version}/{nevra.release}"
        return f"{self.koji.files.rstrip('/')}/{volume}{build}/{path}"


def _pinned_sigkey(build: ResolvedBuild, keyring: Keyring) -> str:
    """The hub's id for a pinned key that signed the build; Koji names keys by the end of their id."""
    for name in keyring.owners:
        for sigkey in build.sigkeys:
            if name.endswith(sigkey.upper()):
                return sigkey
    signers = ", ".join(build.sigkeys) or "nobody"
    raise FetchError(
        f"{build.nevra.nvr}: not signed by a pinned key; the hub knows of signatures by: {signers}",
        hint="pin a signed build, or the key that signed this one if you know whose it is",
    )


def _verified(path: Path, copy: _Copy, keyring: Keyring) -> SourceRpm:
    build = copy.build
    sha256 = _check_digest(path, build.sha256(copy.sigkey), build)
    header = read_header(path, error=FetchError)
    _check_header(header, build)
    signing_key = keyring.verify(path)
    return SourceRpm(
        rpm=Rpm(nevra=build.nevra, path=path, sha256=sha256),
        build_id=build.build_id,
        url=copy.url,
        signing_key=signing_key,
        build_requires=tuple(
            sorted({name for name in header[rpm.RPMTAG_REQUIRENAME] if not name.startswith("rpmlib(")})
        ),
        changelog_time=next(iter(header[rpm.RPMTAG_CHANGELOGTIME]), header[rpm.RPMTAG_BUILDTIME]),
        digest_stated=build.sha256(copy.sigkey) is not None,
    )


def _check_digest(path: Path, stated: str | None, build: ResolvedBuild) -> str:
    """The file's SHA-256, which is the stated one if there is any."""
    sha256 = digest_of(path)
    if stated in (None, sha256):
        return sha256
    name, size = build.nevra.filename, path.stat().st_size
    if size < build.size:
        raise FetchError(f"{name}: cut short: {size} bytes, of at least {build.size}", hint=_HINT)
    raise FetchError(f"{name}: its SHA-256 is {sha256}, but the hub states {stated}", hint=_HINT)


def _check_header(header: Any, build: ResolvedBuild) -> None:
    name = build.nevra.filename
    if not header.isSource():
        raise FetchError(f"{name}: holds a binary package, not a source package", hint=_HINT)
    if (found := nevra_of(header)) != build.nevra:
        raise FetchError(f"{name}: holds {found} instead of {build.nevra}", hint=_HINT)
    digest = bytes(header[rpm.RPMTAG_SIGMD5] or b"").hex()
    if build.header_digest and digest != build.header_digest:
        raise FetchError(
            f"{name}: its header states the digest {digest}, but the hub {build.header_digest}", hint=_HINT
        )
