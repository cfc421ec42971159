"""Files inside a root, read by the host: programs in the root may have put anything in their place."""

from __future__ import annotations

import os
import stat

from backport.roots.root import Root

LIMIT = 256 * 1024
"""Bytes read of one file: its end."""


def read_inside(root: Root, path: str, *, limit: int = LIMIT) -> bytes:
    """The end of the plain file that is ``path`` inside the root; nothing of any other kind of file.

    Raises OSError where there is none.
    """
    place = root.locate(path)
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        stream.seek(max(0, status.st_size - limit))
        return stream.read(limit)
