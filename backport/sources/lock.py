"""The lock file: which very source packages a recipe was resolved to, so that nothing else is taken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from backport.artifacts import SourceRpm
from backport.errors import FetchError
from backport.files import write_atomically
from backport.recipe import Nvr
from backport.settings import Fingerprint, Name, Settings, SettingsFile, load
from backport.sources.offers import Offer


class LockedPackage(Settings):
    """One source package as it was when the lock was written."""

    nvr: Nvr
    file: Name
    """The package's file name."""
    size: int = Field(gt=0)
    """Bytes of the signed file."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the signed file."""
    key: Fingerprint
    """The key that signed it."""


class Lock(SettingsFile):
    """All source packages of a recipe, by name."""

    format: Literal[1] = 1
    packages: dict[Name, LockedPackage] = Field(min_length=1)


def write_lock(path: Path, sources: Iterable[SourceRpm]) -> None:
    """Write the lock of these packages at ``path``, whole or not at all. Raises OSError."""
    lines = [
        "# Written by `backport lock`. While it is here, no other source package is taken.",
        "format = 1",
    ]
    for source in sorted(sources, key=lambda source: source.rpm.nevra):
        package = LockedPackage(
            nvr=source.rpm.nevra.nvr,
            file=source.rpm.nevra.filename,
            size=source.rpm.path.stat().st_size,
            sha256=source.rpm.sha256,
            key=source.signing_key,
        )
        # TOML's basic strings and integers are written as JSON's are.
        values = [f"{key} = {json.dumps(value)}" for key, value in package.model_dump(mode="json").items()]
        lines += ["", f"[packages.{json.dumps(source.rpm.nevra.name)}]", *values]
    write_atomically(path, "\n".join(lines) + "\n")


def load_lock(path: Path) -> Lock | None:
    """The lock at ``path``, or None where there is none. Raises UsageError for one that is not whole."""
    return load(path, Lock, what="a lock file") if os.path.lexists(path) else None


def check_lock(lock: Lock, found: Offer | SourceRpm, *, path: Path) -> None:
    """Refuse a package that is not the locked one; ``path`` is the lock's, for the message.

    What the source tells is checked before anything is fetched, the fetched package once more.
    Raises FetchError that names both values.
    """
    nevra = found.nevra if isinstance(found, Offer) else found.rpm.nevra
    locked = lock.packages.get(nevra.name)
    if locked is None:
        raise FetchError(f"{path}: holds no {nevra.name}", hint=_HINT)
    _compare(path, nevra.name, "NVR", locked.nvr, nevra.nvr)
    if isinstance(found, Offer):
        signed = (copy for copy in found.copies if copy.key and locked.key.endswith(copy.key.upper()))
        if (copy := next(signed, None)) and copy.sha256 is not None:
            _compare(path, nevra.name, "SHA-256", locked.sha256, copy.sha256)
    else:
        _compare(path, nevra.name, "signing key", locked.key, found.signing_key)
        _compare(path, nevra.name, "SHA-256", locked.sha256, found.rpm.sha256)


_HINT = "if the change is meant, write the lock anew with `backport lock`; if not, something was changed"


def _compare(path: Path, name: str, what: str, locked: str, found: str) -> None:
    if locked != found:
        raise FetchError(f"{path}: {name}: the {what} is locked to {locked}, but is {found}", hint=_HINT)
