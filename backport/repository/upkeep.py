"""What a run does that has nothing to publish: what is published is made as it should be, or that is told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from backport.errors import PublishError
from backport.progress import Progress
from backport.repository.clients import channel_url, renew_client_files, reported, site_keys
from backport.repository.generations import TargetFolder
from backport.repository.overview import write_page
from backport.repository.publish import LOCK_TIMEOUT
from backport.repository.surroundings import EXTRA, Fault
from backport.repository.verification import verify
from backport.site import Signing
from backport.target import Target

_SHOWN = 3
"""How many faults a message names."""


def look_after(
    repository: Path,
    target: Target,
    channel: str,
    *,
    base_url: str,
    signing: Signing,
    progress: Progress,
    lock_timeout: float = LOCK_TIMEOUT,
) -> tuple[str, ...]:
    """Write what lies beside the generations as the site and the generation that readers see make it, keys
    that are announced among it, and read that generation again. Gives the names of the files that were
    otherwise.

    ``base_url`` is the URL of ``repository``. Raises PublishError when what readers see is damaged, or the
    record of it. What is wrong with anything else is a note alone.
    """
    folder = TargetFolder.of(repository, target.name, channel)
    url = channel_url(base_url, channel)
    with reported(folder), folder.locked(timeout=lock_timeout):
        folder.remove_leftovers(signing)
        folder.published()
        renewed = renew_client_files(folder, target=target, base_url=url, signing=signing)
        with suppress(PublishError):
            # What keeps the page from being written is among the faults.
            write_page(folder, target, url)
        site, current = site_keys(signing), folder.current_id()
        faults = set(
            verify(
                folder, target, ids=[current] if current else (), site=site, base_url=url, thorough=False
            ).faults
        )
    for name in renewed:
        progress.note(f"{folder.path / name}: was not what the site makes it, and is written anew")
    bad = sorted(fault for fault in faults if _hurts(fault, folder, current))
    for fault in sorted(faults - set(bad)):
        progress.note(f"in {folder.path}: {fault}")
    if bad:
        raise PublishError(
            f"{folder.path}: what is published is not as it was: {'; '.join(map(str, bad[:_SHOWN]))}",
            hint=f"`backport repo verify --target {target.name}` tells all; restore it from a copy, or lead "
            "readers to a whole generation by `backport repo rollback ID`",
        )
    return renewed


def _hurts(fault: Fault, folder: TargetFolder, current: str | None) -> bool:
    """Whether readers, or what is decided for them, depend on it: nobody asks for what nothing names."""
    if fault.detail == EXTRA:
        return False
    places = (
        folder.current.name, folder.history_file.name, folder.repo_file.name, folder.public_key.name,
        f"generations/{current}",
    )  # fmt: skip
    whole = fault.path in {".", "generations"}
    return whole or fault.path in places or fault.path.startswith(f"generations/{current}/")
