"""Where somebody publishes: one target's channel, its address, the key that signs there, and the lock."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from backport.errors import PublishError, SignError, as_kind
from backport.progress import Progress, Silent
from backport.repository.generations import STABLE, TargetFolder
from backport.site import Signing
from backport.target import Target

LOCK_TIMEOUT = 600.0
"""How long another publisher is waited for, in seconds."""
_HINTS = {
    errno.ENOSPC: "make room on that file system",
    errno.EDQUOT: "make room on that file system",
    errno.EROFS: "mount that file system writable",
    errno.EACCES: "run as the folder's owner, or change its owner",
    errno.EPERM: "run as the folder's owner, or change its owner",
    errno.ENOTDIR: "move away the file that is in the place of a folder",
    errno.EINVAL: "move away what is in the place of that file",
    errno.ELOOP: "move away what is in the place of that file",
    errno.EISDIR: "move away what is in the place of that file",
    errno.EEXIST: "move away the file that is in the place of a folder",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """The channel of a target in a repository, and what every change of it takes."""

    repository: Path
    target: Target
    base_url: str
    """The URL of ``repository`` as clients see it."""
    signing: Signing
    channel: str = STABLE
    progress: Progress = field(default_factory=Silent)
    lock_timeout: float = LOCK_TIMEOUT
    """How long another publisher is waited for, in seconds."""

    @property
    def folder(self) -> TargetFolder:
        """The folder of the channel's generations."""
        return TargetFolder.of(self.repository, self.target.name, self.channel)

    @property
    def url(self) -> str:
        """The URL of the channel's folder."""
        return channel_url(self.base_url, self.channel)

    def other(self, channel: str) -> Place:
        """The same in another channel."""
        return replace(self, channel=channel)

    def require_published(self) -> None:
        """Something is published: an empty folder is not made on the way. Raises PublishError."""
        if not self.folder.generations.is_dir():
            raise PublishError(
                f"{self.folder.path}: nothing is published there",
                hint="`backport build` publishes; or correct `paths.repository` in the site file",
            )

    @contextmanager
    def locked(self, *, clean: bool = True) -> Iterator[None]:
        """Hold the right to change what is published there; what killed processes left is removed first.

        Unless ``clean`` that stays, too. Raises PublishError where nothing is published, another process
        holds the right for `lock_timeout` seconds, or the block meets a failure of the disk or the key.
        """
        self.require_published()
        with reported(self.folder), self.folder.locked(timeout=self.lock_timeout):
            if clean:
                self.folder.remove_leftovers(self.signing)
            yield


@contextmanager
def reported(folder: TargetFolder) -> Iterator[None]:
    """Any failure of a tool, of the file system, and of the key that is to sign, as a PublishError."""
    try:
        with as_kind(PublishError):
            yield
    except SignError as problem:
        message = f"the metadata cannot be signed: {problem.message}"
        raise problem.of(PublishError, message=message) from problem
    except OSError as problem:
        place = problem.filename or folder.path
        hint = _HINTS.get(problem.errno or 0)
        raise PublishError(f"{place}: {problem.strerror or problem}", hint=hint) from problem


def channel_url(base_url: str, channel: str) -> str:
    """The URL of a channel's folder, where ``base_url`` is that of the repository folder."""
    base_url = base_url.rstrip("/")
    return base_url if channel == STABLE else f"{base_url}/{channel}"
