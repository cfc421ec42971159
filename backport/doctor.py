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
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Check, Verdict
from backport.bindings import import_bindings
from backport.errors import BackportError
from backport.files import scratch_folder
from backport.run import Command, find_program, run
from backport.seals import open_sealer, require_own
from backport.settings import Key
from backport.signing.key import show_key
from backport.site import Signing, Site
from backport.sources import SOURCES, Source
from backport.target import load_targets

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


def _mock_user() -> pwd.struct_passwd:
    from backport.builders import mockhost  # noqa: PLC0415  # needs rpm's bindings, as above

    return mockhost.find_caller()


def _mock_way(user: pwd.struct_passwd, folder: Path) -> None:
    from backport.builders import mockhost  # noqa: PLC0415  # as above

    mockhost.require_way(user, folder)


def _mock_container() -> None:
    from backport.builders import mockhost  # noqa: PLC0415  # as above

    mockhost.start_container()


def _mock_builddep() -> bool:
    from backport.builders import mockhost  # noqa: PLC0415  # as above

    return mockhost.has_builddep()


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
    mock_user: Callable[[], pwd.struct_passwd] = _mock_user
    mock_way: Callable[[pwd.struct_passwd, Path], None] = _mock_way
    mock_container: Callable[[], None] = _mock_container
    mock_builddep: Callable[[], bool] = _mock_builddep
    signing_key: Callable[[Signing], str] = _signing_key
    check_key: Callable[[Key], None] = _check_key
    source_version: Callable[[Source], str] = lambda source: source.version()
    published: Callable[[Site], Sequence[Check]] = _published
    require_own: Callable[[Path], None] = require_own
    open_sealer: Callable[[Path], object] = open_sealer


def examine_host(site: Site, *, offline: bool = False, probes: Probes | None = None) -> tuple[Check, ...]:
    """All checks of this host for what ``site`` asks of it, in the order in which to mend things.

    ``offline`` leaves the hub alone. A hub that does not answer is a warning, since the host is not
    to blame; nor is a target that cannot be read, as long as nothing uses it.
    """
    host = probes or Probes()
    family = _family(host.os_release())
    return (
        _root(host),
        *_programs(site, host, family),
        _sandbox(host),
        *(_module(need, host, family) for need in _MODULES),
        *_folders(site, host),
        *_mock(site, host, family),
        *_keys(site, host, family),
        *_targets(site),
        *host.published(site),
        *(_source(make(site), host, offline=offline) for make in SOURCES.values()),
    )


def _targets(site: Site) -> Iterator[Check]:
    """A warning for each target that cannot be read: it stops whatever is asked of it, and nothing else."""
    for name, problem in load_targets(site.paths.targets)[1].items():
        told = {"found": problem.message, "advice": problem.hint or "correct the file there"}
        yield Check(id=f"target.{name}", title=f"{name} can be read", verdict=Verdict.WARN, **told)


def _family(release: dict[str, str]) -> str:
    """``debian``, ``fedora``, or another distribution's own id (os-release(5): ID, ID_LIKE)."""
    ids = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    if "debian" in ids:
        return "debian"
    return "fedora" if {"fedora", "rhel", "centos"} & set(ids) else ids[0]


def _verdict(*, good: bool) -> Verdict:
    return Verdict.PASS if good else Verdict.FAIL


def _root(host: Probes) -> Check:
    euid = host.euid()
    return Check(
        id="root",
        title="runs as root",
        verdict=_verdict(good=euid == 0),
        expected="uid 0",
        found=f"uid {euid}",
        advice="" if euid == 0 else "run it as root: a clean root is made with the target's own owners",
    )


def _programs(site: Site, host: Probes, family: str) -> Iterator[Check]:
    for need in (*_PROGRAMS, _MOCK) if _builds_with_mock(site, host) else _PROGRAMS:
        found = host.which(need.name)
        advice = "" if found else need.advice(family)
        if need is _MOCK and not found and family == "debian":
            advice += '; set builder = "chroot" in the site file'
        yield Check(
            id=f"program.{need.name}",
            title=f"{need.name}: {need.purpose}",
            verdict=_verdict(good=found is not None),
            expected="installed",
            found=found or "not installed",
            advice=advice,
        )


def _builds_with_mock(site: Site, host: Probes) -> bool:
    """Whether the site wants mock, or has it and does not rule it out."""
    return site.builder == "mock" or (site.builder == "auto" and host.which(_MOCK.name) is not None)


