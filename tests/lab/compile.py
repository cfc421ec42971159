"""The stock packages of the repository ``updates``, compiled in a root made from ``fedora``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from backport.run import run
from tests.lab.layout import BASE_PACKAGES, BUILDER_UID, OLD_DIST, LabError
from tests.lab.rpms import PACKAGES, create_repository, definitions
from tests.lab.sources import make_srpm

JOBS = max(2, os.cpu_count() or 2)


class StockRoot:
    """A build root of the older release. Packages are built in it as an unprivileged user, offline."""

    def __init__(self, folder: Path, repositories: Mapping[str, Path], *, log: Path) -> None:
        self._root, self._home, self._log = folder / "root", folder / "home", log
        self._home.mkdir(parents=True)
        # rpm's database belongs where the root's own rpm looks for it, not where Debian's does.
        (self._home / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
        sections = [
            f"[{name}]\nname={name}\nbaseurl={path.as_uri()}\n" for name, path in repositories.items()
        ]
        (self._home / "dnf.conf").write_text(
            "[main]\nplugins=0\nreposdir=/dev/null\ninstall_weak_deps=0\nmetadata_expire=0\nprotected_packages=\n"
            f"gpgcheck=0\nkeepcache=0\ncachedir={self._home}/cache\nlogdir={self._home}\n" + "".join(sections)
        )
        self.install(BASE_PACKAGES)
        (self._root / "builddir").mkdir()
        os.chown(self._root / "builddir", BUILDER_UID, BUILDER_UID)

    def install(self, packages: Sequence[str]) -> None:
        """Install packages from the repositories, named or by what they provide."""
        run(
            [
                "dnf",
                "-q",
                "-y",
                "-c",
                self._home / "dnf.conf",
                f"--installroot={self._root}",
                "--releasever=28",
                "install",
                *packages,
            ],
            timeout=600,
            error=LabError,
            log=self._log,
            env={"HOME": str(self._home)},
            what="installing packages into the lab's build root",
        )

    def rebuild(self, srpm: Path, rpms: Path, macros: Mapping[str, str]) -> None:
        """Build a source package; its binary packages go to the folder ``rpms``."""
        wanted = run(["rpm", "-qp", "--requires", srpm], timeout=60, error=LabError).text.splitlines()
        self.install([name for name in wanted if not name.startswith("rpmlib(")])
        top = self._root / "builddir" / srpm.name.removesuffix(".src.rpm")
        top.mkdir()
        os.chown(top, BUILDER_UID, BUILDER_UID)
        inside = f"/builddir/{top.name}"
        shutil.copy(srpm, top)
        defines = {
            "_topdir": inside,
            "_rpmdir": f"{inside}/out",
            "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
            "_smp_mflags": f"-j{JOBS}",
            **macros,
        }
        self._enter(
            ["rpmbuild", "--rebuild", *definitions(defines), f"{inside}/{srpm.name}"],
            what=f"building {top.name}",
        )
        for rpm in sorted((top / "out").glob("*.rpm")):
            shutil.copy(rpm, rpms)
        shutil.rmtree(top)

    def _enter(self, command: Sequence[str], *, what: str) -> None:
        run(
            [
                "bwrap",
                "--die-with-parent",
                "--bind",
                self._root,
                "/",
                "--dev",
                "/dev",
                "--proc",
                "/proc",
                "--tmpfs",
                "/run",
                "--unshare-net",
                "--unshare-pid",
                "--unshare-ipc",
                "--unshare-uts",
                "--clearenv",
                "--setenv",
                "PATH",
                "/usr/bin:/usr/sbin",
                "--setenv",
                "HOME",
                "/builddir",
                "--cap-add",
                "CAP_SETUID",
                "--cap-add",
                "CAP_SETGID",
                "setpriv",
                "--reuid",
                str(BUILDER_UID),
                "--regid",
                str(BUILDER_UID),
                "--clear-groups",
                "--no-new-privs",
                *command,
            ],
            timeout=1200,
            error=LabError,
            log=self._log,
            what=what,
        )


def build_stock(fedora: Path, updates: Path, scratch: Path, *, openssl: Path, exim: Path, log: Path) -> None:
    """Fill the repository ``updates``: OpenSSL without TLS 1.3, and Exim against it.

    ``openssl`` and ``exim`` are upstream's tarballs, named as their packages' specs say.
    """
    root = StockRoot(scratch, {"fedora": fedora, "updates": updates}, log=log)
    exim_macros = {"exim_version": exim.name.removeprefix("exim-").removesuffix(".tar.xz")}
    for name, folder, tarball, macros in (
        ("openssl", "openssl-stock", openssl, {}),
        ("exim", "exim", exim, exim_macros),
    ):
        srpm = make_srpm(
            name, PACKAGES / folder, scratch / folder, [tarball], dist=OLD_DIST, log=log, macros=macros
        )
        root.rebuild(srpm, updates, macros)
        create_repository(updates, log=log)
