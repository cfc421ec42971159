"""The builder for hosts without mock: dnf makes the root, bubblewrap shuts the build in.

rpmbuild runs as an unprivileged user with no network and no way to gain privileges, in a fresh copy of
a base root; the source package is packed in there too, so that no macro of it is expanded on the host.
Inside, rpmbuild is never asked to check dependencies: the root's database is in the format of the host's
rpm. They are read from the packed header and installed by dnf, again and again until nothing new
comes, since macros of installed packages can change them (mock does the same).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import rpm

from backport.artifacts import BuiltRpms, PatchedSrpm
from backport.builders.buildroot import note_origins
from backport.builders.common import (
    MEND_HINT,
    RAISE_HINT,
    BuildRequest,
    build_macros,
    check_packed,
    collect,
    lay_out,
    take_packages,
)
from backport.causes import causes_of
from backport.errors import BuildError, BuildRootError, BuildTimeout, ToolError, as_kind
from backport.files import remove_tree, scratch_folder
from backport.roots.root import BUILDER_UID, Aftermath, Bind, Root, clean_root
from backport.roots.scratch import require_room
from backport.run import Command, Completed, describe_exit
from backport.site import Site
from backport.target import Target
from backport.trust import nevra_of, read_header

PACK_TIMEOUT = 900.0
"""Deadline in seconds for packing a source package."""
MOST_ROUNDS = 10
"""How often build dependencies may lead to more of them."""

_TOP = "/builddir/build"
_RESULTS = "/builddir/results"
_MISSING_DEPENDENCIES = 11
_GENERATED = ".buildreqs.nosrc.rpm"
_SIGNALLED = 128


@dataclass(frozen=True, kw_only=True)
class ChrootBuilder:
    """Builds in a root that the host's dnf makes; see `backport.builders.Builder`."""

    program: ClassVar[str] = "bwrap"
    target: Target
    cache: Path
    name: str = "chroot"
    on_failure: Aftermath | None = None

    @classmethod
    def at(cls, site: Site, target: Target, on_failure: Aftermath | None) -> ChrootBuilder:
        """See `backport.builders.Builder`."""
        return cls(target=target, cache=site.paths.cache, on_failure=on_failure)

    @property
    def identity(self) -> str:
        """See `backport.builders.Builder`."""
        return self.name

    @as_kind(BuildRootError)
    def build(self, request: BuildRequest) -> BuiltRpms:
        """Build the package in a clean root.

        Raises BuildRootError when a build dependency cannot be had or the disk is full, BuildTimeout past
        the deadline, BuildError when rpmbuild fails or is killed. The logs remain in any case.
        """
        progress, name = request.progress, request.name
        progress.note(f"making a clean root for {name}")
        with clean_root(
            self.target, cache=self.cache, workspace=request.workspace, on_failure=self.on_failure
        ) as root:
            build = _Build(root=root, request=request)
            build.prepare()
            with progress.following(f"packing {name} and installing what it needs to be built", root.log):
                dynamic = build.install_dependencies()
            with progress.following(f"compiling {name}", build.log):
                build.compile(pack_again=dynamic)
            return collect(
                build.results, request, target=self.target,
                logs=(build.log, root.log, build.packages_log, build.note_origins()),
                builder=f"{self.name} (rpm {_rpm_version(root)})",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Build:
    """One build in one root."""

    root: Root
    request: BuildRequest

    @property
    def patched(self) -> PatchedSrpm:
        return self.request.patched

    @property
    def results(self) -> Path:
        """Beside the root, so that it goes when the root goes, whatever a build has put into it."""
        return self.root.path.parent / "results"

    @property
    def log(self) -> Path:
        return self.request.workspace / "build.log"

    @property
    def packages_log(self) -> Path:
        return self.request.workspace / "installed_pkgs.log"

    def prepare(self) -> None:
        """Bring the root up to what is beside the target, and the spec with its sources into it."""
        if self.request.extra:
            self.root.update(extra=self.request.extra)
        top = self.root.locate(_TOP)
        for name in ("BUILD", "BUILDROOT", "RPMS", "SOURCES", "SPECS", "SRPMS"):
            (top / name).mkdir(parents=True)
        lay_out(self.patched, spec_folder=top / "SPECS", source_folder=top / "SOURCES")
        self.results.mkdir()
        for place in (self.results, top, *top.rglob("*")):
            os.chown(place, BUILDER_UID, BUILDER_UID)
        macros = {
            **build_macros(self.root.target),
            "%_topdir": _TOP,
            "%_rpmdir": _RESULTS,
            "%_srcrpmdir": _RESULTS,
        }
        text = "".join(f"{name} {value}\n" for name, value in macros.items())
        self.root.locate("/builddir/.rpmmacros").write_text(text)

    def install_dependencies(self) -> bool:
        """Pack the source package into the results and install what it needs, until nothing new comes.

        Returns whether the package generates some of its build dependencies.
        """
        there: list[str] | None = None
        for _ in range(MOST_ROUNDS):
            header = self._pack()
            dynamic = "rpmlib(DynamicBuildRequires)" in header[rpm.RPMTAG_REQUIRENAME]
            wanted = build_requires(header)
            if dynamic:
                wanted += self._generated_requires()
            if wanted == there or not self._install(wanted):
                self._note_packages()
                return dynamic
            there = wanted
        raise BuildRootError(
            f"{self.request.name}: its build dependencies still change after {MOST_ROUNDS} rounds",
            log=self.log,
        )

    def compile(self, *, pack_again: bool) -> None:
        """Build the binary packages into the results, with the source package anew where it is to name
        generated build dependencies."""
        options = self.patched.options
        words = ["-ba" if pack_again else "-bb", *([] if options.check else ["--nocheck"])]
        completed = self._rpmbuild(words, timeout=options.timeout)
        self._judge(completed, "the build failed")

    def _pack(self) -> Any:
        for path in self.results.iterdir():
            remove_tree(path)
        self._judge(self._rpmbuild(["-bs"], timeout=PACK_TIMEOUT), "the source package cannot be packed")
        header = self._only_header(".rpm")
        check_packed(nevra_of(header), self.patched, self.root.target)
        return header

    def _generated_requires(self) -> list[str]:
        """What the section %generate_buildrequires asks for, given what is installed now."""
        completed = self._rpmbuild(["-br"], timeout=PACK_TIMEOUT)
        if completed.exit_code != _MISSING_DEPENDENCIES:
            self._judge(completed, "%generate_buildrequires failed")
            return []
        wanted = build_requires(self._only_header(_GENERATED))
        for path in self.results.glob(f"*{_GENERATED}"):
            path.unlink()
        return wanted

    def _only_header(self, suffix: str) -> Any:
        with scratch_folder(self.request.workspace, "packed-") as folder:
            packed = [path for path in take_packages(self.results, folder) if path.name.endswith(suffix)]
            if len(packed) != 1:
                raise BuildError(f"{self.request.name}: packing gave {len(packed)} packages", log=self.log)
            with as_kind(BuildError):
                return read_header(packed[0])

    def _install(self, requires: Sequence[str]) -> bool:
        """Install build dependencies; whether that changed anything."""
        before = self.root.installed()
        try:
            if requires:
                self.root.install(requires, extra=self.request.extra)
        except ToolError as problem:
            plain = [name for name in requires if not name.startswith("(")]
            missing = self.root.dnf.without_provider(plain, extra=self.request.extra)
            if not missing:
                raise
            names = ", ".join(missing)
            raise problem.of(
                BuildRootError,
                message=f"{self.request.name}: nothing provides what it needs to be built: {names}",
                hint=f"does {self.root.target.name} have it under another name? Edit the spec in the recipe",
            ) from None
        return self.root.installed() != before

    def _note_packages(self) -> None:
        lines = self.root.query("%{nevra} %{buildtime} %{size} installed")
        self.packages_log.write_text("".join(f"{line}\n" for line in lines))

    def note_origins(self) -> Path:
        """Write down where each package of the root came from; the written file."""
        metadata = self.root.dnf.cache
        return note_origins(self.packages_log, self.root.target, extra=self.request.extra, metadata=metadata)

    def _rpmbuild(self, words: Sequence[str], *, timeout: float) -> Completed:
        env = {"RPM_BUILD_NCPUS": str(len(os.sched_getaffinity(0)))}
        # A login shell, as mock uses one: packages may bring settings in /etc/profile.d.
        shell = ["bash", "--login", "-c", 'umask 022; exec "$@"', "bash"]
        options = self.patched.options
        command = Command(
            [
                *shell, "rpmbuild", *words, "--nodeps", "--target", self.root.target.arch,
                *options.arguments(), f"{_TOP}/SPECS/{self.patched.spec.name}",
            ],
            timeout=timeout, what=f"{self.request.name}: rpmbuild", accept=None, env=env, cwd="/builddir",
            log=self.log, hint="raise `build.timeout` of the package in the recipe",
        )  # fmt: skip
        binds = [Bind(host=self.results, inside=_RESULTS, writable=True)]
        with as_kind(BuildError, late=BuildTimeout):
            return self.root.run(command, limits=self.request.bounds, binds=binds)

    def _judge(self, completed: Completed, what: str) -> None:
        if completed.exit_code == 0:
            return
        require_room(self.request.name, [self.root.path, self.results], log=self.log)
        causes = causes_of(self.log, start=completed.log_start, spec=self.patched.spec)
        hint, why = causes.hint or MEND_HINT, f": {causes.summary}" if causes.summary else ""
        if completed.exit_code < 0 or completed.exit_code > _SIGNALLED:
            hint, why = "something ended it: has memory run out? See `journalctl --dmesg`", ""
        if completed.reached:
            why = f": it ran into {completed.reached}{why}"
            hint = RAISE_HINT
        raise BuildError(
            f"{self.request.name}: {what}: {describe_exit(completed.exit_code)}{why}",
            hint=hint,
            command=completed.argv,
            sandboxed=True,
            log=self.log,
            evidence=causes.evidence,
        )


def build_requires(header: Any) -> list[str]:
    """The build dependencies of a source package's header, as dnf takes them; not rpm's own features."""
    return [
        dependency.DNEVR()[2:]
        for dependency in rpm.ds(header, "requires")
        if not dependency.Flags() & rpm.RPMSENSE_RPMLIB
    ]


def _rpm_version(root: Root) -> str:
    return next((each.version for each in root.installed() if each.name == "rpm-build"), "unknown")
