"""A target's repositories of Fedora's size, made of nothing but metadata, for `make bench`.

``python -m tests.large_target FOLDER`` asks the gates' questions about dependencies of them, and prints
the seconds and the peak memory in MiB that it took.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from backport.gates.pool import Pool, ids, load_pool
from backport.gates.repositories import metadata_of_folder
from backport.repodata import FOLDER, REPOMD, bindings
from backport.site import Koji
from backport.sources.koji.hub import Hub
from backport.target import load_target

PACKAGES = 50_000
"""About what a release of Fedora has."""
FILES_OF_EACH = 100
_WORDS = ("library", "tool", "daemon", "client", "server", "plug-in", "header", "font", "theme", "driver")
_HEADS = {
    "primary": '<metadata xmlns="http://linux.duke.edu/metadata/common" '
    'xmlns:rpm="http://linux.duke.edu/metadata/rpm">\n',
    "filelists": '<filelists xmlns="http://linux.duke.edu/metadata/filelists">\n',
}
_REPOSITORIES = {
    "fedora": (range(PACKAGES * 4 // 5), 1),
    "updates": (range(PACKAGES // 5), 2),
    "candidate": (range(5), 3),
}
"""The numbers of their packages, and the release of these."""
_TARGETS = Path(__file__).resolve().parents[1] / "mock-configs"


def make_repositories(folder: Path) -> None:
    """What a release had, updates of some of it, and a candidate, as folders below ``folder``."""
    for name, (numbers, release) in _REPOSITORIES.items():
        _make(folder / name, numbers, release)


def _make(folder: Path, numbers: range, release: int) -> None:
    repodata = folder / FOLDER
    repodata.mkdir(parents=True)
    paths = {kind: repodata / f"{kind}.xml.gz" for kind in _HEADS}
    with (
        gzip.open(paths["primary"], "wt", compresslevel=1) as primary,
        gzip.open(paths["filelists"], "wt", compresslevel=1) as filelists,
    ):
        for kind, file in (("primary", primary), ("filelists", filelists)):
            file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{_HEADS[kind]}')
        for number in numbers:
            _write_package(number, release, primary, filelists)
        primary.write("</metadata>\n")
        filelists.write("</filelists>\n")
    createrepo_c = bindings()
    repomd = createrepo_c.Repomd()
    for kind, path in paths.items():
        record = createrepo_c.RepomdRecord(kind, str(path))
        record.fill(createrepo_c.SHA256)
        record.rename_file()
        repomd.set_record(record)
    (repodata / REPOMD).write_text(repomd.xml_dump())


def _write_package(number: int, release: int, primary: TextIO, filelists: TextIO) -> None:
    chance = random.Random(f"{number} {release}")
    name = f"package-{number:05}"
    pkgid = hashlib.sha256(f"{name} {release}".encode()).hexdigest()
    version = f'<version epoch="0" ver="1.{number}" rel="{release}.fc28"/>'
    description = " ".join(chance.choices(_WORDS, k=60))
    provides = [f"lib{name}-{part}.so.1()(64bit)" for part in range(chance.randrange(12))]
    provided = "".join(f'<rpm:entry name="{one}"/>' for one in [name, f"{name}(x86-64)", *provides])
    required = "".join(f'<rpm:entry name="{one}"/>' for one in _requirements(chance, number))
    primary.write(
        f'<package type="rpm"><name>{name}</name><arch>x86_64</arch>{version}'
        f'<checksum type="sha256" pkgid="YES">{pkgid}</checksum><summary>{description[:60]}</summary>'
        f"<description>{description}</description><packager>Fedora Project</packager>"
        f'<url>https://example.org/{name}</url><time file="1" build="1"/>'
        f'<size package="1" installed="1" archive="1"/><location href="Packages/{name}-{release}.rpm"/>'
        f"<format><rpm:license>MIT</rpm:license><rpm:vendor>Fedora Project</rpm:vendor>"
        f"<rpm:group>Unspecified</rpm:group><rpm:buildhost>host</rpm:buildhost>"
        f"<rpm:sourcerpm>{name}-1-{release}.src.rpm</rpm:sourcerpm>"
        f'<rpm:header-range start="1" end="2"/><rpm:provides>{provided}</rpm:provides>'
        f"<rpm:requires>{required}</rpm:requires><file>/usr/bin/{name}</file></format></package>\n"
    )
    files = "".join(f"<file>{path}</file>\n" for path in _files(chance, name))
    filelists.write(f'<package pkgid="{pkgid}" name="{name}" arch="x86_64">{version}\n{files}</package>\n')


def _requirements(chance: random.Random, number: int) -> Iterator[str]:
    yield from ("/bin/sh", "libc.so.6(GLIBC_2.14)(64bit)", "rtld(GNU_HASH)")
    for _ in range(chance.randrange(20)):
        other = chance.randrange(PACKAGES * 4 // 5)
        yield f"libpackage-{other:05}-{chance.randrange(12)}.so.1()(64bit)"
    if number % 50 == 0:
        name = f"package-{chance.randrange(PACKAGES):05}"
        yield f"/usr/share/{name}/data-{chance.randrange(10)}/file-{chance.randrange(10)}.dat"


def _files(chance: random.Random, name: str) -> Iterator[str]:
    yield f"/usr/bin/{name}"
    yield "/usr/lib/.build-id"
    build_id = f"{chance.getrandbits(160):040x}"
    yield f"/usr/lib/.build-id/{build_id[:2]}/{build_id[2:]}"
    for number in range(FILES_OF_EACH - 3):
        yield f"/usr/share/{name}/data-{number // 10}/file-{number % 10}.dat"


def _ask(folder: Path) -> Pool:
    stock = {name: metadata_of_folder(folder / name) for name in ("fedora", "updates")}
    paths = {"/usr/lib/.build-id", *(f"/usr/bin/package-{number:05}" for number in range(5))}
    pool = load_pool(
        load_target(_TARGETS, "f28"),
        stock,
        metadata_of_folder(folder / "candidate"),
        paths=paths,
        folder=folder,
    )
    gone = ids(pool.replaced)
    consumers = [one for one in pool.kept for each in pool.requirements(one) if each.providers & gone]
    assert consumers
    assert all(pool.owners(path) for path in paths)
    return pool


def _peak() -> int:
    """MiB; of this program alone, which getrusage(2) does not tell after execve(2)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) // 1024


def main(folder: Path) -> None:
    """Ask in a process that has loaded what a whole run loads."""
    importlib.import_module("backport.pipeline")
    Hub(Koji())
    started = time.monotonic()
    pool = _ask(folder)
    print(time.monotonic() - started, _peak(), len(pool.known))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
