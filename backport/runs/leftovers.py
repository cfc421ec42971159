"""What killed processes left behind, besides roots and half-made generations, which their own users sweep.

A run's folder and every scratch folder is held by a lock that the kernel frees when its holder dies: only
what nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backport.files import is_abandoned, remove_tree
from backport.runs.history import REPORT
from backport.signing.agent import end_unused_agent
from backport.site import Site

_SCRATCH = {
    Path(tempfile.gettempdir()): r"backport-(gnupg|keyring|keys|verify)-\w{8}",
}
_CACHE_SCRATCH = {
    "": r"\.diff-\w{8}",
    "built": r"\.new-\w{8}",
    "sources": r"(keys|splice)-\w{8}",
    "stock/*": r"(keys|repomd|sifted)-\w{8}",
}


def remove_leftovers(site: Site) -> tuple[str, ...]:
    """Remove folders of runs without a report, temporary keyrings and half-made parts of the cache, each
    where the process that made it has ended, and end gpg's agent of the signing key where such a process left
    it; what that was, paths for the most part. Raises SignError, OSError."""
    gone = []
    for folder in _candidates(site):
        if is_abandoned(folder):
            # What cannot be removed is in nobody's way; another may be about the same.
            with contextlib.suppress(OSError):
                remove_tree(folder)
                gone.append(str(folder))
    home = site.signing.gnupghome
    if end_unused_agent(home):
        gone.append(f"gpg's agent of {home}")
    return tuple(gone)


def _candidates(site: Site) -> Iterator[Path]:
    cache = site.paths.cache
    for folder in sorted(cache.glob("runs/*Z-*")):
        if not (folder / REPORT).exists():
            yield folder
    places = {parent: pattern for name, pattern in _CACHE_SCRATCH.items() for parent in _places(cache, name)}
    for parent, pattern in {**_SCRATCH, **places}.items():
        yield from (path for path in sorted(parent.glob("*-*")) if re.fullmatch(pattern, path.name))


def _places(cache: Path, pattern: str) -> Iterator[Path]:
    return cache.glob(pattern) if pattern else iter((cache,))
