"""What this host lacks for a build, and the command that brings it.

Every check is data; the questions put to the host are in ``Probes``, so that a host can be made up.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backport.artifacts import Check, Finding, Verdict
from backport.bindings import import_bindings
from backport.errors import BackportError, UsageError
from backport.files import scratch_folder
from backport.run import Command, find_program, run
from backport.seals import open_sealer, require_own
from backport.settings import Key
from backport.signing.key import show_key
from backport.site import Signing, Site
from backport.sources import SOURCES, Source
from backport.target import Target, load_targets

GIB = 1024**3
CACHE_BYTES = 8 * GIB
"""Free space for roots (0.5 GB each), a build of OpenSSL with its tests, and downloads."""
MOCK_BYTES = 4 * GIB
"""Free space for mock's roots and the builds in them."""
REPOSITORY_BYTES = GIB
"""Free space for a few generations of what is published."""
_CACHE_PARTS = ("built", "dnf", "needs", "roots", "runs", "sources", "stock")
"""What backport makes in the cache folder, and believes afterwards."""

_SANDBOX = (
    *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"),
    *("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--", "true"),
)
_PRIVILEGED = "inside a container start it privileged: namespaces and mounts are forbidden here"
_INSTALL = {"debian": "apt-get install -y", "fedora": "dnf install -y"}


@dataclass(frozen=True, kw_only=True)
class _Need:
    """A program or Python module, what for, and the package that brings it, by distribution."""

    name: str
    purpose: str
    debian: str | None
    fedora: str | None

    def advice(self, family: str) -> str:
        """What to type to get it."""
        package = {"debian": self.debian, "fedora": self.fedora}.get(family)
        if package:
            return f"{_INSTALL[family]} {package}"
        if family in _INSTALL:
            return f"this distribution has no package with {self.name}"
        return f"install the package that brings {self.name} ({self.fedora} on Fedora)"


_PROGRAMS = (
    _Need(name="dnf", purpose="makes clean roots of the target", debian="dnf", fedora="dnf"),
    _Need(name="rpm", purpose="queries clean roots", debian="rpm", fedora="rpm"),
    _Need(name="rpmkeys", purpose="verifies signatures", debian="rpm", fedora="rpm"),
    _Need(name="rpmsign", purpose="signs packages", debian="rpm", fedora="rpm-sign"),
    _Need(name="gpg", purpose="holds keys", debian="gpg", fedora="gnupg2"),
    _Need(name="gpg-agent", purpose="signs for gpg", debian="gpg-agent", fedora="gnupg2"),
    _Need(name="bwrap", purpose="runs programs inside a root", debian="bubblewrap", fedora="bubblewrap"),
    _Need(name="abipkgdiff", purpose="compares libraries", debian="abigail-tools", fedora="libabigail"),
    _Need(name="rpm2cpio", purpose="unpacks packages for abipkgdiff", debian="rpm2cpio", fedora="rpm"),
    _Need(name="cpio", purpose="unpacks packages for abipkgdiff", debian="cpio", fedora="cpio"),
)
_MOCK = _Need(name="mock", purpose="the site's builder", debian=None, fedora="mock")
_NSPAWN = _Need(
    name="systemd-nspawn",
    purpose="shuts mock's builds in",
    debian="systemd-container",
    fedora="systemd-container",
)
_BUILDDEP = _Need(
    name="dnf builddep",
    purpose="installs build dependencies for mock",
    debian="dnf-plugins-core",
    fedora="python3-dnf-plugins-core",
)
_MODULES = (
    _Need(name="rpm", purpose="reads packages", debian="python3-rpm", fedora="python3-rpm"),
    _Need(
        name="createrepo_c",
        purpose="writes repository metadata",
        debian="python3-createrepo-c",
        fedora="python3-createrepo_c",
    ),
    _Need(name="solv", purpose="resolves dependencies", debian="python3-solv", fedora="python3-solv"),
    _Need(name="koji", purpose="asks the hub", debian="python3-gssapi", fedora="python3-koji"),
)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _start(argv: Sequence[str]) -> None:
    run(Command(argv, timeout=30))


