"""What was built before, kept by content: the same inputs are not built, nor signed, again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from backport.artifacts import BuiltRpms, Nevra, PatchedSrpm, Rpm
from backport.files import digest_of, remove_tree, scratch_folder, write_atomically

_MANIFEST = "result.json"


def key_of(inputs: Mapping[str, str]) -> str:
    """The digest over named inputs: sha256 in hex, independent of their order.

    >>> key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    True
    """
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()


class ResultStore:
    """Built packages by the digest of everything that went into them.

    An entry is written beside and renamed, so it is whole or absent; on reading, every file is
    hashed again, and an entry that does not match its manifest is thrown away.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str, patched: PatchedSrpm) -> BuiltRpms | None:
        """What was built from ``patched`` under ``key``, or None."""
        entry = self._folder / key
        try:
            manifest = json.loads((entry / _MANIFEST).read_text())
            built = BuiltRpms(
                patched=patched,
                srpm=_intact(entry, manifest["srpm"]),
                rpms=tuple(_intact(entry, rpm) for rpm in manifest["rpms"]),
                logs=tuple(entry / name for name in manifest["logs"]),
                builder=manifest["builder"],
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            remove_tree(entry)
            return None
        return built

    def keep(self, key: str, built: BuiltRpms) -> BuiltRpms:
        """Store a build under ``key`` and return it with the stored files' paths. Raises OSError."""
        entry = self._folder / key
        with scratch_folder(self._folder, ".new-") as scratch:
            for path in (built.srpm.path, *(rpm.path for rpm in built.rpms), *built.logs):
                shutil.copy2(path, scratch / path.name)
            manifest = {
                "srpm": _described(built.srpm),
                "rpms": [_described(rpm) for rpm in built.rpms],
                "logs": [log.name for log in built.logs],
                "builder": built.builder,
            }
            write_atomically(scratch / _MANIFEST, json.dumps(manifest, indent=1))
            scratch.chmod(0o755)
            remove_tree(entry)
            scratch.rename(entry)
        kept = self.find(key, built.patched)
        if kept is None:
            raise OSError(f"{entry}: what was just stored cannot be read back")
        return kept


def _described(rpm: Rpm) -> dict[str, object]:
    return {"nevra": asdict(rpm.nevra), "file": rpm.path.name, "sha256": rpm.sha256}


def _intact(entry: Path, described: Mapping[str, object]) -> Rpm:
    path = entry / Path(str(described["file"])).name
    if digest_of(path) != described["sha256"]:
        raise ValueError(f"{path} has changed since it was stored")
    nevra = described["nevra"]
    if not isinstance(nevra, dict):
        raise TypeError("nevra must be a table")
    return Rpm(nevra=Nevra(**nevra), path=path, sha256=str(described["sha256"]))