def _mock(site: Site, host: Probes, family: str) -> Iterator[Check]:
    """What mock itself needs where it builds: a user to fall back to, who can reach what it reads, room for
    its roots, containers, and dnf's command for build dependencies."""
    if not _builds_with_mock(site, host) or host.which(_MOCK.name) is None:
        return
    yield from _mock_user_checks(site, host)
    yield _folder_space("mock", "mock.basedir", site.mock.basedir, MOCK_BYTES, host)
    if site.mock.isolation == "nspawn":
        yield _mock_starts(host, family)
    if site.mock.bootstrap_image is None:
        yield _mock_installs(host, family)


def _mock_starts(host: Probes, family: str) -> Check:
    facts = {"id": "mock.container", "title": "systemd-nspawn can start a container"}
    if host.which(_NSPAWN.name) is None:
        return Check(**facts, verdict=Verdict.FAIL, found="not installed", advice=_NSPAWN.advice(family))
    try:
        host.mock_container()
    except BackportError as problem:
        advice = "inside a container start it privileged: namespaces and mounts are forbidden here"
        return Check(
            **facts, verdict=Verdict.FAIL, expected="exit code 0", found=problem.message, advice=advice
        )
    except ImportError as problem:
        return Check(**facts, verdict=Verdict.SKIPPED, advice=f"cannot be checked: {problem}")
    return Check(**facts, verdict=Verdict.PASS, found="started and ended")


def _mock_installs(host: Probes, family: str) -> Check:
    facts = {"id": "mock.builddep", "title": "dnf can install build dependencies for mock"}
    try:
        there = host.mock_builddep()
    except BackportError as problem:
        return Check(**facts, verdict=Verdict.SKIPPED, advice=problem.message)
    except ImportError as problem:
        return Check(**facts, verdict=Verdict.SKIPPED, advice=f"cannot be checked: {problem}")
    return Check(
        **facts,
        verdict=_verdict(good=there),
        expected="dnf builddep",
        found="it has the command builddep" if there else "it has no command builddep",
        advice="" if there else _BUILDDEP.advice(family),
    )


def _mock_user_checks(site: Site, host: Probes) -> Iterator[Check]:
    user, cache = {"id": "mock.user", "title": "mock has a user to build as"}, _existing(site.paths.cache)
    way = {"id": "mock.cache", "title": "mock's user can enter the cache folder", "expected": str(cache)}
    try:
        found = host.mock_user()
    except BackportError as problem:
        yield Check(**user, verdict=Verdict.FAIL, found=problem.message, advice=problem.hint or "")
        yield Check(**way, verdict=Verdict.SKIPPED, advice="mock has no user")
        return
    except ImportError as problem:
        yield Check(**user, verdict=Verdict.SKIPPED, advice=f"cannot be checked: {problem}")
        return
    yield Check(**user, verdict=Verdict.PASS, expected="a member of the group mock", found=found.pw_name)
    try:
        host.mock_way(found, cache)
    except BackportError as problem:
        yield Check(**way, verdict=Verdict.FAIL, found=problem.message, advice=problem.hint or "")
    else:
        yield Check(**way, verdict=Verdict.PASS, found=f"{found.pw_name} can")


def _sandbox(host: Probes) -> Check:
    """Bubblewrap needs to make namespaces and mounts, which many containers forbid."""
    facts = {"id": "sandbox", "title": "bubblewrap can make namespaces"}
    if host.which("bwrap") is None:
        return Check(**facts, verdict=Verdict.SKIPPED, advice="bwrap is not installed")
    try:
        host.start(_SANDBOX)
    except BackportError as problem:
        return Check(
            **facts,
            verdict=Verdict.FAIL,
            expected="exit code 0",
            found=problem.message,
            advice="inside a container start it privileged: namespaces and mounts are forbidden here",
        )
    return Check(**facts, verdict=Verdict.PASS, found="net, pid, ipc, uts and mount namespaces")


def _module(need: _Need, host: Probes, family: str) -> Check:
    facts = {"id": f"module.{need.name}", "title": f"Python module {need.name}: {need.purpose}"}
    try:
        host.import_module(need.name)
    except ImportError as problem:
        advice = need.advice(family) + "; a venv has to be made with --system-site-packages"
        return Check(**facts, verdict=Verdict.FAIL, expected="importable", found=str(problem), advice=advice)
    return Check(**facts, verdict=Verdict.PASS, found="importable")


def _folders(site: Site, host: Probes) -> Iterator[Check]:
    cache, repository = site.paths.cache, site.paths.repository
    for name, folder, needed in (
        ("cache", cache, CACHE_BYTES),
        ("repository", repository, REPOSITORY_BYTES),
    ):
        yield _folder_writable(name, folder, host)
        yield _folder_space(name, f"paths.{name}", folder, needed, host)
    yield _folder_own(cache, host)
    linkable = host.can_link(_existing(cache), _existing(repository))
    yield Check(
        id="folder.links",
        title="published files share their space with the cache",
        verdict=Verdict.PASS if linkable else Verdict.WARN,
        expected="hard links from cache to repository",
        found="they can be made" if linkable else "they cannot be made",
        advice="" if linkable else "put paths.cache and paths.repository on one file system",
    )


