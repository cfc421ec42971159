"""Source packages: unpacked without trusting a name, edited as text, never evaluated.

The archive comes from outside. Its file list is judged before a byte of it is written, and no macro
of its spec is expanded here: packing it again is the work of the build root.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO

import rpm

from backport import files
from backport.artifacts import PatchedSrpm, SourceRpm
from backport.diffs import MAX_PATCH_BYTES, check_patch, readable, unified_diff
from backport.errors import PatchError, UsageError, as_kind
from backport.recipe import Package, is_inside
from backport.recipe import Patch as RecipePatch
from backport.run import time_limit
from backport.spec import ChangelogEntry, SpecEdit, SpecPatch, edit_spec
from backport.target import Target

MAX_FILES = 20_000
"""Files in one source package; Fedora's largest, texlive, has some 15,000."""
MAX_BYTES = 16 * 1024**3
"""Size of all files of one source package together."""
MAX_SPEC_BYTES = 32 * 1024**2
"""Size of a spec; Fedora's largest are below 10 MB."""

_CHUNK = 1024 * 1024
_DIFF_DEADLINE = 60.0
_TOO_LONG = "No honest spec takes so long to compare: look at where it came from."
_DIGESTS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
"""OpenPGP's numbers of digest algorithms (RFC 4880, 9.4), as the header's FILEDIGESTALGO has them."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What the header says of one file."""

    name: str
    size: int
    digest: str
    is_spec: bool


def unpack(path: Path, folder: Path) -> Path:
    """Unpack the source package ``path`` into the new ``folder`` and return its spec's path.

    Every entry has to be a regular file with a plain name, once; every file has the size and digest
    that the header states; all get mode 0644. The spec is the file that the header marks as such.
    After a failure ``folder`` is gone. Raises PatchError.
    """
    with path.open("rb") as stream:
        header = _read_header(path, stream)
        entries = _judge(path, header)
        spec = _spec_among(path, entries)
        folder.mkdir(parents=True)
        try:
            _write_all(path, header, stream, entries, folder)
        except BaseException:
            files.remove_tree(folder)
            raise
    return folder / spec


@as_kind(PatchError)
def patch(
    source: SourceRpm,
    package: Package,
    *,
    target: Target,
    patches: Path,
    packager: str,
    workspace: Path,
) -> PatchedSrpm:
    """Unpack ``source`` and make the recipe's changes to it; the same inputs give the same bytes.

    The patch files come from the folder ``patches`` and join the sources. The new changelog entry
    has the date of the newest one in the package: rpm wants them in descending order, and rpmbuild's
    SOURCE_DATE_EPOCH comes from there. Whether a patch applies is found by the build's %prep, which
    alone knows what it applies to; a patch that no tree could take is refused here.

    ``workspace`` gets the folder ``sources`` and, beside it, the spec. Raises PatchError for a
    package or patch that is not as it should be, UsageError for a patch file that is not there.
    """
    added = {item.file: _read_patch(patches, item) for item in package.patches}
    if files.digest_of(source.rpm.path) != source.rpm.sha256:
        raise PatchError(
            f"{source.rpm.path}: changed since it was verified", hint="remove the file and run again"
        )
    sources = workspace / "sources"
    unpacked = unpack(source.rpm.path, sources)
    if unpacked.stat().st_size > MAX_SPEC_BYTES:
        raise PatchError(f"{source.rpm.path}: {unpacked.name} is larger than any spec should be")
    before = unpacked.read_bytes()
    after = edit_spec(
        before,
        name=unpacked.name,
        patches=[SpecPatch(name=Path(item.file).name, strip=item.strip) for item in package.patches],
        edits=[SpecEdit(action=edit.action, anchor=edit.anchor, text=edit.text) for edit in package.edits],
        undefine=package.build.undefine,
        bump=package.bump,
        changelog=_changelog(source, package, target, packager),
    )
    with time_limit(_DIFF_DEADLINE, what=f"the diff of {unpacked.name}", hint=_TOO_LONG):
        diff = unified_diff(before, after, name=unpacked.name)
    _add(source, sources, added)
    unpacked.unlink()
    spec = workspace / unpacked.name
    files.write_atomically(spec, after)
    return PatchedSrpm(
        source=source,
        spec=spec,
        sources=sources,
        sha256=_digest(spec, sources),
        diff=diff + _appendix(added),
        options=package.build.options(),
    )


