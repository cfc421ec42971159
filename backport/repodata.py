"""Repository metadata by createrepo_c's bindings: what makes a folder of RPMs a dnf repository.

The files and their names are those of the rpm-md format as createrepo_c(8) writes it: ``primary``,
``filelists`` and ``other``, each named by its own digest, and ``repomd.xml`` that names them. SQLite
copies are left out: dnf does not read them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from backport.artifacts import Nevra
from backport.bindings import bindings as host_bindings
from backport.errors import HostError, ToolError
from backport.files import digest_of, scratch_folder, write_atomically
from backport.gzipped import Packed, pack_list, plain_size_and_digest

Compression = Literal["gz", "zstd"]
Package: TypeAlias = Any
"""createrepo_c.Package: one package's entry in all three metadata files."""

FOLDER = "repodata"
REPOMD = "repomd.xml"
KINDS = ("primary", "filelists", "other")


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    """One way in which a repository's metadata and its files do not agree."""

    kind: Literal["missing", "extra", "digest", "metadata"]
    path: str
    """The file, relative to the repository's folder."""
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def write_repodata(
    folder: Path,
    *,
    compression: Compression,
    rpms: Iterable[Path] | None = None,
    known: Mapping[str, Package] | None = None,
) -> None:
    """Describe the RPMs of ``folder`` in ``folder/repodata``.

    ``rpms`` are the files to name (default: every one below the folder). ``known`` are packages that
    are already described, by location (see `read_packages`): they are not read again. Every other one
    is parsed and hashed, by all cores.

    A reader sees the old metadata or the new: the files that ``repomd.xml`` names are in place before
    it is renamed over the old one. Files that it no longer names are then removed; a signature of the
    old ``repomd.xml`` goes before it, because it would not verify.

    Raises ToolError when a file is not a readable RPM or the metadata cannot be written, HostError when
    createrepo_c is missing or too old for the compression, OSError.
    """
    createrepo_c = bindings()
    paths = sorted(folder.rglob("*.rpm") if rpms is None else rpms)
    packages = parse_packages(folder, paths, known=known or {})
    with scratch_folder(folder, f".{FOLDER}.") as scratch:
        try:
            records = [_write_file(kind, packages, scratch, compression) for kind in KINDS]
        except (createrepo_c.CreaterepoCError, OSError) as problem:
            raise ToolError(f"{folder / FOLDER}: the metadata cannot be written: {problem}") from None
        place_files(folder, scratch, records)


def place_files(folder: Path, scratch: Path, records: Iterable[Any]) -> None:
    """Move new metadata files from ``scratch`` to their place, then name them by a new ``repomd.xml``."""
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    repomd = bindings().Repomd()
    repomd.set_revision(str(int(time.time())))
    for record in records:
        repomd.set_record(record)
    for file in scratch.iterdir():
        file.replace(target / file.name)
    (target / f"{REPOMD}.asc").unlink(missing_ok=True)
    write_atomically(target / REPOMD, repomd.xml_dump())
    _remove_unnamed(target, {Path(record.location_href).name for record in repomd.records})


def read_packages(folder: Path) -> dict[str, Package]:
    """The packages that the metadata of ``folder`` describes, by their location in it.

    Read by createrepo_c's own parser from all three files. Raises ToolError when they are damaged or
    do not belong together.
    """
    packages, problems = _parse(folder)
    if problems:
        raise ToolError(f"{folder / FOLDER}: {problems[0]}", hint="the repository's metadata is damaged")
    return packages


def read_primary(folder: Path) -> list[Package]:
    """The packages that ``primary`` names, without what the other two files say of them.

    Raises ToolError when the metadata is not whole.
    """
    if problems := check_metadata_files(folder):
        raise ToolError(f"{folder}: {problems[0]}", hint="the repository's metadata is damaged")
    createrepo_c = bindings()
    (file,) = (record.location_href for record in _records(folder) if record.type == "primary")
    packages: list[Package] = []
    try:
        createrepo_c.xml_parse_primary(str(folder / file), pkgcb=packages.append, do_files=0)
    except (createrepo_c.CreaterepoCError, OSError) as problem:
        raise ToolError(f"{folder / file}: cannot be read: {problem}") from None
    return packages


def metadata_files(folder: Path) -> tuple[str, ...]:
    """What ``repomd.xml`` names, as paths relative to ``folder``. Raises ToolError."""
    return tuple(record.location_href for record in _records(folder))


