"""Clean roots of a target: made by the host's dnf, used through bubblewrap, gone afterwards.

A base root is made once for a target, a list of packages and a state of the repositories, and sealed. One
with more than the target's own base packages begins as a copy of theirs, and every clean root is a copy of
one whose seal fits: nothing that ran in a root is ever part of another.
Nothing is ever mounted on the host. Roots lie in a folder that only root can enter, because they hold
set-user-id programs. What a process that was killed left behind is removed by the next one that makes a
root.

The host's rpm writes a root's database in the host's own format, which the target's rpm may not be
able to read: it is always read from the host. Programs inside a root run without capabilities that
would let them out; what they leave in its file system is never followed as a link on the host.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import rpm

from backport.artifacts import Nevra
from backport.errors import BackportError, BuildRootError, HostError, ToolError, as_kind
from backport.files import digest_of, locked, write_atomically
from backport.roots.dnf import KEY, Dnf, ExtraRepository, expand_url, folder_of
from backport.roots.limits import NO_WISHES, Bounds
from backport.roots.sandbox import Bind, Daemon, Sandbox
from backport.roots.scratch import live_folder, remove, require_room
from backport.run import Command, Completed, run
from backport.seals import digest_of_tree, open_sealer, require_own
from backport.target import Target
from backport.trust import nevra_of
from backport.web import Limits, get

__all__ = ["BUILDER_UID", "Bind", "Daemon", "ExtraRepository", "Root", "clean_root"]

BUILDER_UID = 1000
"""The unprivileged user of a root; its group has the same id."""
BUILDER_NAME, BUILDER_GROUP = "mockbuild", "mock"
"""As mock names them: the names get into source packages."""
HOME = "/builddir"
KEPT_BASE_ROOTS = 4
_KEPT = "kept-"
"""How the names of roots begin that somebody wants to look at: nothing removes them unasked."""
LOCK_TIMEOUT = 3600.0
DATABASE = "/var/lib/rpm"
"""Where the target's releases keep the rpm database."""
_MOST_LINKS = 40

_KIND = "base root"

User = Literal["builder", "root"]

_COPY_TIMEOUT = 600.0
REPOMD_LIMITS = Limits(timeout=30.0, retries=2, total_timeout=120.0, size=16 * 1024**2)
"""What a repomd.xml may cost; Fedora's largest has some 10 kB."""
_ROOT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": HOME,
    "HOSTNAME": "localhost",
    "SHELL": "/bin/bash",
    "TERM": "dumb",
}


