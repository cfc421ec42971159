"""The builder that lets mock do it, by its command line (mock(1)).

mock's result folders are what is read, and its exit codes (``mockbuild/exception.py`` in mock's sources);
never what it prints. Every build has a root of its own by ``--uniqueext``, removed in any case.

mock refuses to be started by plain root, because it needs a user to fall back to. It takes one from
SUDO_UID, as sudo(8) sets it; so does this builder: the user who called sudo where that is a member of the
group ``mock``, otherwise the first member of that group. What mock reads and writes lies in a folder that
this user can reach. Of the caller's environment mock gets the proxies and nothing else.

Fedora's ``mock`` is a link to consolehelper(8), which makes users of the group root. It would take SUDO_UID
away and set USERHELPER_UID to the caller's, root's, so that everything would be built as root: the program
behind it (``PROGRAM`` in ``/etc/security/console.apps/mock``) is started instead.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backport.artifacts import BuiltRpms, PatchedSrpm
from backport.builders.common import (
    MEND_HINT,
    beside_target,
    build_macros,
    collect,
    lay_out,
    require_room,
    take_file,
    take_packages,
)
from backport.causes import causes_of
from backport.errors import (
    BackportError,
    BuildError,
    BuildRootError,
    BuildRootLocked,
    BuildTimeout,
    Ending,
    HostError,
    Interrupted,
)
from backport.files import write_atomically
from backport.roots.dnf import ExtraRepository, Repository, render
from backport.roots.scratch import live_folder
from backport.run import Completed, describe_exit, network_environment, run
from backport.target import Target
from backport.trust import SHA1_POLICY, SHA1_POLICY_VARIABLE, checked_key

ROOT_TIMEOUT = 3600
"""Seconds that making the root and installing build dependencies may take beside the build itself."""

Words = Sequence[str | Path]
_LOGS = ("build.log", "root.log", "installed_pkgs.log")
_CLEAN_TIMEOUT = 600.0
_GROUP = "mock"
_ROOTS = Path("/var/lib/mock")
_WRAPPER = "consolehelper"
_WRAPPED = Path("/usr/libexec/mock/mock")
_SIGNALLED = 128
# Where systemd is not the first process (sd_booted(3)), nobody is there to register a container with, and
# nobody to end it when mock is ended: there all processes of mock's get a pid namespace that goes with mock.
_SYSTEMD = Path("/run/systemd/system")
_WITHOUT_SYSTEMD = ("--register=no", "--keep-unit")
_ENDED_TOGETHER = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
    "sh", "-c", '"$@"; exit $?', "sh",
)  # fmt: skip

_NEEDS_HINT = "do the target's repositories, or its mirrors in the site file, have what this needs?"
_OUTCOMES: Mapping[int, tuple[type[Ending], str, str]] = {
    2: (HostError, "mock was started without its set-user-id wrapper", "reinstall the package mock"),
    3: (BuildRootError, "mock does not understand its configuration", "is this mock older than 5.0?"),
    5: (BuildRootError, "mock does not understand its command line", "is this mock older than 5.0?"),
    6: (HostError, "mock cannot build for this architecture here", "use a host of that architecture"),
    7: (Interrupted, "mock was interrupted", "run the same command again"),
    10: (BuildError, "rpmbuild failed", MEND_HINT),
    11: (BuildTimeout, "ended at its deadline", "raise `build.timeout` of the package in the recipe"),
    30: (BuildRootError, "dnf could not install what the build needs", _NEEDS_HINT),
    40: (BuildError, "the source package cannot be used", MEND_HINT),
    60: (BuildRootLocked, "another process uses the root", "wait until it has finished"),
    70: (BuildRootError, "mock cannot write its results", "can its user reach the cache folder?"),
    80: (HostError, "mock cannot make namespaces here", "in a container, it has to be privileged"),
}
_RPMBUILD_FAILED = _OUTCOMES[10]
_ROOT_TROUBLE = (BuildRootError, "the root could not be made or used", _NEEDS_HINT)


@dataclass(frozen=True, kw_only=True)
class MockBuilder:
    """Builds with mock; see `backport.builders.Builder`."""

    target: Target
    cache: Path
    name: str = "mock"

    def build(
        self,
        patched: PatchedSrpm,
        *,
        candidates: Path | None,
        published: ExtraRepository | None = None,
        workspace: Path,
    ) -> BuiltRpms:
        """Build the package in a clean root of mock's.

        Raises BuildError when the package fails, BuildTimeout past the deadline, BuildRootError or
        BuildRootLocked when the root is to blame, HostError when mock cannot be used on this host.
        The logs remain in any case.
        """
        caller = find_caller()
        with live_folder(self.cache / "mock") as folder:
            folder.chmod(0o711)
            require_way(caller, folder)
            mock = _Mock(target=self.target, folder=folder, caller=caller, workspace=workspace)
            mock.configure(beside_target(candidates, published))
            mock.sweep()
            try:
                mock.pack(patched)
                mock.rebuild(patched)
                return collect(
                    mock.results,
                    workspace / "rpms",
                    patched=patched,
                    target=self.target,
                    logs=[workspace / name for name in _LOGS],
                    builder=f"{self.name} {mock.version()}",
                )
            finally:
                mock.keep_logs()
                mock.clean()


@dataclass(frozen=True, kw_only=True)
class _Mock:
    """mock for one build, in a folder of its own."""

    target: Target
    folder: Path
    caller: pwd.struct_passwd
    workspace: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def packed(self) -> Path:
        return self.folder / "packed"

    @property
    def _config(self) -> Path:
        return self.folder / f"{self.target.name}-{self.target.arch}.cfg"

    def configure(self, extra: Sequence[ExtraRepository]) -> None:
        """Write mock's configuration, with checked keys and what is beside the target, and make its result
        folders."""
        keys = self.folder / "keys"
        keys.mkdir()
        used = {name for repository in self.target.repositories for name in repository.keys}
        files = {name: checked_key(self.target.keys[name], keys, error=BuildRootError) for name in used}
        nspawn_args = () if _SYSTEMD.is_dir() else _WITHOUT_SYSTEMD
        environment = {}
        if _sha1_keys(self.target):
            policy = keys / "sha1-self-signature.toml"
            write_atomically(policy, SHA1_POLICY)
            environment[SHA1_POLICY_VARIABLE] = str(policy)
        extra = [_with_checked_keys(repository, keys) for repository in extra]
        text = render_config(
            self.target, keys=files, extra=extra, nspawn_args=nspawn_args, environment=environment
        )
        write_atomically(self._config, text)
        for folder in (self.packed, self.results):
            folder.mkdir()
            os.chown(folder, self.caller.pw_uid, grp.getgrnam(_GROUP).gr_gid)

    def pack(self, patched: PatchedSrpm) -> None:
        """Pack the source package, in the root that the build is to use."""
        sources = self.folder / "sources"
        sources.mkdir()
        spec = lay_out(patched, spec_folder=self.folder, source_folder=sources)
        words: Words = ["--buildsrpm", "--spec", spec, "--sources", sources]
        self._build(["--no-cleanup-after", *words], patched, self.packed)

    def rebuild(self, patched: PatchedSrpm) -> None:
        """Build the packed source package."""
        found = take_packages(self.packed, self.folder)
        if len(found) != 1:
            raise BuildError(f"{patched.spec.stem}: packing gave {len(found)} packages instead of one")
        options = patched.options
        words: Words = ["--no-clean", "--rpmbuild_timeout", str(options.timeout), "--rebuild", found[0]]
        self._build(words if options.check else ["--nocheck", *words], patched, self.results)

    def version(self) -> str:
        """The version of mock."""
        return self._run(["--version"], timeout=_CLEAN_TIMEOUT, log=None).text.strip()

    def keep_logs(self) -> None:
        """Put the logs of both steps together in the workspace."""
        for name in _LOGS:
            with (self.workspace / name).open("ab") as whole:
                for place in (self.packed / name, self.results / name):
                    if place.is_file():
                        whole.write(take_file(place, self.folder / name).read_bytes())

    def sweep(self) -> None:
        """Remove the roots of builds of this cache that were killed: their folders are gone."""
        prefix = f"{_root_name(self.target)}-{self._cache_name}-"
        for left in _ROOTS.glob(f"{prefix}*"):
            if not (self.folder.parent / left.name.removeprefix(prefix)).exists():
                self._clean(left.name.removeprefix(f"{_root_name(self.target)}-"))

    def clean(self) -> None:
        """Remove the root, whatever state it is in."""
        self._clean(self._extension)

    @property
    def _log(self) -> Path:
        return self.workspace / "mock.log"

    @property
    def _cache_name(self) -> str:
        return hashlib.sha256(str(self.folder.parent.resolve()).encode()).hexdigest()[:8]

    @property
    def _extension(self) -> str:
        return f"{self._cache_name}-{self.folder.name}"

    def _clean(self, extension: str) -> None:
        words: Words = ["-r", self._config, "--uniqueext", extension, "--clean"]
        with contextlib.suppress(BackportError):
            self._run(words, timeout=_CLEAN_TIMEOUT, log=self._log)

    def _build(self, words: Words, patched: PatchedSrpm, results: Path) -> None:
        options = patched.options
        completed = self._run(
            [
                "-r", self._config, "--uniqueext", self._extension, "--resultdir", results,
                *options.arguments(), *words,
            ],
            timeout=options.timeout + ROOT_TIMEOUT, log=self._log,
        )  # fmt: skip
        if completed.exit_code != 0:
            name = patched.source.rpm.nevra.name
            require_room(name, [self.folder, self.workspace], log=self._log)
            raise _failure(name, completed, results, self.workspace, spec=patched.spec)

    def _run(self, words: Words, *, timeout: float, log: Path | None) -> Completed:
        return run(
            [*(() if _SYSTEMD.is_dir() else _ENDED_TOGETHER), _program(), *words],
            timeout=timeout, error=BuildRootError, timeout_error=BuildTimeout, accept=None, log=log,
            env={**network_environment(), **sudo_environment(self.caller)}, what="mock",
        )  # fmt: skip


def render_config(
    target: Target,
    *,
    keys: Mapping[str, Path] | None = None,
    extra: Sequence[ExtraRepository] = (),
    nspawn_args: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The configuration of mock for a target, the same for use by hand and by this builder.

    ``keys`` are files to use instead of the target's own, by the key's name; ``environment`` is added to
    that of dnf and of builds.
    """
    files = {name: (keys or {}).get(name, key.file) for name, key in target.keys.items()}
    repositories = [
        Repository(id=each.id, baseurl=each.baseurl, keys=tuple(files[name].as_uri() for name in each.keys))
        for each in target.repositories
    ]
    repositories += [
        Repository(
            id=each.id, baseurl=each.baseurl, keys=tuple(key.file.as_uri() for key in each.keys),
            repo_gpgcheck=each.repo_gpgcheck, priority=each.priority, only=each.only, excluded=each.excluded,
        )
        for each in extra
    ]  # fmt: skip
    by_hand = keys is None and _sha1_keys(target)
    return render(
        "mock.cfg.j2", target=target, root=_root_name(target), macros=build_macros(target),
        repositories=repositories, nspawn_args=list(nspawn_args), environment=environment or {},
        sha1_policy=SHA1_POLICY.splitlines() if by_hand else [], sha1_policy_variable=SHA1_POLICY_VARIABLE,
    )  # fmt: skip


