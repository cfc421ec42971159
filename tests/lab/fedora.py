"""The repository ``fedora``: a whole distribution to build in, made from Debian's packages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.debs import Apt
from tests.lab.layout import OLD_DIST
from tests.lab.repackage import Deb, read_debs, repackage
from tests.lab.rpms import PACKAGES, build_specs

WANTED = (
    "bash", "binutils", "bzip2", "coreutils", "cpio", "diffutils", "elfutils", "file", "findutils",
    "g++", "gawk", "gcc", "grep", "gzip", "hostname", "info", "libc-bin", "libc6-dev", "libcrypt-dev",
    "libdb-dev", "libfile-fcntllock-perl", "libpcre2-dev", "libsctp-dev", "linux-libc-dev", "make",
    "ncurses-base", "passwd", "patch", "perl", "perl-base", "pkgconf", "procps", "rpm", "sed", "tar",
    "unzip", "util-linux", "util-linux-extra", "xz-utils", "zlib1g-dev", "zstd",
)  # fmt: skip
"""Debian's names of what a build root, OpenSSL and Exim need; apt adds what these need."""


def make_fedora(apt: Apt, rpms: Path, scratch: Path, *, logs: Path) -> list[str]:
    """Fill the folder ``rpms``; return the names and versions of the Debian packages in it."""
    debs = read_debs(apt.download_closure(WANTED))
    present = frozenset(name for deb in debs for name in (deb.name, *deb.provides))
    rpms.mkdir(parents=True)
    halves = _halves(debs)
    with ThreadPoolExecutor(max_workers=len(halves) + 1) as pool:
        work = [
            pool.submit(
                repackage, half, present, scratch / f"half{number}", rpms, log=logs / f"repackage{number}.log"
            )
            for number, half in enumerate(halves, 1)
        ]
        specs = sorted((PACKAGES / "base").glob("*.spec"))
        work.append(
            pool.submit(build_specs, specs, rpms, scratch / "base", dist=OLD_DIST, log=logs / "base.log")
        )
        for part in work:
            part.result()
    return [f"{deb.name}={deb.version}" for deb in debs]


def _halves(debs: list[Deb]) -> list[list[Deb]]:
    """Two lists of about the same size in bytes, for two processors."""
    halves: list[list[Deb]] = [[], []]
    sizes = [0, 0]
    for deb in sorted(debs, key=lambda deb: deb.path.stat().st_size, reverse=True):
        smaller = sizes.index(min(sizes))
        halves[smaller].append(deb)
        sizes[smaller] += deb.path.stat().st_size
    return halves
