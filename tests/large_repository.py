"""A repository of many small packages for `make bench`: made by one spec, kept in the lab's cache."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from backport.artifacts import BuiltRpms, Nevra, Rpm, SignedRpms
from backport.errors import PublishError
from backport.files import digest_of, remove_tree
from backport.repository.generations import TargetFolder
from backport.repository.place import Place
from backport.repository.publish import Run, publish
from backport.repository.rollback import rollback
from backport.repository.verification import verify
from backport.signing import sign
from backport.site import Signing
from backport.target import Target, load_target
from tests.e2e import tiny
from tests.e2e.shelf import small_key

PACKAGES = 10_000
URL = "https://repo.example.org"
_CHECKOUT = Path(__file__).resolve().parents[1]
_SPEC = """\
Name: many
Version: 1
Release: 1.fc28.bp1
Summary: Many packages
License: MIT
BuildArch: noarch
%description
It has many packages.
{packages}
%install
mkdir -p %{{buildroot}}/usr/share/many
cd %{{buildroot}}/usr/share/many && seq -f many-%05.0f 0 {last} | xargs touch
%changelog
* Tue Jan 02 2024 A <a@example.org> - 1-1
- first
"""
_PACKAGE = """\
%package -n {name}
Summary: Small package
Provides: virtual-{family} = {number}
%description -n {name}
It is small.
%files -n {name}
/usr/share/many/{name}
"""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Seconds of one publication into a repository of a size, and what its generation takes."""

    seconds: float
    bytes_more: int
    """What the disk holds more, besides the added package and the metadata."""
    bytes_added: int
    """The added package and the metadata."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Many signed packages, and a few more to publish besides."""

    folder: Path

    @property
    def target(self) -> Target:
        return load_target(_CHECKOUT / "mock-configs", "f28")

    @property
    def signing(self) -> Signing:
        return Signing(gnupghome=self.folder / "gnupg")

    @property
    def packages(self) -> Path:
        return self.folder / "signed"

    def signed(self, rpms: tuple[Rpm, ...]) -> SignedRpms:
        key = sign.show_key(self.signing)
        return SignedRpms(
            built=(), srpms=(), rpms=rpms, fingerprint=key.fingerprint, public_key=self.folder / "key.asc"
        )

    def many(self, count: int) -> SignedRpms:
        """The first of the packages."""
        return self.signed(tuple(_rpm(path) for path in sorted(self.packages.glob("*.rpm"))[:count]))

    def repository(self, count: int) -> Path:
        """A repository of so many packages, published once and kept while its record can be read."""
        folder = self.folder / f"repository-{count}"
        try:
            published = TargetFolder.of(folder, "f28").current_generation()
        except PublishError:
            published = None
        if published is None:
            remove_tree(folder)
            self.publish(self.many(count), folder)
        return folder

    def publish(self, signed: SignedRpms, repository: Path) -> None:
        run = Run(gated=tiny.gated(tiny.tested(signed)))
        publish(run, self.place(repository), prove=tiny.proven)

    def place(self, repository: Path) -> Place:
        return Place(repository=repository, target=self.target, base_url=URL, signing=self.signing)

    def publications(self, count: int, runs: int) -> Iterator[Publication]:
        """Publish one more package, each time into a fresh copy of a repository of so many."""
        more = [_rpm(path) for path in sorted(self.folder.glob("more/*.rpm"))]
        copy = self.folder / "copy"
        for number in range(runs):
            remove_tree(copy)
            subprocess.run(["cp", "-al", self.repository(count), copy], check=True)
            signed = self.signed((more[number % len(more)],))
            before = _files(copy)
            started = time.perf_counter()
            self.publish(signed, copy)
            seconds = time.perf_counter() - started
            new = {inode: found for inode, found in _files(copy).items() if inode not in before}
            counted = {"repodata", signed.rpms[0].path.name}
            added = sum(size for path, size in new.values() if {path.name, path.parent.name} & counted)
            whole = sum(size for path, size in new.values() if path.parent != copy / "f28")
            yield Publication(seconds=seconds, bytes_more=whole - added, bytes_added=added)

    def rollback(self) -> float:
        """Seconds that it takes to lead readers of the last copy back."""
        started = time.perf_counter()
        rollback(self.place(self.folder / "copy"))
        return time.perf_counter() - started

    def verification(self) -> tuple[float, float]:
        """Seconds to verify the large repository, and of `sha256sum` over the same files."""
        folder = TargetFolder.of(self.repository(PACKAGES), "f28")
        started = time.perf_counter()
        found = verify(folder, self.target)
        seconds = time.perf_counter() - started
        if found.faults:
            raise RuntimeError(f"the repository is damaged: {found.faults[0]}")
        started = time.perf_counter()
        files = subprocess.run(
            ["find", folder.generations, "-type", "f", "-print0"], check=True, capture_output=True
        )
        subprocess.run(["xargs", "-0", "sha256sum"], input=files.stdout, check=True, capture_output=True)
        return seconds, time.perf_counter() - started

    def createrepo(self) -> float:
        """Seconds of `createrepo_c --update` over the packages and one more."""
        folder = self.folder / "createrepo"
        if not folder.is_dir():
            subprocess.run(["cp", "-al", self.packages, folder], check=True)
            _createrepo(folder)
        more = min((self.folder / "more").glob("*.rpm"))
        shutil.copy(more, folder)
        started = time.perf_counter()
        _createrepo(folder)
        seconds = time.perf_counter() - started
        (folder / more.name).unlink()
        _createrepo(folder)
        return seconds


