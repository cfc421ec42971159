"""Where everything lies in a finished lab, and the names that its parts agree on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport.errors import BackportError

OLD_DIST = ".fc28"
NEW_DIST = ".fc29"
NEW_TAG = "f29-updates"
KEY_NAMES = ("fedora-28", "fedora-29")
BUILDER_UID = 1000
"""The unprivileged user that packages are built as."""

BASE_PACKAGES = (
    "bash", "bzip2", "coreutils", "cpio", "diffutils", "fedora-release", "findutils", "gawk", "gcc",
    "gcc-c++", "grep", "gzip", "info", "make", "patch", "redhat-rpm-config", "rpm-build", "sed",
    "shadow-utils", "tar", "unzip", "util-linux", "which", "xz",
)  # fmt: skip
"""Fedora's own list of what every build root starts with."""


class LabError(BackportError):
    """A part of the lab could not be made."""

    kind = "lab"


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A finished lab; nothing in it changes any more."""

    path: Path

    @property
    def repositories(self) -> Path:
        """The folder that holds the repositories ``fedora`` and ``updates``."""
        return self.path / "repos"

    @property
    def koji(self) -> Path:
        """The build system's files, laid out as Koji does, and ``tags.json``."""
        return self.path / "koji"

    @property
    def info(self) -> dict[str, Any]:
        """What was built: Debian release, fingerprints, NVRs, wall time of every step in seconds."""
        return dict(json.loads((self.path / "info.json").read_text()))

    def key_file(self, name: str) -> Path:
        """The public key ``fedora-28`` or ``fedora-29``, armored."""
        return self.path / "keys" / f"{name}.asc"

    def fingerprint(self, name: str) -> str:
        """The fingerprint of one of the two keys, in upper-case hex."""
        return str(self.info["fingerprints"][name])

    def source_package(self, nvr: str) -> Path:
        """The unsigned SRPM of a build, where Koji keeps it."""
        name, version, release = nvr.rsplit("-", 2)
        return self.koji / "packages" / name / version / release / "src" / f"{nvr}.src.rpm"