def check_repodata(folder: Path, *, digests: Collection[str] | None = None) -> tuple[Discrepancy, ...]:
    """Every way in which the metadata of ``folder`` and the files in it disagree.

    Sizes and presence are compared for all packages, digests for the locations in ``digests``
    (default: all). Raises ToolError when ``repomd.xml`` itself cannot be read.
    """
    found = list(check_metadata_files(folder))
    if found:
        return tuple(found)
    packages, problems = _parse(folder)
    found += [Discrepancy(kind="metadata", path=FOLDER, detail=problem) for problem in problems]
    hashed = packages.keys() if digests is None else packages.keys() & set(digests)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(
            lambda item: _check_file(folder / item[0], item, hashed=item[0] in hashed), packages.items()
        )
        found += [result for result in results if result]
    named = set(packages)
    for path in sorted(folder.rglob("*.rpm")):
        location = path.relative_to(folder).as_posix()
        if location not in named:
            found.append(Discrepancy(kind="extra", path=location, detail="is not in the metadata"))
    return tuple(found)


def nevra_of(package: Package) -> Nevra:
    """The NEVRA of a package that metadata describes, or an advisory names."""
    return Nevra(
        name=package.name,
        epoch=int(package.epoch or 0),
        version=package.version,
        release=package.release,
        arch=package.arch,
    )


def bindings() -> Any:
    """createrepo_c's Python bindings. Raises HostError where they are not installed."""
    return host_bindings("createrepo_c")


def parse_packages(folder: Path, paths: Sequence[Path], *, known: Mapping[str, Package]) -> list[Package]:
    """The packages in the order of ``paths``. The bindings parse and hash outside of Python's lock."""
    createrepo_c = bindings()

    def describe(path: Path) -> Package:
        location = path.relative_to(folder).as_posix()
        if location in known:
            return known[location]
        try:
            return createrepo_c.package_from_rpm(
                str(path), checksum_type=createrepo_c.SHA256, location_href=location
            )
        except (createrepo_c.CreaterepoCError, OSError) as problem:
            raise ToolError(f"{path}: cannot be read as an RPM: {problem}") from None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(describe, paths))


def _write_file(kind: str, packages: list[Package], folder: Path, compression: Compression) -> Any:
    """Write one metadata file below ``folder`` and give its record for ``repomd.xml``."""
    createrepo_c = bindings()
    form, suffix = compression_of(compression)
    writers = {
        "primary": createrepo_c.PrimaryXmlFile,
        "filelists": createrepo_c.FilelistsXmlFile,
        "other": createrepo_c.OtherXmlFile,
    }
    if compression == "gz":
        form, suffix = createrepo_c.NO_COMPRESSION, ""
    path = folder / f"{kind}.xml{suffix}"
    statistics = createrepo_c.ContentStat(createrepo_c.SHA256)
    file = writers[kind](str(path), form, statistics)
    file.set_num_of_pkgs(len(packages))
    for package in packages:
        file.add_pkg(package)
    file.close()
    if compression == "gz":
        text = path.read_bytes()
        path.unlink()
        packed = Packed(content=pack_list(text), size=statistics.size, sha256=statistics.checksum)
        return place_packed(kind, packed, folder)
    record = createrepo_c.RepomdRecord(kind, str(path))
    record.load_contentstat(statistics)
    record.fill(createrepo_c.SHA256)
    record.rename_file()
    return record


def place_packed(kind: str, packed: Packed, folder: Path) -> Any:
    """Write one gzip file of metadata below ``folder``, let createrepo_c read it back, and give its record
    for ``repomd.xml``. Raises OSError when it does not read back."""
    path = folder / f"{kind}.xml.gz"
    path.write_bytes(packed.content)
    return _read_back_record(kind, path, packed.size, packed.sha256)


def _read_back_record(kind: str, path: Path, size: int, sha256: str) -> Any:
    createrepo_c = bindings()
    record = createrepo_c.RepomdRecord(kind, str(path))
    record.fill(createrepo_c.SHA256)
    if (record.size_open, record.checksum_open) != (size, sha256):
        raise OSError(f"{path}: does not read back as it was written")
    record.rename_file()
    return record


def read_plain(path: Path, compression: Compression) -> bytes:
    """The plain text of a compressed file, as createrepo_c reads it. Raises ValueError, OSError."""
    createrepo_c = bindings()
    with tempfile.NamedTemporaryFile() as plain:
        try:
            createrepo_c.decompress_file(str(path), plain.name, compression_of(compression)[0])
        except createrepo_c.CreaterepoCError as problem:
            raise ValueError(f"{path.name}: {problem}") from None
        return Path(plain.name).read_bytes()


def place_plain(
    kind: str, parts: Sequence[bytes | memoryview], folder: Path, compression: Compression
) -> Any:
    """Let createrepo_c compress the parts of a metadata file below ``folder`` and read it back; its record
    for ``repomd.xml``. Raises OSError when it does not read back."""
    createrepo_c = bindings()
    form, suffix = compression_of(compression)
    plain = folder / f"{kind}.xml"
    plain.write_bytes(b"".join(parts))
    path = folder / f"{plain.name}{suffix}"
    createrepo_c.compress_file(str(plain), str(path), form)
    plain.unlink()
    return _read_back_record(kind, path, *plain_size_and_digest(parts))