@dataclass(frozen=True, kw_only=True)
class Root:
    """A root that belongs to its user alone, until the block of `clean_root` is left."""

    target: Target
    path: Path
    log: Path
    """root.log: everything that dnf said about this root."""
    dnf: Dnf

    def install(
        self, packages: Sequence[str], *, extra: Sequence[ExtraRepository] = (), log: Path | None = None
    ) -> None:
        """Install packages, given as names, NEVRAs, files or capabilities. Raises ToolError."""
        self.dnf.transact("install", packages, extra=extra, log=log or self.log)

    def update(
        self, packages: Sequence[str] = (), *, extra: Sequence[ExtraRepository] = (), log: Path | None = None
    ) -> None:
        """Update packages (default: all) to the newest that the repositories hold. Raises ToolError."""
        self.dnf.transact("upgrade", packages, extra=extra, log=log or self.log)

    def downgrade(
        self, packages: Sequence[str], *, extra: Sequence[ExtraRepository] = (), log: Path | None = None
    ) -> None:
        """Put older versions in the place of packages. Raises ToolError."""
        self.dnf.transact("downgrade", packages, extra=extra, log=log or self.log)

    def run(
        self,
        command: Command,
        *,
        user: User = "builder",
        beside: Daemon | None = None,
        binds: Sequence[Bind] = (),
        limits: Bounds = NO_WISHES,
    ) -> Completed:
        """Run a program inside the root to its end.

        ``user`` is the unprivileged builder, or root with the few capabilities that a daemon needs.
        Its network is a loopback of its own, or that of a running daemon (``beside``). All processes that it
        leaves behind are ended. See `Sandbox.run` for the rest.
        """
        sandbox = self._sandbox(user, beside).with_binds(binds)
        return replace(sandbox, limits=limits).run(_as_user(user, command))

    def start(
        self, command: Command, *, beside: Daemon | None = None, binds: Sequence[Bind] = ()
    ) -> contextlib.AbstractContextManager[Daemon]:
        """A program that runs inside the root, as its root, while the block lasts, with a loopback of its own
        or that of a running daemon (``beside``).

        It must stay in the foreground. Raises ToolError when it ends at once.
        """
        return self._sandbox("root", beside).with_binds(binds).start(command)

    def entrance(self) -> tuple[str, ...]:
        """The command that opens a shell in the root, as the builder and as a build sees it."""
        sandbox = self._sandbox("builder")
        environment = {**sandbox.environment, "TERM": os.environ.get("TERM", "dumb")}
        shell = _as_user("builder", Command(("bash", "--login"), timeout=math.inf))
        return (
            "env", "--ignore-environment", *(f"{name}={value}" for name, value in environment.items()),
            *sandbox.command(shell.argv, folder=HOME),
        )  # fmt: skip

    def keep(self, place: Path) -> Root:
        """Move the root to ``place``, where it stays; what was there is removed. Raises OSError."""
        remove(place)
        place.mkdir()
        return replace(self, path=self.path.rename(place / "root"))

    def installed(self) -> tuple[Nevra, ...]:
        """The NEVRAs of all installed packages, sorted; keys that rpm keeps as packages are left out."""
        headers = (header for header in self.headers() if header[rpm.RPMTAG_NAME] != "gpg-pubkey")
        return tuple(sorted(nevra_of(header) for header in headers))

    def query(self, query_format: str) -> tuple[str, ...]:
        """One line for each installed package, sorted, in rpm's query format (rpm(8))."""
        headers = (header for header in self.headers() if header[rpm.RPMTAG_NAME] != "gpg-pubkey")
        return tuple(sorted(header.sprintf(query_format) for header in headers))

    def owner_of(self, path: str) -> Nevra | None:
        """The installed package that owns a file, None when none does; links on the way are followed."""
        wanted = {path, self.resolve(path)}
        names = {PurePosixPath(place).name for place in wanted}
        for header in self.headers():
            # The whole paths of a package are costly to put together: only where a name fits.
            if names.isdisjoint(header[rpm.RPMTAG_BASENAMES]):
                continue
            if not wanted.isdisjoint(header[rpm.RPMTAG_FILENAMES]):
                return nevra_of(header)
        return None

    def resolve(self, path: str) -> str:
        """The absolute path inside the root that ``path`` leads to, all links followed within the root.

        Raises OSError (ELOOP) where links run in circles.
        """
        resolved = PurePosixPath("/")
        rest = [*PurePosixPath(path).parts[::-1]]
        links = 0
        while rest:
            part = rest.pop()
            if part in ("/", ".."):
                resolved = resolved.parent if part == ".." else PurePosixPath("/")
                continue
            place = self.path / resolved.relative_to("/") / part
            if not place.is_symlink():
                resolved /= part
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            rest += PurePosixPath(place.readlink()).parts[::-1]
        return str(resolved)

    def locate(self, path: str) -> Path:
        """Where the host finds the file that is ``path`` inside the root. Raises OSError."""
        return self.path / PurePosixPath(self.resolve(path)).relative_to("/")

    def headers(self) -> Iterator[Any]:
        """The headers of all installed packages, by the host's rpm."""
        rpm.addMacro("_dbpath", DATABASE)
        try:
            transaction = rpm.TransactionSet(str(self.path))
            transaction.setVSFlags(rpm.RPMVSF_MASK_NODIGESTS | rpm.RPMVSF_MASK_NOSIGNATURES)
            yield from transaction.dbMatch()
            transaction.closeDB()
        finally:
            rpm.delMacro("_dbpath")

    def _sandbox(self, user: User, beside: Daemon | None = None) -> Sandbox:
        return Sandbox(
            mounts=("--bind", str(self.path), "/", "--dev", "/dev", "--proc", "/proc"),
            capabilities=("SETUID", "SETGID") if user == "builder" else _ROOT_CAPABILITIES,
            environment=_ENVIRONMENT,
            beside=beside,
        )