def _can_link(origin: Path, destination: Path) -> bool:
    """Whether a file in the one folder can get a second name in the other."""
    try:
        with tempfile.NamedTemporaryFile(dir=origin, prefix=".backport-") as file:
            link = destination / Path(file.name).name
            if link.parent != origin:
                link.hardlink_to(file.name)
                link.unlink()
    except OSError:
        return False
    return True


def _signing_key(signing: Signing) -> str:
    key = show_key(signing)
    return f"{key.fingerprint} ({key.user_id})"


def _check_key(key: Key) -> None:
    from backport import trust  # noqa: PLC0415  # needs rpm's bindings, whose lack the doctor has to tell

    with scratch_folder(Path(tempfile.gettempdir()), "backport-keys-") as folder:
        trust.checked_key(key, folder)


def _mockhost() -> Any:
    from backport.builders import mockhost  # noqa: PLC0415  # needs rpm's bindings, as above

    return mockhost


def _published(site: Site) -> Sequence[Check]:
    try:
        from backport.repository.surroundings import check_clients  # noqa: PLC0415  # needs rpm's bindings
    except ImportError:
        return ()
    return check_clients(site)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The questions put to the host. Those that can fail raise BackportError, or ImportError."""

    euid: Callable[[], int] = os.geteuid
    os_release: Callable[[], dict[str, str]] = _os_release
    which: Callable[[str], str | None] = find_program
    import_module: Callable[[str], object] = import_bindings
    start: Callable[[Sequence[str]], None] = _start
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    writable: Callable[[Path], bool] = lambda folder: os.access(folder, os.W_OK | os.X_OK)
    can_link: Callable[[Path, Path], bool] = _can_link
    mock_user: Callable[[], pwd.struct_passwd] = lambda: _mockhost().find_caller()
    mock_way: Callable[[pwd.struct_passwd, Path], None] = lambda *way: _mockhost().require_way(*way)
    mock_container: Callable[[], None] = lambda: _mockhost().start_container()
    mock_builddep: Callable[[], bool] = lambda: _mockhost().has_builddep()
    signing_key: Callable[[Signing], str] = _signing_key
    check_key: Callable[[Key], None] = _check_key
    source_version: Callable[[Source], str] = lambda source: source.version()
    published: Callable[[Site], Sequence[Check]] = _published
    require_own: Callable[[Path], None] = require_own
    open_sealer: Callable[[Path], object] = open_sealer


def examine_host(site: Site, *, probes: Probes | None = None) -> tuple[Check, ...]:
    """All checks of this host for what ``site`` asks of it, in the order in which to mend things.

    A hub that does not answer is a warning, since the host is not to blame; so is a target that cannot be
    read, as long as nothing uses it.
    """
    host = probes or Probes()
    family = _family(host.os_release())
    return (
        _root(host),
        *_programs(site, host, family),
        _ask("sandbox", "bubblewrap can make namespaces", lambda: _sandbox(host), advice=_PRIVILEGED),
        *(_module(need, host, family) for need in _MODULES),
        *_folders(site, host),
        *_mock(site, host, family),
        *_keys(site, host, family),
        *_targets(site),
        *host.published(site),
        *(_source(make(site), host) for make in SOURCES.values()),
    )


def _ask(
    check_id: str,
    title: str,
    question: Callable[[], Finding],
    *,
    advice: str = "",
    verdict: Verdict = Verdict.FAIL,
) -> Check:
    """What a question to the host comes to: a failure where it raises, with ``advice`` unless it brings its
    own; without the module that it needs it cannot be put."""
    try:
        finding = question()
    except BackportError as problem:
        finding = Finding.of_problem(problem, advice=advice, verdict=verdict)
    except ImportError as problem:
        finding = Finding.skipped(f"cannot be checked: {problem}")
    return Check.of(check_id, title, finding)


def _targets(site: Site) -> Iterator[Check]:
    """A warning for each target that cannot be read: it stops whatever is asked of it, and nothing else."""
    for name, problem in _load_targets(site)[1].items():
        finding = Finding.of_problem(problem, advice="correct the file there", verdict=Verdict.WARN)
        yield Check.of(f"target.{name}", f"{name} can be read", finding)


def _load_targets(site: Site) -> tuple[list[Target], dict[str, UsageError]]:
    """The site's own targets, or all where it has none: nobody needs the keys of those that nothing uses."""
    return load_targets((site.paths.targets,) if site.paths.targets else site.paths.search_path("targets"))


