"""A repository's metadata as text, with just the dependencies and files that a test asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from backport.gates.repositories import Metadata

COMMON = 'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
FILELISTS = 'xmlns="http://linux.duke.edu/metadata/filelists"'


@dataclass(frozen=True, kw_only=True)
class Package:
    """What a package has in both files."""

    name: str
    release: str = "1.fc28"
    provides: Sequence[str] = ()
    requires: Sequence[str] = ()
    obsoletes: Sequence[str] = ()
    files: Sequence[str] = ()

    @property
    def primary(self) -> str:
        kinds = {"provides": self.provides, "requires": self.requires, "obsoletes": self.obsoletes}
        dependencies = "".join(
            f"<rpm:{kind}>{''.join(map(entry, names))}</rpm:{kind}>" for kind, names in kinds.items() if names
        )
        files = "".join(f"<file>{path}</file>" for path in self.files if path.startswith("/usr/bin/"))
        return (
            f'<package type="rpm"><name>{self.name}</name><arch>x86_64</arch>{self.version}'
            f'<checksum type="sha256" pkgid="YES">{self.pkgid}</checksum><summary>It is {self.name}</summary>'
            f'<description>Long &amp; wide</description><location href="Packages/{self.name}.rpm"/>'
            f"<format>{dependencies}{files}</format></package>"
        )

    @property
    def filelists(self) -> str:
        files = "".join(f"<file>{escape(path)}</file>" for path in self.files)
        return (
            f'<package pkgid="{self.pkgid}" name="{self.name}" arch="x86_64">{self.version}{files}</package>'
        )

    @property
    def version(self) -> str:
        return f'<version epoch="1" ver="1" rel="{self.release}"/>'

    @property
    def pkgid(self) -> str:
        return (self.name + self.release).encode().hex().rjust(64, "0")


def entry(dependency: str) -> str:
    """A dependency as metadata has it; ``name >= version`` is one on a version."""
    name, operator, version = dependency.partition(" >= ") if dependency[0] != "(" else (dependency, "", "")
    relation = f' flags="GE" epoch="1" ver="{version}"' if operator else ""
    return f'<rpm:entry name="{escape(name)}"{relation}/>'


def write(folder: Path, packages: Sequence[Package]) -> Metadata:
    folder.mkdir()
    metadata = Metadata(primary=folder / "primary.xml", filelists=folder / "filelists.xml")
    metadata.primary.write_text(
        f'<?xml version="1.0"?><metadata {COMMON}>{"".join(one.primary for one in packages)}</metadata>'
    )
    metadata.filelists.write_text(
        f'<?xml version="1.0"?><filelists {FILELISTS}>'
        f"{''.join(one.filelists for one in packages)}</filelists>"
    )
    return metadata
