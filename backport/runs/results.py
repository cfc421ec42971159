"""What was built before, kept by content: the same inputs are not built again.

Packages of the cache are signed and published like those that were just built. So each entry is sealed with
the site's key: what anybody else has put there is never used, though all its digests be right.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backport.artifacts import BuiltRpms, Nevra, PatchedSrpm, Rpm
from backport.files import digest_of, read_regular, remove_tree, scratch_folder, write_atomically
from backport.seals import open_sealer, require_own

_MANIFEST, _SEAL = "result.json", "seal"
_KIND = "built"
_LIMIT = 16 * 1024 * 1024
"""Bytes of a manifest at most."""


def key_of(inputs: Mapping[str, str]) -> str:
    """The digest over named inputs: sha256 in hex, independent of their order.

    >>> key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    True
    """
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()


class ResultStore:
    """Built packages by the digest of everything that went into them.

    An entry is written beside and renamed, so it is whole or absent; on reading, every file is
    hashed again, and an entry without the seal of its manifest, or that does not match it, is thrown away,
    which ``note`` is told. Raises HostError when others can write to the folder, or there is no secret key
    for the seals in the file ``key``.
    """

    def __init__(self, folder: Path, *, key: Path, note: Callable[[str], None]) -> None:
        require_own(folder)
        self._folder = folder
        self._sealer = open_sealer(key)
        self._note = note

    def find(self, key: str, patched: PatchedSrpm) -> BuiltRpms | None:
        """What was built from ``patched`` under ``key``, or None. Raises HostError as the store does."""
        entry = self._folder / key
        if not os.path.lexists(entry):
            return None
        require_own(entry)
        try:
            manifest = self._unsealed(entry)
            return BuiltRpms(
                patched=patched,
                srpm=_intact_rpm(entry, manifest["srpm"]),
                rpms=tuple(_intact_rpm(entry, rpm) for rpm in manifest["rpms"]),
                logs=tuple(_intact(entry, log) for log in manifest["logs"]),
                builder=manifest["builder"],
            )
        except (OSError, ValueError) as problem:
            name = patched.source.rpm.nevra.name
            self._note(f"{name}: what lies in {entry} is not what was built here, and is removed: {problem}")
            remove_tree(entry)
            return None

    def keep(self, key: str, built: BuiltRpms) -> BuiltRpms:
        """Store a build under ``key`` and return it with the stored files' paths. Raises OSError."""
        entry = self._folder / key
        with scratch_folder(self._folder, ".new-") as scratch:
            for path in (built.srpm.path, *(rpm.path for rpm in built.rpms), *built.logs):
                shutil.copyfile(path, scratch / path.name)
                (scratch / path.name).chmod(0o644)
            manifest = json.dumps(
                {
                    "srpm": _described_rpm(built.srpm),
                    "rpms": [_described_rpm(rpm) for rpm in built.rpms],
                    "logs": [_described(log, digest_of(scratch / log.name)) for log in built.logs],
                    "builder": built.builder,
                },
                indent=1,
            )
            write_atomically(scratch / _MANIFEST, manifest)
            write_atomically(scratch / _SEAL, self._sealer.seal(_KIND, key, manifest))
            scratch.chmod(0o755)
            remove_tree(entry)
            scratch.rename(entry)
        kept = self.find(key, built.patched)
        if kept is None:
            raise OSError(f"{entry}: what was just stored cannot be read back")
        return kept

    def _unsealed(self, entry: Path) -> Any:
        """The manifest of an entry. Raises OSError, or ValueError where its seal does not fit."""
        seal, manifest = (read_regular(entry / name, limit=_LIMIT).decode() for name in (_SEAL, _MANIFEST))
        if not self._sealer.holds(seal, _KIND, entry.name, manifest):
            raise ValueError("its seal is not by this site's key")
        return json.loads(manifest)


def _described(path: Path, sha256: str) -> dict[str, object]:
    return {"file": path.name, "sha256": sha256}


def _described_rpm(rpm: Rpm) -> dict[str, object]:
    return {"nevra": asdict(rpm.nevra), **_described(rpm.path, rpm.sha256)}


def _intact(entry: Path, described: Mapping[str, Any]) -> Path:
    path: Path = entry / described["file"]
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o022 or digest_of(path) != described["sha256"]:
        raise ValueError(f"{path.name} has changed since it was stored")
    return path


def _intact_rpm(entry: Path, described: Mapping[str, Any]) -> Rpm:
    path = _intact(entry, described)
    return Rpm(nevra=Nevra(**described["nevra"]), path=path, sha256=described["sha256"])