def compression_of(name: Compression) -> tuple[int, str]:
    """createrepo_c's number for a compression, and the end of such files' names. Raises HostError."""
    createrepo_c = bindings()
    if name == "gz":
        return createrepo_c.GZ_COMPRESSION, ".gz"
    form = getattr(createrepo_c, "ZSTD_COMPRESSION", None)
    if form is None:
        raise HostError(
            f"createrepo_c {createrepo_c.VERSION} cannot write zstd metadata",
            hint='use a host with createrepo_c 1.0 or later, or compression = "gz" in the target',
        )
    return form, ".zst"


def _remove_unnamed(target: Path, named: set[str]) -> None:
    for file in target.iterdir():
        if file.name not in named and file.name != REPOMD:
            file.unlink()


def _records(folder: Path) -> list[Any]:
    createrepo_c = bindings()
    path = folder / FOLDER / REPOMD
    if not path.is_file():
        raise ToolError(f"{path}: is missing, or no plain file")
    try:
        records: list[Any] = createrepo_c.Repomd(str(path)).records
    except (createrepo_c.CreaterepoCError, OSError) as problem:
        raise ToolError(f"{path}: cannot be read as repository metadata: {problem}") from None
    for record in records:
        href = Path(record.location_href)
        if href.is_absolute() or href.parent != Path(FOLDER):
            raise ToolError(f"{path}: names a file outside of {FOLDER}/: {record.location_href}")
    return records


def check_metadata_files(folder: Path) -> tuple[Discrepancy, ...]:
    """Every metadata file that is missing, or is not what ``repomd.xml`` names; packages are not looked at.

    Raises ToolError when ``repomd.xml`` itself cannot be read.
    """
    records = {record.type: record for record in _records(folder)}
    found = [
        Discrepancy(kind="metadata", path=f"{FOLDER}/{REPOMD}", detail=f"names no {kind}")
        for kind in KINDS
        if kind not in records
    ]
    for record in records.values():
        path = folder / record.location_href
        if not path.is_file():
            found.append(Discrepancy(kind="missing", path=record.location_href, detail="is missing"))
        elif path.stat().st_size != record.size or digest_of(path, record.checksum_type) != record.checksum:
            found.append(
                Discrepancy(kind="digest", path=record.location_href, detail=f"is not what {REPOMD} names")
            )
    return tuple(found)


def _parse(folder: Path) -> tuple[dict[str, Package], list[str]]:
    """The packages by location, and what createrepo_c's parser or the comparison found wrong."""
    createrepo_c = bindings()
    files = {record.type: str(folder / record.location_href) for record in _records(folder)}
    packages: dict[str, Package] = {}
    problems: list[str] = []

    def warn(_kind: int, message: str) -> bool:
        problems.append(message)
        return True

    def add(package: Package) -> None:
        if package.pkgId in packages:
            problems.append(f"{package.location_href} is described twice")
        packages[package.pkgId] = package

    def extend(seen: set[str], kind: str) -> Callable[[str, str, str], Package | None]:
        def find(identity: str, name: str, _arch: str) -> Package | None:
            seen.add(identity)
            if identity not in packages:
                problems.append(f"{kind} describes {name}, which primary does not")
            return packages.get(identity)

        return find

    try:
        # Without the files that primary names: filelists names them again.
        createrepo_c.xml_parse_primary(files["primary"], pkgcb=add, warningcb=warn, do_files=0)
        for kind in ("filelists", "other"):
            seen: set[str] = set()
            parse = getattr(createrepo_c, f"xml_parse_{kind}")
            parse(files[kind], newpkgcb=extend(seen, kind), warningcb=warn)
            problems += [f"{kind} lacks {packages[one].name}" for one in packages.keys() - seen]
    except (createrepo_c.CreaterepoCError, KeyError, OSError) as problem:
        raise ToolError(f"{folder / FOLDER}: the metadata cannot be read: {problem}") from None
    return {package.location_href: package for package in packages.values()}, problems


def _check_file(path: Path, item: tuple[str, Package], *, hashed: bool) -> Discrepancy | None:
    location, package = item
    if path.is_symlink() or not path.is_file():
        return Discrepancy(kind="missing", path=location, detail="is missing")
    if path.stat().st_size != package.size_package:
        return Discrepancy(kind="digest", path=location, detail="has another size than the metadata says")
    if hashed and digest_of(path, package.checksum_type) != package.pkgId:
        return Discrepancy(kind="digest", path=location, detail="has another digest than the metadata says")
    return None
