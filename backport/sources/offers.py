"""What a source says of its packages before anything is fetched: the same for every kind of source.

Its word decides where a package is looked for and what to compare it with; it never replaces the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backport.artifacts import Nevra
from backport.errors import FetchError
from backport.files import digest_of
from backport.progress import Progress

SPOILT = "nothing of it was kept; run again, and if this stays so, tell whoever runs the file server"
"""The hint for a file that is not what was asked for."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """One binary package; its dependencies as rpm writes them, versions and all."""

    nevra: Nevra
    requires: tuple[str, ...]
    provides: tuple[str, ...]


class Copy(Protocol):
    """A source package's file as one key signed it."""

    @property
    def key(self) -> str:
        """The end of the key's id in hex, as the source names it; empty where it names none."""

    @property
    def sha256(self) -> str | None:
        """The file's digest, where the source states it."""

    @property
    def url(self) -> str:
        """Where the file is."""

    def download(self, target: Path, *, scratch: Path, progress: Progress) -> None:
        """Put the file at ``target``; what it holds is for the caller to verify.

        ``scratch`` is a folder for work in progress on the same file system. Raises FetchError.
        """


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One source package, as far as its source tells about it."""

    nevra: Nevra
    identity: str
    """What makes it this source package and no other, for the run's key: not who signed it besides, nor which
    digests of its copies the source can state just now; those change while the package does not."""
    size: int
    """Bytes that the file has at least; signatures may add to it."""
    copies: tuple[Copy, ...]
    told_by: str
    """What people call the source."""
    origin: Mapping[str, str | int]
    """What the source alone knows it by, for the provenance."""
    header_digest: str = ""
    """SIGMD5 in hex, over header and payload; empty where the source states none."""
    build_requires: tuple[str, ...] = ()
    """Names that the source package requires."""
    needs: tuple[str, ...] = ()
    """The same as rpm writes it, versions and all."""
    binaries: tuple[Binary, ...] = ()
    """The binary packages; empty where only one source package was asked for."""
    requires: tuple[str, ...] = ()
    """Names that the binary packages require; empty where only one source package was asked for."""
    provides: tuple[str, ...] = ()
    """Names that the binary packages provide, their own names among them."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A package that a search found, and its latest build in each of the tags that have one."""

    package: str
    builds: Mapping[str, str]
    """NVR by tag."""


def check_digest(path: Path, stated: str | None, *, name: str, size: int, told_by: str) -> str:
    """The file's SHA-256, which is the ``stated`` one if there is any. Raises FetchError for another.

    ``name`` is for messages, as is the ``size`` in bytes that it has at least.
    """
    sha256 = digest_of(path)
    if stated in (None, sha256):
        return sha256
    if (found := path.stat().st_size) < size:
        raise FetchError(f"{name}: cut short: {found} bytes, of at least {size}", hint=SPOILT)
    raise FetchError(f"{name}: its SHA-256 is {sha256}, but the {told_by} states {stated}", hint=SPOILT)
