"""The target's metadata without what no gate asks for.

A release has tens of thousands of packages with millions of files and nearly a million requirements; libsolv
would keep all of them in memory, descriptions included. What can matter for a candidate is little: of the
capabilities those that it requires, and those that the packages in whose place it comes provide, with
whoever else provides or requires them; of the files those that it has itself and those that anything
requires. createrepo_c reads the files package by package, so that no file is ever in memory as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from backport.errors import PublishError
from backport.gates.repositories import Metadata
from backport.repodata import bindings

Package: TypeAlias = Any
"""createrepo_c.Package, as far as the file that is read describes it."""

_NAMESPACES = {
    "primary": 'metadata xmlns="http://linux.duke.edu/metadata/common" '
    'xmlns:rpm="http://linux.duke.edu/metadata/rpm"',
    "filelists": 'filelists xmlns="http://linux.duke.edu/metadata/filelists"',
}
_IDENTITY = ("pkgId", "checksum_type", "name", "epoch", "version", "release", "arch", "location_href")
_RICH = "("
_RICH_PART = re.compile(r"[^\s()]+(?:\([^()]*\))*")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What can matter, as names of capabilities and paths of files."""

    names: set[str] = field(default_factory=set)
    """Packages that the candidate has, or obsoletes."""
    offered: set[str] = field(default_factory=set)
    """Capabilities that may be gone: who requires them matters."""
    wanted: set[str] = field(default_factory=set)
    """Other capabilities of which it matters who provides them."""
    files: set[str] = field(default_factory=set)
    """Files of which it matters who has them, and who requires them."""

    @classmethod
    def of(cls, repositories: Mapping[str, Metadata], candidate: Metadata, paths: Collection[str]) -> Filter:
        """What can matter for ``candidate``, whose files are ``paths``. Raises PublishError."""
        chosen = cls(files=set(paths))
        _read("primary", candidate.primary, chosen._learn_from_candidate)
        for metadata in repositories.values():
            _read("primary", metadata.primary, chosen._learn_from_others)
        chosen.offered.update(chosen.names, chosen.files)
        return chosen

    def apply(self, metadata: Metadata, folder: Path) -> Metadata:
        """The same metadata, written to ``folder`` without what does not matter. Raises PublishError."""
        filtered = Metadata(primary=folder / "primary.xml", filelists=folder / "filelists.xml")
        _copy("primary", metadata.primary, filtered.primary, self._without_dependencies)
        _copy("filelists", metadata.filelists, filtered.filelists, self._without_files)
        return filtered

    def _learn_from_candidate(self, package: Package) -> None:
        self.names.add(package.name)
        self.names.update(dependency[0] for dependency in package.obsoletes)
        for dependency in package.requires:
            self.wanted.update(parts_of(dependency[0]))
        self._learn_files(package)

    def _learn_from_others(self, package: Package) -> None:
        if package.name in self.names:
            self.offered.update(dependency[0] for dependency in package.provides)
        self._learn_files(package)

    def _learn_files(self, package: Package) -> None:
        for dependency in package.requires:
            name = dependency[0]
            if name.startswith("/"):
                self.files.add(name)
            elif name.startswith(_RICH):
                # Its parts are alternatives and conditions: it means something else without one of them.
                parts = parts_of(name)
                self.wanted.update(parts)
                self.files.update(part for part in parts if part.startswith("/"))

    def _without_dependencies(self, package: Package) -> Package:
        slim = _same(package)
        slim.requires = [
            one for one in package.requires if one[0] in self.offered or one[0].startswith(_RICH)
        ]
        slim.obsoletes = package.obsoletes
        slim.provides = [one for one in package.provides if one[0] in self.offered or one[0] in self.wanted]
        # Libsolv looks for the owners of programs and of files in /etc among primary's files alone.
        slim.files = self._files_of(package)
        return slim

    def _without_files(self, package: Package) -> Package | None:
        files = self._files_of(package)
        if not files:
            return None
        slim = _same(package)
        slim.files = files
        return slim

    def _files_of(self, package: Package) -> list[tuple[str, ...]]:
        return [file for file in package.files if file[1] + file[2] in self.files]


def parts_of(dependency: str) -> tuple[str, ...]:
    """The names in a dependency; a rich one's operators and versions are among them.

    >>> parts_of("libz.so.1()(64bit)")
    ('libz.so.1()(64bit)',)
    >>> parts_of("(perl(A::B) >= 1 if /usr/bin/perl)")
    ('perl(A::B)', '>=', '1', 'if', '/usr/bin/perl')
    """
    return tuple(_RICH_PART.findall(dependency)) if dependency.startswith(_RICH) else (dependency,)


def _same(package: Package) -> Package:
    """A package of its own with nothing but the identity: to empty what the bindings made leaks memory."""
    slim = bindings().Package()
    for name in _IDENTITY:
        setattr(slim, name, getattr(package, name))
    return slim


def _copy(
    kind: Literal["primary", "filelists"], source: Path, copy: Path, slim: Callable[[Package], Package | None]
) -> None:
    createrepo_c = bindings()
    dump = {"primary": createrepo_c.xml_dump_primary, "filelists": createrepo_c.xml_dump_filelists}[kind]
    with copy.open("w", encoding="utf-8") as file:
        file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<{_NAMESPACES[kind]}>\n')

        def write(package: Package) -> None:
            if kept := slim(package):
                file.write(dump(kept))

        _read(kind, source, write)
        file.write(f"</{_NAMESPACES[kind].partition(' ')[0]}>\n")


def _read(kind: Literal["primary", "filelists"], path: Path, visit: Callable[[Package], None]) -> None:
    """Show ``visit`` each package that the file describes. Raises PublishError, and what ``visit`` raises."""
    createrepo_c = bindings()
    raised: list[BaseException] = []

    def show(package: Package) -> bool:
        try:
            visit(package)
        except BaseException as problem:
            # The bindings would make an error of their own of it, also of an interruption.
            raised.append(problem)
            raise
        return True

    try:
        if kind == "primary":
            createrepo_c.xml_parse_primary(
                path=str(path), newpkgcb=None, pkgcb=show, warningcb=None, do_files=True
            )
        else:
            createrepo_c.xml_parse_filelists(path=str(path), newpkgcb=None, pkgcb=show, warningcb=None)
    except (createrepo_c.CreaterepoCError, OSError) as problem:
        if raised:
            raise raised[0] from None
        raise PublishError(
            f"{path}: cannot be read as repository metadata: {problem}",
            hint="the repository is damaged, or this host's createrepo_c does not know its compression",
        ) from None
