"""Packages with just the files and relations that a test asks for, made by the host's rpmbuild."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backport.artifacts import BuiltRpms, Nevra, Rpm, SignedRpms
from backport.repodata import write_repodata
from backport.settings import Key
from backport.signing import sign
from backport.site import Signing
from backport.target import Repository, Target
from tests.e2e import tiny

SPEC = """\
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%global _build_id_links none
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: A package made by hand
License: MIT
{relations}
%description
It holds what a test needs.
%install
mkdir -p %{{buildroot}}
cp -a {tree}/. %{{buildroot}}/
%files
{files}
"""
_ARCH = "x86_64"


@dataclass(frozen=True, kw_only=True)
class Ware:
    """One package to be made: its name, version, files and what it needs of others."""

    name: str
    version: str = "1.0"
    release: str = "1.fc28.bp1"
    epoch: int = 0
    origin: str = "1.fc29"
    """The release of the source package that it is taken to come from."""
    relations: Sequence[str] = ()
    """Lines such as ``Requires: this``."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    """What stands before a file's path in the spec, such as ``%attr(4755, root, root)``."""

    def build(self, folder: Path) -> BuiltRpms:
        """The source package and the binary package, below ``folder``."""
        folder.mkdir(parents=True)
        tree, output = folder / "tree", folder / "output"
        for path, content in self.files.items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755)
        tree.mkdir(exist_ok=True)
        spec = folder / f"{self.name}.spec"
        spec.write_text(
            SPEC.format(
                name=self.name, epoch=self.epoch, version=self.version, release=self.release, tree=tree,
                relations="\n".join(self.relations),
                files="\n".join(f"{self.marks.get(path, '')} {path}" for path in self.files),
            )
        )  # fmt: skip
        macros = {
            "_topdir": str(folder / "work"), "_rpmdir": str(output), "_srcrpmdir": str(output),
            "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", "_binary_payload": "w1.gzdio",
        }  # fmt: skip
        defines = [word for macro in macros.items() for word in ("--define", " ".join(macro))]
        subprocess.run(
            ["rpmbuild", "-ba", "--quiet", "--nodeps", "--target", _ARCH, *defines, str(spec)],
            check=True, capture_output=True, timeout=300,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        )  # fmt: skip
        srpm, binary = (self._rpm(output, arch) for arch in ("src", _ARCH))
        made = tiny.patched(srpm)
        original = replace(srpm.nevra, release=self.origin)
        source = replace(made.source, rpm=replace(srpm, nevra=original))
        return BuiltRpms(
            patched=replace(made, source=source), srpm=srpm, rpms=(binary,), logs=(), builder="rpmbuild"
        )

    def _rpm(self, folder: Path, arch: str) -> Rpm:
        nevra = Nevra(name=self.name, epoch=self.epoch, version=self.version, release=self.release, arch=arch)
        path = folder / nevra.filename
        return Rpm(nevra=nevra, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def signed(wares: Sequence[Ware], *, signing: Signing, target: Target, folder: Path) -> SignedRpms:
    """The packages, built and signed below ``folder``."""
    built = [ware.build(folder / f"{number}-{ware.name}") for number, ware in enumerate(wares)]
    return sign.sign(built, signing=signing, target=target, workspace=folder / "signing")


def with_stock(target: Target, wares: Sequence[Ware], *, signing: Signing, folder: Path) -> Target:
    """The target with one more repository, which holds these packages."""
    made = signed(wares, signing=signing, target=target, folder=folder / "built")
    repository = folder / "repository"
    repository.mkdir()
    for rpm in made.rpms:
        shutil.copy(rpm.path, repository)
    write_repodata(repository, compression="gz")
    key = Key(fingerprint=made.fingerprint, file=made.public_key)
    added = Repository(id="handmade", baseurl=repository.as_uri(), keys=("handmade",))
    return target.model_copy(
        update={
            "repositories": (*target.repositories, added),
            "keys": {**target.keys, "handmade": key},
        }
    )
