"""What a run does that has nothing to publish: it mends what is published, or says what is wrong with it."""

from __future__ import annotations

from contextlib import suppress

from backport.errors import PublishError
from backport.repository.clients import site_keys, write_client_files
from backport.repository.generations import TargetFolder
from backport.repository.overview import write_page
from backport.repository.place import Place
from backport.repository.surroundings import EXTRA, Fault
from backport.repository.verification import verify

_SHOWN = 3
"""How many faults a message names."""


def keep_up(place: Place) -> tuple[str, ...]:
    """Write what lies beside the generations as the site and the generation that clients see make it, keys
    that are announced among it, and read that generation again. Gives the names of the files that were
    otherwise.

    Raises PublishError when what clients see is damaged, or the
    record of it. What is wrong with anything else is a note alone.
    """
    folder, target, progress = place.folder, place.target, place.progress
    with place.locked():
        record = folder.published()
        renewed = write_client_files(place, [record]) if record else ()
        with suppress(PublishError):
            # What keeps the page from being written is among the faults.
            write_page(place)
        site, current = site_keys(place.signing), record.id if record else None
        ids = [current] if current else ()
        faults = set(verify(folder, target, ids=ids, site=site, base_url=place.url, thorough=False).faults)
    for name in renewed:
        progress.note(f"{folder.path / name}: was not what the site makes it, and is written again")
    bad = sorted(fault for fault in faults if _hurts(fault, folder, current))
    for fault in sorted(faults - set(bad)):
        progress.note(f"in {folder.path}: {fault}")
    if bad:
        raise PublishError(
            f"{folder.path}: what is published is not as it was: {'; '.join(map(str, bad[:_SHOWN]))}",
            hint=f"`backport repo verify --target {target.name}` names all; restore it from a copy, or lead "
            "clients to a whole generation by `backport repo rollback ID`",
        )
    return renewed


def _hurts(fault: Fault, folder: TargetFolder, current: str | None) -> bool:
    """Whether clients, or what is decided for them, depend on it: nobody asks for what nothing names."""
    if fault.detail == EXTRA:
        return False
    places = (
        folder.current.name, folder.history_file.name, folder.repo_file.name, folder.public_key.name,
        f"generations/{current}",
    )  # fmt: skip
    whole = fault.path in {".", "generations"}
    return whole or fault.path in places or fault.path.startswith(f"generations/{current}/")
