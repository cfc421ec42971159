"""The builder that lets mock do it, by its command line (mock(1)).

mock's result folders are what is read, and its exit codes (``mockbuild/exception.py`` in mock's sources);
never what it prints. Every build has a root of its own by ``--uniqueext``, removed in any case.

What mock reads and writes lies in a folder that its user (`backport.builders.mockhost`) can reach. Of the
caller's environment mock gets the proxies and nothing else.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from backport.artifacts import BY_HAND, BuiltRpms, PatchedSrpm
from backport.builders import mockhost
from backport.builders.buildroot import note_origins
from backport.builders.common import (
    MEND_HINT,
    RAISE_HINT,
    BuildRequest,
    check_packed,
    collect,
    lay_out,
    take_file,
    take_packages,
)
from backport.builders.mockconfig import cached_metadata, root_name, write_configuration
from backport.builders.mockhost import (
    GROUP,
    end_holders,
    ended_together,
    find_caller,
    program,
    require_way,
    sudo_environment,
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
    as_kind,
)
from backport.roots.dnf import NEEDS_HINT
from backport.roots.root import Aftermath
from backport.roots.scratch import is_live, live_folder, require_room
from backport.run import Command, Completed, describe_exit, network_environment, run
from backport.site import Mock, Site
from backport.target import Target
from backport.trust import nevra_of, read_header

ROOT_TIMEOUT = 3600
"""Seconds that making the root and installing build dependencies may take beside the build itself."""

Words = Sequence[str | Path]
PACKAGE_LIST = "installed_pkgs.log"
_LOGS = ("build.log", "root.log", PACKAGE_LIST, "state.log", "hw_info.log")
_CLEAN_TIMEOUT = 600.0
_ROOT_FAILED = 20
_DNF_FAILED = 30
_LOCKED = 60
_UNCLEAR = (1, 10, 40)
"""What mock's exit code is for failures of the package, and for some of the host's beside them."""
_SIGNALLED = 128
_OUTCOMES: Mapping[int, tuple[type[Ending], str, str]] = {
    2: (HostError, "mock was started without its set-user-id wrapper", "reinstall the package mock"),
    3: (BuildRootError, "mock does not understand its configuration", "is this mock older than 5.0?"),
    5: (BuildRootError, "mock does not understand its command line", "is this mock older than 5.0?"),
    6: (HostError, "mock cannot build for this architecture here", "use a host of that architecture"),
    7: (Interrupted, "mock was interrupted", "run the same command again"),
    1: (BuildError, "rpmbuild failed", MEND_HINT),
    10: (BuildError, "rpmbuild failed", MEND_HINT),
    11: (BuildTimeout, "ended at its deadline", "raise `build.timeout` of the package in the recipe"),
    _DNF_FAILED: (BuildRootError, "dnf could not install what the build needs", NEEDS_HINT),
    40: (BuildError, "the source package cannot be used", MEND_HINT),
    _LOCKED: (BuildRootLocked, "another process uses the root", "wait until it has finished"),
    70: (BuildRootError, "mock cannot write its results", "can its user reach the cache folder?"),
    80: (HostError, "mock cannot make namespaces here", "in a container, it has to be privileged"),
}
_ROOT_TROUBLE = (BuildRootError, "the root could not be made or used", NEEDS_HINT)


@dataclass(frozen=True, kw_only=True)
class MockBuilder:
    """Builds with mock; see `backport.builders.Builder`."""

    program: ClassVar[str] = "mock"
    target: Target
    cache: Path
    settings: Mock = field(default_factory=Mock)
    keep_root: bool = False
    """Whether the root of a failed build stays until the next build for the target."""
    name: str = "mock"

    @classmethod
    def at(cls, site: Site, target: Target, on_failure: Aftermath | None) -> MockBuilder:
        """See `backport.builders.Builder`."""
        keep_root = on_failure is not None
        return cls(target=target, cache=site.paths.cache, settings=site.mock, keep_root=keep_root)

    @property
    def identity(self) -> str:
        """See `backport.builders.Builder`."""
        return f"{self.name} ({self.settings.deviations})" if self.settings.deviations else self.name

    @as_kind(BuildRootError)
    def build(self, request: BuildRequest) -> BuiltRpms:
        """Build the package in a clean root of mock's.

        Raises BuildError when the package fails, BuildTimeout past the deadline, BuildRootError or
        BuildRootLocked when the root is to blame, HostError when mock cannot be used on this host.
        The logs remain in any case.
        """
        caller = find_caller()
        roots = _Roots(target=self.target, settings=self.settings, folders=self.cache / "mock")
        roots.end_abandoned()
        with live_folder(roots.folders) as folder:
            folder.chmod(0o711)
            require_way(caller, folder)
            chosen = write_configuration(self.target, folder, request, settings=self.settings)
            mock = _Mock(folder=folder, caller=caller, roots=roots, chosen=chosen, request=request)
            mock.make_folders()
            mock.sweep()
            with mock.cleaned(keep=self.keep_root):
                following, name = request.progress.following, request.name
                try:
                    with following(f"making a root and packing {name} in it", mock.log):
                        mock.pack()
                    with following(
                        f"installing what {name} needs and compiling it", mock.results / "build.log"
                    ):
                        mock.rebuild()
                except BackportError as problem:
                    problem.command = mock.keep_for_use_by_hand()
                    if self.keep_root:
                        opened = f"its root is open to you until the next build: {mock.entrance()}"
                        problem.hint = f"{problem.hint}; {opened}" if problem.hint else opened
                    raise
                mock.keep_logs()
                origins = note_origins(
                    request.workspace / PACKAGE_LIST, self.target, extra=request.extra,
                    metadata=cached_metadata(self.target),
                )  # fmt: skip
                return collect(
                    mock.results, request, target=self.target,
                    logs=[*(request.workspace / name for name in _LOGS), origins],
                    builder=f"{self.name} {mock.version()}{self.identity.removeprefix(self.name)}",
                )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Roots:
    """mock's roots of the builds for a target whose folders lie in one cache."""

    target: Target
    settings: Mock
    folders: Path

    @property
    def _prefix(self) -> str:
        return f"{root_name(self.target)}-{self.extension('')}"

    def extension(self, folder: str) -> str:
        """What tells the root of the build in a folder from all other roots, as mock's ``--uniqueext``."""
        cache = hashlib.sha256(str(self.folders.resolve()).encode()).hexdigest()[:8]
        return "-".join([*filter(None, [self.settings.unique_extension]), cache, folder])

    def place(self, folder: str) -> Path:
        """Where mock has the root of the build in a folder."""
        return self.settings.basedir / f"{self._prefix}{folder}"

    def abandoned(self) -> Iterator[str]:
        """The folders of those builds that have ended without removing their roots."""
        for place in sorted(self.settings.basedir.glob(f"{self._prefix}*")):
            folder = place.name.removeprefix(self._prefix)
            if not is_live(self.folders / folder):
                yield folder

    def end_abandoned(self) -> None:
        """End what builds have left that were killed, before anything is removed beneath it.

        Raises BuildRootLocked when it does not end.
        """
        for folder in self.abandoned():
            self.end(folder)

    def end(self, folder: str) -> None:
        """End whatever still runs in the root of the build in a folder. Raises BuildRootLocked."""
        if left := end_holders(self.place(folder)):
            names = ", ".join(f"{pid} ({name})" for pid, name in left.items())
            pids = " ".join(str(pid) for pid in left if pid)
            raise BuildRootLocked(
                f"{self.place(folder)}: processes in it do not end: {names}",
                hint=f"end them, then run the same command again: kill -9 {pids}",
            )


