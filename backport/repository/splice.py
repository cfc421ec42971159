"""Metadata of a large repository to which a few packages come, without describing the others again.

The entries that are there stay as they are, byte by byte; the new ones, as createrepo_c writes them, follow,
and the count in the head is raised. What is new is read back by createrepo_c's parser. For gzip alone:
other compressions, and repositories from which packages go, are described anew (`write_repodata`).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from backport import repodata
from backport.errors import PublishError
from backport.files import scratch_folder

_HEAD = re.compile(
    rb'(<\?xml version="1\.0" encoding="UTF-8"\?>\s*<(metadata|filelists|otherdata) [^>]*\bpackages=")(\d+)"'
)
_LEVEL = 6
_GZIP = 31
"""zlib's window bits for a gzip wrapper around the largest window."""
_DAMAGED = "the repository's metadata is damaged; `backport repo verify` tells more"


def extend_repodata(folder: Path, base: Path, *, known: int, rpms: Sequence[Path]) -> None:
    """Describe in ``folder`` what the metadata of ``base`` describes, ``known`` packages, and ``rpms``.

    The packages themselves must lie below ``folder``, in the same places as below ``base``. Raises
    PublishError when the metadata of ``base`` is damaged or describes another number of packages, or a
    package cannot be read; OSError.
    """
    if problems := repodata.check_metadata_files(base):
        raise PublishError(f"{base}: the metadata is damaged: {problems[0]}", hint=_DAMAGED)
    packages = repodata.parse_packages(folder, sorted(rpms), known={})
    files = {Path(name).name.rsplit("-", 1)[-1].split(".")[0]: name for name in repodata.metadata_files(base)}
    new = _dumped(packages)
    _read_back(folder, new)
    with scratch_folder(folder, f".{repodata.FOLDER}.") as scratch:

        def extend(kind: str) -> Any:
            old, more = base / files[kind], new[kind].encode()
            return _extend(kind, old, scratch, new=more, known=known, added=len(packages))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            records = list(pool.map(extend, repodata.KINDS))
        repodata.place_files(folder, scratch, records)


def _extend(kind: str, old: Path, scratch: Path, *, new: bytes, known: int, added: int) -> Any:
    """Write one metadata file below ``scratch`` and give its record for ``repomd.xml``."""
    createrepo_c = repodata.bindings()
    try:
        text = zlib.decompress(old.read_bytes(), _GZIP)
    except zlib.error as problem:
        raise PublishError(f"{old}: cannot be read: {problem}", hint=_DAMAGED) from None
    head = _HEAD.match(text)
    end = text.rfind(b"</" + head[2]) if head else -1
    if not head or end < 0 or int(head[3]) != known:
        raise PublishError(f"{old}: does not describe {known} packages", hint=_DAMAGED)
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    parts = (head[1] + b'%d"' % (known + added), text[head.end() : end], new, text[end:])
    path = scratch / f"{kind}.xml.gz"
    path.write_bytes(b"".join((*(squeezer.compress(part) for part in parts), squeezer.flush())))
    record = createrepo_c.RepomdRecord(kind, str(path))
    record.fill(createrepo_c.SHA256)
    record.rename_file()
    return record


def _read_back(folder: Path, new: Mapping[str, str]) -> None:
    """Let createrepo_c parse what was added: written anew, it must be the same."""
    createrepo_c = repodata.bindings()
    packages: dict[str, repodata.Package] = {}

    def find(identity: str, _name: str, _arch: str) -> repodata.Package | None:
        return packages.get(identity)

    def add(package: repodata.Package) -> None:
        packages[package.pkgId] = package

    try:
        createrepo_c.xml_parse_primary_snippet(new["primary"], pkgcb=add, do_files=0)
        createrepo_c.xml_parse_filelists_snippet(new["filelists"], newpkgcb=find)
        createrepo_c.xml_parse_other_snippet(new["other"], newpkgcb=find)
    except createrepo_c.CreaterepoCError as problem:
        raise PublishError(f"{folder}: the new metadata cannot be read: {problem}") from None
    again = _dumped(list(packages.values()))
    if any(_normal(again[kind]) != _normal(new[kind]) for kind in repodata.KINDS):
        raise PublishError(f"{folder}: the new metadata does not read back", hint="check this host's memory")


def _normal(text: str) -> str:
    """createrepo_c's parser (seen in 0.17.3) reads an ampersand in an attribute as a character reference."""
    return text.replace("&amp;#38;", "&amp;")


def _dumped(packages: Sequence[repodata.Package]) -> dict[str, str]:
    """The packages' entries in each metadata file, as createrepo_c writes them."""
    createrepo_c = repodata.bindings()
    return {
        kind: "".join(getattr(createrepo_c, f"xml_dump_{kind}")(package) for package in packages)
        for kind in repodata.KINDS
    }
