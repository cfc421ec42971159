"""Reading back a generation that was just written, as a client would, before anybody sees it."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backport import repodata
from backport.errors import PublishError
from backport.files import sync
from backport.repository.generations import RECORD
from backport.repository.plan import Extended, Kept, Plan, Repository, location
from backport.repository.write import REPOMD
from backport.signing.detached import verify_file

_SYNCS = 8
"""How many files are brought to the disk at a time: the file system writes its journal once for several."""


def check(plan: Plan, folder: Path) -> None:
    """Read what is new in the generation in ``folder``: every signature, digest and file.

    What is linked from the generation before was read back when that was made. Raises PublishError.
    """

    def verify(path: Path) -> None:
        fingerprint = plan.record.fingerprint
        verify_file(path, public_key=plan.public_key, fingerprint=fingerprint)

    def read(one: Repository) -> None:
        verify(folder / one.name / REPOMD)
        if problems := _problems(one, folder / one.name):
            raise PublishError(
                f"the new generation does not read back: {one.name}/{problems[0]}",
                hint="check the disk; the generation before may be damaged too",
            )

    with ThreadPoolExecutor() as pool:
        verifying = pool.submit(verify, folder / RECORD)
        for _ in pool.map(read, plan.repositories):
            pass
        verifying.result()


def _problems(one: Repository, folder: Path) -> tuple[repodata.Discrepancy, ...]:
    if isinstance(one, Extended) or (isinstance(one, Kept) and one.unread is None):
        return repodata.check_metadata_files(folder)
    unread = one.unread if isinstance(one, Kept) else {location(new.path) for new in one.new}
    return repodata.check_repodata(folder, digests=unread)


def bring_to_disk(folder: Path, linked: Collection[str]) -> None:
    """Fsync everything that is new, all files before the folders that name them; what is ``linked`` from
    another generation is on the disk already. Raises OSError."""
    files: list[str] = []
    folders: list[str] = []
    for place, _, names in os.walk(folder):
        folders.append(place)
        files += [path for name in names if (path := f"{place}/{name}") not in linked]
    with ThreadPoolExecutor(_SYNCS) as pool:
        for _ in pool.map(sync, files):
            pass
        for _ in pool.map(_sync_folder, folders):
            pass


def _sync_folder(path: str) -> None:
    Path(path).chmod(0o755)
    sync(path)
