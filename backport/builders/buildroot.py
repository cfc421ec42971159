"""Where the packages of a build root came from: their addresses and digests.

The list of what is installed comes from the root's rpm database. Each package is looked up in the metadata
that dnf installed it by, as dnf keeps it for libsolv: it must be the only one there of its NEVRA and build
time, otherwise its digest is not told. What a run has built itself is digested from its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from backport.artifacts import BUILD_ROOT, Nevra
from backport.bindings import bindings
from backport.builders.common import CANDIDATES
from backport.files import digest_of, write_atomically
from backport.roots.dnf import ExtraRepository, expand_url, folder_of
from backport.target import Target

_KIND = "sha256"
_Known = tuple[str, int]
"""A package's NEVRA and build time."""


def note_origins(
    installed: Path, target: Target, *, extra: Iterable[ExtraRepository], metadata: Path
) -> Path:
    """Write beside the list of installed packages where each came from; the written file.

    ``extra`` are the root's repositories beside the target's own, ``metadata`` is the folder of dnf's cache.
    Raises HostError where libsolv's bindings are missing.
    """
    own = {each.id: expand_url(each.baseurl, target) for each in target.repositories}
    beside = {each.id: each.baseurl for each in extra}
    built = {path.name: path for path in _files(beside.pop(CANDIDATES, ""))}
    known = _known(metadata, {**own, **beside})
    lines = dict.fromkeys(installed.read_text(errors="replace").splitlines())
    origins = [_origin(line, built, known) for line in sorted(lines)]
    file = installed.with_name(BUILD_ROOT)
    write_atomically(file, json.dumps([each for each in origins if each], indent=1) + "\n")
    return file


def _origin(
    line: str, built: Mapping[str, Path], known: Mapping[_Known, set[tuple[str, str]]]
) -> dict[str, str] | None:
    """What is known of a package by a line of the list: NEVRA, build time, size."""
    try:
        text, built_at, *_ = line.split()
        nevra = Nevra.parse(text)
        found = known.get((str(nevra), int(built_at)), set())
    except ValueError:
        return None
    told = {"nevra": str(nevra)}
    if nevra.filename in built:
        return {**told, "sha256": digest_of(built[nevra.filename])}
    if len({sha256 for _, sha256 in found}) != 1:
        return told
    url, sha256 = min(found)
    return {**told, "url": url, "sha256": sha256}


def _known(metadata: Path, repositories: Mapping[str, str]) -> dict[_Known, set[tuple[str, str]]]:
    """Address and digest of every package in the metadata, by NEVRA and build time."""
    solv = bindings("solv")
    known: dict[_Known, set[tuple[str, str]]] = {}
    for name, baseurl in repositories.items():
        # dnf 4 keeps it beside the repository's folder, dnf 5 inside of it.
        for file in (metadata / f"{name}.solv", *metadata.glob(f"{name}-*/solv/{name}.solv")):
            for one in _packages(solv, name, file):
                checksum = one.lookup_checksum(solv.SOLVABLE_CHECKSUM)
                if checksum is None or checksum.typestr() != _KIND:
                    continue
                key = (f"{one.name}-{one.evr}.{one.arch}", one.lookup_num(solv.SOLVABLE_BUILDTIME))
                place = f"{_public(baseurl)}/{one.lookup_location()[0]}"
                known.setdefault(key, set()).add((place, checksum.hex()))
    return known


def _packages(solv: Any, name: str, file: Path) -> Iterator[Any]:
    if not file.is_file():
        return
    pool = solv.Pool()
    repository = pool.add_repo(name)
    stream = solv.xfopen(str(file))
    if repository.add_solv(stream, 0):
        yield from repository.solvables
    stream.close()


def _files(url: str) -> Iterable[Path]:
    folder = folder_of(url) if url else None
    return folder.glob("*.rpm") if folder else ()


def _public(url: str) -> str:
    """The address without the user and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
