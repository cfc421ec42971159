"""Metadata of a large repository to which a few packages come, without describing the others again.

The entries that are there stay as they are, byte by byte, and in gzip files compressed; the new ones, as
createrepo_c writes them, follow, and the count in the head is raised. What is new is read back by
createrepo_c's parser, and the whole by its reader. Repositories from which packages go, or which are to be
compressed in another way, are described anew (`write_repodata`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport import repodata
from backport.errors import PublishError, as_kind
from backport.files import scratch_folder
from backport.gzipped import PackageList, plain_list, read_list

_LOCATION = re.compile(rb'<location href="([^"]+)"')
"""In text an angle bracket is always escaped (XML 1.0, section 2.4), so that this is found in tags alone."""
_DAMAGED = "the repository's metadata is damaged; `backport repo verify` tells more"


@dataclass(frozen=True, kw_only=True)
class Base:
    """Metadata that is there: each of its files, and what it describes."""

    compression: repodata.Compression
    lists: Mapping[str, PackageList]
    locations: frozenset[str]
    """Where the packages lie, relative to the repository's folder."""


@as_kind(PublishError)
def read_base(folder: Path, compression: repodata.Compression = "gz") -> Base:
    """The metadata of a repository, of which every file is the one that ``repomd.xml`` names.

    Raises PublishError when it is damaged, or its files describe different numbers of packages; OSError.
    """
    if problems := repodata.check_metadata_files(folder):
        raise PublishError(f"{folder}: the metadata is damaged: {problems[0]}", hint=_DAMAGED)
    names = repodata.metadata_files(folder)
    files = {Path(name).name.rsplit("-", 1)[-1].split(".")[0]: name for name in names}
    try:
        with ThreadPoolExecutor(len(repodata.KINDS)) as pool:
            read = pool.map(lambda kind: _read(folder / files[kind], compression), repodata.KINDS)
            lists = dict(zip(repodata.KINDS, read, strict=True))
    except ValueError as problem:
        raise PublishError(f"{folder}: the metadata is damaged: {problem}", hint=_DAMAGED) from None
    found = [html.unescape(place.decode()) for place in _LOCATION.findall(lists["primary"].text)]
    locations = frozenset(found)
    if {one.count for one in lists.values()} != {len(locations)} or len(found) != len(locations):
        raise PublishError(
            f"{folder}: the metadata does not describe {len(locations)} packages throughout", hint=_DAMAGED
        )
    return Base(compression=compression, lists=lists, locations=locations)


def _read(file: Path, compression: repodata.Compression) -> PackageList:
    if compression == "gz":
        return read_list(file)
    return plain_list(repodata.read_plain(file, compression), name=file.name)


def extend_repodata(folder: Path, base: Base, *, rpms: Sequence[Path]) -> None:
    """Describe in ``folder`` what ``base`` describes, and ``rpms``.

    The packages themselves must lie below ``folder``, those of ``base`` at their locations. Raises
    PublishError when a package cannot be read, or the metadata cannot be written; OSError.
    """
    packages = repodata.parse_packages(folder, sorted(rpms), known={})
    new = _dumped(packages)
    _read_back(folder, new)
    with scratch_folder(folder, f".{repodata.FOLDER}.") as scratch:

        def extend(kind: str) -> Any:
            count, old, more = len(base.locations) + len(packages), base.lists[kind], new[kind].encode()
            if base.compression == "gz":
                return repodata.place_packed(kind, old.extended(more, count=count), scratch)
            return repodata.place_plain(kind, old.grown(more, count=count), scratch, base.compression)

        try:
            with ThreadPoolExecutor(len(repodata.KINDS)) as pool:
                records = list(pool.map(extend, repodata.KINDS))
        except repodata.bindings().CreaterepoCError as problem:
            raise PublishError(f"{folder / repodata.FOLDER}: cannot be written: {problem}") from None
        repodata.place_files(folder, scratch, records)


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