def _with_checked_keys(repository: ExtraRepository, folder: Path) -> ExtraRepository:
    """The same repository with keys that mock's user can read, and nothing but keys in their files."""
    keys = tuple(
        key.model_copy(update={"file": checked_key(key, folder, error=BuildRootError)})
        for key in repository.keys
    )
    return replace(repository, keys=keys)


def _sha1_keys(target: Target) -> bool:
    """Whether one of the keys that sign the target's packages needs the policy for SHA-1."""
    used = {name for repository in target.repositories for name in repository.keys}
    return any(target.keys[name].sha1_self_signature for name in used)


def _root_name(target: Target) -> str:
    return f"backport-{target.name}-{target.arch}"


def find_caller() -> pwd.struct_passwd:
    """The user whom mock falls back to. Raises HostError where no member of its group is there."""
    try:
        group = grp.getgrnam(_GROUP)
    except KeyError:
        raise HostError("this host has no group mock", hint="install mock, which makes it") from None
    by_name = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
    members = [by_name[name] for name in group.gr_mem if name in by_name]
    members += [user for user in by_name.values() if user.pw_gid == group.gr_gid]
    members.sort(key=lambda user: user.pw_name != os.environ.get("SUDO_USER"))
    if not members:
        raise HostError(
            "mock has to fall back to an unprivileged user, and its group has no member",
            hint="make one: useradd --system --groups mock mockrunner",
        )
    return members[0]


