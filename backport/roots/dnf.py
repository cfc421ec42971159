"""The host's dnf, changing a root from outside of it.

dnf runs in a sandbox of its own. It reads a configuration that is rendered from the target and none of
the host's, uses only keys whose fingerprints were checked, and keeps what it downloads, so that a
second root downloads nothing.

Scriptlets of the packages run while dnf does: rpm enters the root by chroot(2) for them. What chroot
alone would leave within a scriptlet's reach, the sandbox takes away: it sees the root, the download
cache and dnf's own programs, the latter read-only; of ``/etc`` only what name resolution and
certificates need; no home, no key, no other root, no process of the host. A scriptlet cannot mount,
load or trace anything, and has no network: everything is downloaded by a first run of dnf that installs
nothing. A process that a scriptlet leaves behind ends with dnf. The downloads are shared by all roots, so
the run with scriptlets has a copy of the metadata and can only read the packages. What remains is that
packages with scriptlets are trusted with the root itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

import jinja2

from backport.causes import is_unexplained
from backport.errors import ToolError
from backport.files import digest_of, locked, remove_tree, write_atomically
from backport.roots.sandbox import Sandbox
from backport.roots.scratch import remove
from backport.run import Command, Completed, network_environment, run
from backport.seals import digest_of_tree, open_sealer
from backport.settings import Key
from backport.target import Target
from backport.trust import SHA1_POLICY, SHA1_POLICY_VARIABLE, checked_key

Action = Literal["install", "upgrade", "downgrade"]

TIMEOUT = 3600.0
"""Deadline in seconds of one run of dnf, downloads included."""
LOCK_TIMEOUT = 3600.0
"""How long another user of the download cache is waited for, in seconds."""

NEEDS_HINT = "do the target's repositories, or its mirrors in the site file, have what this needs?"
DEFAULT_PRIORITY = 99
"""dnf's own."""

KEY = Path("/run/backport-roots/seal-key")
"""The key of the seals on downloaded metadata and on base roots. It goes when the host is restarted, and they
with it."""
_KIND = "metadata"
_CONTROL = "/backport"
_POLICY = "sha1-self-signature.toml"
_TARGET = "/target"
_REPOSITORIES = "/repositories"
_CACHE = "/var/cache/dnf"
_LOCK = ".lock"
_PACKAGES = "packages"
"""Where in a repository's part of its cache dnf keeps packages."""
_REPOMD = "repodata/repomd.xml"
_NAMED_PACKAGES = 5
_REFRESH = "--refresh"
"""Ask for metadata again, however new it is: metadata_expire=0 lets dnf 4 take what is of the same second."""
# What rpm needs to put files and scriptlets in place, and no more.
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "MKNOD", "SETFCAP", "SETGID",
    "SETUID", "SYS_CHROOT",
)  # fmt: skip
_HOST_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_HOST_ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "gai.conf", "group", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "nsswitch.conf", "passwd", "pki",
    "protocols", "resolv.conf", "services", "ssl",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExtraRepository:
    """A repository as dnf is told of it, such as the packages that a run has built so far."""

    id: str
    baseurl: str
    keys: tuple[Key, ...] = ()
    """The keys that sign its packages; without any, unsigned packages are taken from it."""
    repo_gpgcheck: bool = False
    """Whether its metadata must be signed too."""
    priority: int = DEFAULT_PRIORITY
    """Where several repositories have what fits, that with the lowest number is taken (dnf.conf(5))."""
    only: tuple[str, ...] = ()
    """NEVRAs of the packages that are taken from it; none: all of them."""
    excluded: tuple[str, ...] = ()
    """NEVRAs of packages that are not."""

    @property
    def folder(self) -> Path | None:
        """Where it lies on this host; None when it is reached over the network."""
        return folder_of(self.baseurl)

    @property
    def key_urls(self) -> tuple[str, ...]:
        """The addresses of its keys."""
        return tuple(key.file.as_uri() for key in self.keys)

    @classmethod
    def of_folder(
        cls, repository_id: str, folder: Path, *, keys: tuple[Key, ...] = (), repo_gpgcheck: bool = False
    ) -> Self:
        """The repository that lies in a folder of this host."""
        return cls(
            id=repository_id, baseurl=folder.resolve().as_uri(), keys=keys, repo_gpgcheck=repo_gpgcheck
        )