def shelf(folder: Path) -> Shelf:
    """The packages below a folder, made when they are not there."""
    made = Shelf(folder=folder)
    if not (folder / "complete").exists():
        remove_tree(folder)
        folder.mkdir(parents=True)
        small_key(made.signing)
        _build(folder / "built", PACKAGES)
        for number in range(5):
            tiny.build(folder / "built", f"more-{number}")
        _sign(made, sorted((folder / "built/output").glob("many-*.rpm")), folder / "signed")
        _sign(made, sorted((folder / "built/output").glob("more-*.noarch.rpm")), folder / "more")
        remove_tree(folder / "built")
        (folder / "complete").touch()
    return made


def _build(folder: Path, count: int) -> None:
    folder.mkdir()
    names = [(number, f"many-{number:05}") for number in range(count)]
    packages = "".join(
        _PACKAGE.format(name=name, number=number, family=number % 100) for number, name in names
    )
    (folder / "many.spec").write_text(_SPEC.format(packages=packages, last=count - 1))
    macros = {
        "_topdir": folder / "work", "_rpmdir": folder / "output", "_binary_payload": "w1.gzdio",
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", "__spec_install_post": "%{nil}",
    }  # fmt: skip
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", *defines, folder / "many.spec"], check=True, capture_output=True
    )


def _sign(made: Shelf, paths: list[Path], folder: Path) -> None:
    """Sign the packages as a run does; they all claim to be built from the same source package."""
    source = _rpm(min(made.folder.glob("built/output/*.src.rpm")))
    built = BuiltRpms(
        patched=tiny.patched(source), srpm=source, rpms=tuple(_rpm(path) for path in paths), logs=(),
        builder="rpmbuild",
    )  # fmt: skip
    workspace = made.folder / "work"
    signed = sign.sign([built], signing=made.signing, target=made.target, workspace=workspace)
    shutil.copy(signed.public_key, made.folder / "key.asc")
    folder.mkdir()
    for rpm in signed.rpms:
        rpm.path.rename(folder / rpm.path.name)
    remove_tree(workspace)


def _rpm(path: Path) -> Rpm:
    nvr, arch = path.name.removesuffix(".rpm").rsplit(".", 1)
    return Rpm(nevra=replace(Nevra.from_nvr(nvr), arch=arch), path=path, sha256=digest_of(path))


def _files(folder: Path) -> dict[int, tuple[Path, int]]:
    """Every different file below a folder, with its size."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.stat().st_ino: (path, path.stat().st_size) for path in found}


def _createrepo(folder: Path) -> None:
    subprocess.run(["createrepo_c", "--quiet", "--update", "--general-compress-type=gz", folder], check=True)