@dataclass(frozen=True, kw_only=True)
class _Mock:
    """mock for one build, in a folder of its own."""

    folder: Path
    caller: pwd.struct_passwd
    roots: _Roots
    chosen: Words
    """The options that choose the configuration."""
    request: BuildRequest

    @property
    def patched(self) -> PatchedSrpm:
        return self.request.patched

    @property
    def workspace(self) -> Path:
        return self.request.workspace

    @property
    def log(self) -> Path:
        """What mock says itself."""
        return self.workspace / "mock.log"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def packed(self) -> Path:
        return self.folder / "packed"

    def make_folders(self) -> None:
        """Make the folders for mock's results, as its user's."""
        for folder in (self.packed, self.results):
            folder.mkdir()
            os.chown(folder, self.caller.pw_uid, grp.getgrnam(GROUP).gr_gid)

    def pack(self) -> None:
        """Pack the source package, in the root that the build is to use."""
        words = ["--no-cleanup-after", *self._packing(self.folder)]
        completed = self._build(words, self.packed)
        if completed.exit_code != 0:
            raise self._failure(completed, self.packed)

    def rebuild(self) -> None:
        """Build the packed source package."""
        found = take_packages(self.packed, self.folder)
        if len(found) != 1:
            raise BuildError(f"{self.request.name}: packing gave {len(found)} packages instead of one")
        with as_kind(BuildError):
            header = read_header(found[0])
        check_packed(nevra_of(header), self.patched, self.roots.target)
        completed = self._build(["--no-clean", *self._rebuilding(found[0])], self.results)
        if completed.exit_code != 0:
            if completed.exit_code in _UNCLEAR and self._is_made and not self._installs(found[0]):
                completed = replace(completed, exit_code=_DNF_FAILED)
            raise self._failure(completed, self.results)

    def keep_for_use_by_hand(self) -> tuple[str, ...]:
        """Keep with the run what the failed build takes; the command that does it again by hand."""
        kept = self.workspace / BY_HAND
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        request = self.request
        if request.candidates:
            own = Path(shutil.copytree(request.candidates, kept / "candidates"))
            request = replace(request, candidates=own)
        chosen = write_configuration(self.roots.target, kept, request, settings=self.roots.settings)
        words: Words = self._packing(kept)
        for packed in self.folder.glob("*.src.rpm"):
            words = self._rebuilding(Path(shutil.copy(packed, kept)))
        return self._by_hand(*chosen, *self.patched.options.arguments(), *words)

    def entrance(self) -> str:
        """The command that opens a shell in the root, by the configuration that is kept for use by hand."""
        place = self.workspace / BY_HAND / "etc"
        config = place / Path(self.chosen[-1]).name
        extension = self.roots.extension(self.folder.name)
        words = ("--configdir", place, "-r", config, "--uniqueext", extension, "--shell")
        return shlex.join(self._by_hand(*words))

    def _by_hand(self, *words: str | Path) -> tuple[str, ...]:
        user = (f"{name}={value}" for name, value in sudo_environment(self.caller).items())
        return ("env", *user, str(program()), *(str(word) for word in words))

    def version(self) -> str:
        """The version of mock."""
        return self._run(["--version"], timeout=_CLEAN_TIMEOUT, log=None).text.strip()

    def keep_logs(self) -> None:
        """Put the logs of both steps together in the workspace."""
        for name in _LOGS:
            with (self.workspace / name).open("wb") as whole:
                for place in (self.packed / name, self.results / name):
                    if place.is_file():
                        whole.write(take_file(place, self.folder / name).read_bytes())

    def sweep(self) -> None:
        """Remove the roots of builds of this cache that were killed. Raises BuildRootLocked."""
        for folder in self.roots.abandoned():
            self._clean(folder)

    @contextlib.contextmanager
    def cleaned(self, *, keep: bool) -> Iterator[None]:
        """Keep the logs and remove the root, whatever state they are in, when the block is left.

        With ``keep`` the root of a failure stays: the next sweep removes it.

        Raises BuildRootLocked when the root cannot be removed because something in it does not end.
        """
        try:
            yield
        except BaseException as problem:
            self.keep_logs()
            try:
                if keep and isinstance(problem, BackportError):
                    self.roots.end(self.folder.name)
                else:
                    self._clean(self.folder.name)
            except BuildRootLocked as held:
                raise _besides(problem, held) from problem
            raise
        self.keep_logs()
        self._clean(self.folder.name)

    def _clean(self, folder: str) -> None:
        """Remove the root of the build in a folder; what cannot be removed now, the next sweep removes."""
        self.roots.end(folder)
        words: Words = [*self.chosen, "--uniqueext", self.roots.extension(folder), "--clean"]
        with contextlib.suppress(BuildTimeout):
            if self._run(words, timeout=_CLEAN_TIMEOUT, log=self.log).exit_code == _LOCKED:
                raise BuildRootLocked(f"{self.roots.place(folder)}: mock finds it locked", log=self.log)

    @property
    def _is_made(self) -> bool:
        """Whether the root was ready to be used; mock leaves a file to say so (``Buildroot._init``)."""
        return (self.roots.place(self.folder.name) / "root/.initialized").exists()

    def _packing(self, folder: Path) -> Words:
        """The words for packing, with the spec and its sources in the folder."""
        sources = folder / "sources"
        sources.mkdir()
        spec = lay_out(self.patched, spec_folder=folder, source_folder=sources)
        return ("--buildsrpm", "--spec", spec, "--sources", sources)

    def _rebuilding(self, packed: Path) -> Words:
        options = self.patched.options
        check = () if options.check else ("--nocheck",)
        return (*check, "--rpmbuild_timeout", str(options.timeout), "--rebuild", packed)

    def _installs(self, packed: Path) -> bool:
        """Whether what the package needs to be built can be installed in the root as it is."""
        return self._build(["--no-clean", "--installdeps", packed], self.results).exit_code == 0

    def _starts(self) -> bool:
        """Whether a container of the root can be started at all."""
        return self._build(["--chroot", "true"], self.results).exit_code == 0

    def _failure(self, completed: Completed, results: Path) -> Ending:
        basedir = self.roots.settings.basedir
        places = [self.folder, self.workspace, *([basedir] if basedir.is_dir() else [])]
        require_room(self.request.name, places, log=self.log)
        if completed.exit_code in _UNCLEAR and not self._is_made:
            completed = replace(completed, exit_code=_ROOT_FAILED)
        if completed.exit_code in _UNCLEAR and not self._starts():
            return HostError(
                f"{self.request.name}: systemd-nspawn cannot start the container of the build",
                hint="see what it says; `backport doctor` tries a container without mock",
                command=completed.argv,
                log=self.log,
                evidence=causes_of(results / "build.log").evidence,
            )
        if completed.exit_code == _DNF_FAILED and not mockhost.has_builddep():
            return HostError(
                f"{self.request.name}: the host's dnf has no command builddep, which mock needs",
                hint="install python3-dnf-plugins-core (Fedora) or dnf-plugins-core (Debian)",
                command=completed.argv,
                log=self.log,
            )
        return _meaning(self.request.name, completed, results, self.workspace, spec=self.patched.spec)

    def _build(self, words: Words, results: Path) -> Completed:
        options, extension = self.patched.options, self.roots.extension(self.folder.name)
        return self._run(
            [
                *self.chosen, "--uniqueext", extension, "--resultdir", results,
                *options.arguments(), *words,
            ],
            timeout=options.timeout + ROOT_TIMEOUT, log=self.log,
        )  # fmt: skip

    def _run(self, words: Words, *, timeout: float, log: Path | None) -> Completed:
        with ended_together(self.caller, self.request.bounds) as fence:
            command = Command(
                [*fence.words, program(), *words], timeout=timeout, what="mock", accept=None, log=log,
                env={**network_environment(), **sudo_environment(self.caller)},
            )  # fmt: skip
            with as_kind(BuildRootError, late=BuildTimeout):
                completed = run(command)
            return replace(completed, reached=fence.reached() if completed.exit_code else "")


