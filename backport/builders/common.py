"""What the builders share: macros, and how a result folder is taken over; no output is parsed.

A result folder was written by the build, which is not trusted: only plain files are taken, links are
never followed, and headers are read from the copies.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import rpm

from backport.artifacts import BuiltRpms, Nevra, PatchedSrpm, Rpm
from backport.errors import BuildError, as_kind
from backport.files import digest_of, named, opened_regular
from backport.progress import Progress, Silent
from backport.roots.dnf import ExtraRepository
from backport.roots.limits import Bounds
from backport.target import Target
from backport.trust import compare_evrs, nevra_of, read_header

BUILD_MACROS: Mapping[str, str] = {
    "%_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
    "%_buildhost": "localhost",
    "%source_date_epoch_from_changelog": "1",
    "%use_source_date_epoch_as_buildtime": "1",
    "%clamp_mtime_to_source_date_epoch": "1",
}
"""Macros for results that depend on nothing but their inputs, known to rpm 4.14 and later.

rpmbuild itself then sets SOURCE_DATE_EPOCH by the spec's newest changelog entry, macros expanded, which
is midnight of that day."""

MEND_HINT = "mend it by a patch, or by the package's settings in the recipe"
RAISE_HINT = "raise it under the package's `build` in the recipe, if the package needs that much"
"""What to do about a package that fails to build, where its log suggests nothing better."""

_RELEASE_HINT = "the release has to be below the one it came from: edit the spec's Release in the recipe"


CANDIDATES = "candidates"
"""The id of the repository of what a run has built so far."""
_OWN_PRIORITY = 1
"""Before every other repository: what a run has built is what its next packages are built with."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """One package that is to be built, what its root is to know, and where what comes of it goes."""

    patched: PatchedSrpm
    workspace: Path
    """Logs go here (build.log, root.log, installed_pkgs.log), packages to ``rpms`` below it."""
    candidates: Path | None = None
    """The repository of what the run has built so far: it is taken from there, whatever others have."""
    published: ExtraRepository | None = None
    progress: Progress = field(default_factory=Silent)

    @property
    def name(self) -> str:
        """The package's name."""
        return self.patched.source.rpm.nevra.name

    @property
    def bounds(self) -> Bounds:
        """How much of the host the build may use."""
        return Bounds.of(self.patched.options)

    @property
    def extra(self) -> tuple[ExtraRepository, ...]:
        """The repositories of the build root beside the target's own.

        The published packages have the priority of the target's, so that the newest wins, as on a server.
        """
        own = ExtraRepository.of_folder(CANDIDATES, self.candidates) if self.candidates else None
        found = (replace(own, priority=_OWN_PRIORITY) if own else None, self.published)
        return tuple(repository for repository in found if repository)


def build_macros(target: Target) -> dict[str, str]:
    """The macros of every build for a target: `BUILD_MACROS`, and its %dist.

    %dist is set, whatever package of the target defines it, so that releases are what the target says.
    """
    return {**BUILD_MACROS, "%dist": target.dist}


def lay_out(patched: PatchedSrpm, *, spec_folder: Path, source_folder: Path) -> Path:
    """Copy the spec and its sources to where rpmbuild is to find them; the copied spec.

    Modes are what a source package can carry: executable or not.
    """
    sources = [path for path in patched.sources.iterdir() if path.is_file() and not path.is_symlink()]
    for path, folder in [(patched.spec, spec_folder), *((path, source_folder) for path in sources)]:
        copy = folder / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    return spec_folder / patched.spec.name


@as_kind(BuildError)
def collect(
    folder: Path, request: BuildRequest, *, target: Target, logs: Sequence[Path], builder: str
) -> BuiltRpms:
    """The packages of a result folder, copied to the workspace, as what was built as requested.

    Raises BuildError when it does not hold one source package of the right name, version and %dist,
    and binary packages that were all built from it for the target's architecture.
    """
    patched = request.patched
    rpms = []
    sources = {}
    for path in take_packages(folder, request.workspace / "rpms"):
        header = read_header(path)
        nevra = nevra_of(header)
        if path.name != nevra.filename:
            raise BuildError(f"{path.name}: the build gave this name to the package {nevra}")
        rpms.append(Rpm(nevra=nevra, path=path, sha256=digest_of(path)))
        sources[path] = header[rpm.RPMTAG_SOURCERPM]
    srpm = _source_package(rpms, patched, target)
    binaries = tuple(each for each in rpms if each is not srpm)
    if not binaries:
        raise BuildError(f"{srpm.nevra}: the build gave no binary package", log=logs[0])
    for each in binaries:
        if sources[each.path] != srpm.path.name:
            raise BuildError(f"{each.path.name}: built from {sources[each.path]}, not {srpm.path.name}")
        if each.nevra.arch not in (target.arch, "noarch"):
            raise BuildError(f"{each.path.name}: not for {target.arch}")
    return BuiltRpms(patched=patched, srpm=srpm, rpms=binaries, logs=tuple(logs), builder=builder)


def take_packages(folder: Path, destination: Path) -> tuple[Path, ...]:
    """Copy the packages in ``folder`` to ``destination``; the copies, by name.

    Raises BuildError for one that is not a plain file.
    """
    destination.mkdir(parents=True, exist_ok=True)
    found = sorted(path for path in folder.iterdir() if path.suffix == ".rpm")
    return tuple(take_file(path, destination / path.name) for path in found)


def take_file(path: Path, copy: Path) -> Path:
    """Copy a plain file that a build wrote. Raises BuildError for one that is not plain."""
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(opened_regular(path))
        except OSError as problem:
            raise BuildError(f"{path.name}: the build left no plain file: {problem.strerror}") from None
        with named(copy), copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
    return copy


def _source_package(rpms: Sequence[Rpm], patched: PatchedSrpm, target: Target) -> Rpm:
    wanted = patched.source.rpm.nevra
    found = [each for each in rpms if each.nevra.arch == "src"]
    if len(found) != 1:
        raise BuildError(f"{wanted.name}: the build gave {len(found)} source packages instead of one")
    check_packed(found[0].nevra, patched, target)
    return found[0]


def check_packed(nevra: Nevra, patched: PatchedSrpm, target: Target) -> None:
    """What the header of the packed source package says, whatever the spec's text did.

    Raises BuildError when it is another package, its release does not have the target's %dist, or its EVR is
    not between that of the target's own package and that of the release it came from.
    """
    wanted = patched.source.rpm.nevra
    if (nevra.name, nevra.epoch, nevra.version) != (wanted.name, wanted.epoch, wanted.version):
        raise BuildError(f"{wanted.name}: the build gave {nevra}, which is another package than {wanted}")
    if target.dist not in nevra.release:
        raise BuildError(
            f"{nevra}: its release does not have the target's %dist, {target.dist}",
            hint="the spec sets %dist itself, or its Release does not use it: edit it in the recipe",
        )
    if not patched.bounded:
        return
    if compare_evrs(nevra, wanted) >= 0:
        raise BuildError(f"{nevra}: is not below {wanted}, from which it came", hint=_RELEASE_HINT)
    if patched.above and compare_evrs(nevra, patched.above) <= 0:
        raise BuildError(
            f"{nevra}: is not above the target's own {patched.above}",
            hint="the target has it already: pin a newer build, or raise the recipe's `bump`",
        )