def _family(release: dict[str, str]) -> str:
    """``debian``, ``fedora``, or another distribution's own id (os-release(5): ID, ID_LIKE)."""
    ids = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    if "debian" in ids:
        return "debian"
    return "fedora" if {"fedora", "rhel", "centos"} & set(ids) else ids[0]


def _root(host: Probes) -> Check:
    euid, advice = host.euid(), "run it as root: a clean root is made with the target's own owners"
    finding = Finding.judged(good=euid == 0, expected="uid 0", found=f"uid {euid}", advice=advice)
    return Check.of("root", "runs as root", finding)


def _programs(site: Site, host: Probes, family: str) -> Iterator[Check]:
    for need in (*_PROGRAMS, _MOCK) if _builds_with_mock(site, host) else _PROGRAMS:
        found, advice = host.which(need.name), need.advice(family)
        if need is _MOCK and family == "debian":
            advice += '; set builder = "chroot" in the site file'
        finding = Finding.judged(
            good=found is not None, expected="installed", found=found or "not installed", advice=advice
        )
        yield Check.of(f"program.{need.name}", f"{need.name}: {need.purpose}", finding)


def _builds_with_mock(site: Site, host: Probes) -> bool:
    """Whether the site wants mock, or has it and does not rule it out."""
    return site.builder == "mock" or (site.builder == "auto" and host.which(_MOCK.name) is not None)


def _mock(site: Site, host: Probes, family: str) -> Iterator[Check]:
    """What mock itself needs where it builds: a user to fall back to, who can reach what it reads, room for
    its roots, containers, and dnf's command for build dependencies."""
    if not _builds_with_mock(site, host) or host.which(_MOCK.name) is None:
        return
    users: list[pwd.struct_passwd] = []
    yield _ask("mock.user", "mock has a user to build as", lambda: _mock_caller(host, users))
    way = "mock's user can enter the cache folder"
    yield _ask("mock.cache", way, lambda: _mock_reaches(_existing(site.paths.cache), host, users))
    yield _folder_space("mock", "mock.basedir", site.mock.basedir, MOCK_BYTES, host)
    if site.mock.isolation == "nspawn":
        start = "systemd-nspawn can start a container"
        yield _ask("mock.container", start, lambda: _mock_starts(host, family), advice=_PRIVILEGED)
    if site.mock.bootstrap_image is None:
        installs = "dnf can install build dependencies for mock"
        yield _ask("mock.builddep", installs, lambda: _mock_installs(host, family))


def _mock_starts(host: Probes, family: str) -> Finding:
    if host.which(_NSPAWN.name) is None:
        return Finding.unless(["not installed"], expected="", found="", advice=_NSPAWN.advice(family))
    host.mock_container()
    return Finding.passed("started and ended")


def _mock_installs(host: Probes, family: str) -> Finding:
    try:
        there = host.mock_builddep()
    except BackportError as problem:
        return Finding.skipped(problem.message)
    found = "it has the command builddep" if there else "it has no command builddep"
    return Finding.judged(good=there, expected="dnf builddep", found=found, advice=_BUILDDEP.advice(family))


def _mock_caller(host: Probes, users: list[pwd.struct_passwd]) -> Finding:
    users.append(host.mock_user())
    return Finding.passed(users[0].pw_name, expected="a member of the group mock")


def _mock_reaches(cache: Path, host: Probes, users: Sequence[pwd.struct_passwd]) -> Finding:
    if not users:
        return Finding.skipped("mock has no user")
    host.mock_way(users[0], cache)
    return Finding.passed(f"{users[0].pw_name} can", expected=str(cache))


def _sandbox(host: Probes) -> Finding:
    """Bubblewrap needs to make namespaces and mounts, which many containers forbid."""
    if host.which("bwrap") is None:
        return Finding.skipped("bwrap is not installed")
    host.start(_SANDBOX)
    return Finding.passed("net, pid, ipc, uts and mount namespaces")