def _besides(problem: BaseException, held: BuildRootLocked) -> BaseException:
    """What ended a build, with the processes that outlived it."""
    if isinstance(problem, BackportError):
        problem.hint = f"{problem.hint}; besides, {held.message}" if problem.hint else held.message
        return problem
    if isinstance(problem, Exception):
        return held
    return Interrupted(f"interrupted, but {held.message}", hint=held.hint)


def _meaning(name: str, completed: Completed, results: Path, workspace: Path, *, spec: Path) -> Ending:
    """What mock's exit code means.

    mock has codes of its own for most of what can go wrong, but for a program that failed inside the root it
    gives that program's: 1 for rpmbuild.
    """
    kind, what, hint = _OUTCOMES.get(completed.exit_code, _ROOT_TROUBLE)
    if completed.exit_code < 0 or completed.exit_code > _SIGNALLED:
        kind, what = BuildError, f"mock was {describe_exit(completed.exit_code)}"
        hint = "has memory run out? See `journalctl --dmesg`"
    if completed.reached:
        kind, what, hint = BuildError, f"it ran into {completed.reached}", RAISE_HINT
    log_name = "build.log" if kind in (BuildError, BuildTimeout) else "root.log"
    causes = causes_of(results / log_name, spec=spec)
    if kind in (BuildError, BuildRootError) and causes.summary:
        what = f"{what}: {causes.summary}"
        hint = hint if completed.reached else causes.hint or hint
    return kind(
        f"{name}: {what}",
        hint=hint,
        command=completed.argv,
        log=workspace / log_name,
        evidence=causes.evidence,
    )