def own_repositories(target: Target) -> tuple[ExtraRepository, ...]:
    """The target's own repositories, with their keys."""
    return tuple(
        ExtraRepository(id=one.id, baseurl=one.baseurl, keys=tuple(target.keys[name] for name in one.keys))
        for one in target.repositories
    )


def with_checked_keys(repository: ExtraRepository, folder: Path, *, seen_at: Path) -> ExtraRepository:
    """The same repository with copies of its keys in ``folder``, which dnf sees at ``seen_at``, and nothing
    but keys in their files. Raises ToolError."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = []
    for key in repository.keys:
        copy = folder / f"{key.fingerprint}.asc"
        copy = copy if copy.exists() else checked_key(key, folder)
        keys.append(key.model_copy(update={"file": seen_at / copy.name}))
    return replace(repository, keys=tuple(keys))


def need_sha1(repositories: Iterable[ExtraRepository]) -> bool:
    """Whether one of the keys needs `SHA1_POLICY`."""
    return any(key.sha1_self_signature for repository in repositories for key in repository.keys)


@dataclass(frozen=True, kw_only=True)
class Dnf:
    """dnf for one root of one target."""

    target: Target
    root: Path
    cache: Path
    """Downloaded metadata and packages, shared by all roots of the target."""
    control: Path
    """A folder of this root alone, for its configuration and keys."""

    def transact(
        self, action: Action, packages: Sequence[str], *, extra: Sequence[ExtraRepository], log: Path
    ) -> None:
        """Install, upgrade or downgrade packages and what they need.

        Packages are names, NEVRAs, files or capabilities. Raises ToolError; then the root is to be
        used no more.
        """
        repositories = self._configure(extra)
        names = [_checked(package) for package in packages]
        what = f"{action} of {', '.join(packages[:_NAMED_PACKAGES]) or 'all packages'}"
        if len(packages) > _NAMED_PACKAGES:
            what += f" and {len(packages) - _NAMED_PACKAGES} more"
        base = Command(
            (), timeout=TIMEOUT, what=f"{what} in a root of {self.target.name}", log=log, hint=NEEDS_HINT
        )
        dnf = functools.partial(self._run, base, repositories)
        is_here = all(repository.folder for repository in repositories)
        with self._locked():
            self._forget_unsealed(log)
            try:
                if not is_here:
                    dnf(_REFRESH, action, "--downloadonly", *names, network=True)
                elif not self._has_metadata(repositories):
                    dnf(_REFRESH, "makecache")
            finally:
                write_atomically(self._seal, open_sealer(KEY).seal(_KIND, str(self.cache), self._state()))
                self._copy_downloads()
        words = (_REFRESH if is_here else "--cacheonly", action, *names)
        try:
            dnf(*words, own=True)
        except ToolError as problem:
            if is_unexplained(problem.message):
                # Where rpm is to debug, its shell tells every command of a scriptlet (rpm's rpmscript.c).
                dnf("--setopt=rpmverbosity=debug", *words, own=True)
            raise

    def without_provider(
        self, capabilities: Sequence[str], *, extra: Sequence[ExtraRepository]
    ) -> tuple[str, ...]:
        """Those capabilities that no package of the repositories provides. Raises ToolError.

        Meant for telling why a transaction failed: it uses the metadata of that transaction, and takes
        a run of dnf for each capability.
        """
        repositories = self._configure(extra)
        if not self._copy.is_dir():
            # What was wished for could not even be asked for.
            with self._locked():
                self._copy_downloads()
        query = ("--cacheonly", "--quiet", "repoquery", "--whatprovides")
        base = Command((), timeout=TIMEOUT, what="asking dnf for providers")
        ask = functools.partial(self._run, base, repositories, *query, own=True)
        return tuple(capability for capability in capabilities if not ask(capability).output.strip())

    def _run(
        self,
        base: Command,
        repositories: Sequence[ExtraRepository],
        *arguments: str,
        network: bool = False,
        own: bool = False,
    ) -> Completed:
        """Run dnf in a sandbox, with the shared downloads or, ``own``, with this root's copy of them."""
        sandbox = self._sandbox(repositories, network=network, own=own)
        return sandbox.run(replace(base, argv=self._command(*arguments)))

    @property
    def _copy(self) -> Path:
        """Where this root has its copy of the downloaded metadata."""
        return self.control.with_name("metadata")

    def _has_metadata(self, repositories: Sequence[ExtraRepository]) -> bool:
        """Whether the downloads hold the present metadata of the target's repositories on this host."""
        own = {repository.id for repository in self.target.repositories}
        for repository in repositories:
            if repository.folder and repository.id in own:
                here = repository.folder / _REPOMD
                known = self.cache.glob(f"{repository.id}-*/{_REPOMD}")
                if not here.is_file() or digest_of(here) not in map(digest_of, known):
                    return False
        return True

    @property
    def _seal(self) -> Path:
        return self.cache.with_name(f"{self.cache.name}.seal")

    def _state(self) -> str:
        """What the downloads are, packages aside, which are verified whenever they are installed."""
        self.cache.mkdir(parents=True, exist_ok=True)
        return digest_of_tree(self.cache, without=(_PACKAGES, _LOCK))

    def _metadata(self) -> list[Path]:
        """Everything that was downloaded but packages."""
        files = [path for path in self.cache.glob("*") if not path.is_dir() and path.name != _LOCK]
        return files + [path for path in self.cache.glob("*/*") if path.name != _PACKAGES]

    def _forget_unsealed(self, log: Path) -> None:
        """Remove metadata that dnf would believe although it is not as backport's own run left it."""
        seal = self._seal.read_text("ascii", "replace") if self._seal.is_file() else None
        if open_sealer(KEY).holds(seal, _KIND, str(self.cache), self._state()):
            return
        for path in self._metadata():
            remove_tree(path)
        if seal is not None:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{self.cache}: is not as it was sealed; it is downloaded anew\n")

    def _copy_downloads(self) -> None:
        remove(self._copy)
        self._copy.mkdir()
        names = [path.relative_to(self.cache) for path in self._metadata()]
        if names:
            copy = ("cp", "-a", "--reflink=auto", "--parents", "-t", self._copy, "--")
            run(Command([*copy, *names], timeout=TIMEOUT, what="copying dnf's metadata", cwd=self.cache))

    def _locked(self) -> AbstractContextManager[None]:
        # dnf's own locks go by process ids, which mean nothing across pid namespaces.
        return locked(self.cache / _LOCK, timeout=LOCK_TIMEOUT, what="dnf's downloads")

    def _command(self, *arguments: str) -> list[str]:
        return [
            "dnf", f"--config={_CONTROL}/dnf.conf", f"--installroot={_TARGET}",
            f"--releasever={self.target.releasever}", *arguments,
        ]  # fmt: skip

    def _configure(self, extra: Sequence[ExtraRepository]) -> list[ExtraRepository]:
        """Write the configuration; all repositories, where the host finds them."""
        found = [
            replace(one, baseurl=expand_url(one.baseurl, self.target))
            for one in (*own_repositories(self.target), *extra)
        ]
        inside = [self._as_seen_inside(repository) for repository in found]
        write_atomically(self.control / "dnf.conf", render_dnf_conf(self.target, inside))
        # Where a release keeps its rpm database; the host's rpm may have another place. And the sandbox
        # does already what rpm's plugin unshare (rpm 4.20) would need CAP_SYS_ADMIN for.
        write_atomically(
            self.control / ".rpmmacros", "%_dbpath /var/lib/rpm\n%__transaction_unshare %{nil}\n"
        )
        if need_sha1(found):
            write_atomically(self.control / _POLICY, SHA1_POLICY)
        return found

    def _as_seen_inside(self, repository: ExtraRepository) -> ExtraRepository:
        place = f"file://{_REPOSITORIES}/{repository.id}" if repository.folder else repository.baseurl
        keys = Path(_CONTROL) / "keys"
        return with_checked_keys(replace(repository, baseurl=place), self.control / "keys", seen_at=keys)

    def _sandbox(self, repositories: Sequence[ExtraRepository], *, network: bool, own: bool) -> Sandbox:
        self.cache.mkdir(parents=True, exist_ok=True)
        temporary = ("--tmpfs", "/tmp", "--dir", "/var/tmp")  # noqa: S108  # inside the sandbox
        environment = {"HOME": _CONTROL, **(network_environment() if network else {})}
        if (self.control / _POLICY).exists():
            environment[SHA1_POLICY_VARIABLE] = f"{_CONTROL}/{_POLICY}"
        packages = sorted(self.cache.glob(f"*/{_PACKAGES}")) if own else []
        # dnf 4 takes its cache folder from inside the root, dnf 5 from outside.
        caches = [
            word
            for place in (f"{_TARGET}{_CACHE}", _CACHE)
            for words in (
                ("--bind", str(self._copy if own else self.cache), place, "--tmpfs", f"{place}/log"),
                *(("--ro-bind", str(path), f"{place}/{path.relative_to(self.cache)}") for path in packages),
            )
            for word in words
        ]
        folders = [
            word
            for repository in repositories
            if repository.folder
            for word in ("--ro-bind", str(repository.folder), f"{_REPOSITORIES}/{repository.id}")
        ]
        return Sandbox(
            mounts=(
                *host_programs(),
                "--dev", "/dev", "--proc", "/proc", *temporary,
                "--ro-bind", str(self.control), _CONTROL,
                "--bind", str(self.root), _TARGET,
                "--dev", f"{_TARGET}/dev", "--proc", f"{_TARGET}/proc",
                *caches,
                *folders,
            ),
            capabilities=_CAPABILITIES,
            environment=environment,
            network=network,
        )  # fmt: skip