def _module(need: _Need, host: Probes, family: str) -> Check:
    try:
        host.import_module(need.name)
        finding = Finding.passed("importable")
    except ImportError as problem:
        advice = need.advice(family) + "; a venv has to be made with --system-site-packages"
        finding = Finding.unless([str(problem)], expected="importable", found="", advice=advice)
    return Check.of(f"module.{need.name}", f"Python module {need.name}: {need.purpose}", finding)


def _folders(site: Site, host: Probes) -> Iterator[Check]:
    cache, repository = site.paths.cache, site.paths.repository
    for name, folder, needed in (
        ("cache", cache, CACHE_BYTES),
        ("repository", repository, REPOSITORY_BYTES),
    ):
        advice = f"choose another folder: paths.{name} in the site file"
        good = host.writable(_existing(folder))
        writable = Finding.judged(good=good, expected="writable", found=str(folder), advice=advice)
        yield Check.of(f"folder.{name}", f"the {name} folder can be written", writable)
        yield _folder_space(name, f"paths.{name}", folder, needed, host)
    yield _ask("folder.cache.own", "nobody else can write to the cache folder", lambda: _own(cache, host))
    linkable = host.can_link(_existing(cache), _existing(repository))
    links = Finding(
        verdict=Verdict.PASS if linkable else Verdict.WARN,
        expected="hard links from cache to repository",
        found="they can be made" if linkable else "they cannot be made",
        advice="put paths.cache and paths.repository on one file system",
    )
    yield Check.of("folder.links", "published files share their space with the cache", links)


def _own(cache: Path, host: Probes) -> Finding:
    """Whether nobody else can change what is used of the cache, in it or in one of its parts."""
    for folder in (cache, *(cache / name for name in _CACHE_PARTS)):
        host.require_own(folder)
    return Finding.passed(str(cache))


def _folder_space(name: str, setting: str, folder: Path, needed: int, host: Probes) -> Check:
    free = host.free_bytes(_existing(folder))
    finding = Finding.judged(
        good=free >= needed,
        expected=f"{needed / GIB:.0f} GiB",
        found=f"{free / GIB:.1f} GiB",
        advice=f"make room, or choose another folder: {setting} in the site file",
    )
    return Check.of(f"space.{name}", f"free space for the {name} folder", finding)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _keys(site: Site, host: Probes, family: str) -> Iterator[Check]:
    def signing() -> Finding:
        return Finding.passed(host.signing_key(site.signing))

    def pinned(key: Key) -> Finding:
        try:
            host.check_key(key)
        except BackportError as problem:
            finding = Finding.of_problem(problem, expected=key.fingerprint, advice="")
            if not key.file.exists() and "distribution-gpg-keys" in key.file.parts and family == "fedora":
                finding = replace(finding, advice="dnf install -y distribution-gpg-keys")
            return finding
        return Finding.passed(str(key.file), expected=key.fingerprint)

    yield _ask("key.signing", "the signing key", signing, advice="backport keys init")
    yield _ask("key.cache", "the key of what was built", lambda: _sealing(site, host))
    for name, key in _pinned_keys(site).items():
        yield _ask(f"key.{name}", f"public key {name}", partial(pinned, key))


def _sealing(site: Site, host: Probes) -> Finding:
    """The key by which what was built is known again; before its first run a host has none."""
    file = site.signing.sealing_key
    if file.exists():
        host.open_sealer(file)
    found = str(file) if file.exists() else f"{file}: not made yet"
    return Finding.passed(found, expected="one that only root can read")


def _pinned_keys(site: Site) -> dict[str, Key]:
    """Every key that a target names or the site adds, the site's in place of the targets' own."""
    targets = _load_targets(site)[0]
    return {**{name: key for target in targets for name, key in target.keys.items()}, **site.keys}


def _source(source: Source, host: Probes) -> Check:
    return _ask(
        source.name, f"the {source.name} {source.address} answers",
        lambda: Finding.passed(host.source_version(source)),
        advice="check its address in the site file and the network", verdict=Verdict.WARN,
    )  # fmt: skip
