"""Python and what backport's own package needs, as RPMs beside the lab's, made once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backport.errors import as_kind
from backport.files import locked, remove_tree
from tests.lab.build import LOCK_TIMEOUT, Progress, cache_folder
from tests.lab.debs import Apt, running_release
from tests.lab.layout import OLD_DIST, Lab, LabError
from tests.lab.repackage import read_debs, repackage
from tests.lab.rpms import build_specs, create_repository

WANTED = (
    "abigail-tools", "bubblewrap", "cpio", "createrepo-c", "dnf", "gnupg", "libgcc-s1", "passwd", "python3",
    "python3-createrepo-c", "python3-gssapi", "python3-rpm", "python3-solv", "rpm",
)  # fmt: skip
_FEDORA_NAMES = {
    "createrepo_c": "createrepo-c", "gnupg2": "gnupg", "libabigail": "abigail-tools",
    "python3-createrepo_c": "python3-createrepo-c", "rpm-sign": "rpm",
}  # fmt: skip
"""What Fedora calls the packages that have another name in Debian."""


@as_kind(LabError)
def ensure(lab: Lab, progress: Progress) -> Path:
    """The folder of the repository; its packages need those of the lab. Raises LabError."""
    release = running_release()
    digest = hashlib.sha256(lab.path.name.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    folder = cache_folder() / f"python-{digest}"
    with locked(folder.with_suffix(".lock"), timeout=LOCK_TIMEOUT, what="repackaging Python"):
        if not folder.is_dir():
            progress("repackaging Python")
            building = folder.with_suffix(".building")
            remove_tree(building)
            (building / "apt").mkdir(parents=True)
            apt = Apt(building / "apt", release=release, log=building / "apt.log")
            apt.update()
            _make(apt, lab, building)
            (building / "rpms").rename(folder)
            remove_tree(building)
    return folder


def _make(apt: Apt, lab: Lab, building: Path) -> None:
    debs = read_debs(apt.download_closure(WANTED))
    # The lab's package setup has what netbase brings.
    debs = [deb for deb in debs if deb.name != "netbase"]
    present = frozenset(name for deb in debs for name in (deb.name, *deb.provides))
    in_lab = {entry.partition("=")[0] for entry in lab.info["debian_packages"]}
    rpms, log = building / "rpms", building / "rpmbuild.log"
    rpms.mkdir()
    more = [deb for deb in debs if deb.name not in in_lab]
    repackage(more, present, building / "repackage", rpms, log=log)
    spec = building / "names.spec"
    spec.write_text(_names())
    build_specs([spec], rpms, building / "names", dist=OLD_DIST, log=log)
    create_repository(rpms, log=log)


def _names() -> str:
    """One package a name: each leads to the one that Debian has under another."""
    lines = [
        "Name: fedora-names",
        "Version: 1",
        "Release: 1",
        "Summary: Names",
        "License: MIT",
        "BuildArch: noarch",
    ]
    lines += ["%description", "Fedora's names of Debian's packages."]
    for name, deb in _FEDORA_NAMES.items():
        lines += [f"%package -n {name}", "Summary: Another name", f"Requires: deb({deb})"]
        lines += [f"%description -n {name}", "Another name.", f"%files -n {name}"]
    return "\n".join(lines) + "\n"