def sudo_environment(caller: pwd.struct_passwd) -> dict[str, str]:
    """What sudo tells mock about the user that it is to fall back to."""
    return {
        "SUDO_UID": str(caller.pw_uid),
        "SUDO_GID": str(caller.pw_gid),
        "SUDO_USER": caller.pw_name,
    }


def require_way(caller: pwd.struct_passwd, folder: Path) -> None:
    """Raise HostError when the folder or one above it keeps the user out."""
    for above in (folder.resolve(), *folder.resolve().parents):
        state = above.stat()
        if not (state.st_mode & 0o001 or (state.st_uid == caller.pw_uid and state.st_mode & 0o100)):
            raise HostError(
                f"mock's user {caller.pw_name} cannot enter {above}",
                hint=f"chmod o+x {above}, or set paths.cache to a folder that every user can enter",
            )


def _failure(name: str, completed: Completed, results: Path, workspace: Path, *, spec: Path) -> Ending:
    """What mock's exit code means.

    mock has codes of its own for most of what can go wrong, but for a program that failed inside the root it
    gives that program's: 1 for rpmbuild. Whether rpmbuild was reached then shows in build.log, which holds
    what it printed and nothing else.
    """
    build_log = results / "build.log"
    reached = build_log.is_file() and build_log.stat().st_size > 0
    kind, what, hint = _OUTCOMES.get(completed.exit_code, _RPMBUILD_FAILED if reached else _ROOT_TROUBLE)
    if completed.exit_code < 0 or completed.exit_code > _SIGNALLED:
        kind, what = BuildError, f"mock was {describe_exit(completed.exit_code)}"
        hint = "has memory run out? See `journalctl --dmesg`"
    log_name = "build.log" if kind in (BuildError, BuildTimeout) else "root.log"
    causes = causes_of(results / log_name, spec=spec)
    if kind in (BuildError, BuildRootError) and causes.summary:
        what, hint = f"{what}: {causes.summary}", causes.hint or hint
    return kind(
        f"{name}: {what}",
        hint=hint,
        command=completed.argv,
        log=workspace / log_name,
        evidence=causes.evidence,
    )


def _program() -> Path:
    """The mock that the caller's PATH leads to, without its wrapper. Raises HostError without one."""
    found = shutil.which("mock")
    if found is None:
        raise HostError("mock is not installed on this host", hint="install mock, or use the chroot builder")
    if Path(found).resolve().name != _WRAPPER:
        return Path(found)
    if not os.access(_WRAPPED, os.X_OK):
        raise HostError(f"{found} leads to {_WRAPPER}, but there is no {_WRAPPED}", hint="reinstall mock")
    return _WRAPPED
