"""Seals: what lies in a cache is believed only where its seal fits.

A seal is an HMAC-SHA256 (RFC 2104) under a key that nobody but its owner can read, so that whoever can
write to a cache can still not make anything in it that is taken for our own. It is over the kind of the
thing and its place as well as its content: nothing is believed under another name than its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backport.errors import HostError, from_os
from backport.files import digests_of

KEY_BYTES = 32
"""The length of a key: that of what SHA-256 gives (RFC 2104, section 3)."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# A label of SELinux says where a file lies, not what it is: a relabelled host has the same files.
_LABEL = "security.selinux"


@dataclass(frozen=True, kw_only=True)
class Sealer:
    """Makes seals and checks them."""

    key: bytes = field(repr=False)

    def seal(self, kind: str, name: str, content: str) -> str:
        """The seal, in hex, of what is kept as ``name`` among things of this kind.

        >>> len(Sealer(key=b"0" * 32).seal("base root", "a", "b"))
        64
        """
        parts = [part.encode(errors="surrogateescape") for part in (kind, name, content)]
        framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self.key, framed, "sha256").hex()

    def holds(self, seal: object, kind: str, name: str, content: str) -> bool:
        """Whether this is the seal of just that, by this key."""
        return isinstance(seal, str) and hmac.compare_digest(
            seal.encode(errors="surrogateescape"), self.seal(kind, name, content).encode()
        )


def open_sealer(file: Path) -> Sealer:
    """The sealer with the key in a file, which is made (mode 0600) where there is none.

    Raises HostError when there can be none, or others can read or replace it.
    """
    try:
        return Sealer(key=_read_key(file) or _make_key(file))
    except OSError as problem:
        raise from_os(problem).of(HostError) from problem


def require_own(folder: Path) -> None:
    """Raise HostError when somebody else can write to the folder, or put another in its place.

    The folder and those above it must belong to root or the caller (also the one before sudo), and be
    writable for no group and not for everybody; of those above, one where nobody can remove what is another's
    (the sticky bit, as ``/tmp`` has it) will do. Those that do not exist yet are passed over.
    """
    folder = folder.absolute()
    caller = os.environ.get("SUDO_UID", "")
    trusted = {0, os.geteuid(), int(caller) if caller.isdecimal() else 0}
    places = dict.fromkeys(
        place for path in (folder, folder.resolve()) for place in (path, *path.parents) if place.exists()
    )
    for place in places:
        state = place.stat()
        if state.st_uid not in trusted:
            raise HostError(
                f"{place}: belongs to another user (uid {state.st_uid}), who could change what is used of it",
                hint=f"chown root {place}, or name another folder in the site file",
            )
        sticky = state.st_mode & stat.S_ISVTX and place not in (folder, folder.resolve())
        if state.st_mode & _OTHERS_WRITE and not sticky:
            raise HostError(
                f"{place}: others can write to it (mode {stat.S_IMODE(state.st_mode):04o}), and so change "
                f"what is used of it",
                hint=f"chmod go-w {place}; what lay in it until now is better removed",
            )


def digest_of_tree(folder: Path, *, without: Collection[str] = ()) -> str:
    """The SHA-256 over everything below a folder and the folder itself, in hex. Raises OSError.

    Entries with one of the names ``without`` are passed over, with what is in them.
    It is over each entry's path, kind, owner, mode and extended attributes, what a link leads to, and of a
    file its content, time and number of names. All cores are used.
    """
    entries = sorted([("", folder.lstat()), *_entries(folder, without)], key=lambda entry: entry[0])
    files = [folder / name for name, state in entries if stat.S_ISREG(state.st_mode)]
    digests = digests_of(files)
    whole = hashlib.sha256()
    for name, state in entries:
        place = folder / name
        facts: list[object] = [name, state.st_mode, state.st_uid, state.st_gid, state.st_rdev]
        facts += [(key, os.getxattr(place, key, follow_symlinks=False)) for key in _attributes(place)]
        if stat.S_ISREG(state.st_mode):
            facts += [digests[place], state.st_mtime_ns, state.st_nlink]
        elif stat.S_ISLNK(state.st_mode):
            facts.append(os.readlink(place))  # noqa: PTH115  # a Path would tidy it up
        whole.update(f"{facts!r}\n".encode())
    return whole.hexdigest()


def _entries(folder: Path, without: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        with os.scandir(folder / parent) as found:
            for entry in found:
                if entry.name in without:
                    continue
                name = f"{parent}/{entry.name}" if parent else entry.name
                yield name, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _attributes(place: Path) -> list[str]:
    try:
        return sorted(set(os.listxattr(place, follow_symlinks=False)) - {_LABEL})
    except OSError:
        # A file system without any.
        return []


def _read_key(file: Path) -> bytes | None:
    require_own(file.parent)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        key = stream.read(KEY_BYTES + 1) if stat.S_ISREG(state.st_mode) else b""
    if state.st_uid not in {0, os.geteuid()} or state.st_mode & 0o077:
        raise HostError(
            f"{file}: others can read the key of the cache",
            hint=f"rm {file}: another is made, and what is in the cache is made again",
        )
    if len(key) != KEY_BYTES:
        raise HostError(
            f"{file}: holds no key of {KEY_BYTES} bytes for the cache",
            hint=f"rm {file}: another is made, and what is in the cache is made again",
        )
    return key


def _make_key(file: Path) -> bytes:
    """Make a key, or take the one that another process has just made. Raises OSError."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            # Not a rename, which would take the place of the other's.
            os.link(temporary, file)
    finally:
        Path(temporary).unlink()
    key = _read_key(file)
    if key is None:
        raise FileNotFoundError(2, os.strerror(2), str(file))
    return key