def _read_header(path: Path, stream: BinaryIO) -> Any:
    """The package's header; its digests are verified, its signature was by the stage before."""
    # What is wrong with a package is told in the error, not by librpm on standard error.
    rpm.setVerbosity(rpm.RPMLOG_CRIT)
    transaction = rpm.ts()
    transaction.setVSFlags(rpm.RPMVSF_MASK_NOSIGNATURES | rpm.RPMVSF_NEEDPAYLOAD)
    try:
        header = transaction.hdrFromFdno(stream)
    except rpm.error as problem:
        raise PatchError(
            f"{path}: not an RPM package, or its header is damaged ({problem})",
            hint="remove the file from the cache and fetch it again",
        ) from None
    if not header.isSource():
        raise PatchError(f"{path}: a binary package, not a source package")
    return header


def _judge(path: Path, header: Any) -> dict[str, _Entry]:
    """The header's file list by name, none of it harmful."""
    listed = rpm.files(header)
    if len(listed) > MAX_FILES:
        raise PatchError(f"{path}: {len(listed)} files, more than the {MAX_FILES} that are allowed")
    entries: dict[str, _Entry] = {}
    for item in listed:
        _refuse_harmful(path, item)
        if item.name in entries:
            raise PatchError(f"{path}: two files of the name {item.name}")
        is_spec = bool(item.fflags & rpm.RPMFILE_SPECFILE)
        entries[item.name] = _Entry(name=item.name, size=item.size, digest=item.digest, is_spec=is_spec)
    total = sum(entry.size for entry in entries.values())
    if total > MAX_BYTES:
        raise PatchError(f"{path}: {total} bytes unpacked, more than the {MAX_BYTES} that are allowed")
    return entries


def _refuse_harmful(path: Path, item: Any) -> None:
    name = item.name
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise PatchError(
            f"{path}: unsafe file name {name!r}: a source package holds plain names only",
            hint="the package was made to write outside its folder: do not use it",
        )
    if not stat.S_ISREG(item.mode):
        raise PatchError(f"{path}: {name} is {_kind(item.mode)}, not a regular file")
    if item.nlink > 1:
        raise PatchError(f"{path}: {name} is a hard link to another file of the package")
    if item.fflags & rpm.RPMFILE_GHOST:
        raise PatchError(
            f"{path}: {name} is named but not contained (NoSource or NoPatch)",
            hint="such a package cannot be rebuilt from itself",
        )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown type")


def _spec_among(path: Path, entries: dict[str, _Entry]) -> str:
    """The one spec. Marked and named must agree: tools that go by the name would take another one."""
    marked = {entry.name for entry in entries.values() if entry.is_spec}
    named = {name for name in entries if name.endswith(".spec")}
    found = sorted(marked | named)
    if not found:
        raise PatchError(f"{path}: no spec among its {len(entries)} files", hint="it cannot be rebuilt")
    if len(found) > 1:
        raise PatchError(f"{path}: more than one spec: {', '.join(found)}")
    if not marked:
        raise PatchError(f"{path}: {found[0]} is not marked as the spec in the header")
    return found[0]


