"""Folders for large work in progress that outlive no process, not even one that was killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from backport.errors import BuildRootError, ToolError
from backport.files import is_abandoned, locked, scratch_folder
from backport.run import Command, run

_PREFIX = "live-"
_TIMEOUT = 600.0
SCARCE = 256 * 1024 * 1024
"""With less room than this left, in bytes, a failure is put down to the full disk."""


@contextlib.contextmanager
def live_folder(parent: Path) -> Iterator[Path]:
    """A new folder below ``parent``, gone when the block is left.

    Folders of processes that have ended before they could remove them are removed first.
    Raises ToolError when something cannot be removed.
    """
    with locked(parent / ".sweep", timeout=_TIMEOUT, what="folders are being removed"):
        for folder in parent.glob(f"{_PREFIX}*"):
            if is_abandoned(folder):
                remove(folder)
    with scratch_folder(parent, _PREFIX) as folder:
        try:
            yield folder
        except BaseException:
            # What ended the work is said, not what could not be removed after it: the next one removes that.
            with contextlib.suppress(ToolError):
                remove(folder)
            raise
        remove(folder)


def is_live(folder: Path) -> bool:
    """Whether the process that a folder of `live_folder` belongs to still runs."""
    return folder.is_dir() and not is_abandoned(folder)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, though it be deeper than paths or Python's stack are long.

    Raises ToolError.
    """
    what = f"{folder} cannot be removed"
    run(Command(["rm", "-rf", "--one-file-system", "--", folder], timeout=_TIMEOUT, what=what))


def require_room(name: str, folders: Sequence[Path], *, log: Path | None) -> None:
    """Raise BuildRootError when a file system that was written to for ``name`` in vain is full."""
    for folder in folders:
        state = os.statvfs(folder)
        room = state.f_bavail * state.f_frsize if state.f_favail or not state.f_files else 0
        if room < SCARCE:
            raise BuildRootError(
                f"{name}: the disk is full: {room // 1024**2} MiB are left",
                hint=f"make room on the file system of {folder}",
                log=log,
            )
