"""Debian's own Exim, which is built against GnuTLS: its packages unpacked to a tree, never installed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backport.errors import as_kind
from backport.files import locked, remove_tree
from tests.lab.build import LOCK_TIMEOUT, Progress, cache_folder
from tests.lab.debs import Apt, running_release
from tests.lab.layout import LabError

PACKAGE = "exim4-daemon-light"
USER = "Debian-exim"
UID = 101
_PASSWD = f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{UID}:{UID}::/var/spool/exim4:/usr/sbin/nologin\n"
_GROUP = f"root:x:0:\nmail:x:8:\n{USER}:x:{UID}:\n"


@as_kind(LabError)
def ensure(progress: Progress) -> Path:
    """A tree with Debian's Exim and all that it needs, unpacked once and cached. Raises LabError."""
    release = running_release()
    digest = hashlib.sha256(release.number.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    tree = cache_folder() / f"gnutls-exim-{digest}"
    with locked(tree.with_suffix(".lock"), timeout=LOCK_TIMEOUT, what="unpacking Exim"):
        if not tree.is_dir():
            progress(f"unpacking Debian's {PACKAGE}")
            building = tree.with_suffix(".building")
            remove_tree(building)
            (building / "apt").mkdir(parents=True)
            apt = Apt(building / "apt", release=release, log=building / "apt.log")
            apt.update()
            unpack(apt.download_closure([PACKAGE]), building / "tree")
            (building / "tree").rename(tree)
            remove_tree(building)
    return tree


def unpack(debs: Sequence[Path], tree: Path) -> None:
    """Unpack packages over each other, with the users that their scripts would make."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda deb: _extract(deb, tree), debs))
    for name in ("dev", "etc/exim4", "proc", "tmp", "var/spool"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "etc/passwd").write_text(_PASSWD)
    (tree / "etc/group").write_text(_GROUP)


def _extract(deb: Path, tree: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as contents:
        unpacked = subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "-C", tree], stdin=contents.stdout, check=False
        )
    if contents.returncode or unpacked.returncode:
        raise LabError(f"{deb.name} cannot be unpacked")
