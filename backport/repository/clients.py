"""What is there for clients besides packages and metadata: .repo file, keys and mirror lists.

A mirror list is one line: the URL of the generation's own repository. It lies in the repository, and clients
ask for it through ``current``: so the one rename switches it, too, and all that they then fetch, the
signature of ``repomd.xml`` before all, is of one generation.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backport.errors import PublishError, as_kind
from backport.files import read_regular, write_atomically
from backport.repository.contents import repositories_of
from backport.repository.generations import Generation, TargetFolder
from backport.repository.place import Place
from backport.repository.tree import MAX_BYTES, difference
from backport.roots.dnf import render
from backport.signing.key import other_keys, public_keys, show_key
from backport.site import Signing
from backport.target import Target
from backport.trust import fingerprints_in

MIRRORLIST = "mirrorlist"


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

    A function of the site and of the generations ``needed``: what clients see, or are about to. The key that
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


def write_client_files(place: Place, needed: Sequence[Generation]) -> tuple[str, ...]:
    """Write the files of `client_files` that are otherwise, the keys first; gives their names.

    For the lock's holder alone. Raises SignError, OSError.
    """
    folder = place.folder
    keys = site_keys(place.signing)
    texts = client_files(folder, needed, keys, target=place.target, base_url=place.url)
    wrong = tuple(name for name, text in texts.items() if difference(folder.path / name, text))
    for one in needed:
        # The .repo file leads through them.
        write_mirrorlists(folder.folder_of(one.id), place, one.id)
    for name in wrong:
        write_atomically(folder.path / name, texts[name])
    return wrong


def write_mirrorlists(content: Path, place: Place, generation: str) -> None:
    """Let each repository in ``content``, the folder of a generation, name its own URL. Raises OSError."""
    url = generation_url(place.url, place.target, generation)
    for name in repositories_of(place.target):
        path, text = content / name / MIRRORLIST, mirrorlist(url, name)
        if path.parent.is_dir() and difference(path, text):
            write_atomically(path, text)


def mirrorlist(url: str, name: str) -> str:
    """The mirror list of a repository of the generation at ``url``."""
    return f"{url}/{name}/\n"


def generation_url(base_url: str, target: Target, generation: str) -> str:
    """The URL of a generation's own folder, where ``base_url`` is that of the channel's."""
    return f"{base_url.rstrip('/')}/{target.name}/generations/{generation}"


def host_lines(place: Place, tool: str) -> tuple[str, ...]:
    """The commands by which a host gets the .repo file (by ``curl``, ``dnf4`` or ``dnf5``), trusts the keys
    that it names, and updates.

    Raises PublishError when there is no .repo file, or it leads elsewhere.
    """
    folder, target = place.folder, place.target
    url = f"{place.url}/{target.name}"
    mend = f"`backport repo gc --target {target.name}` writes it"
    try:
        text = read_regular(folder.repo_file, limit=MAX_BYTES).decode()
        keys = keys_named(text)
    except FileNotFoundError:
        raise PublishError(f"{folder.repo_file}: is missing", hint=mend) from None
    except (OSError, ValueError, LookupError, configparser.Error) as problem:
        raise PublishError(f"{folder.repo_file}: cannot be read: {problem}", hint=f"{mend} again") from None
    names = [key.rpartition("/")[2] for key in keys]
    if text != repo_file(target, place.url, names):
        raise PublishError(
            f"{folder.repo_file}: is not that of the site, whose URL is {url}",
            hint=f"{mend} again; or correct `base_url` in the site file",
        )
    file = f"{url}/{folder.repo_file.name}"
    getting = {
        "curl": [
            "curl",
            "--fail",
            "--location",
            "--output",
            f"/etc/yum.repos.d/{folder.repo_file.name}",
            file,
        ],
        "dnf4": ["dnf", "config-manager", "--add-repo", file],
        "dnf5": ["dnf", "config-manager", "addrepo", f"--from-repofile={file}"],
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