def _folder_writable(name: str, folder: Path, host: Probes) -> Check:
    writable = host.writable(_existing(folder))
    return Check(
        id=f"folder.{name}",
        title=f"the {name} folder can be written",
        verdict=_verdict(good=writable),
        expected="writable",
        found=str(folder),
        advice="" if writable else f"choose another folder: paths.{name} in the site file",
    )


def _folder_own(cache: Path, host: Probes) -> Check:
    """Whether nobody else can change what is used of the cache, in it or in one of its parts."""
    facts = {"id": "folder.cache.own", "title": "nobody else can write to the cache folder"}
    try:
        for folder in (cache, *(cache / name for name in _CACHE_PARTS)):
            host.require_own(folder)
    except BackportError as problem:
        return Check(
            **facts, verdict=Verdict.FAIL, expected="root alone can write to it", found=problem.message,
            advice=problem.hint or "",
        )  # fmt: skip
    return Check(**facts, verdict=Verdict.PASS, found=str(cache))


def _folder_space(name: str, setting: str, folder: Path, needed: int, host: Probes) -> Check:
    free = host.free_bytes(_existing(folder))
    enough = free >= needed
    return Check(
        id=f"space.{name}",
        title=f"free space for the {name} folder",
        verdict=_verdict(good=enough),
        expected=f"{needed / GIB:.0f} GiB",
        found=f"{free / GIB:.1f} GiB",
        advice="" if enough else f"make room, or choose another folder: {setting} in the site file",
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _keys(site: Site, host: Probes, family: str) -> Iterator[Check]:
    yield _signing(site, host)
    yield _sealing(site, host)
    for name, key in _pinned_keys(site).items():
        facts = {"id": f"key.{name}", "title": f"public key {name}", "expected": key.fingerprint}
        try:
            host.check_key(key)
        except BackportError as problem:
            advice = problem.hint or ""
            if not key.file.exists() and "distribution-gpg-keys" in key.file.parts and family == "fedora":
                advice = "dnf install -y distribution-gpg-keys"
            yield Check(**facts, verdict=Verdict.FAIL, found=problem.message, advice=advice)
        except ImportError as problem:
            yield Check(**facts, verdict=Verdict.SKIPPED, advice=f"cannot be checked: {problem}")
        else:
            yield Check(**facts, verdict=Verdict.PASS, found=str(key.file))


def _signing(site: Site, host: Probes) -> Check:
    facts = {"id": "key.signing", "title": "the signing key"}
    try:
        found = host.signing_key(site.signing)
    except BackportError as problem:
        advice = problem.hint or "backport keys init"
        return Check(**facts, verdict=Verdict.FAIL, found=problem.message, advice=advice)
    return Check(**facts, verdict=Verdict.PASS, found=found)


def _sealing(site: Site, host: Probes) -> Check:
    """The key by which what was built is known again; before its first run a host has none."""
    file = site.signing.sealing_key
    facts = {
        "id": "key.cache",
        "title": "the key of what was built",
        "expected": "one that only root can read",
    }
    try:
        if file.exists():
            host.open_sealer(file)
    except BackportError as problem:
        return Check(**facts, verdict=Verdict.FAIL, found=problem.message, advice=problem.hint or "")
    return Check(**facts, verdict=Verdict.PASS, found=str(file) if file.exists() else f"{file}: not made yet")


def _pinned_keys(site: Site) -> dict[str, Key]:
    """Every key that a target names or the site adds, the site's in place of the targets' own."""
    targets = load_targets(site.paths.targets)[0]
    return {**{name: key for target in targets for name, key in target.keys.items()}, **site.keys}


def _source(source: Source, host: Probes, *, offline: bool) -> Check:
    facts = {"id": source.name, "title": f"the {source.name} {source.address} answers"}
    if offline:
        return Check(**facts, verdict=Verdict.SKIPPED, advice="it was not asked for")
    try:
        found = host.source_version(source)
    except BackportError as problem:
        advice = problem.hint or "check its address in the site file and the network"
        return Check(**facts, verdict=Verdict.WARN, found=problem.message, advice=advice)
    except ImportError as problem:
        return Check(**facts, verdict=Verdict.SKIPPED, advice=f"cannot be asked: {problem}")
    return Check(**facts, verdict=Verdict.PASS, found=found)
