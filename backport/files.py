"""Files that others read: written beside and renamed, hashed, locked, removed for certain."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from backport.errors import BusyError

_MAKING = ".making-"
_CHUNK = 256 * 1024
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
_BATCH = 100
"""How many files a thread hashes before it takes the next: small ones take less time than a task."""


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Put a whole file at ``path``: a reader sees the old content or the new, never a part.

    The new content is on disk before the rename. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with named(path), os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an OSError of the block name ``path`` where it names no file, as that of a write does not."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None:
            problem.filename = str(path)
        raise


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest in lower-case hex. Raises OSError."""
    with path.open("rb", buffering=0) as stream:
        beginning = stream.read(_CHUNK)
        digest = hashlib.new(algorithm, beginning)
        while beginning and (more := stream.read(_CHUNK)):
            digest.update(more)
        return digest.hexdigest()


def digests_of(paths: Sequence[Path]) -> dict[Path, str]:
    """The SHA-256 digests of many files, by all cores. Raises OSError."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]

    def digest_all(batch: Sequence[Path]) -> list[tuple[Path, str]]:
        return [(path, digest_of(path)) for path in batch]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {path: digest for found in pool.map(digest_all, batches) for path, digest in found}


def read_regular(path: Path, *, limit: int) -> bytes:
    """The content of a plain file of at most ``limit`` bytes, in a folder that others may write to.

    Never waits, and follows no link at the path's end. Raises OSError, also for what is no plain file or
    larger.
    """
    with opened_regular(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


@contextlib.contextmanager
def opened_regular(path: Path, flags: int = os.O_RDONLY) -> Iterator[BinaryIO]:
    """A plain file, opened as `read_regular` does. Raises OSError."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        if is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    with os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b") as stream:
        yield stream


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """The descriptor of a folder while the block lasts. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def link_or_copy(source: Path | str, destination: Path | str) -> bool:
    """Put a file at another place, too: by a hard link, or where there is none a copy; whether it is a link.

    Raises OSError.
    """
    try:
        os.link(source, destination)
    except OSError as problem:
        if problem.errno not in _NO_HARD_LINKS:
            raise
        shutil.copy2(source, destination)
        return False
    return True


def sync(path: Path | str) -> None:
    """Bring a file's content or a folder's entries to the disk (fsync(2)). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, timeout: float, what: str) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made when missing, and left in place).

    The kernel frees the lock when its holder dies. Waits at most ``timeout`` seconds, then raises
    BusyError with ``what`` and the holder's process id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened_regular(path, os.O_RDWR | os.O_CREAT) as stream:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = stream.read(32).decode("ascii", "replace").strip() or "unknown"
                    raise BusyError(
                        f"{what}: another process (pid {holder}) holds {path}",
                        hint="wait until it has finished, then run the same command again",
                    ) from None
                time.sleep(0.1)
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n".encode())
        stream.flush()
        yield


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder for work in progress below ``parent``, gone afterwards however the work ended.

    It is held meanwhile, so that one whose process was killed is known by `is_abandoned`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=parent, prefix=_MAKING))
    folder = making.with_name(f"{prefix}{making.name.removeprefix(_MAKING)}")
    with contextlib.closing(Hold(making, folder)):
        try:
            yield folder
        except BaseException:
            # What ended the work is said, not what could not be removed after it.
            with contextlib.suppress(OSError):
                remove_tree(folder)
            raise
        remove_tree(folder)


class Hold:
    """A lock on a new folder, which the kernel frees when this process ends.

    The folder is made under another name (``making``), so that it is never seen as ``folder`` without its
    lock. Raises OSError.
    """

    def __init__(self, making: Path, folder: Path) -> None:
        self._descriptor = os.open(making, os.O_RDONLY | os.O_DIRECTORY)
        # A file system without such locks tells `is_abandoned` so, too.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        making.rename(folder)

    def close(self) -> None:
        """Free the lock."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def is_abandoned(folder: Path) -> bool:
    """Whether this is a folder of one's own that no process holds any more."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        state = os.fstat(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return state.st_uid == os.geteuid()
    finally:
        os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, read-only folders too; a missing one is no error."""

    def make_writable_and_retry(_function: object, name: str, problem: tuple[Any, Any, Any]) -> None:
        if isinstance(problem[1], FileNotFoundError):
            return
        path = Path(name)
        if path != folder:
            path.parent.chmod(0o700)
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, onerror=make_writable_and_retry)