Aftermath: TypeAlias = Callable[[Root], None]
"""What is done with a root in which something has failed, while it is still there."""


@contextlib.contextmanager
def clean_root(
    target: Target,
    *,
    packages: Sequence[str] = (),
    cache: Path,
    workspace: Path,
    on_failure: Aftermath | None = None,
) -> Iterator[Root]:
    """A new root with the target's base packages and ``packages``, gone when the block is left.

    Where the block fails, ``on_failure`` gets the root before it goes; an interruption is no failure.
    ``cache`` is the folder for long-lived things; the root itself lies there too, so that one that a
    killed process left behind is found and removed. ``workspace/root.log`` tells what dnf did.
    Raises BuildRootError when the root cannot be made, HostError when this host cannot make such roots or
    others can write to the cache.
    """
    _check_host(target)
    log = workspace / "root.log"
    roots = cache / "roots"
    for folder in (cache, roots, cache / "dnf"):
        require_own(folder)
    if not roots.is_dir():
        roots.mkdir(parents=True, exist_ok=True)
        _spread(roots)
    roots.chmod(0o700)
    with contextlib.ExitStack() as stack:
        in_use = locked(roots / ".lock", timeout=LOCK_TIMEOUT, what="the roots are in use")
        with as_kind(BuildRootError), in_use:
            more = frozenset(packages) - frozenset(target.buildroot)
            base = _base_root(target, more, cache, log)
            root = _new_root(target, stack.enter_context(live_folder(roots)), cache, log)
            # There in any case, also where dnf has nothing to do: the log is a part of what was built.
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(
                    f"a copy of {base.name}, made of {' '.join(sorted({*target.buildroot, *more}))}\n"
                )
            _copy(base / "root", root.path)
        try:
            yield root
        except BackportError:
            if on_failure:
                on_failure(root)
            raise


def place_to_keep(cache: Path, recipe: str, target: str) -> Path:
    """Where a recipe's root for a target is kept: the last one that was to be."""
    return cache / "roots" / f"{_KEPT}{recipe}-{target}"


@as_kind(BuildRootError)
def remove_kept(cache: Path, target: str) -> tuple[str, ...]:
    """Remove all roots of the target that were kept; their paths. Raises BuildRootError."""
    found = sorted((cache / "roots").glob(f"{_KEPT}*-{target}"))
    for place in found:
        remove(place)
    return tuple(map(str, found))


def _base_root(target: Target, more: frozenset[str], cache: Path, log: Path) -> Path:
    """The folder of the base root with the packages ``more`` besides the target's own, made where there is
    no whole one."""
    roots = cache / "roots"
    base = roots / f"base-{_base_key(target, (*target.buildroot, *more))}"
    if not _is_intact(base):
        if base.exists():
            _tell(log, f"{base}: is not as it was sealed; it is made anew")
        remove(base)
        below = _base_root(target, frozenset(), cache, log) if more else None
        with live_folder(roots) as folder:
            new = _new_root(target, folder, cache, log)
            if below:
                _copy(below / "root", new.path)
            new.install(sorted(more) or target.buildroot)
            _add_builder(new.path)
            write_atomically(folder / "seal", _seal(new.path, base))
            folder.rename(base)
        _forget_old_bases(roots, keep=base)
    os.utime(base)
    return base