def _write_all(path: Path, header: Any, stream: BinaryIO, entries: dict[str, _Entry], folder: Path) -> None:
    algorithm = _DIGESTS.get(header[rpm.RPMTAG_FILEDIGESTALGO] or 1)
    if algorithm is None:
        raise PatchError(f"{path}: file digests of an unknown kind")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    missing = set(entries)
    try:
        payload = rpm.fd(stream, "r", header[rpm.RPMTAG_PAYLOADCOMPRESSOR] or "gzip")
        archive = rpm.files(header).archive(payload)
        for item in archive:
            if item.name not in missing:
                raise PatchError(f"{path}: its archive holds {item.name} twice")
            missing.remove(item.name)
            _write_one(path, archive, entries[item.name], algorithm, descriptor)
    except (OSError, rpm.error) as problem:
        raise PatchError(
            f"{path}: it cannot be unpacked: {problem}",
            hint="the file is damaged, the disk is full, or the host's rpm cannot read its compression",
        ) from problem
    finally:
        os.close(descriptor)
    if missing:
        raise PatchError(f"{path}: its archive lacks {', '.join(sorted(missing)[:5])}")


def _write_one(path: Path, archive: Any, entry: _Entry, algorithm: str, folder: int) -> None:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(entry.name, flags, 0o644, dir_fd=folder), "wb") as output:
        os.fchmod(output.fileno(), 0o644)
        # rpm's xz reader fails when asked at the end of a file, so it is never asked there.
        while size < entry.size and (chunk := archive.read(min(_CHUNK, entry.size - size))):
            size += len(chunk)
            digest.update(chunk)
            output.write(chunk)
    if size != entry.size or digest.hexdigest() != entry.digest:
        raise PatchError(
            f"{path}: {entry.name} is not the file that the header describes",
            hint="remove the package from the cache and fetch it again",
        )


def _read_patch(patches: Path, item: RecipePatch) -> bytes:
    path = patches / item.file
    if not is_inside(path, patches):
        raise UsageError(f"{path}: leads out of the patches folder", hint="put the patch itself there")
    try:
        content = files.read_regular(Path(os.path.realpath(path)), limit=MAX_PATCH_BYTES)
    except OSError as problem:
        if problem.errno == errno.EFBIG:
            raise PatchError(f"{path}: too large for a patch") from None
        raise UsageError(
            f"{path}: patch {item.file} cannot be read: {problem.strerror}",
            hint="paths in a recipe's patches are relative to the patches folder",
        ) from None
    check_patch(content, name=str(path), strip=item.strip)
    return content


def _changelog(source: SourceRpm, package: Package, target: Target, packager: str) -> ChangelogEntry:
    names = [Path(item.file).name for item in package.patches]
    written = f"Rebuild for {target.summary}" + (f", with {', '.join(names)}" if names else "")
    return ChangelogEntry(date=_date_of(source), author=packager, lines=package.changelog or (written,))


def _date_of(source: SourceRpm) -> date:
    """The date of the newest changelog entry; of a package without any, that of its own build."""
    seconds = source.changelog_time
    if not seconds:
        with source.rpm.path.open("rb") as stream:
            seconds = _read_header(source.rpm.path, stream)[rpm.RPMTAG_BUILDTIME]
    return datetime.fromtimestamp(seconds, UTC).date()


def _add(source: SourceRpm, sources: Path, added: dict[str, bytes]) -> None:
    """Put the patches beside the sources; none may hide a file of the package or another patch."""
    for file, content in added.items():
        path = sources / Path(file).name
        if path.exists() and path.read_bytes() != content:
            raise PatchError(
                f"{file}: {source.rpm.nevra.nvr} has another file of the name {path.name}",
                hint="rename the patch",
            )
        files.write_atomically(path, content)


def _digest(spec: Path, sources: Path) -> str:
    """SHA-256 over the names, sizes and contents of the spec and the sources, in the names' order."""
    digest = hashlib.sha256()
    for path in (spec, *sorted(sources.iterdir())):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        for chunk in _chunks(path):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _appendix(added: dict[str, bytes]) -> str:
    return "".join(f"\nAdded: {file}\n{readable(content)}" for file, content in added.items())
