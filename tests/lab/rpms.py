"""rpm's own tools as the lab uses them: build from specs, sign, make a repository of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import rpm

from backport.run import Command, run

PACKAGES = Path(__file__).parent / "packages"
"""The specs and patches that the lab's own packages are made from."""
RPM_FILE_NAME = "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"
"""rpmbuild's ``_rpmfilename`` without its folder per architecture."""


def rpm_version() -> tuple[int, int]:
    """Major and minor version of this host's rpm, which is the build root's rpm too."""
    major, minor = rpm.__version__.split(".")[:2]
    return int(major), int(minor)


def definitions(macros: Mapping[str, str]) -> list[str]:
    """The macros as options of rpm's programs."""
    return [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]


def build_specs(specs: Sequence[Path], rpms: Path, scratch: Path, *, dist: str, log: Path) -> None:
    """Build specs that only put files in place, on the host, into the folder ``rpms``."""
    for name in ("BUILD", "BUILDROOT"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    macros = {
        "_topdir": str(scratch),
        "_sourcedir": str(PACKAGES / "base"),
        "_rpmdir": str(rpms),
        "_rpmfilename": RPM_FILE_NAME,
        "dist": dist,
        "_buildshell": "/bin/bash",
        "_build_id_links": "none",
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        "_binary_payload": "w2.gzdio",
        "_buildhost": "localhost",
        "debug_package_by_install": "0" if rpm_version() >= (4, 20) else "1",
    }
    run(
        Command(
            ["rpmbuild", "-bb", "--quiet", "--nodeps", *definitions(macros), *specs],
            timeout=120,
            log=log,
            what="building the basic packages",
        )
    )


def create_repository(folder: Path, *, log: Path) -> None:
    """Metadata of the RPMs in the folder, compressed as Fedora 28's dnf can read."""
    run(
        Command(
            ["createrepo_c", "--quiet", "--general-compress-type=gz", "--no-database", folder],
            timeout=300,
            log=log,
            what=f"making repository metadata of {folder.name}",
        )
    )
