"""Where a Koji file server has a build's source package, in Koji's path layout.

Where the signed copy is gone (Koji drops those of old releases and keeps the signatures), the unsigned
one is fetched and the kept signature header put back on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Nevra
from backport.errors import FetchError
from backport.files import scratch_folder
from backport.progress import Progress
from backport.site import Koji
from backport.sources.download import FileMissing, download
from backport.sources.offers import SPOILT, check_digest
from backport.web import Limits

SIGNATURE_ROOM = 1024 * 1024
"""Bytes by which a signed copy may exceed the unsigned one that the hub tells the size of."""


@dataclass(frozen=True, kw_only=True)
class KojiCopy:
    """The copy that bears a certain key's signature; see `backport.sources.offers.Copy`."""

    koji: Koji
    nevra: Nevra
    size: int
    """Bytes of the unsigned copy; a signed one is a little larger, or as large."""
    volume: str = ""
    """The hub's volume that the files lie on; empty for its own first one."""
    key: str
    """The key's id as Koji writes it: 8 lower-case hex digits as a rule."""
    sha256: str | None
    unsigned_sha256: str | None = None

    @property
    def url(self) -> str:
        """Where the signed copy is, or was."""
        return self._url(self._signed)

    @property
    def _signed(self) -> str:
        return f"data/signed/{self.key}/src/{self.nevra.filename}"

    def download(self, target: Path, *, scratch: Path, progress: Progress) -> None:
        """Put the signed copy at ``target``: as it is, or made from the unsigned one and the signature."""
        try:
            self._download(self._signed, target, self.size, progress)
        except FileMissing:
            progress.note(f"no signed copy of {self.nevra.nvr} is left; putting its signature back on")
            with scratch_folder(scratch, "splice-") as folder:
                self._splice(target, folder, progress)

    def _splice(self, target: Path, folder: Path, progress: Progress) -> None:
        import koji  # noqa: PLC0415  # takes a tenth of a second that few runs need to spend

        name = self.nevra.filename
        unsigned, signature = target.with_name(f"unsigned-{name}"), folder / f"{name}.sig"
        try:
            self._download(f"data/sigcache/{self.key}/src/{name}.sig", signature, 0, progress)
            self._download(f"src/{name}", unsigned, self.size, progress)
            check_digest(unsigned, self.unsigned_sha256, name=name, size=self.size, told_by="hub")
            # The client library writes a temporary file beside its result, so that is in the scratch folder.
            spliced = koji.splice_rpm_sighdr(signature.read_bytes(), str(unsigned), str(folder / "spliced"))
        except FileMissing as missing:
            raise FetchError(
                f"{name}: neither the copy signed by {self.key} is left nor what makes it: {missing}",
                hint="pin a build that the file server still has",
            ) from None
        except (koji.GenericError, IndexError):
            raise FetchError(f"{name}: not a package: it has no signature header", hint=SPOILT) from None
        finally:
            unsigned.unlink(missing_ok=True)
        Path(spliced).replace(target)

    def _download(self, path: str, target: Path, size: int, progress: Progress) -> None:
        """A file of the build from where all builds are, or else from the volume that the hub names."""
        try:
            self._download_from(self._url(path), target, size, progress)
        except FileMissing:
            if not self.volume:
                raise
            self._download_from(self._url(path, volume=f"vol/{self.volume}/"), target, size, progress)

    def _download_from(self, url: str, target: Path, size: int, progress: Progress) -> None:
        limits = Limits(
            timeout=self.koji.timeout,
            retries=self.koji.retries,
            total_timeout=self.koji.total_timeout,
            size=size + SIGNATURE_ROOM,
        )
        download(url, target, limits=limits, progress=progress, size=size or None)

    def _url(self, path: str, *, volume: str = "") -> str:
        build = f"packages/{self.nevra.name}/{self.nevra.version}/{self.nevra.release}"
        return f"{self.koji.files.rstrip('/')}/{volume}{build}/{path}"
