"""What lies beside the generations for those who use them: the .repo file, and the keys that it names."""

from __future__ import annotations

import configparser
import errno
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backport.errors import PublishError, SignError, as_kind
from backport.files import read_regular, write_atomically
from backport.repository.generations import STABLE, Generation, TargetFolder
from backport.repository.readers import write_mirrorlists
from backport.repository.tree import MAX_BYTES, difference
from backport.roots.dnf import render
from backport.signing.key import other_keys, public_keys, show_key
from backport.site import Signing
from backport.target import Target
from backport.trust import fingerprints_in

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


@dataclass(frozen=True, kw_only=True)
class SiteKeys:
    """What the site's GNUPGHOME says of keys."""

    signs: str
    """The fingerprint of the key that signs."""
    announced: frozenset[str]
    """Those that clients are to know besides."""
    known: Mapping[str, str]
    """Every key in armor, by its fingerprint."""


def site_keys(signing: Signing) -> SiteKeys:
    """The keys of the site. Raises SignError."""
    signs, others = show_key(signing), other_keys(signing)
    own = {key.fingerprint: key.public_key for key in (signs, *others)}
    return SiteKeys(
        signs=signs.fingerprint,
        announced=frozenset(key.fingerprint for key in others),
        known={**public_keys(signing), **own},
    )


def client_files(
    folder: TargetFolder, needed: Sequence[Generation], keys: SiteKeys, *, target: Target, base_url: str
) -> dict[str, str]:
    """What lies beside the generations for clients, the texts by name: the keys, and last the .repo file.

    A function of the site and of the generations ``needed``: what readers see, or are about to. The key that
    signs lies under a constant name; every other one that clients are to know, or by which something in these
    generations is signed, has its key id behind that. A key that the site has no more is taken from the file
    that is there. ``base_url`` is the URL of the channel's folder.
    """
    wanted = set(keys.announced)
    for one in needed:
        wanted |= {one.fingerprint, *one.signers}
    texts = {folder.public_key.name: keys.known[keys.signs]}
    for fingerprint in sorted(wanted - {keys.signs}):
        name = _name(folder, fingerprint)
        if text := keys.known.get(fingerprint) or _key_in(folder, name, fingerprint):
            texts[name] = text
    return {**texts, folder.repo_file.name: repo_file(target, base_url, list(texts))}


def repo_file(target: Target, base_url: str, keys: Sequence[str]) -> str:
    """The .repo file that leads to the channel's folder at ``base_url``; ``keys`` are names of files."""
    url = f"{base_url.rstrip('/')}/{target.name}"
    return render(
        "backport.repo.j2", summary=target.summary, base_url=url,
        keys=" ".join(f"{url}/{name}" for name in keys),
    )  # fmt: skip


def write_client_files(
    folder: TargetFolder,
    needed: Sequence[Generation],
    keys: SiteKeys,
    *,
    target: Target,
    base_url: str,
) -> tuple[str, ...]:
    """Write the files of `client_files` that are otherwise, the keys first; gives their names.

    For the lock's holder alone. Raises OSError.
    """
    texts = client_files(folder, needed, keys, target=target, base_url=base_url)
    wrong = tuple(name for name, text in texts.items() if difference(folder.path / name, text))
    for one in needed:
        # The .repo file leads through them.
        write_mirrorlists(folder.folder_of(one.id), target, own_url(folder, one, target, base_url))
    for name in wrong:
        write_atomically(folder.path / name, texts[name])
    return wrong


def own_url(folder: TargetFolder, record: Generation, target: Target, base_url: str) -> str:
    """The URL of a generation's own folder, where ``base_url`` is that of the channel's."""
    place = folder.folder_of(record.id).relative_to(folder.path).as_posix()
    return f"{base_url.rstrip('/')}/{target.name}/{place}"


def renew_client_files(
    folder: TargetFolder, *, target: Target, base_url: str, signing: Signing
) -> tuple[str, ...]:
    """Let the files for clients be what the site and the generation that readers see make them; gives the
    names of those that were otherwise.

    For the lock's holder alone. Raises PublishError, SignError, OSError.
    """
    record = folder.current_generation()
    if record is None:
        return ()
    return write_client_files(folder, [record], site_keys(signing), target=target, base_url=base_url)


def host_lines(folder: TargetFolder, *, tool: str, target: Target, base_url: str) -> tuple[str, ...]:
    """The commands by which a host gets the .repo file (by ``curl``, ``dnf4`` or ``dnf5``), trusts the keys
    that it names, and updates.

    ``base_url`` is the URL of the repository folder. Raises PublishError when there is no .repo file, or it
    leads elsewhere.
    """
    url = f"{channel_url(base_url, folder.channel)}/{target.name}"
    mend = f"`backport repo gc --target {target.name}` writes it"
    try:
        text = read_regular(folder.repo_file, limit=MAX_BYTES).decode()
        keys = keys_named(text)
    except FileNotFoundError:
        raise PublishError(f"{folder.repo_file}: is missing", hint=mend) from None
    except (OSError, ValueError, LookupError, configparser.Error) as problem:
        raise PublishError(f"{folder.repo_file}: cannot be read: {problem}", hint=f"{mend} anew") from None
    names = [key.rpartition("/")[2] for key in keys]
    if text != repo_file(target, channel_url(base_url, folder.channel), names):
        raise PublishError(
            f"{folder.repo_file}: is not that of the site, whose URL is {url}",
            hint=f"{mend} anew; or correct `base_url` in the site file",
        )
    place = f"{url}/{folder.repo_file.name}"
    getting = {
        "curl": [
            "curl",
            "--fail",
            "--location",
            "--output",
            f"/etc/yum.repos.d/{folder.repo_file.name}",
            place,
        ],
        "dnf4": ["dnf", "config-manager", "--add-repo", place],
        "dnf5": ["dnf", "config-manager", "addrepo", f"--from-repofile={place}"],
    }
    commands = (getting[tool], ["rpm", "--import", *keys], ["dnf", "update"])
    return tuple(shlex.join(command) for command in commands)


def keys_named(text: str) -> list[str]:
    """The URLs of the keys that a .repo file names. Raises configparser.Error, LookupError."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser[parser.sections()[0]]["gpgkey"].split()


@as_kind(PublishError)
def key_of(path: Path) -> str:
    """The fingerprint of the one key in a file. Raises PublishError when it is no plain file, or holds none,
    or more."""
    try:
        read_regular(path, limit=MAX_BYTES)
    except OSError as problem:
        raise PublishError(f"{path}: is no plain file: {problem.strerror}") from None
    found = fingerprints_in(path)
    if len(found) != 1:
        raise PublishError(
            f"{path}: holds {len(found)} keys, not one", hint="give each key a file of its own"
        )
    return found[0]


def _key_in(folder: TargetFolder, name: str, fingerprint: str) -> str:
    """The text of a key file that is there; of the constant name, where a key signed until now."""
    for place in (folder.path / name, folder.public_key):
        with suppress(PublishError, OSError, ValueError):
            if key_of(place) == fingerprint:
                return read_regular(place, limit=MAX_BYTES).decode("ascii")
    return ""


def _name(folder: TargetFolder, fingerprint: str) -> str:
    return f"{folder.public_key.name}-{fingerprint[-16:]}"