def render_dnf_conf(target: Target, repositories: Sequence[ExtraRepository]) -> str:
    """The text of dnf.conf for the target's repositories and others."""
    return render("dnf.conf.j2", target=target, repositories=repositories)


def render(template: str, **values: object) -> str:
    """One of the package's templates as text; a value that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("backport"), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,  # noqa: S701  # no markup is made
    )  # fmt: skip
    environment.filters["literal"] = repr
    environment.filters["long_literal"] = _long_literal
    return environment.get_template(template).render(**values)


def _long_literal(text: str) -> str:
    """A text of several lines as a Python literal of several lines."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"""{escaped}"""'


def expand_url(url: str, target: Target) -> str:
    """A repository's URL with dnf's variables ``$releasever``, ``$basearch`` and ``$arch`` replaced."""
    values = {"$releasever": target.releasever, "$basearch": target.arch, "$arch": target.arch}
    for name, value in values.items():
        url = url.replace(name, value)
    return url


def folder_of(url: str) -> Path | None:
    """The folder that a file URL names; None for every other URL."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def host_programs() -> tuple[str, ...]:
    """The host's programs and what they need of /etc, read-only, as bubblewrap's mounts."""
    words: list[str] = ["--ro-bind", "/usr", "/usr"]
    for folder in (Path("/", name) for name in _HOST_FOLDERS):
        if folder.is_symlink():
            words += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            words += ["--ro-bind", str(folder), str(folder)]
    for file in (Path("/etc", name) for name in _HOST_ETC):
        if file.exists():
            words += ["--ro-bind", str(file.resolve()), str(file)]
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (place := network_environment().get(name)) and Path(place).exists():
            words += ["--ro-bind", place, place]
    return tuple(words)


def _checked(package: str) -> str:
    """The package's name, refused where dnf would take it for an option, a URL or a file to install."""
    is_other = package.startswith("-") or package.endswith(".rpm") or "://" in package
    if is_other or not package.isprintable():
        raise ToolError(
            f"{package!r} cannot be installed: it is not the name of a package, file or capability"
        )
    return package
