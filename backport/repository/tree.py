"""What really lies below a folder that others may write to: plain files and folders, and whatever else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backport.files import read_regular

LARGEST = 16 * 1024**3
"""Bytes of the largest file that is read."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of the largest file that lies there for clients: a key with many signatures."""
_MODE = 0o644
_SPARSE = 1024**3
"""From this size on a file that has next to nothing on the disk is not read."""


@dataclass(frozen=True)
class File:
    """A plain file that may be read."""

    path: Path
    identity: tuple[int, int]
    """Device and inode: files that generations share are the same."""
    size: int


@dataclass(kw_only=True)
class Tree:
    """What lies below a folder, by path in it."""

    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    faults: list[tuple[Path, str]] = field(default_factory=list)
    """What has no place in a published folder, or a mode that it should not have."""


def read_tree(folder: Path, *, owner: int) -> Tree:
    """Look at all below ``folder``, which belongs to the user ``owner``; follows no link, opens nothing.

    Raises OSError.
    """
    tree = Tree()
    for relative, entry in _entries(str(folder), ""):
        status, path = entry.stat(follow_symlinks=False), Path(entry.path)
        if detail := strange(status, owner):
            tree.faults.append((path, detail))
        if stat.S_ISDIR(status.st_mode):
            tree.folders.add(relative)
        elif stat.S_ISREG(status.st_mode) and _is_readable(status):
            tree.files[relative] = File(path, (status.st_dev, status.st_ino), status.st_size)
    return tree


def strange(status: os.stat_result, owner: int) -> str:
    """What is wrong with a file or folder by its kind, owner and mode; empty where nothing is."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link; a generation holds files alone"
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return "is neither a file nor a folder"
    if stat.S_ISREG(status.st_mode) and not _is_readable(status):
        return f"is not read: {status.st_size} bytes are no size of a published file"
    if status.st_uid not in {0, owner}:
        return f"belongs to the user {status.st_uid}"
    right = mode & ~0o200 == 0o444 if stat.S_ISREG(status.st_mode) else mode & ~0o2200 == 0o555
    return "" if right else f"has the mode {mode:o}, not {644 if stat.S_ISREG(status.st_mode) else 755}"


def difference(path: Path, text: str) -> str:
    """How a published file is not what it should be; empty where it is."""
    try:
        found = read_regular(path, limit=MAX_BYTES)
    except FileNotFoundError:
        return "is missing"
    except OSError as problem:
        return f"is no plain file: {problem.strerror}"
    if stat.S_IMODE(path.lstat().st_mode) != _MODE:
        return f"has the mode {stat.S_IMODE(path.lstat().st_mode):o}, not {_MODE:o}"
    if found != text.encode():
        return "is not what the site and the published generation make it"
    return ""


def _entries(folder: str, relative: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Paths are joined as text, since there may be many."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{relative}{entry.name}"
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, f"{name}/")


def _is_readable(status: os.stat_result) -> bool:
    sparse = status.st_size >= _SPARSE and status.st_blocks * 512 < status.st_size // 1000
    return status.st_size <= LARGEST and not sparse