def _tell(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        stream.write(f"{line}\n")


def _spread(roots: Path) -> None:
    """Let ext4 keep the files of each root in a part of the disk of its own (chattr(1), attribute T).

    An ext4 without a journal, as many virtual machines have it, does not use an inode again in the first
    minute after its file is gone. Beside a root that was removed, every new file takes a long search.
    """
    with contextlib.suppress(HostError):
        run(Command(["chattr", "+T", roots], timeout=_COPY_TIMEOUT, accept=None))


def _new_root(target: Target, folder: Path, cache: Path, log: Path) -> Root:
    path, control = folder / "root", folder / "control"
    control.mkdir()
    # As the package filesystem has them; dnf's sandbox mounts over them.
    for name, mode in (("dev", 0o755), ("proc", 0o555)):
        (path / name).mkdir(parents=True)
        (path / name).chmod(mode)
    downloads = cache / "dnf" / f"{target.name}-{target.arch}"
    dnf = Dnf(target=target, root=path, cache=downloads, control=control)
    return Root(target=target, path=path, log=log, dnf=dnf)


def _copy(base: Path, path: Path) -> None:
    """Copy a base root whole: no root shares an inode with another, so that what is written into one in
    place, as a scriptlet may, is in no other."""
    entries = [entry for entry in base.iterdir() if entry.name not in ("dev", "proc")]
    try:
        copy = ("cp", "-a", "--reflink=auto", "-t", path)
        run(Command([*copy, *entries], timeout=_COPY_TIMEOUT, what="copying a root"))
    except ToolError as problem:
        require_room("copying a root", [path], log=problem.log)
        raise


def _seal(path: Path, base: Path) -> str:
    """The seal of what lies in ``path`` as the base root ``base``."""
    return open_sealer(KEY).seal(_KIND, base.name, digest_of_tree(path))


def _is_intact(base: Path) -> bool:
    try:
        seal = (base / "seal").read_text("ascii", "replace")
        return open_sealer(KEY).holds(seal, _KIND, base.name, digest_of_tree(base / "root"))
    except OSError:
        return False


def _add_builder(path: Path) -> None:
    """Add the builder to the root's users, with a home of its own."""
    etc = path / "etc"
    etc.mkdir(exist_ok=True)
    for name, line in (
        ("passwd", f"{BUILDER_NAME}:x:{BUILDER_UID}:{BUILDER_UID}::{HOME}:/bin/bash\n"),
        ("group", f"{BUILDER_GROUP}:x:{BUILDER_UID}:\n"),
    ):
        with (etc / name).open("a+") as stream:
            stream.seek(0)
            if not any(entry.split(":")[2:3] == [str(BUILDER_UID)] for entry in stream):
                stream.write(line)
    home = path / HOME.lstrip("/")
    home.mkdir(exist_ok=True)
    os.chown(home, BUILDER_UID, BUILDER_UID)
    for name in ("tmp", "var/tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name).chmod(0o1777)


def _as_user(user: User, command: Command) -> Command:
    if user == "root":
        return command
    identity = str(BUILDER_UID)
    return command.behind(
        "setpriv", "--reuid", identity, "--regid", identity, "--clear-groups", "--no-new-privs", "--"
    )


def _base_key(target: Target, packages: Sequence[str]) -> str:
    """What a base root depends on, as a file name: a root is not used past a restart of the host,
    since a crash may have kept parts of it from the disk."""
    parts = [
        target.name, target.releasever, target.arch, rpm.__version__, platform.freedesktop_os_release()["ID"],
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(), BUILDER_NAME, BUILDER_GROUP,
        *sorted(packages), *(key.fingerprint for key in target.keys.values()),
        *(_repomd_digest(expand_url(each.baseurl, target)) for each in target.repositories),
    ]  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _repomd_digest(url: str) -> str:
    """Digest of the repository's repomd.xml, which names all of its metadata by digest."""
    place = f"{url.rstrip('/')}/repodata/repomd.xml"
    hint = "is the repository's URL in the target, or the site's mirror of it, right?"
    if folder := folder_of(url):
        try:
            return digest_of(folder / "repodata" / "repomd.xml")
        except OSError as problem:
            raise ToolError(f"{place}: {problem.strerror}", hint=hint) from None
    return hashlib.sha256(get(place, limits=REPOMD_LIMITS, hint=hint)).hexdigest()


def check_architecture(target: Target) -> None:
    """Raise HostError where this host cannot run the target's programs."""
    if platform.machine() != target.arch:
        raise HostError(
            f"a root of {target.arch} cannot be used on {platform.machine()}",
            hint="run backport on a host of the target's architecture",
        )


def _check_host(target: Target) -> None:
    check_architecture(target)
    if os.geteuid() != 0:
        raise HostError("making a root needs root", hint="run backport as root")


def _forget_old_bases(roots: Path, *, keep: Path) -> None:
    bases = sorted(roots.glob("base-*"), key=lambda base: base.stat().st_mtime, reverse=True)
    for base in [base for base in bases if base != keep][KEPT_BASE_ROOTS - 1 :]:
        remove(base)
