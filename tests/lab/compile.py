"""The stock packages of the repository ``updates``, compiled in a clean root made from ``fedora``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from backport.roots.root import Bind, ExtraRepository, Root, clean_root
from backport.run import Command, run
from backport.settings import Key
from backport.target import Repository, Target
from tests.lab.layout import BASE_PACKAGES, BUILDER_UID, OLD_DIST
from tests.lab.rpms import PACKAGES, RPM_FILE_NAME, create_repository, definitions
from tests.lab.sources import make_srpm

JOBS = max(2, os.cpu_count() or 2)
_TIMEOUT = 1800.0
_PLACE = "/builddir/build"


def older_release(fedora: Path, key: Key) -> Target:
    """The older release as a target whose only repository is the folder ``fedora``."""
    return Target(
        name="f28",
        summary="Fedora 28 look-alike",
        releasever="28",
        dist=OLD_DIST,
        arch="x86_64",
        repositories=(Repository(id="fedora", baseurl=fedora.as_uri(), keys=("fedora-28",)),),
        keys={"fedora-28": key},
        buildroot=BASE_PACKAGES,
    )


def build_stock(
    target: Target, updates: Path, scratch: Path, *, openssl: Path, exim: Path, log: Path
) -> None:
    """Fill the repository ``updates``: OpenSSL without TLS 1.3, and Exim against it.

    ``openssl`` and ``exim`` are upstream's tarballs, named as their packages' specs say.
    """
    exim_macros = {"exim_version": exim.name.removeprefix("exim-").removesuffix(".tar.xz")}
    with clean_root(target, cache=scratch / "cache", workspace=log.parent) as root:
        for name, folder, tarball, macros in (
            ("openssl", "openssl-stock", openssl, {}),
            ("exim", "exim", exim, exim_macros),
        ):
            work = scratch / folder
            srpm = make_srpm(name, PACKAGES / folder, work, [tarball], dist=OLD_DIST, log=log, macros=macros)
            _rebuild(root, srpm, updates, work / "build", macros=macros, log=log)
            create_repository(updates, log=log)


def _rebuild(
    root: Root, srpm: Path, updates: Path, place: Path, *, macros: Mapping[str, str], log: Path
) -> None:
    """Build a source package as the unprivileged user; its packages go to the folder ``updates``."""
    wanted = run(Command(["rpm", "-qp", "--requires", srpm], timeout=60)).text.splitlines()
    root.install(
        [name.strip() for name in wanted if not name.startswith("rpmlib(")],
        extra=[ExtraRepository.of_folder("updates", updates)],
    )
    place.mkdir()
    shutil.copy(srpm, place)
    os.chown(place, BUILDER_UID, BUILDER_UID)
    defines = {
        "_topdir": _PLACE,
        "_rpmdir": f"{_PLACE}/out",
        "_rpmfilename": RPM_FILE_NAME,
        "_smp_mflags": f"-j{JOBS}",
        **macros,
    }
    root.run(
        Command(
            ["rpmbuild", "--rebuild", *definitions(defines), f"{_PLACE}/{srpm.name}"],
            timeout=_TIMEOUT,
            log=log,
            what=f"building {srpm.name}",
        ),
        binds=[Bind(host=place, inside=_PLACE, writable=True)],
    )
    for rpm in sorted((place / "out").glob("*.rpm")):
        shutil.copy(rpm, updates)
