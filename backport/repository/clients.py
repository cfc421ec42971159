"""What lies beside the generations for those who use them: the .repo file, and the keys that it names."""

from __future__ import annotations

import configparser
import errno
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backport.errors import PublishError, SignError
from backport.files import write_atomically
from backport.repository.generations import STABLE, Generation, TargetFolder
from backport.repository.readers import write_mirrorlists
from backport.roots.dnf import render
from backport.signing.key import KeyInfo
from backport.target import Target

_HINTS = {
    errno.ENOSPC: "make room on that file system",
    errno.EDQUOT: "make room on that file system",
    errno.EROFS: "mount that file system writable",
    errno.EACCES: "run as the folder's owner, or change its owner",
    errno.EPERM: "run as the folder's owner, or change its owner",
    errno.ENOTDIR: "move away the file that is in the place of a folder",
    errno.EEXIST: "move away the file that is in the place of a folder",
}


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key that clients need, in armor."""

    fingerprint: str
    text: str


@contextmanager
def reported(folder: TargetFolder) -> Iterator[None]:
    """Any failure of the file system, and of the key that is to sign, as a PublishError."""
    try:
        yield
    except SignError as problem:
        raise PublishError(
            f"the metadata cannot be signed: {problem.message}", hint=problem.hint, command=problem.command,
            log=problem.log, evidence=problem.evidence,
        ) from problem  # fmt: skip
    except OSError as problem:
        place = problem.filename or folder.path
        hint = _HINTS.get(problem.errno or 0)
        raise PublishError(f"{place}: {problem.strerror or problem}", hint=hint) from problem


def channel_url(base_url: str, channel: str) -> str:
    """The URL of a channel's folder, where ``base_url`` is that of the repository folder."""
    base_url = base_url.rstrip("/")
    return base_url if channel == STABLE else f"{base_url}/{channel}"


def write_client_files(
    folder: TargetFolder,
    *,
    signer: PublicKey,
    others: Sequence[KeyInfo],
    needed: Generation,
    before: Generation | None,
    target: Target,
    base_url: str,
) -> None:
    """Write the .repo file and every key that verifies something now or soon, the keys first.

    ``signer`` is the key that signs ``needed``, ``others`` are those that clients are to know besides,
    ``before`` is what readers see now. The key that signs lies under a constant name; every other one has
    its key id behind that, and stays as long as a package that it signed is there. Files that are
    as they should be are left alone. For the lock's holder alone. Raises PublishError, OSError.
    """
    texts = {key.fingerprint: key.public_key for key in others}
    if before and before.fingerprint != signer.fingerprint and folder.public_key.is_file():
        texts.setdefault(before.fingerprint, folder.public_key.read_text("ascii"))
    texts.pop(signer.fingerprint, None)
    for fingerprint, text in texts.items():
        _write(folder, _name(folder, fingerprint), text)
    _write(folder, folder.public_key.name, signer.text)
    wanted = {key.fingerprint for key in others} | set(needed.signers)
    if before:
        wanted |= {before.fingerprint, *before.signers}
    names = sorted(_name(folder, fingerprint) for fingerprint in wanted - {signer.fingerprint})
    keys = [folder.public_key.name, *(name for name in names if (folder.path / name).is_file())]
    url = f"{base_url.rstrip('/')}/{target.name}"
    if before:
        # The .repo file leads through them.
        write_mirrorlists(folder.folder_of(before.id), target, f"{url}/generations/{before.id}")
    repo_file = render(
        "backport.repo.j2", summary=target.summary, base_url=url,
        keys=" ".join(f"{url}/{name}" for name in keys),
    )  # fmt: skip
    _write(folder, folder.repo_file.name, repo_file)


def host_lines(folder: TargetFolder, *, tool: str, target: Target, base_url: str) -> tuple[str, ...]:
    """The commands by which a host gets the .repo file (by ``curl``, ``dnf4`` or ``dnf5``), trusts the keys
    that it names, and updates.

    ``base_url`` is the URL of the repository folder. Raises PublishError when there is no .repo file yet.
    """
    if not folder.repo_file.is_file():
        raise PublishError(f"{folder.repo_file}: is missing", hint="the next `backport build` writes it")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(folder.repo_file.read_text(encoding="utf-8"))
    keys = parser[parser.sections()[0]]["gpgkey"].split()
    url = f"{channel_url(base_url, folder.channel)}/{target.name}/{folder.repo_file.name}"
    getting = {
        "curl": [
            "curl",
            "--fail",
            "--location",
            "--output",
            f"/etc/yum.repos.d/{folder.repo_file.name}",
            url,
        ],
        "dnf4": ["dnf", "config-manager", "--add-repo", url],
        "dnf5": ["dnf", "config-manager", "addrepo", f"--from-repofile={url}"],
    }
    commands = (getting[tool], ["rpm", "--import", *keys], ["dnf", "update"])
    return tuple(shlex.join(command) for command in commands)


def _name(folder: TargetFolder, fingerprint: str) -> str:
    return f"{folder.public_key.name}-{fingerprint[-16:]}"


def _write(folder: TargetFolder, name: str, text: str) -> None:
    path = folder.path / name
    if not path.is_file() or path.read_text("utf-8") != text:
        write_atomically(path, text)
