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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backport.artifacts import BuiltRpms, PatchedSrpm
from backport.builders.common import (
    MEND_HINT,
    beside_target,
    collect,
    lay_out,
    require_room,
    take_file,
    take_packages,
)
from backport.builders.mockconfig import root_name, write_configuration
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
)
from backport.roots.dnf import ExtraRepository
from backport.roots.scratch import is_live, live_folder
from backport.run import Completed, describe_exit, network_environment, run
from backport.site import Mock
from backport.target import Target

ROOT_TIMEOUT = 3600
"""Seconds that making the root and installing build dependencies may take beside the build itself."""

Words = Sequence[str | Path]
_LOGS = ("build.log", "root.log", "installed_pkgs.log")
_CLEAN_TIMEOUT = 600.0
_LOCKED = 60
_SIGNALLED = 128
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
    _LOCKED: (BuildRootLocked, "another process uses the root", "wait until it has finished"),
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
    settings: Mock = field(default_factory=Mock)
    name: str = "mock"

    @property
    def identity(self) -> str:
        """See `backport.builders.Builder`."""
        return f"{self.name} ({self.settings.deviations})" if self.settings.deviations else self.name

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
        roots = _Roots(target=self.target, settings=self.settings, folders=self.cache / "mock")
        roots.end_abandoned()
        with live_folder(roots.folders) as folder:
            folder.chmod(0o711)
            require_way(caller, folder)
            chosen = write_configuration(
                self.target, folder, settings=self.settings, extra=beside_target(candidates, published)
            )
            mock = _Mock(folder=folder, caller=caller, workspace=workspace, roots=roots, chosen=chosen)
            mock.make_folders()
            mock.sweep()
            with mock.cleaned():
                mock.pack(patched)
                mock.rebuild(patched)
                return collect(
                    mock.results,
                    workspace / "rpms",
                    patched=patched,
                    target=self.target,
                    logs=[workspace / name for name in _LOGS],
                    builder=f"{self.name} {mock.version()}{self.identity.removeprefix(self.name)}",
                )


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
    workspace: Path
    roots: _Roots
    chosen: Words
    """The options that choose the configuration."""

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
        """Remove the roots of builds of this cache that were killed. Raises BuildRootLocked."""
        for folder in self.roots.abandoned():
            self._clean(folder)

    @contextlib.contextmanager
    def cleaned(self) -> Iterator[None]:
        """Keep the logs and remove the root, whatever state they are in, when the block is left.

        Raises BuildRootLocked when the root cannot be removed because something in it does not end.
        """
        try:
            yield
        except BaseException as problem:
            self.keep_logs()
            try:
                self._clean(self.folder.name)
            except BuildRootLocked as held:
                raise _besides(problem, held) from problem
            raise
        self.keep_logs()
        self._clean(self.folder.name)

    @property
    def _log(self) -> Path:
        return self.workspace / "mock.log"

    def _clean(self, folder: str) -> None:
        """Remove the root of the build in a folder; what cannot be removed now, the next sweep removes."""
        self.roots.end(folder)
        words: Words = [*self.chosen, "--uniqueext", self.roots.extension(folder), "--clean"]
        with contextlib.suppress(BuildTimeout):
            if self._run(words, timeout=_CLEAN_TIMEOUT, log=self._log).exit_code == _LOCKED:
                raise BuildRootLocked(f"{self.roots.place(folder)}: mock finds it locked", log=self._log)

    def _build(self, words: Words, patched: PatchedSrpm, results: Path) -> None:
        options, extension = patched.options, self.roots.extension(self.folder.name)
        completed = self._run(
            [
                *self.chosen, "--uniqueext", extension, "--resultdir", results,
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
            [*ended_together(self.caller), program(), *words],
            timeout=timeout, error=BuildRootError, timeout_error=BuildTimeout, accept=None, log=log,
            env={**network_environment(), **sudo_environment(self.caller)}, what="mock",
        )  # fmt: skip


def _besides(problem: BaseException, held: BuildRootLocked) -> BaseException:
    """What ended a build, with the processes that outlived it."""
    if isinstance(problem, BackportError):
        problem.hint = f"{problem.hint}; besides, {held.message}" if problem.hint else held.message
        return problem
    if isinstance(problem, Exception):
        return held
    return Interrupted(f"interrupted, but {held.message}", hint=held.hint)


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
