"""Collect the sources of backport's own source package: ``python packaging/sources.py FOLDER``.

Two files: the committed tree, and the wheels of the libraries that it needs, in the versions that this
environment has and was tested with.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backport import __version__

ROOT = Path(__file__).resolve().parent.parent
_FROM_THE_SYSTEM = frozenset(("gssapi",))
"""No wheels of these are to be had; the spec requires the system's."""
_TIMEOUT = 600.0


def collect(folder: Path) -> tuple[Path, Path]:
    """The two source files, written to ``folder``. Raises CalledProcessError where git or pip fail."""
    tree = folder / f"backport-{__version__}.tar.gz"
    prefix = f"backport-{__version__}/"
    _run("git", "-C", ROOT, "archive", "--format=tar.gz", f"--prefix={prefix}", f"--output={tree}", "HEAD")
    wheels = folder / f"backport-wheels-{__version__}.tar"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name, wanted in (("run", needed(["backport[build]"])[1:]), ("build", needed(["hatchling"]))):
            options = ("--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
            _run(sys.executable, "-m", "pip", "download", *options, "--dest", Path(scratch, name), *wanted)
        with tarfile.open(wheels, "w") as archive:
            for path in sorted(Path(scratch).rglob("*")):
                archive.add(path, path.relative_to(scratch), recursive=False, filter=_plain)
    return tree, wheels


def needed(names: Iterable[str]) -> list[str]:
    """The installed distributions of these names and of all that they require, as ``name==version``."""
    found: dict[str, str] = {}
    rest = [Requirement(name) for name in names]
    while rest:
        wanted = rest.pop()
        name = canonicalize_name(wanted.name)
        if name in found or name in _FROM_THE_SYSTEM:
            continue
        here = distribution(name)
        found[name] = f"{name}=={here.version}"
        contexts = [{"extra": extra} for extra in (wanted.extras or {""})]
        requirements = map(Requirement, here.requires or ())
        rest += [one for one in requirements if one.marker is None or any(map(one.marker.evaluate, contexts))]
    return list(found.values())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, timeout=_TIMEOUT)


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    for written in collect(destination):
        print(written)
